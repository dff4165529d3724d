"""A segment: one text of a document, where it stands, and what its format knows of it. Ranges become edits here.

A document's content is text, decoded with a codec that gives the same bytes back, so that a range of the content is a
range of the file's bytes; where a window is read, places are those in it. In XML, whose parser counts bytes, a character of the content stands for one byte of UTF-8.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Protocol


class DocumentError(Exception):
    """The file is not what its format says; the message names the line."""


class Existing(StrEnum):
    """Which segments that have a translation already are translated again."""

    KEEP = "keep"
    FUZZY = "fuzzy"
    ALL = "all"


class Status(StrEnum):
    """What the target of a segment is; a format that holds one language only has no targets."""

    EMPTY = "empty"
    FUZZY = "fuzzy"
    TRANSLATED = "translated"


class Kind(StrEnum):
    """What may stand in the place of a segment: any text, or one that stays a cue, a paragraph, a line, XML."""

    TEXT = "text"
    CUE = "cue"
    PARAGRAPH = "paragraph"
    BLOCK = "block"
    LINE = "line"
    XML = "xml"
    MARKUP = "markup"


class Plural(NamedTuple):
    """A unit with plural forms: its source texts by form, and the forms of the target, each with what it is used for."""

    sources: Mapping[str, str]
    forms: Mapping[str, str]


class Segment(NamedTuple):
    """One text to translate.

    `id` is the format's own name for it, None where that is only a position. `text` is what a reader sees, line ends as
    `\\n`, escapes of the format undone; of a unit with plural forms it is the source form `other`. What stands from
    `start` to `end` is replaced; `style` tells the format how to spell that, `kind` what can stand there. `context` is neighbouring source text,
    `note` what developers say about it, `max` the most characters its translation may have.
    """

    id: str | None
    text: str
    start: int
    end: int
    style: Any = None
    kind: Kind = Kind.TEXT
    status: Status = Status.EMPTY
    context: str = ""
    note: str = ""
    max: int | None = None
    plural: Plural | None = None


Value = str | Mapping[str, str]
"""What replaces a segment: a text, or one for each plural form of the target."""


class Edit(NamedTuple):
    """Replace the content from `start` to `end`."""

    start: int
    end: int
    text: str


class Format(Protocol):
    """What a format module offers, bound to the content of one document."""

    def segments(self) -> Iterator[Segment]:
        """All segments in the order of the document. Raises DocumentError."""
        ...

    def opening(self) -> Iterable[Edit]:
        """Edits at the head of the document, made where any segment is replaced; the first one has been read."""
        ...

    def edits(self, segment: Segment, value: Value) -> Iterable[Edit]:
        """The edits, in order, that put `value` in the place of the segment's text."""
        ...


def wanted(segment: Segment, existing: Existing) -> bool:
    """Whether a segment is to be translated."""
    if segment.status is Status.EMPTY or existing is Existing.ALL:
        return True
    return segment.status is Status.FUZZY and existing is Existing.FUZZY


def text_hash(text: str) -> str:
    """What identifies a text that only has a position: 64 bits of BLAKE2b in hexadecimal."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def line_of(content: str, at: int) -> int:
    """The 1-based line of a place in the content."""
    return content.count("\n", 0, at) + 1


def newline_of(content: str) -> str:
    """The line end of a text: that of its first line."""
    end = content.find("\n")
    return "\r\n" if end > 0 and content[end - 1] == "\r" else "\n"
