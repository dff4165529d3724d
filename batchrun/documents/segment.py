"""Segments, the edits that replace them, and the window through which a format reads a document.

Ranges are ranges of the file (in a window, of `text`); in XML, whose parser counts bytes, a character stands for each
byte. What a reader no longer needs is written (`on_discard`) and discarded.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

CONTEXT = 200  # characters of a segment's context


class DocumentError(Exception):
    """The message has the line."""


class Existing(StrEnum):
    """Which translated segments are translated again."""

    KEEP = "keep"
    FUZZY = "fuzzy"
    ALL = "all"


class Status(StrEnum):
    """Always EMPTY in a format of one language."""

    EMPTY = "empty"
    FUZZY = "fuzzy"
    TRANSLATED = "translated"


class Kind(StrEnum):
    TEXT = "text"
    CUE = "cue"
    PARAGRAPH = "paragraph"
    BLOCK = "block"
    LINE = "line"
    XML = "xml"
    MARKUP = "markup"


class Plural(NamedTuple):
    """Source texts, and uses of the target's forms."""

    sources: Mapping[str, str]
    forms: Mapping[str, str]


class Segment(NamedTuple):
    id: str | None  # the format's own; None if that is only a position
    text: str  # as a reader sees it, line ends as "\n"; of plural forms the source's `other`
    start: int  # the range that is replaced
    end: int
    style: Any = None  # the format's: how a new text is spelled
    kind: Kind = Kind.TEXT
    status: Status = Status.EMPTY
    context: str = ""  # neighbouring source text
    note: str = ""  # the developers' comment
    max: int | None = None  # characters of the translation
    plural: Plural | None = None


Value = str | Mapping[str, str]  # a text, or one per plural form


class Edit(NamedTuple):
    start: int
    end: int
    text: str


class Format(Protocol):
    """A format module, bound to one document."""

    def segments(self) -> Iterator[Segment]:
        """In order. Raises DocumentError."""
        ...

    def opening(self) -> Iterable[Edit]:
        """Edits at the head, if any segment is replaced."""
        return ()

    def edits(self, segment: Segment, value: Value) -> Iterable[Edit]:
        """In order, without overlaps."""
        ...


def wanted(segment: Segment, existing: Existing) -> bool:
    if segment.status is Status.EMPTY or existing is Existing.ALL:
        return True
    return segment.status is Status.FUZZY and existing is Existing.FUZZY


def text_hash(text: str) -> str:
    """64 bits of BLAKE2b."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def pointer_part(key: str) -> str:
    """JSON Pointer, RFC 6901."""
    return key.replace("~", "~0").replace("/", "~1") if "~" in key or "/" in key else key


def line_of(content: str, at: int) -> int:
    """From 1."""
    return content.count("\n", 0, at) + 1


def newline_of(content: str) -> str:
    end = content.find("\n")
    return "\r\n" if end > 0 and content[end - 1] == "\r" else "\n"


CHUNK = 1 << 18  # bytes per read


class Window:
    """`chunks` returns all bytes each time."""

    def __init__(self, parts: Iterable[str], chunks: Callable[[], Iterable[bytes]]) -> None:
        self._parts = filter(None, parts)
        self._lines = 0
        self.text = next(self._parts, "")
        self.newline = newline_of(self.text)
        self.chunks = chunks
        self.on_discard: Callable[[int], None] | None = None  # called before the text up to a place is discarded

    def more(self, at: int) -> bool:
        """Discard the text before `at`. False at the end."""
        found: list[str] = []
        wanted = len(self.text) - at
        while (part := next(self._parts, None)) is not None:
            found.append(part)
            wanted -= len(part)
            if wanted <= 0:
                break
        if not found:
            return False
        if at:
            if self.on_discard is not None:
                self.on_discard(at)
            self._lines += self.text.count("\n", 0, at)
        self.text = "".join([self.text[at:], *found])
        return True

    def line(self, at: int) -> int:
        return self._lines + line_of(self.text, at)

    def rest(self, at: int) -> Iterator[str]:
        yield self.text[at:]
        yield from self._parts


class Splicer:
    """Collects the document with edits, up to `at`."""

    def __init__(self, window: Window) -> None:
        self._window = window
        window.on_discard = self._discarded
        self._pieces: list[str] = []
        self.opening: Callable[[], Iterable[Edit]] = tuple  # the edits at the head of the document
        self.at = self.held = 0

    def replace(self, edits: Iterable[Edit]) -> None:
        self._make(self.opening())
        self._make(edits)

    def taken(self) -> str:
        piece = "".join(self._pieces)
        self._pieces.clear()
        self.held = 0
        return piece

    def _make(self, edits: Iterable[Edit]) -> None:
        for start, end, text in edits:
            if start < self.at or end < start:
                raise ValueError(f"an edit of {start} to {end} comes after {self.at}")
            self._pieces += self._window.text[self.at : start], text
            self.held += start - self.at + len(text)
            self.at = end

    def _discarded(self, at: int) -> None:
        self._make(self.opening())
        if at > self.at:
            self._pieces.append(self._window.text[self.at : at])
            self.held += at - self.at
        self.at = max(0, self.at - at)
