"""The text of PDF (extra `documents`), Word, EPUB and HTML documents."""

import io
import posixpath
import re
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.parsers import expat

from batchrun.rows.detect import is_html, zip_kind
from batchrun.rows.extras import library

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_COMPATIBILITY = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_CONTAINER = "{urn:oasis:names:tc:opendocument:xmlns:container}"
_PACKAGE = "{http://www.idpf.org/2007/opf}"
_LIMIT = 256 * 1024 * 1024
_BLANKS = re.compile(r"[ \t\r\n\f]+")
_BLOCK_NAMES = """
    address article aside blockquote body dd details div dl dt fieldset figcaption figure footer form h1 h2 h3 h4
    h5 h6 header hr html li main nav ol p pre section table td th title tr ul
"""
_BLOCKS = frozenset(_BLOCK_NAMES.split())
_INVISIBLE = frozenset({"script", "style", "template", "noscript", "svg", "math", "head"})


class UnreadableError(Exception):
    """The message is the reason."""


def document_text(data: bytes, suffix: str) -> str | None:
    """None for other formats. Raises UnreadableError, RefusedError."""
    if data.startswith(b"%PDF-"):
        return _pdf_text(data)
    if data.startswith(b"PK\x03\x04"):
        return _packed_text(data)
    if is_html(data[:1024].decode("latin-1"), suffix):
        return _html_text(_decoded(data))
    return None


def _pdf_text(data: bytes) -> str:
    pypdf = library("pdf")
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableError("an encrypted PDF file: save it without a password")
        pages = [page.extract_text() for page in reader.pages]
    except UnreadableError:
        raise
    except Exception as error:
        raise UnreadableError(f"a damaged PDF file ({type(error).__name__})") from error
    text = "\n\n".join(page.strip() for page in pages if page.strip())
    if not text:
        raise UnreadableError("a PDF file without text, possibly scanned: run OCR on it (ocrmypdf)")
    return text


def _packed_text(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            kind = zip_kind(archive)
            if sum(entry.file_size for entry in archive.infolist()) > _LIMIT:
                raise UnreadableError(f"larger than {_LIMIT // 1024**2} MiB unpacked")
            if kind.format == "docx":
                return _docx_text(archive)
            if kind.format == "epub":
                return _epub_text(archive)
    except (zipfile.BadZipFile, ElementTree.ParseError, expat.ExpatError, KeyError, RuntimeError, EOFError) as error:
        raise UnreadableError(f"a damaged document ({type(error).__name__})") from error
    raise UnreadableError(f"{kind.what}: {kind.hint or 'use the file itself as the input'}")


def _docx_text(archive: zipfile.ZipFile) -> str:
    # table cells included, without deleted text
    body = _xml(archive.read("word/document.xml"))
    paragraphs = ["".join(_runs(paragraph)) for paragraph in body.iter(f"{_WORD}p")]
    text = "\n\n".join(paragraph for paragraph in paragraphs if paragraph.strip())
    if not text:
        raise UnreadableError("a Word document without text")
    return text


def _runs(element: ElementTree.Element) -> Iterator[str]:
    for child in element:
        if child.tag == f"{_WORD}t":
            yield child.text or ""
        elif child.tag in (f"{_WORD}tab", f"{_WORD}ptab"):
            yield "\t"
        elif child.tag in (f"{_WORD}br", f"{_WORD}cr"):
            yield "\n"
        elif child.tag not in (f"{_WORD}p", f"{_WORD}del", f"{_WORD}pPr", f"{_WORD}rPr", _COMPATIBILITY):
            yield from _runs(child)


def _epub_text(archive: zipfile.ZipFile) -> str:
    # in the order of the spine (EPUB 3.3, 5.7)
    container = _xml(archive.read("META-INF/container.xml"))
    root = next(container.iter(f"{_CONTAINER}rootfile")).get("full-path", "")
    package = _xml(archive.read(root))
    items = {item.get("id"): item for item in package.iter(f"{_PACKAGE}item")}
    chapters: list[str] = []
    for reference in package.iter(f"{_PACKAGE}itemref"):
        item = items.get(reference.get("idref"))
        if item is None or "html" not in item.get("media-type", "") or "nav" in item.get("properties", "").split():
            continue
        place = posixpath.normpath(posixpath.join(posixpath.dirname(root), unquote(item.get("href", ""))))
        chapters.append(_html_text(_decoded(archive.read(place))))
    text = "\n\n".join(chapter for chapter in chapters if chapter)
    if not text:
        raise UnreadableError("an e-book without text, possibly made of pictures")
    return text


def _xml(data: bytes) -> ElementTree.Element:
    # Neither format has entities, which could expand without limit.
    if b"<!ENTITY" in data:
        raise UnreadableError("a document that declares entities")
    return ElementTree.fromstring(data)  # noqa: S314  no entities, and expat limits what is left


def _decoded(data: bytes) -> str:
    # The encoding is stated in 1024 bytes, or UTF-8 (WHATWG HTML, 4.2.5.4).
    stated = re.search(rb"""(?:charset|encoding)=["']?([A-Za-z0-9_.:-]+)""", data[:1024])
    for encoding in ("utf-8-sig", stated[1].decode("ascii") if stated else "utf-8"):
        try:
            return data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    raise UnreadableError("a page that is not text in the encoding it states")


def _html_text(page: str) -> str:
    reader = _Page()
    reader.feed(page)
    reader.close()
    return reader.text()


class _Page(HTMLParser):
    # visible text; `pre` keeps its lines

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._invisible = 0
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._invisible += tag in _INVISIBLE
        self._preformatted += tag == "pre"
        if tag == "br":
            self._parts.append("\n")
        elif tag in _BLOCKS:
            self._parts.append("\n\n")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS or tag == "br":
            self._parts.append("\n" if tag == "br" else "\n\n")

    def handle_endtag(self, tag: str) -> None:
        self._invisible = max(0, self._invisible - (tag in _INVISIBLE))
        self._preformatted = max(0, self._preformatted - (tag == "pre"))
        if tag in _BLOCKS:
            self._parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self._invisible:
            self._parts.append(data if self._preformatted else _BLANKS.sub(" ", data))

    def text(self) -> str:
        lines = "\n".join(line.rstrip() for line in "".join(self._parts).split("\n"))
        whole = re.sub(r"\n (?=\S)", "\n", lines)
        return re.sub(r"\n{3,}", "\n\n", whole).strip()
