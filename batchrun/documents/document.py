"""A document: bytes of one format, its segments with lasting names, and the same bytes with some of them replaced."""

import codecs
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import NamedTuple, cast

from batchrun.documents.fit import misfit
from batchrun.documents.segment import (
    DocumentError,
    Edit,
    Existing,
    Format,
    Segment,
    Status,
    Value,
    splice,
    text_hash,
    wanted,
)

_XML = frozenset({"android", "xliff", "ts", "resx", "tmx"})
_DECLARED = re.compile(rb"""<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z][\w.-]*)""")
_WITHOUT_MARK = {"utf-16": "utf-16-le", "utf-32": "utf-32-le", "utf-8-sig": "utf-8"}
"""Codecs that would take a byte order mark for their own."""
_LONGEST_ID = 200
_CHARSET = re.compile(rb'"Content-Type:[^"\n]*charset=([A-Za-z0-9_.:-]+)')


class Entry(NamedTuple):
    """A segment and its name, which stays the same while its text does; `line` is where it stands in the file."""

    name: str
    segment: Segment
    line: int

    def around(self, value: Value) -> Value:
        """The blanks around the source's text, put around a text or around each form."""
        text = self.segment.text
        stripped = text.strip()
        if stripped == text:
            return value
        before, after = text.split(stripped, 1)
        if isinstance(value, str):
            return f"{before}{value}{after}"
        return {name: f"{before}{form}{after}" for name, form in value.items()}


class Document:
    """The bytes of one file read as a format. `language` is the code of the target.

    `existing` says which translations that are there already are made again; `encoding` is that of the file where it
    says none itself and it is not UTF-8. Raises DocumentError where the bytes are
    no text in the encoding of the format.
    """

    def __init__(
        self,
        format: str,
        data: bytes,
        *,
        language: str | None = None,
        existing: Existing = Existing.KEEP,
        encoding: str | None = None,
    ) -> None:
        self.format = format
        self._existing = existing
        self._encoding = encoding_of(format, data, encoding)
        self._xml = format in _XML
        content = _decoded(data, self._encoding)
        if self._xml and not content.isascii():
            content = (data if self._encoding == "utf-8" else content.encode()).decode("latin-1")
        self._content = content
        self._reader = _reader(format)(self._content, language)

    def entries(self) -> Iterator[Entry]:
        """The segments to translate, each under a name of its own, in the order of the document.

        The name is the format's own id; where that is only a position it is a hash of the source text. Equal ones get
        an occurrence number. Raises DocumentError.
        """
        seen: dict[str, int] = {}
        line, at, count = 1, 0, self._content.count
        existing, empty = self._existing, Status.EMPTY
        for segment in self._reader.segments():
            text, start, name = segment.text, segment.start, segment.id
            if (segment.status is not empty and not wanted(segment, existing)) or not text or text.isspace():
                continue
            if name is None or len(name) > _LONGEST_ID:
                name = name_of(segment)
            if name in seen:
                seen[name] += 1
                name = f"{name}#{seen[name]}"
            else:
                seen[name] = 1
            line += count("\n", at, start)
            at = start
            yield Entry(name, segment, line)

    @property
    def encoding(self) -> str | None:
        """The encoding that cannot have every character; None where all can be written."""
        return None if self._xml or self._encoding.startswith("utf-") else self._encoding

    def misfit(self, segment: Segment, value: str) -> str | None:
        """Why a text would damage the document in the place of the segment."""
        return misfit(segment.kind, segment.text, value) or unwritable(value, self.encoding)

    def written(self, values: Iterable[tuple[str, Value]], *, trimmed: bool = False) -> Iterator[bytes]:
        """The document with the segments of these names replaced, in pieces; names come in the order of the segments.

        A segment without a value stays as it is. With `trimmed` the blanks around each source text are put back. Raises DocumentError for a name that the document does not have.
        """
        pieces = splice(self._content, self._edits(values, trimmed=trimmed))
        if not self._xml:
            encoder = codecs.getincrementalencoder(self._encoding)()
            yield from map(encoder.encode, pieces)
            yield encoder.encode("", final=True)
        elif self._encoding == "utf-8":
            yield from (piece.encode("latin-1") for piece in pieces)
        else:
            decoder = codecs.getincrementaldecoder("utf-8")()
            texts = (decoder.decode(piece.encode("latin-1")) for piece in pieces)
            yield from (text.encode(self._encoding, "xmlcharrefreplace") for text in texts)

    def _edits(self, values: Iterable[tuple[str, Value]], *, trimmed: bool) -> Iterator[Edit]:
        entries = self.entries()
        entry = next(entries, None)
        opened = False
        for name, value in values:
            while entry is not None and entry.name != name:
                entry = next(entries, None)
            if entry is None:
                raise DocumentError(f"the document has no segment {name!r} in this order")
            if not opened:
                opened = True
                yield from self._reader.opening()
            yield from self._reader.edits(entry.segment, entry.around(value) if trimmed else value)


def _reader(format: str) -> Callable[[str, str | None], Format]:
    """The class that reads a format; only what is needed is loaded."""
    module, _, name = _READERS[format].partition(":")
    return cast("Callable[[str, str | None], Format]", getattr(import_module(f"batchrun.documents.{module}"), name))


def name_of(segment: Segment) -> str:
    """The format's own id, shortened where it is a long text; `~` and a hash of the text where there is none."""
    if segment.id is None:
        return f"~{text_hash(segment.text)}"
    return segment.id if len(segment.id) <= _LONGEST_ID else f"{segment.id[:_LONGEST_ID]}…{text_hash(segment.id)}"


def unwritable(value: str, encoding: str | None) -> str | None:
    """Why a text cannot be written in an encoding (None: one that has every character)."""
    try:
        value.encode(encoding or "utf-8")
    except UnicodeEncodeError as error:
        return f"{value[error.start]!r} cannot be written in {(encoding or 'utf-8').upper()}"
    return None


def encoding_of(format: str, data: bytes, chosen: str | None = None) -> str:
    """The codec that gives the content and back the same bytes; a byte order mark stays part of the content.

    What the file itself says wins over what is chosen.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16-le" if data[:1] == b"\xff" else "utf-16-be"
    if format == "po" and (stated := _CHARSET.search(data)) is not None and stated[1] != b"CHARSET":
        return _known(stated[1])
    if format in _XML and (declared := _DECLARED.match(data)) is not None:
        return _known(declared[1])
    if chosen is not None:
        return _WITHOUT_MARK.get(codecs.lookup(chosen).name, chosen)
    return "latin-1" if format == "properties" and not _is_utf8(data) else "utf-8"


def _known(stated: bytes) -> str:
    """A name of an encoding as it is compared here: UTF-8 has two spellings, each with capitals or without."""
    name = stated.decode("ascii").lower()
    return "utf-8" if name == "utf8" else name


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decoded(data: bytes, encoding: str) -> str:
    try:
        content = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DocumentError(f"line {line}: not text in {encoding.upper()}") from None
    except LookupError:
        raise DocumentError(f"its encoding {encoding} is not known") from None
    if not encoding.startswith("utf-") and content.encode(encoding) != data:
        raise DocumentError(f"written again in {encoding.upper()} it would not be the same: save it as UTF-8")
    return content


_READERS: Mapping[str, str] = {
    "srt": "subtitles:SubRip",
    "vtt": "subtitles:WebVtt",
    "po": "po:Catalog",
    "markdown": "markdown:Markdown",
    "text": "paragraphs:PlainText",
    "json": "jsontree:JsonTree",
    "arb": "jsontree:Arb",
    "xcstrings": "xcstrings:StringCatalog",
    "android": "android:AndroidStrings",
    "xliff": "xliff:Xliff",
    "ts": "xmlcatalogs:QtTranslations",
    "resx": "xmlcatalogs:Resx",
    "tmx": "xmlcatalogs:TranslationMemory",
    "yaml": "yamltree:YamlTree",
    "strings": "properties:AppleStrings",
    "properties": "properties:JavaProperties",
}
FORMATS = tuple(_READERS)
"""The formats there are, by name."""
