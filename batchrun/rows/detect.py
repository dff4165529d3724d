"""Which format an input is: by its content first, then by its suffix.

`PAR1` and zip are Parquet and Excel, a first line that is a JSON object is JSONL and `[` before an object is a JSON
array, whatever the file is called. Beyond that the suffix decides; where there is none that says anything (stdin),
lines that are equally wide under a header of short plain names are a table, and all else is text.
"""

import re

from batchrun.errors import InputError
from batchrun.rows.check import RefusedRowError, parse
from batchrun.rows.source import BOM, Source
from batchrun.rows.table import DELIMITERS, widths

JSONL_SUFFIXES = (".jsonl", ".ndjson", ".json", ".jsonlines")
BY_SUFFIX = {
    **dict.fromkeys(JSONL_SUFFIXES, "jsonl"),
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    **dict.fromkeys((".txt", ".text", ".md", ".markdown", ".log", ".rst"), "text"),
}
_ARRAY = re.compile(r"\s*\[\s*[{\]]")
_COLUMN = re.compile(r"[^\W\d][\w.-]*( [\w.-]+){0,3}")
_UNREADABLE = (
    (b"\xff\xfe", "UTF-16", "Save it as UTF-8 (iconv -f UTF-16 -t UTF-8)."),
    (b"\xfe\xff", "UTF-16", "Save it as UTF-8 (iconv -f UTF-16 -t UTF-8)."),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook of the old kind (.xls)", "Save it as .xlsx or CSV."),
    (b"%PDF-", "a PDF file", "Extract its text first."),
    (b"SQLite format 3\0", "an SQLite database", "Export the table as CSV or JSONL first."),
)


def format_of(source: Source) -> str:
    """jsonl, json, csv, tsv, text, parquet or excel. Raises InputError for what is none of them."""
    data = source.head()
    if not data.removeprefix(BOM).strip():
        raise InputError(f"{source.name} has no rows: it is empty.")
    packed_table = _packed_table(data)
    if packed_table:
        if source.packed():
            raise InputError(
                f"{source.name} is a {packed_table.capitalize()} file inside an archive.", "Unpack it first."
            )
        return packed_table
    _refuse_unreadable(data, source.name)
    text = data.removeprefix(BOM).decode(errors="replace")
    return _by_content(text, source.suffix) or BY_SUFFIX.get(source.suffix) or _by_shape(text)


def _packed_table(data: bytes) -> str | None:
    if data.startswith(b"PAR1"):
        return "parquet"
    return "excel" if data.startswith(b"PK\x03\x04") else None


def _refuse_unreadable(data: bytes, name: str) -> None:
    for magic, what, hint in _UNREADABLE:
        if data.startswith(magic):
            raise InputError(f"{name} is {what}, which cannot be read.", hint)
    start = data[:64].removeprefix(BOM)
    if len(start) > 3 and (start[1::2].count(0) * 4 > len(start) or start[::2].count(0) * 4 > len(start)):
        raise InputError(f"{name} looks like UTF-16 or a binary file, not like text.", "Save it as UTF-8.")


def _by_content(text: str, suffix: str) -> str | None:
    if _ARRAY.match(text) or (suffix == ".json" and text.lstrip().startswith("[")):
        return "json"
    first = text.lstrip().partition("\n")[0]
    if first.startswith("{") and (suffix not in BY_SUFFIX or _is_object(first)):
        return "jsonl"
    return None


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
        regular = len(found) > 1 and found[0] > 1 and len(set(found)) == 1
        if regular and all(_COLUMN.fullmatch(name.strip('"')) for name in names):
            return "tsv" if delimiter == "\t" else "csv"
    return "text"
