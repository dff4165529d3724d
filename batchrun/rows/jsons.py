"""JSON Lines, JSON arrays and sequences of objects, kept as text. No array is parsed as a whole."""

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import chain
from json import JSONDecoder
from typing import NoReturn

from batchrun.display import printable
from batchrun.errors import InputError
from batchrun.models import Invalid
from batchrun.rows.check import (
    NOT_UTF8,
    ROW_LIMIT,
    Record,
    RefusedRowError,
    Remarks,
    after_blanks,
    encodable,
    invalid,
    one_line,
    parse,
)
from batchrun.rows.source import encoded_line_groups, without_bom

_BLANKS = " \t\r\n"
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT_OBJECT = rf'\{{[^"{{}}\[\]]*+(?:{_STRING}[^"{{}}\[\]]*+)*+\}}'
_TOKEN = re.compile(rf'{_FLAT_OBJECT}|{_STRING}|[\[{{\]}},"]', re.DOTALL)
_BRACKETS = re.compile(rf'{_STRING}|[\[{{\]}},:"]', re.DOTALL)
_NAMED = 10


def read_jsonl(chunks: Iterable[bytes], remarks: Remarks) -> Iterator[Record | Invalid]:
    """Strings are rows if the first is one."""
    number, strings = 0, _Strings()
    doubled = remarks.add

    def double(name: str) -> None:
        doubled(_double(name), number)

    for group, in_utf8 in encoded_line_groups(chunks):
        for line, given in zip(group, in_utf8, strict=False):
            number += 1
            if isinstance(line, Invalid):
                yield line
                continue
            try:
                encoded = line.encode() if given is None else given
                fields = parse(line, double, encoded)
            except RefusedRowError as error:
                if (record := strings.record(number, line)) is not None:
                    yield record
                elif line.strip():
                    yield invalid(number, line, str(error))
                continue
            strings.over = True
            yield number, line, fields, encoded
            del fields, encoded  # may be as large as the next ones


def read_sequence(chunks: Iterable[bytes], name: str, remarks: Remarks) -> Iterator[Record | Invalid]:
    """As jq prints them. Raises InputError."""
    decoder, held, line = JSONDecoder(), _Held(), 1
    for piece in _grown(_decoded(chunks), held):
        buffer = held.text + piece
        start = 0
        while (begin := after_blanks(buffer, start)) < len(buffer):
            try:
                _, end = decoder.raw_decode(buffer, begin)
            except (ValueError, RecursionError):
                break
            line += buffer.count("\n", start, begin)
            yield _element(line, buffer[begin:end], remarks)
            line += buffer.count("\n", begin, end)
            start = end
        held.text = buffer[start:]
        if len(held) > ROW_LIMIT:
            raise InputError(
                f"{name}: the object that begins in line {line} is longer than {ROW_LIMIT // 1024**2} MiB.",
                "State the list of rows in it with --path NAME.",
            )
    if held.text.strip(_BLANKS):
        _refuse_rest(held.text, line, name)


def read_array(chunks: Iterable[bytes], name: str, path: str | None, remarks: Remarks) -> Iterator[Record | Invalid]:
    """Strings are rows if the first is one. Raises InputError."""
    strings = _Strings()
    names = path.split(".") if path else []
    pieces = array_at(_decoded(chunks), names, name) if names else _decoded(chunks)
    for number, element in enumerate(_elements(pieces, name, len(names)), 1):
        text = element.strip(_BLANKS)
        if (record := strings.record(number, text)) is not None:
            yield record
            continue
        strings.over = True
        yield _element(number, text, remarks)


class _Held:
    def __init__(self) -> None:
        self.text = ""

    def __len__(self) -> int:
        return len(self.text)


class _Strings:
    # strings are rows if the first record is one

    def __init__(self) -> None:
        self.over = False

    def record(self, number: int, text: str) -> Record | None:
        value = text.strip(_BLANKS)
        if self.over or value[:1] != '"' or not encodable(value):
            return None
        try:
            fields = parse(f'{{"text":{value}}}')
        except RefusedRowError:
            return None
        return number, f'{{"text":{value}}}', fields


def _element(number: int, text: str, remarks: Remarks) -> Record | Invalid:
    if not encodable(text):
        return invalid(number, text, NOT_UTF8)
    try:
        fields = parse(text, lambda name: remarks.add(_double(name), number))
    except RefusedRowError as error:
        return invalid(number, text, str(error) if text else "an element is missing between two commas")
    return number, one_line(text), fields


def _double(name: str) -> str:
    return f'the member "{printable(name, 60)}" appears twice in an object: its last value counts'


def _refuse_rest(buffer: str, line: int, name: str) -> NoReturn:
    begin = after_blanks(buffer, 0)
    line += buffer.count("\n", 0, begin)
    try:
        parse(buffer[begin:])
        reason = "it is followed by something that is not an object"
    except RefusedRowError as error:
        reason = str(error)
    raise InputError(f"{name}: the object that begins in line {line}: {reason}.", "Fix it there; no request was sent.")


def _grown(pieces: Iterable[str], waiting: Sized) -> Iterator[str]:
    # Pieces are as long as what is waiting: a long element is not scanned repeatedly.
    held: list[str] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= len(waiting):
            yield "".join(held)
            held.clear()
            size = 0
    yield "".join(held)


def _elements(pieces: Iterable[str], name: str, depth: int) -> Iterator[str]:
    splitter = _Splitter(name, alone=not depth)
    grown = _grown(pieces, splitter)
    for piece in grown:
        yield from splitter.feed(piece)
        if splitter.closed and depth:
            refuse_second(chain([splitter.buffer], grown), depth, name)
    splitter.end()


def _decoded(chunks: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")
    for chunk in without_bom(chunks):
        yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)


class _Splitter:
    # finds the elements of an array; `alone` refuses text after it

    def __init__(self, name: str, *, alone: bool) -> None:
        self._name = name
        self._alone = alone
        self.buffer = ""
        self._scanned = 0
        self._depth = 0
        self._count = 0
        self.closed = False

    def __len__(self) -> int:
        return len(self.buffer)

    def feed(self, piece: str) -> Iterator[str]:
        text = self.buffer + piece
        start, scanned = 0, len(text)
        for match in () if self.closed else _TOKEN.finditer(text, self._scanned):
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
        if not self.closed:
            raise InputError(
                f"{self._name} is cut off: its JSON array is not closed after element {self._count}.",
                "A quotation mark or a bracket is missing, or the file is not complete.",
            )

    def _last(self, element: str, bracket: str) -> Iterator[str]:
        if bracket != "]":
            raise InputError(f"{self._name}: the brackets do not match in element {self._count + 1} of the JSON array.")
        self.closed = True
        if self._count or element.strip(_BLANKS):
            self._count += 1
            yield element

    def _refuse_long_or_late(self) -> None:
        if self.closed and self._alone and self.buffer.strip(_BLANKS):
            raise InputError(
                f"{self._name}: something follows the JSON array after element {self._count}.",
                "Write all records in one array, or one record per line (JSONL).",
            )
        if self.closed and self._alone:
            self.buffer = ""
        if len(self.buffer) > ROW_LIMIT and not self.closed:
            where = f"element {self._count + 1}"
            raise InputError(f"{self._name}: {where} of the JSON array is longer than {ROW_LIMIT // 1024**2} MiB.")


def array_at(pieces: Iterable[str], path: Sequence[str], name: str) -> Iterator[str]:
    """The elements of the list at `path`. Raises InputError."""
    stream = iter(pieces)
    finder = _Finder(list(path))
    for piece in stream:
        if (rest := finder.feed(piece)) is not None:
            return chain([rest], stream)
    wanted = printable(".".join(path), 60)
    lists = ", ".join(printable(found, 60) for found in finder.lists[:_NAMED])
    raise InputError(
        f"{name} has no list at --path {wanted}.", f"Its lists: {lists}." if lists else "There is no list in it."
    )


def refuse_second(pieces: Iterable[str], depth: int, name: str) -> None:
    """Raises InputError: a second object's rows would be lost."""
    buffer = ""
    for piece in pieces:
        text = buffer + piece
        buffer = ""
        for match in _BRACKETS.finditer(text):
            mark = match.group()
            if depth <= 0:
                raise InputError(
                    f"{name} has more than one object, and --path reads the list of one.",
                    "`jq -c '.NAME[]' FILE` writes the lists of all of them as JSONL.",
                )
            if mark == '"':
                buffer = text[match.start() :]
                break
            depth += (mark in ("{", "[")) - (mark in ("}", "]"))


class _Finder:
    # finds the list at `--path`; `lists` are the paths of lists found

    def __init__(self, path: list[str]) -> None:
        self._path = path
        self._open: list[str | None] = []  # of each open bracket the member at hand; None in a list
        self._string = ""
        self._buffer = ""
        self.lists: list[str] = []

    def feed(self, piece: str) -> str | None:
        """What follows, once the list is found."""
        text = self._buffer + piece
        seen = 0
        for match in _BRACKETS.finditer(text):
            mark = match.group()
            if mark == '"':  # a string that ends in a later piece
                break
            seen = match.end()
            if mark == "[" and self._here():
                return text[match.start() :]
            self._follow(mark)
        self._buffer = text[seen:]
        return None

    def _here(self) -> bool:
        if None in self._open:
            return False
        if self._open == self._path:
            return True
        if self._open:
            self.lists.append(".".join(str(key) for key in self._open))
        return False

    def _follow(self, mark: str) -> None:
        if mark == "{":
            self._open.append("")
        elif mark == "[":
            self._open.append(None)
        elif mark in "}]":
            del self._open[-1:]
        elif mark == ":":
            if self._open and self._open[-1] is not None:
                self._open[-1] = self._string
        elif mark != ",":
            self._string = mark[1:-1]
