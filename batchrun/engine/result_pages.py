"""Pages of a batch's results. A process of its own (`result_reader`) reads and judges large ones."""

import contextlib
import json
import subprocess
import sys
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import orjson

from batchrun.engine.result_reader import LENGTH, ReplyReader
from batchrun.journal import Answers, columns
from batchrun.lanes.executor import Completion, CompletionKind, Page
from batchrun.lanes.results import Results
from batchrun.lanes.shapes import SHAPES

LARGE = 10_000  # Rows of a batch that are worth the process


class ReaderProcess:
    """Its calls block."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Takes a third of a second."""
        if self._process is None:
            with contextlib.suppress(OSError):
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "batchrun.engine.result_reader"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env={"PYTHONPATH": str(Path(__file__).parents[2])},
                    start_new_session=True,
                )

    def submit(self, work: dict[str, Any]) -> None:
        self.start()
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(json.dumps(work).encode() + b"\n")
                self._process.stdin.flush()

    def next(self) -> tuple[Any, bytes] | None:
        """JSON and bodies; None if the process is gone."""
        process = self._process
        if process is not None and process.stdout is not None:
            with contextlib.suppress(OSError, ValueError):
                json_length, bodies_length = (int.from_bytes(process.stdout.read(LENGTH)) for _ in range(2))
                data, bodies = process.stdout.read(json_length), process.stdout.read(bodies_length)
                if json_length and len(bodies) == bodies_length:
                    return orjson.loads(data), bodies
        return None

    def end(self) -> None:
        """A pending `next` returns None."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in filter(None, (process.stdin, process.stdout)):
                with contextlib.suppress(OSError):
                    stream.close()


class ResultPages:
    """Read here without a `reader`, or if it ends early. Blocks."""

    def __init__(self, results: Results, process: ReaderProcess, reader: ReplyReader | None) -> None:
        self._process = process
        self._results = results
        self._given = 0
        self._is_here = self._done = reader is None
        self._closed = False
        self.repeated = self.foreign = 0
        if reader is not None:
            shape = next(name for name, kind in SHAPES.items() if type(results.shape) is kind)
            process.submit(
                {"files": list(map(str, results.files)), "shape": shape, "run": results.run} | reader.as_json()
            )

    def page(self) -> Page[Answers] | None:
        """Raises ValueError for an invalid line."""
        found = None if self._is_here else self._process.next()
        if found is None:
            return self._page_here()
        (lengths, answers, others, self.repeated, self.foreign, error), bodies = found
        self._done = not lengths and not others
        if error:
            raise ValueError(error)
        if self._done:
            return None
        self._given += 1
        text, cuts = bodies.decode(), pairwise(accumulate(lengths, initial=0))
        texts = [text[start:end] for start, end in cuts]
        completions = [
            Completion(seq, number, CompletionKind(came), status, body.encode(), detail)
            for seq, number, came, status, body, detail in others
        ]
        return Page(Answers._make([*answers, texts]) if lengths else columns(Answers, ()), completions)

    def _page_here(self) -> Page[Answers] | None:
        # The same without the process, skipping what it has returned.
        self._is_here = True
        while self._given and not self._closed:
            self._results.page()
            self._given -= 1
        page = None if self._closed else self._results.page()
        self.repeated, self.foreign = self._results.repeated, self._results.foreign
        return None if page is None else Page(columns(Answers, page.read), page.others)

    def close(self) -> None:
        self._closed = True
        if not self._done:
            self._process.end()
