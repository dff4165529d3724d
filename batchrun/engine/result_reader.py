"""Large results are read and judged by a process of their own, while this one writes what was read before: two cores instead of
one.

`python -m batchrun.engine.result_reader` gets its work as lines of JSON, writes pages to its standard output and ends with its
parent. It has no key, no settings and no journal; whether a reply is taken is decided in the parent. Where it cannot be started,
or ends before its work is done, the parent reads the rest itself.
"""

import contextlib
import gc
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import orjson

from batchrun.engine.judge import accepted
from batchrun.journal import Answers, columns
from batchrun.lanes.executor import Came, Completion, Page
from batchrun.lanes.results import Results
from batchrun.lanes.shapes import SHAPES, vendor
from batchrun.models import Endpoint, Request
from batchrun.pricing import Rates, billed
from batchrun.replies import ReplyChecker

LARGE = 10_000
"""Rows of a batch whose results are worth the process."""
_LENGTH = 8
"""Bytes of each of the two numbers before a page: how long its JSON is, and the bodies of replies behind that, one after the
other."""
_MOST = 2**63
"""Picodollars that JSON has room for."""
_UNKNOWN = (None,) * 6 + (0,) * 5
"""What a reply states and is charged that states no usage: what was reserved for it, which the journal knows."""


@dataclass(frozen=True, slots=True)
class ReplyReader:
    """Reads replies that are accepted as they are: makes a line of `journal.Answers` of each.

    All their requests have the endpoint and the limit of `request`. They are charged at `rates` and `extra` picodollars on top.
    """

    request: Request
    checker: ReplyChecker | None
    rates: Rates | None
    extra: int

    @property
    def work(self) -> dict[str, Any]:
        """What another process needs to read as this one does where there is no checker."""
        return {
            "endpoint": self.request.endpoint.value,
            "limit": self.request.output_limit,
            "rates": self.rates,
            "extra": self.extra,
        }

    @classmethod
    def of(cls, work: dict[str, Any]) -> "ReplyReader":
        """The reader of such work."""
        rates = None if work["rates"] is None else Rates.from_json(work["rates"])
        return cls(Request(Endpoint(work["endpoint"]), b"", work["limit"]), None, rates, work["extra"])

    def __call__(self, seq: int, number: int, body: bytes, data: Any) -> tuple[Any, ...] | None:
        """The line of a reply with this body and its JSON; None for one that its own way meets again."""
        try:
            found = accepted(self.request, body, self.checker, data)
        except Exception:  # noqa: BLE001  its own way meets it again, and says so
            return None
        if found is None:
            return None
        usage, value = found
        text = body.decode()
        if usage is None:
            return (seq, number, text, value, *_UNKNOWN)
        bill = billed(self.rates, usage, self.extra)
        total = None if bill is None else bill.total
        if total is not None and total >= _MOST:
            return None
        kinds = (0, 0, 0, 0) if bill is None else bill[1:]
        return (seq, number, text, value, *usage[:5], total, usage.input + usage.output, *kinds)


class ReaderProcess:
    """The process, started when it is first needed; one file after the other. Its calls block."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it where it is not there yet: that takes a third of a second."""
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

    def ask(self, work: dict[str, Any]) -> None:
        """Have these files read."""
        self.start()
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(json.dumps(work).encode() + b"\n")
                self._process.stdin.flush()

    def next(self) -> tuple[Any, bytes] | None:
        """The next page as the process wrote it, its JSON and its bodies; None where it is gone."""
        process = self._process
        if process is not None and process.stdout is not None:
            with contextlib.suppress(OSError, ValueError):
                said, long = (int.from_bytes(process.stdout.read(_LENGTH)) for _ in range(2))
                data, bodies = process.stdout.read(said), process.stdout.read(long)
                if said and len(bodies) == long:
                    return orjson.loads(data), bodies
        return None

    def end(self) -> None:
        """End it; whoever waits for a page gets none."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in filter(None, (process.stdin, process.stdout)):
                with contextlib.suppress(OSError):
                    stream.close()


class ResultPages:
    """What some results bring, with the replies that a `ReplyReader` takes as columns: read by the process where a `reader` for it
    is given, here where none is or the process ends too early. Its calls block."""

    def __init__(self, results: Results, process: ReaderProcess, reader: ReplyReader | None) -> None:
        self._process = process
        self._results = results
        self._given = 0
        self._is_here = self._done = reader is None
        self._closed = False
        self.repeated = self.foreign = 0
        if reader is not None:
            shape = next(name for name, kind in SHAPES.items() if type(results.shape) is kind)
            process.ask({"files": list(map(str, results.files)), "shape": shape, "run": results.run} | reader.work)

    def page(self) -> Page[Answers] | None:
        """The next ones, None at the end. Raises ValueError for a line that is no JSON object."""
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
        text = bodies.decode()
        cuts = pairwise(accumulate(lengths, initial=0))
        return Page(
            Answers(*answers)._replace(bodies=[text[start:end] for start, end in cuts]),
            [
                Completion(seq, number, Came(came), status, body.encode(), said)
                for seq, number, came, status, body, said in others
            ],
        )

    def _page_here(self) -> Page[Answers] | None:
        """The same without the process; what it has brought is passed over."""
        self._is_here = True
        while self._given and not self._closed:
            self._results.page()
            self._given -= 1
        page = None if self._closed else self._results.page()
        self.repeated, self.foreign = self._results.repeated, self._results.foreign
        return None if page is None else Page(columns(Answers, page.read), page.others)

    def close(self) -> None:
        """Read no further: a process with work left is ended."""
        self._closed = True
        if not self._done:
            self._process.end()


def write_pages(work: dict[str, Any]) -> None:
    """What the process does for one line of its input; an empty page ends it."""
    files, shape = list(map(Path, work["files"])), SHAPES[work["shape"]](vendor("any"))
    pages = Results(files, shape, work["run"], ReplyReader.of(work))
    more = True
    while more:
        page, error = None, ""
        try:
            page = pages.page()
        except ValueError as failure:
            error = str(failure) or "a line of the results cannot be read"
        more = page is not None
        read, left = page or ([], [])
        answers = columns(Answers, read)
        others = [
            (seq, number, came.value, status, body.decode(), said) for seq, number, came, status, body, said, _ in left
        ]
        lengths, bodies = list(map(len, answers.bodies)), "".join(answers.bodies).encode()
        said = lengths, list(answers._replace(bodies=[])), others, pages.repeated, pages.foreign, error
        data = orjson.dumps(said)
        sys.stdout.buffer.writelines([len(data).to_bytes(_LENGTH), len(bodies).to_bytes(_LENGTH), data, bodies])
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    gc.disable()  # nothing here is in a cycle, and a page is many objects
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin.buffer:
            write_pages(orjson.loads(line))
    os._exit(0)  # what is left of a pipe that nobody reads is not written
