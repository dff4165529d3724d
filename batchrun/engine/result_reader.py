"""Large results are read and judged by a process of their own, while this one writes what was read before: two cores instead of
one.

`python -m batchrun.engine.result_reader` gets its work as lines of JSON, writes pages of completions to its standard output and
ends with its parent. It has no key, no settings and no journal; what becomes of a completion is decided in the parent. Where it
cannot be started, or ends before its work is done, the parent reads the rest itself.
"""

import contextlib
import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson

from batchrun.engine.judge import accepted
from batchrun.lanes.executor import Came, Completion
from batchrun.lanes.results import Results
from batchrun.lanes.shapes import SHAPES, vendor
from batchrun.models import Endpoint, Request, Usage

LARGE = 10_000
"""Rows of a batch whose results are worth the process."""
_LENGTH = 8
"""Bytes of each of the two numbers before a page: how long its JSON is, and the bodies behind that, one after the other."""
_MOST = 2**63
"""Picodollars that JSON has room for."""


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
                self._process.stdin.write(orjson.dumps(work) + b"\n")
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


class ProcessPages:
    """The completions of `alone`, read by the process, with what `accepted` says of replies to requests like this one, which have
    no schema; `alone` goes on where the process ends too early. Its calls block."""

    def __init__(self, process: ReaderProcess, alone: Results, request: Request) -> None:
        self._process = process
        self._alone = alone
        self._given = 0
        self._is_alone = self._closed = self._done = False
        self.repeated = self.foreign = 0
        shape = next(name for name, kind in SHAPES.items() if type(alone.shape) is kind)
        work = {"files": list(map(str, alone.files)), "shape": shape, "run": alone.run}
        process.ask(work | {"endpoint": request.endpoint.value, "limit": request.output_limit})

    def page(self) -> list[Completion]:
        """The next ones, none at the end. Raises ValueError for a line that is no JSON object."""
        found = None if self._is_alone else self._process.next()
        if found is None:
            return self._page_alone()
        (lines, self.repeated, self.foreign, error), bodies = found
        self._done = not lines
        if error:
            raise ValueError(error)
        self._given += len(lines)
        page: list[Completion] = []
        start = 0
        for seq, number, came, status, length, said, read in lines:
            body, start = bodies[start : start + length], start + length
            if read is None:
                page.append(Completion(seq, number, Came(came), status, body, said))
            else:
                usage, value = read
                page.append(Completion(seq, number, Came.REPLY, 200, body, "", None, (usage and Usage(*usage), value)))
        return page

    def _page_alone(self) -> list[Completion]:
        """The same without the process; what it has brought is passed over."""
        self._is_alone = True
        while not self._closed:
            page = self._alone.page()
            passed, self._given = min(self._given, len(page)), max(0, self._given - len(page))
            self.repeated, self.foreign = self._alone.repeated, self._alone.foreign
            if not page or page[passed:]:
                return page[passed:]
        return []

    def close(self) -> None:
        """Read no further: a process with work left is ended."""
        self._closed = True
        if self._is_alone or not self._done:
            self._process.end()


def write_pages(work: dict[str, Any]) -> None:
    """What the process does for one line of its input; an empty page ends it."""
    request = Request(Endpoint(work["endpoint"]), b"", work["limit"])

    def read(body: bytes, data: Any) -> tuple[Any, str | None] | None:
        try:
            found = accepted(request, body, None, data)
        except Exception:  # noqa: BLE001  its own way meets it again, and says so
            return None
        if found is None or (found[0] is not None and (found[0].charged or 0) >= _MOST):
            return None
        return found[0] and tuple(found[0]), found[1]

    pages = Results(list(map(Path, work["files"])), SHAPES[work["shape"]](vendor("any")), work["run"], read)
    more = True
    while more:
        page, error = list[Completion](), ""
        try:
            page = pages.page()
        except ValueError as failure:
            error = str(failure) or "a line of the results cannot be read"
        lines = [
            (seq, number, came.value, status, len(body), said, found)
            for seq, number, came, status, body, said, _, found in page
        ]
        data = orjson.dumps((lines, pages.repeated, pages.foreign, error))
        bodies = b"".join([each.body for each in page])
        sys.stdout.buffer.writelines([len(data).to_bytes(_LENGTH), len(bodies).to_bytes(_LENGTH), data, bodies])
        sys.stdout.buffer.flush()
        more = bool(page)


if __name__ == "__main__":
    gc.disable()  # nothing here is in a cycle, and a page is many objects
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin.buffer:
            write_pages(orjson.loads(line))
    os._exit(0)  # what is left of a pipe that nobody reads is not written
