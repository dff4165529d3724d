"""Segments, and the edits that replace them.

Content is decoded by a codec that round-trips, so its ranges are ranges of the file (in a window, of that); in XML,
whose parser counts bytes, a character stands for each byte.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

CONTEXT = 200
"""Characters of neighbouring text that a segment has as its context."""


class DocumentError(Exception):
    """The file does not have its format; the message has the line."""


class Existing(StrEnum):
    """Which translated segments are translated again."""

    KEEP = "keep"
    FUZZY = "fuzzy"
    ALL = "all"


class Status(StrEnum):
    """State of a segment's target; always EMPTY in a format of one language."""

    EMPTY = "empty"
    FUZZY = "fuzzy"
    TRANSLATED = "translated"


class Kind(StrEnum):
    """What may replace a segment: any text, or the same kind."""

    TEXT = "text"
    CUE = "cue"
    PARAGRAPH = "paragraph"
    BLOCK = "block"
    LINE = "line"
    XML = "xml"
    MARKUP = "markup"


class Plural(NamedTuple):
    """Source texts by form, and the target's forms with their uses."""

    sources: Mapping[str, str]
    forms: Mapping[str, str]


class Segment(NamedTuple):
    """One text to translate."""

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


Value = str | Mapping[str, str]
"""What replaces a segment: a text, or one per plural form."""


class Edit(NamedTuple):
    """Replaces the content from `start` to `end`."""

    start: int
    end: int
    text: str


class Format(Protocol):
    """A format module, bound to the content of one document."""

    def segments(self) -> Iterator[Segment]:
        """All segments in order. Raises DocumentError."""
        ...

    def opening(self) -> Iterable[Edit]:
        """Edits at the head, if any segment is replaced; called after the first segment was read."""
        return ()

    def edits(self, segment: Segment, value: Value) -> Iterable[Edit]:
        """The edits, in order, that replace the segment's text."""
        ...


def wanted(segment: Segment, existing: Existing) -> bool:
    """Whether a segment is to be translated."""
    if segment.status is Status.EMPTY or existing is Existing.ALL:
        return True
    return segment.status is Status.FUZZY and existing is Existing.FUZZY


def text_hash(text: str) -> str:
    """The id of a text without one: 64 bits of BLAKE2b."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def pointer_part(key: str) -> str:
    """A key escaped for a JSON Pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1") if "~" in key or "/" in key else key


def line_of(content: str, at: int) -> int:
    """The line of a place, from 1."""
    return content.count("\n", 0, at) + 1


def newline_of(content: str) -> str:
    """The line end of the first line."""
    end = content.find("\n")
    return "\r\n" if end > 0 and content[end - 1] == "\r" else "\n"
