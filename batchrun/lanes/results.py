"""Files of a batch: what the lines of its results say, and which rows the lines of its requests are of. Blocks.

Results that a user brings are of OpenAI's shape (that of vLLM's `run-batch` and of Mistral too) or of Anthropic's, whose lines
have a `result`; they are kept in OpenAI's.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from batchrun.lanes.executor import Came, Completion, Page, Read
from batchrun.lanes.shapes import SHAPES, OpenAIShape, json_object, object_of, parse_wire_id, vendor

LINES = 1000
"""Lines of results that are handed over together, at most."""
ROOM = 4_000_000
"""Bytes of their bodies after which no more are added, so that memory does not grow with the length of replies."""


_KNOWN: Mapping[str, Any] = {}
"""In the place of a line that is a reply in the usual spelling."""


class Results:
    """The completions of some files, each row's first one: repeated lines and those of other runs are only counted."""

    def __init__(self, files: Sequence[Path], shape: OpenAIShape, run: str, read: Read | None = None) -> None:
        self.files = files
        self.shape = shape
        self.run = run
        self._lines = _lines(files)
        self._read = read
        self._met = set[tuple[int, int]]()
        self.repeated = 0
        self.foreign = 0

    def close(self) -> None:
        """Nothing is to be ended."""

    def page(self) -> Page[list[Any]] | None:
        """The next completions, None at the end. Raises ValueError for a line that is no JSON object."""
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
                    page.others.append(Completion(seq, number, Came.REPLY, 200, body, "", None if read else data))
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


def brought(path: Path, run: str) -> Iterator[Completion | bool]:
    """What each line of a file says of a row of this run; True for a line of others, False for one that is not whole."""
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
    """A completion as a line of OpenAI's results."""
    line = b'{"custom_id":%b,' % json.dumps(custom_id).encode()
    if completion.came in (Came.REPLY, Came.FAILURE):
        try:
            json.loads(completion.body)
            body = completion.body
        except ValueError:
            body = json.dumps(completion.body.decode("utf-8", "replace")).encode()
        return line + b'"response":{"status_code":%d,"body":%b},"error":null}\n' % (completion.status, body)
    code = "batch_expired" if completion.came is Came.GONE else "no_answer"
    error = json.dumps({"code": code, "message": completion.said}, ensure_ascii=False).encode()
    return line + b'"response":null,"error":%b}\n' % error


def count_lines(path: Path) -> int:
    """How many lines a file of results has. Raises ValueError where one is not a whole object: a download that was cut."""
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
    """Row and attempt of these lines (from 1) of a file of requests; none where it is gone."""
    if not path.exists():
        return {}
    with path.open("rb") as stream:
        wanted = {number: line for number, line in enumerate(stream, 1) if number in lines}
    found = {number: parse_wire_id(run, json.loads(line).get("custom_id")) for number, line in wanted.items()}
    return {number: place for number, place in found.items() if place is not None}


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
