"""Finds a list of rows inside a JSON object without parsing all of it: `--path data.items`."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from batchrun.display import printable
from batchrun.errors import InputError

_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TOKEN = re.compile(rf'{_STRING}|[\[{{\]}},:"]', re.DOTALL)
_NAMED = 10


def array_at(pieces: Iterable[str], path: Sequence[str], name: str) -> Iterator[str]:
    """The text from the list at `path` on. Raises InputError."""
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
    """Raises InputError for a second object, whose rows would be lost."""
    buffer = ""
    for piece in pieces:
        text = buffer + piece
        buffer = ""
        for match in _TOKEN.finditer(text):
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
    """Follows nested members; `lists` are the paths of lists found."""

    def __init__(self, path: list[str]) -> None:
        self._path = path
        self._open: list[str | None] = []  # of each open bracket the member at hand; None in a list
        self._string = ""
        self._buffer = ""
        self.lists: list[str] = []

    def feed(self, piece: str) -> str | None:
        """The rest of the text, once the list is found."""
        text = self._buffer + piece
        seen = 0
        for match in _TOKEN.finditer(text):
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
