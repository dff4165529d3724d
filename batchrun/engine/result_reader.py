"""The process that reads large results and judges their replies (`result_pages`).

It takes work as lines of JSON, writes pages to standard output and ends with its parent; it has no key, settings or
journal. Few imports: they are a tenth of a second of its start.
"""

import contextlib
import gc
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from batchrun import replies
from batchrun.lanes.results import Results
from batchrun.lanes.shapes import SHAPES
from batchrun.lanes.vendors import vendor
from batchrun.models import Defect, Endpoint
from batchrun.pricing import STANDARD, Rates, billed
from batchrun.replies import ReplyChecker

LENGTH = 8  # Bytes of each of two numbers before a page: the lengths of its JSON and its bodies
_MOST = 2**63  # Largest number of picodollars that the JSON can hold
_UNKNOWN = (None,) * 7 + (0,) * 5  # Usage and charge of a reply without usage: its reservation, which the journal has

_NO_KINDS = (0,) * 5  # Of a usage, from `written_long` to `output_image`
_STANDARD = ((*_NO_KINDS, None, None), (*_NO_KINDS, STANDARD, None))

Line = tuple[Any, ...]  # A line of `journal.Answers`


@dataclass(frozen=True, slots=True)
class ReplyReader:
    """Reads replies that are accepted as they are."""

    endpoint: Endpoint
    limit: int | None  # Output tokens of each request
    inputs: int  # Prompts of each request
    checker: ReplyChecker | None
    rates: Rates | None
    extra: int  # Picodollars charged beyond `rates`
    standard: bool = False  # Usage has to be stated, and to have none but the standard rates

    def __call__(self, seq: int, number: int, body: bytes, data: Any) -> Line | None:
        """None where more is to decide."""
        try:
            reply = replies.read(self.endpoint, body, self.limit, self.inputs, data)
            usage = reply.usage
            if isinstance(reply, Defect) or reply.flags or (self.standard and (usage or ())[5:] not in _STANDARD):
                return None
            complaint, value = None, None
            if self.checker is not None:
                complaint, _, value = replies.checked(self.checker, reply.text or "")
        except Exception:  # noqa: BLE001  the row's own steps raise it again and report it
            return None
        if complaint is not None or (self.checker is not None and self.checker.flags):
            return None
        if usage is None:
            return (seq, number, value, *_UNKNOWN, body.decode())
        bill = billed(self.rates, usage, self.extra)
        # Each by its name: a starred one takes half a microsecond.
        plain, read, wrote, out, rest = bill or (0, 0, 0, 0, 0)
        cost = None if bill is None else plain + read + wrote + out + rest
        if cost is not None and cost >= _MOST:
            return None
        given, made, cached, thought, kept = usage[:5]
        whole = None if usage[5:10] == _NO_KINDS and usage.charged is None else tuple(usage)
        sums, text = given + made, body.decode()
        return seq, number, value, whole, given, made, cached, thought, kept, cost, sums, read, wrote, out, rest, text

    def as_json(self) -> dict[str, Any]:
        """Without the checker."""
        names = ("endpoint", "limit", "inputs", "rates", "extra")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def of(cls, work: dict[str, Any]) -> "ReplyReader":
        rates = None if work["rates"] is None else Rates.from_json(work["rates"])
        return cls(Endpoint(work["endpoint"]), work["limit"], work["inputs"], None, rates, work["extra"])


def write_pages(work: dict[str, Any]) -> None:
    """The last page is empty."""
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
        *answers, texts = list(zip(*read, strict=True)) or [()]
        others = [(*each[:2], each.kind.value, each.status, each.body.decode(), each.message) for each in left]
        bodies = "".join(texts).encode()
        data = orjson.dumps((list(map(len, texts)), answers, others, pages.repeated, pages.foreign, error))
        sys.stdout.buffer.writelines([len(data).to_bytes(LENGTH), len(bodies).to_bytes(LENGTH), data, bodies])
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    gc.disable()  # nothing here is in a cycle, and a page is many objects
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin.buffer:
            write_pages(orjson.loads(line))
    os._exit(0)  # what is left of a pipe that nobody reads is not written
