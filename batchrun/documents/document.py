"""A document: its segments under stable names, and its bytes with segments replaced."""

import codecs
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from itertools import chain
from typing import NamedTuple, cast

from batchrun.documents import xml_text
from batchrun.documents.segment import (
    CHUNK,
    DocumentError,
    Existing,
    Format,
    Kind,
    Segment,
    Splicer,
    Status,
    Value,
    Window,
    text_hash,
    wanted,
)
from batchrun.models import made

Chunks = Callable[[], Iterable[bytes]]  # the bytes of a file from its beginning

_XML = frozenset({"android", "xliff", "ts", "resx", "tmx"})
_WINDOWED = _XML | {"po", "json", "arb"}  # read in a window if they are UTF-8
_HEAD = 1 << 16  # bytes in which a file states its encoding
_PIECE = 1 << 16
_DECLARED = re.compile(rb"""<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z][\w.-]*)""")
# codecs that would consume a byte order mark
_WITHOUT_MARK = {"utf-16": "utf-16-le", "utf-32": "utf-32-le", "utf-8-sig": "utf-8"}
_LONGEST_ID = 200
_CHARSET = re.compile(rb'"Content-Type:[^"\n]*charset=([A-Za-z0-9_.:-]+)')


class Entry(NamedTuple):
    """The name stays the same as long as the text."""

    name: str
    segment: Segment
    line: int

    def around(self, value: Value) -> Value:
        """With the blanks around the source's text."""
        text = self.segment.text
        stripped = text.strip()
        if stripped == text:
            return value
        before, after = text.split(stripped, 1)
        if isinstance(value, str):
            return f"{before}{value}{after}"
        return {name: f"{before}{form}{after}" for name, form in value.items()}


class Document:
    """`encoding` applies if the file states none and is not UTF-8. Raises DocumentError, at the latest when read, for a
    wrong encoding.
    """

    def __init__(
        self,
        format: str,
        data: bytes | Chunks,
        *,
        language: str | None = None,
        existing: Existing = Existing.KEEP,
        encoding: str | None = None,
    ) -> None:
        chunks = _chunks_of(data) if isinstance(data, bytes) else data
        head = _head(chunks)
        self.format = format
        self._language = language
        self._existing = existing
        self._encoding = encoding_of(format, b"".join(chunks()) if format == "properties" else head, encoding)
        self._xml = format in _XML
        self._chunks = chunks
        self._whole = None
        if self._encoding != "utf-8" or format not in _WINDOWED:
            content = _decoded(b"".join(chunks()), self._encoding)
            if self._xml:
                content = content.encode().decode("latin-1")
            self._whole = content

    def entries(self) -> Iterator[Entry]:
        """Names are ids, or hashes where an id is only a position. Raises DocumentError."""
        window = self._window()
        return cast("Iterator[Entry]", self._entries(window, self._reader(window)))

    def _window(self) -> Window:
        whole = self._whole
        if whole is None:
            return Window(_parts(self._chunks(), xml=self._xml), self._chunks)
        data = partial(whole.encode, "latin-1" if self._xml else "utf-8", "surrogatepass")
        return Window((whole,), lambda: (data(),))

    def _reader(self, window: Window) -> Format:
        module, _, name = _READERS[self.format].partition(":")
        found = getattr(import_module(f"batchrun.documents.{module}"), name)
        return found(window if self.format in _WINDOWED else window.text, self._language)

    def _entries(self, window: Window, reader: Format, *, steps: bool = False) -> Iterator[Entry | None]:
        # with `steps` also None wherever the window has moved
        distinct = Names().distinct
        line, at, text = 1, 0, window.text
        existing, empty = self._existing, Status.EMPTY
        for segment in reader.segments():
            if text is not window.text:
                text, line, at = window.text, window.line(0), 0
                if steps:
                    yield None
            name, source, start, _, _, _, status, _, _, _, _ = segment
            if (status is not empty and not wanted(segment, existing)) or not source or source.isspace():
                continue
            line += text.count("\n", at, start)
            at = start
            if name is None or len(name) > _LONGEST_ID:
                name = name_of(segment)
            yield made(Entry, (distinct(name), segment, line))

    @property
    def encoding(self) -> str | None:
        """Only if it lacks characters."""
        return None if self._xml or self._encoding.startswith("utf-") else self._encoding

    def misfit(self, segment: Segment, value: str) -> str | None:
        return misfit(segment.kind, segment.text, value) or unwritable(value, self.encoding)

    def written(self, values: Iterable[tuple[str, Value]], *, trimmed: bool = False) -> Iterator[bytes]:
        """In document order; `trimmed` restores blanks around source texts. Raises DocumentError."""
        pieces = self._spliced(iter(values), trimmed=trimmed)
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

    def _spliced(self, values: Iterator[tuple[str, Value]], *, trimmed: bool) -> Iterator[str]:
        window = self._window()
        reader = self._reader(window)
        splicer = Splicer(window)
        following = next(values, None)
        if following is not None:
            splicer.opening = reader.opening
        for entry in self._entries(window, reader, steps=True):
            if following is not None and entry is not None and entry.name == following[0]:
                value = following[1]
                splicer.replace(reader.edits(entry.segment, entry.around(value) if trimmed else value))
                following = next(values, None)
            if splicer.held >= _PIECE:
                yield splicer.taken()
            if following is None:
                break
        if following is not None:
            raise DocumentError(f"the document has no segment {following[0]!r} in this order")
        yield splicer.taken()
        yield from window.rest(splicer.at)


def name_of(segment: Segment) -> str:
    """The format's id, shortened if long, or a hash."""
    if segment.id is None:
        return f"~{text_hash(segment.text)}"
    return segment.id if len(segment.id) <= _LONGEST_ID else f"{segment.id[:_LONGEST_ID]}…{text_hash(segment.id)}"


def unwritable(value: str, encoding: str | None) -> str | None:
    try:
        value.encode(encoding or "utf-8")
    except UnicodeEncodeError as error:
        return f"{value[error.start]!r} cannot be written in {(encoding or 'utf-8').upper()}"
    return None


def encoding_of(format: str, data: bytes, chosen: str | None = None) -> str:
    """A codec that round-trips; what the file states wins."""
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
    name = stated.decode("ascii").lower()
    return "utf-8" if name == "utf8" else name


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _chunks_of(data: bytes) -> Chunks:
    return lambda: (data[at : at + CHUNK] for at in range(0, len(data), CHUNK))


def _head(chunks: Chunks) -> bytes:
    head = b""
    for chunk in chunks():
        head += chunk
        if len(head) >= _HEAD:
            break
    return head


def _parts(chunks: Iterable[bytes], *, xml: bool) -> Iterator[str]:
    # in XML a character per byte
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = 1
    for chunk in chain(chunks, [b""]):
        try:
            text = decoder.decode(chunk, not chunk)
        except UnicodeDecodeError as error:
            lines += error.object.count(b"\n", 0, error.start)
            raise DocumentError(f"line {lines}: not text in UTF-8") from None
        lines += chunk.count(b"\n")
        yield chunk.decode("latin-1") if xml else text


def _decoded(data: bytes, encoding: str) -> str:
    try:
        content = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DocumentError(f"line {line}: not text in {encoding.upper()}") from None
    except LookupError:
        raise DocumentError(f"its encoding {encoding} is unknown") from None
    if not encoding.startswith("utf-") and content.encode(encoding) != data:
        raise DocumentError(f"it cannot be written back unchanged in {encoding.upper()}: save it as UTF-8")
    return content


_READERS: Mapping[str, str] = {
    "srt": "texts:SubRip",
    "vtt": "texts:WebVtt",
    "po": "po:Catalog",
    "markdown": "markdown:Markdown",
    "text": "texts:PlainText",
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


_FEW, _MANY = 1 << 10, 1 << 18  # initial slots, and after the first growth

_FREE = array("q", [0]) * _FEW


class Names:
    """Numbers repeated names in 12 to 24 bytes each (150 in a dict): 64-bit hashes with linear probing (Knuth, The Art
    of Computer Programming, 6.4, algorithm L).
    """

    def __init__(self) -> None:
        self._again: dict[str, int] = {}
        self._table = array("q", _FREE)
        self._mask, self._free = _FEW - 1, _FEW * 2 // 3

    def distinct(self, name: str) -> str:
        """With its occurrence number if repeated."""
        table, mask = self._table, self._mask
        key = hash(name) or 1
        place = key & mask
        while there := table[place]:
            if there == key:
                self._again[name] = number = self._again.get(name, 1) + 1
                return f"{name}#{number}"
            place = (place + 1) & mask
        table[place] = key
        self._free -= 1
        if not self._free:
            self._grow()
        return name

    def _grow(self) -> None:
        # Entries are moved from behind a free slot, so that probe sequences stay in order.
        table, before = self._table, self._mask
        slots = max(2 * len(table), _MANY)
        for _ in range(len(table), slots, _FEW):
            table.extend(_FREE)
        self._mask = mask = slots - 1
        self._free += (slots - before - 1) * 2 // 3
        begin = table.index(0)
        for number in range(begin, begin + before + 1):
            if key := table[number & before]:
                table[number & before] = 0
                place = key & mask
                while table[place]:
                    place = (place + 1) & mask
                table[place] = key


_BLANK_LINE = re.compile(r"^[^\S\n]*$", re.MULTILINE)


def misfit(kind: Kind, source: str, value: str) -> str | None:
    """Why `value` would damage the document in place of `source`."""
    if "\0" in value:
        return "it has a NUL character"
    if kind in (Kind.CUE, Kind.PARAGRAPH):
        if "-->" in value and kind is Kind.CUE and "-->" not in source:
            return 'a cue cannot contain "-->"'
        blank = _has_blank_line(value) and not _has_blank_line(source)
        return f"a {kind} cannot contain a blank line" if blank else None
    if kind is Kind.LINE:
        return "it has to be one line" if "\n" in value else None
    if kind is Kind.BLOCK:
        from batchrun.documents.markdown import shape  # noqa: PLC0415  only where there is Markdown

        return None if shape(value) == shape(source) else "it is not the same kind of Markdown block as its source"
    return xml_text.misfit(source, value, markup=kind is Kind.MARKUP) if kind in (Kind.XML, Kind.MARKUP) else None


def _has_blank_line(text: str) -> bool:
    return "\n" in text and _BLANK_LINE.search(text) is not None
