"""Files of a batch: the lines of its results, and the rows of its requests. Blocks.

Results that a user imports are of OpenAI's shape (also vLLM's and Mistral's) or Anthropic's.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from batchrun.lanes.executor import Completion, CompletionKind, Page, Read
from batchrun.lanes.shapes import SHAPES, OpenAIShape, json_object, object_of, parse_wire_id
from batchrun.lanes.vendors import vendor

LINES = 1000  # of results in one page, at most
ROOM = 4_000_000  # bytes of bodies after which a page ends, to bound memory


_KNOWN: Mapping[str, Any] = {}  # in the place of a line that is a reply in the usual spelling


class Results:
    """Each row's first completion; repeated and foreign lines are counted."""

    def __init__(self, files: Sequence[Path], shape: OpenAIShape, run: str, read: Read | None = None) -> None:
        self.files = files
        self.shape = shape
        self.run = run
        self._lines = _lines(files)
        self._read = read
        self._met = set[tuple[int, int]]()
        self.repeated = 0
        self.foreign = 0

    def close(self) -> None: ...

    def page(self) -> Page[list[Any]] | None:
        """None at the end. Raises ValueError."""
        read, page = self._read, Page[list[Any]]([], [])
        left, room = LINES, ROOM
        for text in self._lines:
            reply = self.shape.reply(text)
            line: Mapping[str, Any] = object_of(text) if reply is None else _KNOWN
            place = parse_wire_id(self.run, line.get("custom_id") if reply is None else reply[0])
            if place is None:
                self.foreign += 1
                continue
            if place in self._met:
                self.repeated += 1
                continue
            self._met.add(place)
            if reply is None:
                other = self.shape.completion(line, *place)
                page.others.append(other)
                room -= len(other.body)
            else:
                (seq, number), (_, body, data) = place, reply
                made = None if read is None else read(seq, number, body, data)
                if made is None:
                    page.others.append(
                        Completion(seq, number, CompletionKind.REPLY, 200, body, "", None if read else data)
                    )
                else:
                    page.read.append(made)
                room -= len(body)
            left -= 1
            if not left or room <= 0:
                break
        return page if left < LINES else None


def _lines(files: Sequence[Path]) -> Iterator[bytes]:
    for path in files:
        if path.exists():
            with path.open("rb") as stream:
                yield from filter(bytes.strip, stream)


def imported(path: Path, run: str) -> Iterator[Completion | bool]:
    """True for a line of another run, False for an incomplete one."""
    openai, anthropic = (SHAPES[name](vendor("any")) for name in ("openai", "anthropic"))
    with path.open("rb") as stream:
        for text in stream:
            if not text.strip():
                continue
            try:
                line = json_object(json.loads(text))
            except ValueError:
                yield False
                continue
            place = parse_wire_id(run, line.get("custom_id"))
            shape = anthropic if "result" in line else openai
            yield True if place is None else shape.completion(line, *place)


def result_line(custom_id: str, completion: Completion) -> bytes:
    line = b'{"custom_id":%b,' % json.dumps(custom_id).encode()
    if completion.kind in (CompletionKind.REPLY, CompletionKind.FAILURE):
        try:
            json.loads(completion.body)
            body = completion.body
        except ValueError:
            body = json.dumps(completion.body.decode("utf-8", "replace")).encode()
        return line + b'"response":{"status_code":%d,"body":%b},"error":null}\n' % (completion.status, body)
    code = "batch_expired" if completion.kind is CompletionKind.GONE else "no_answer"
    error = json.dumps({"code": code, "message": completion.message}, ensure_ascii=False).encode()
    return line + b'"response":null,"error":%b}\n' % error


def count_lines(path: Path) -> int:
    """Raises ValueError if a download was cut."""
    with path.open("rb") as stream:
        count = 0
        for line in filter(bytes.strip, stream):
            try:
                whole = isinstance(orjson.loads(line), dict)
            except ValueError:
                whole = False
            if not whole:
                object_of(line)
            count += 1
        return count


def places(path: Path, lines: set[int], run: str) -> dict[int, tuple[int, int]]:
    """(row, attempt) of lines from 1; empty without a file."""
    if not path.exists():
        return {}
    with path.open("rb") as stream:
        wanted = {number: line for number, line in enumerate(stream, 1) if number in lines}
    found = {number: parse_wire_id(run, json.loads(line).get("custom_id")) for number, line in wanted.items()}
    return {number: place for number, place in found.items() if place is not None}


def digest(path: Path) -> str:
    """SHA-256 in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
