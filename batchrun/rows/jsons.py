"""JSON Lines and JSON arrays: the records are checked and kept as their text.

An array is never parsed as a whole: `_Splitter` finds the commas between its elements over chunks of any size, so
that every element keeps its exact characters. Only line breaks between the tokens of an element are taken out.
"""

import codecs
import re
from collections.abc import Iterable, Iterator

from batchrun.errors import InputError
from batchrun.models import Invalid
from batchrun.rows.check import ROW_LIMIT, Record, RefusedRowError, encodable, invalid, one_line, parse
from batchrun.rows.lines import line_groups, without_bom

_BLANKS = " \t\r\n"
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT_OBJECT = rf'\{{[^"{{}}\[\]]*+(?:{_STRING}[^"{{}}\[\]]*+)*+\}}'
_TOKEN = re.compile(rf'{_FLAT_OBJECT}|{_STRING}|[\[{{\]}},"]', re.DOTALL)


def read_jsonl(chunks: Iterable[bytes]) -> Iterator[Record | Invalid]:
    """A record per line; blank lines are none. The line numbers are those of the file."""
    number = 0
    for group in line_groups(chunks):
        for line in group:
            number += 1
            if isinstance(line, Invalid):
                yield line
                continue
            try:
                fields = parse(line)
            except RefusedRowError as error:
                if line.strip():
                    yield invalid(number, line, _with_hint(line, str(error)))
                continue
            yield number, line, fields


def read_array(chunks: Iterable[bytes], name: str) -> Iterator[Record | Invalid]:
    """A record per element of the one array that the input is; its line is the number of the element, from 1.

    Raises InputError where the array is not closed or the brackets do not match: what follows cannot be trusted.
    """
    for number, element in enumerate(_elements(chunks, name), 1):
        text = element.strip(_BLANKS)
        if not encodable(text):
            yield invalid(number, text, "not UTF-8")
            continue
        try:
            fields = parse(text)
        except RefusedRowError as error:
            yield invalid(number, text, str(error) if text else "nothing between two commas")
        else:
            yield number, one_line(text), fields


def _with_hint(text: str, reason: str) -> str:
    if text.strip() in ("{", "["):
        return f"{reason}; a record must be on one line (`jq -c . FILE` makes it so)"
    return reason


def _elements(chunks: Iterable[bytes], name: str) -> Iterator[str]:
    """Reads at least as much again as is waiting, so that a long element is not scanned over and over."""
    splitter = _Splitter(name)
    pieces: list[str] = []
    for piece in _decoded(chunks):
        pieces.append(piece)
        if sum(map(len, pieces)) >= len(splitter.buffer):
            yield from splitter.feed("".join(pieces))
            pieces.clear()
    yield from splitter.feed("".join(pieces))
    splitter.end()


def _decoded(chunks: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")
    for chunk in without_bom(chunks):
        yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)


class _Splitter:
    """Finds where the elements of one array end. `buffer` is what has not been given out yet."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.buffer = ""
        self._scanned = 0
        self._depth = 0
        self._count = 0
        self._closed = False

    def feed(self, piece: str) -> Iterator[str]:
        """The elements that end in this piece. Raises InputError."""
        text = self.buffer + piece
        start, scanned = 0, len(text)
        for match in () if self._closed else _TOKEN.finditer(text, self._scanned):
            found = match.group()
            if found == '"':
                scanned = match.start()
                break
            if found in ("[", "{"):
                self._depth += 1
                start = match.end() if self._depth == 1 else start
            elif found in ("]", "}"):
                self._depth -= 1
                if self._depth == 0:
                    yield from self._last(text[start : match.start()], found)
                    start = match.end()
                    break
            elif found == "," and self._depth == 1:
                self._count += 1
                yield text[start : match.start()]
                start = match.end()
        self.buffer, self._scanned = text[start:], max(scanned - start, 0)
        self._refuse_long_or_late()

    def end(self) -> None:
        """Raises InputError if the array is not closed."""
        if not self._closed:
            raise InputError(
                f"{self._name} is cut off: its JSON array is not closed after element {self._count}.",
                "A quotation mark or a bracket is missing, or the file is not complete.",
            )

    def _last(self, element: str, bracket: str) -> Iterator[str]:
        if bracket != "]":
            raise InputError(f"{self._name}: the brackets do not match in element {self._count + 1} of the JSON array.")
        self._closed = True
        if self._count or element.strip(_BLANKS):
            self._count += 1
            yield element

    def _refuse_long_or_late(self) -> None:
        if self._closed and self.buffer.strip(_BLANKS):
            raise InputError(
                f"{self._name}: something follows the JSON array after element {self._count}.",
                "One array is an input; records on lines of their own are another (JSONL).",
            )
        if self._closed:
            self.buffer = ""
        if len(self.buffer) > ROW_LIMIT:
            where = f"element {self._count + 1}"
            raise InputError(f"{self._name}: {where} of the JSON array is longer than {ROW_LIMIT // 1024**2} MiB.")
