"""The format of an input, by content, then by suffix.

Else equally wide lines under a header of short names are a table; all else is text.
"""

import re
import tomllib
import zipfile
from functools import cache
from importlib import resources
from json import JSONDecodeError, JSONDecoder
from typing import NamedTuple

from batchrun.errors import InputError
from batchrun.filetypes import type_of
from batchrun.rows.check import RefusedRowError, parse
from batchrun.rows.source import BOM, Source
from batchrun.rows.table import DELIMITERS, is_regular, widths

JSONL_SUFFIXES = (".jsonl", ".ndjson", ".json", ".jsonlines")
TEXT_SUFFIXES = (".txt", ".text", ".md", ".markdown", ".log", ".rst")
BY_SUFFIX = {
    **dict.fromkeys(JSONL_SUFFIXES, "jsonl"),
    **dict.fromkeys((".csv", ".psv"), "csv"),
    **dict.fromkeys((".tsv", ".tab"), "tsv"),
    **dict.fromkeys(TEXT_SUFFIXES, "text"),
}
DOCUMENTS = ("pdf", "docx", "epub", "html")  # formats of one row per file
_HEAD = 64 * 1024
_ARRAY = re.compile(r"\s*\[\s*[{\]]")
_COLUMN = re.compile(r"[^\W\d][\w.-]*( [\w.-]+){0,3}")
_HTML = re.compile(r"\s*<(!doctype html|html)\b", re.IGNORECASE)
_HTML_SUFFIXES = (".html", ".htm", ".xhtml")
_UTF16 = "Read it with --encoding utf-16, or save it as UTF-8."
_UNPACK = "Unpack it, and use a file or the directory as the input."
# offset, magic number, description, hint (file(1), magic/Magdir/archive and compress)
_UNREADABLE = (
    (0, b"\xff\xfe", "UTF-16", _UTF16),
    (0, b"\xfe\xff", "UTF-16", _UTF16),
    (0, b"\xd0\xcf\x11\xe0", "an Excel workbook or Word document in the old format (.xls, .doc)", "Save it as .xlsx or CSV, .docx or text."),
    (0, b"SQLite format 3\0", "an SQLite database", "Export the table as CSV or JSONL first."),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (0, b"\xfd7zXZ\0", "an xz file", "Unpack it; gzip and zstd are read as they are."),
    (4, b"1AY&SY", "a bzip2 file", "Unpack it; gzip and zstd are read as they are."),
    (257, b"ustar", "a tar archive", _UNPACK),
)  # fmt: skip
_PACKED = ((b"PAR1", "parquet"), (b"ARROW1", "arrow"), (b"\xff\xff\xff\xff", "arrow"), (b"%PDF-", "pdf"))
_NAMES = {"parquet": "a Parquet file", "arrow": "an Arrow file", "pdf": "a PDF file", "excel": "an Excel workbook"}
_SENTENCE_END = re.compile(r"[.!?…:。！？][\"'”’»)\]]*$")


class Archive(NamedTuple):
    what: str
    format: str | None  # None: unreadable
    hint: str


def format_of(source: Source, *, decoded: bool = False) -> str:
    """`decoded`: in any encoding. Raises InputError."""
    data = source.head(_HEAD)
    if not data.removeprefix(BOM).strip():
        raise InputError(f"{source.name} has no rows: it is empty.")
    packed = next((format for magic, format in _PACKED if data.startswith(magic)), None)
    if packed is None and data.startswith(b"PK\x03\x04"):
        packed = _zip_format(source)
    if packed is not None:
        if source.packed():
            what = _NAMES.get(packed, "a document")
            raise InputError(f"{source.name} is {what} inside an archive.", "Unpack it first.")
        return packed
    if not decoded:
        _refuse_unreadable(data, source.name)
    text = data.removeprefix(BOM).decode(errors="replace")
    return _by_content(text, source.suffix) or BY_SUFFIX.get(source.suffix) or _by_shape(text)


def is_wrapped(text: str) -> bool:
    """Whether sentences continue from line to line."""
    paragraphs = [lines for part in re.split(r"\n[ \t\r]*\n", text) if len(lines := part.strip().splitlines()) > 0]
    inner = [line.rstrip() for lines in paragraphs for line in lines[:-1]]
    ends = [lines[-1].rstrip() for lines in paragraphs if len(lines) > 1]
    if len(ends) < 2:
        return False
    running = sum(not _SENTENCE_END.search(line) for line in inner)
    ended = sum(bool(_SENTENCE_END.search(line)) for line in ends)
    return running * 2 > len(inner) and ended * 3 >= len(ends) * 2


def _zip_format(source: Source) -> str:
    if source.packed():
        return "excel"
    try:
        with zipfile.ZipFile(source.path) as archive:
            found = zip_kind(archive)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise InputError(
            f"{source.name} cannot be read as a ZIP archive: {error}.", "Copy or download it again."
        ) from error
    if found.format is None:
        raise InputError(f"{source.name} is {found.what}, which cannot be read.", found.hint)
    return found.format


def zip_kind(archive: zipfile.ZipFile) -> Archive:
    """Raises zipfile's errors."""
    names = archive.namelist()
    mimetype = ""
    if "mimetype" in names:
        with archive.open("mimetype") as file:
            mimetype = file.read(100).decode("ascii", "replace").strip()
    for kind in _kinds():
        if kind.get("member") in names or (mimetype and kind.get("mimetype") == mimetype):
            return Archive(kind["what"], kind.get("format"), kind.get("hint", ""))
    return Archive("a ZIP archive", None, _UNPACK)


@cache
def _kinds() -> list[dict[str, str]]:
    table = resources.files("batchrun.rows").joinpath("archives.toml").read_text(encoding="utf-8")
    return tomllib.loads(table)["kinds"]


def _refuse_unreadable(data: bytes, name: str) -> None:
    for at, magic, what, hint in _UNREADABLE:
        if data.startswith(magic, at):
            raise InputError(f"{name} is {what}, which cannot be read.", hint)
    media = type_of(data)
    if media is not None and b"\0" in data:  # a text may begin like one
        hint = f"To send it, use a prompt with an input of the kind {media.kind}: docs/media.md."
        raise InputError(f"{name} is not text: its content is {media.type}.", hint)
    start = data[:64].removeprefix(BOM)
    if len(start) > 3 and (start[1::2].count(0) * 4 > len(start) or start[::2].count(0) * 4 > len(start)):
        raise InputError(f"{name} looks like UTF-16 or a binary file, not like UTF-8 text.", _UTF16)


def is_html(text: str, suffix: str) -> bool:
    return suffix in _HTML_SUFFIXES or _HTML.match(text) is not None


def _by_content(text: str, suffix: str) -> str | None:
    if is_html(text, suffix):
        return "html"
    if _ARRAY.match(text) or (suffix == ".json" and text.lstrip().startswith("[")):
        return "json"
    first = text.lstrip().partition("\n")[0]
    if not first.startswith("{"):
        return None
    if _is_sequence(text.lstrip(), first):
        return "objects"
    return "jsonl" if suffix not in BY_SUFFIX or _is_object(first) else None


def _is_sequence(text: str, first: str) -> bool:
    # whether the objects are not one per line
    try:
        value, end = JSONDecoder().raw_decode(text)
    except JSONDecodeError as error:
        cut = error.pos >= len(text) - 1 or error.msg.startswith("Unterminated string")
        return cut and len(first) < len(text) and len(text) >= _HEAD // 2
    except (ValueError, RecursionError):  # too many digits, nested too deeply: the reader reports the line
        return False
    if not isinstance(value, dict):
        return False
    return end > len(first) or first[end:].lstrip().startswith("{")


def _is_object(line: str) -> bool:
    try:
        parse(line)
    except RefusedRowError:
        return False
    return True


def _by_shape(text: str) -> str:
    for delimiter in DELIMITERS:
        found = widths(text, delimiter)
        names = text.lstrip().partition("\n")[0].rstrip("\r").split(delimiter)
        if len(found) > 1 and is_regular(found) and all(_COLUMN.fullmatch(name.strip('"')) for name in names):
            return "tsv" if delimiter == "\t" else "csv"
    return "text"
