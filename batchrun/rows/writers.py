"""Rows written as JSONL, CSV, TSV, Parquet or Excel.

In CSV a cell that a spreadsheet would take for a formula gets a `'` in front (OWASP, "CSV injection"): one that begins
with = + - @ (also full-width), a tab or a line break, also after blanks and quotation marks; numbers do not.
"""

import json
import math
import re
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from enum import Enum
from itertools import islice
from typing import Any, BinaryIO, NoReturn, Protocol

from jiter import from_json

from batchrun.display import printable
from batchrun.errors import StorageError
from batchrun.rows.check import members, one_line
from batchrun.rows.extras import library
from batchrun.rows.members import insert_members, output_line
from batchrun.rows.table import COMMAS, Table

_FORMULA = re.compile(r"[\t\r\n]|[\s'\"]*[=+\-@＝＋－＠]")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?")
_BATCH = 10_000
# Excel's limits (support.microsoft.com, "Excel specifications and limits")
SHEET_ROWS, CELL_LENGTH = 1_048_576, 32_767
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\r\x0e-\x1f\ufffe\uffff]")
_ESCAPE_LIKE = re.compile(r"_(?=x[0-9A-Fa-f]{4}_)")
_COMMON = {frozenset({"int", "float"}): "float", frozenset({"int", "long"}): "long"}
_TEXT = frozenset({str})
_spelled = json.JSONDecoder(parse_int=str, parse_float=str).decode


class RowWriter(Protocol):
    def write(self, text: str, additions: Mapping[str, str]) -> None:
        """`additions`: name to JSON text."""
        ...

    def close(self) -> None:
        """The stream stays open."""
        ...


def check_format(format: str) -> None:
    """Raises RefusedError if the format's extra is missing."""
    if format in ("parquet", "xlsx"):
        library("arrow" if format == "parquet" else "excel")


class Exact(Enum):
    """CSV cells written unchanged even if like formulas; OWN: the input's."""

    NOTHING = 0
    OWN = 1
    ALL = 2


def writer(
    format: str,
    stream: BinaryIO,
    *,
    columns: Sequence[str] = (),
    exact: Exact = Exact.NOTHING,
    table: Table = COMMAS,
) -> RowWriter:
    """Without `columns` the first row decides. Raises RefusedError."""
    if format == "jsonl":
        return JsonlWriter(stream)
    if format in ("csv", "tsv"):
        return CsvWriter(stream, columns, *((table, exact) if format == "csv" else (Table("\t"), Exact.ALL)))
    if format == "parquet":
        return ParquetWriter(stream)
    if format == "xlsx":
        return ExcelWriter(stream)
    raise ValueError(f"no writer for {format}")


class JsonlWriter:
    def __init__(self, stream: BinaryIO) -> None:
        self._put = stream.write

    def write(self, text: str, additions: Mapping[str, str]) -> None:
        self._put(output_line(text, additions))

    def close(self) -> None:
        pass


class CsvWriter:
    """RFC 4180; TSV has tabs, and LF instead of CRLF."""

    def __init__(self, stream: BinaryIO, columns: Sequence[str], table: Table, exact: Exact) -> None:
        self._stream = stream
        self._columns = dict.fromkeys(columns)
        self._own = _unchanged if exact is not Exact.NOTHING else neutral
        self._new = _unchanged if exact is Exact.ALL else neutral
        self._delimiter = table.delimiter
        self._end = "\n" if table.delimiter == "\t" else "\r\n"
        self._start = "\ufeff" if table.marked else ""
        if columns:
            self._put([self._own(name) for name in columns])

    def write(self, text: str, additions: Mapping[str, str]) -> None:
        """Raises StorageError for a column that the header lacks."""
        cells = _cells(text)
        if self._own is not _unchanged:
            cells = {name: self._own(cell) for name, cell in cells.items()}
        for name, value in additions.items():
            cells[name] = self._new(_cells(f'{{"":{value}}}')[""])
        if not self._columns:
            self._columns = dict.fromkeys(cells)
            self._put([self._own(name) for name in cells])
        if not cells.keys() <= self._columns.keys():
            _refuse_unknown(cells, self._columns)
        self._put([cells.get(name, "") for name in self._columns])

    def close(self) -> None:
        pass

    def _put(self, cells: list[str]) -> None:
        line = self._delimiter.join([quoted(cell, self._delimiter) for cell in cells])
        if not line and cells:
            line = '""'  # a cell, not a blank line
        self._stream.write(f"{self._start}{line}{self._end}".encode())
        self._start = ""


def quoted(cell: str, delimiter: str) -> str:
    """The standard library takes a hundred times as long for long texts."""
    if delimiter in cell or '"' in cell or "\n" in cell or "\r" in cell:
        return '"' + cell.replace('"', '""') + '"'
    return cell


class ExcelWriter:
    """Written on `close`, when all columns are known."""

    def __init__(self, stream: BinaryIO) -> None:
        self._openpyxl = library("excel")
        self._stream = stream
        self._rows = tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n")  # noqa: SIM115 (closed by close)
        self._columns: dict[str, None] = {}
        self._count = 1

    def write(self, text: str, additions: Mapping[str, str]) -> None:
        """Raises StorageError for what a sheet cannot hold."""
        line = one_line(insert_members(text, additions))
        for name, value in _cells(line).items():
            self._columns[name] = None
            if len(value) > CELL_LENGTH:
                self._refuse(f"a text of {len(value):,} characters is too long for a cell of Excel ({CELL_LENGTH:,})")
        self._count += 1
        if self._count > SHEET_ROWS:
            self._refuse(f"an Excel sheet has at most {SHEET_ROWS:,} rows")
        self._rows.write(line + "\n")

    def close(self) -> None:
        book = self._openpyxl.Workbook(write_only=True)
        sheet = book.create_sheet("rows")
        self._rows.seek(0)
        with self._rows, closing(sheet):
            sheet.append([self._text(sheet, name) for name in self._columns])
            for line in self._rows:
                values: dict[str, Any] = json.loads(line)
                texts = {member.name: line[member.value : member.end] for member in members(line)}
                sheet.append([self._cell(sheet, values.get(name), texts.get(name, "")) for name in self._columns])
        book.save(self._stream)

    def _refuse(self, message: str) -> NoReturn:
        self._rows.close()
        raise StorageError(message, "Export as CSV or JSONL (--output NAME.jsonl).")

    def _cell(self, sheet: Any, value: Any, text: str) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float) and math.isfinite(value) and abs(value) < 1e308:
            digits = re.sub(r"[eE].*|[-+.]", "", text).strip("0")
            if len(digits) <= 15:  # Excel keeps no more
                return value
        return self._text(sheet, value if isinstance(value, str) else text)

    def _text(self, sheet: Any, text: str) -> Any:
        # escaped for XML (ECMA-376 part 1, 22.9.2.19 ST_Xstring)
        escaped = _NO_XML.sub(lambda found: f"_x{ord(found.group()):04X}_", _ESCAPE_LIKE.sub("_x005F_", text))
        cell = self._openpyxl.cell.WriteOnlyCell(sheet, value="")
        cell._value, cell.data_type = escaped, "s"
        return cell


class ParquetWriter:
    """Boolean, int64 or double if exact, else text."""

    def __init__(self, stream: BinaryIO) -> None:
        self._parquet = library("parquet")
        self._stream = stream
        self._rows = tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n")  # noqa: SIM115 (closed by close)
        self._types: dict[str, str] = {}

    def write(self, text: str, additions: Mapping[str, str]) -> None:
        line = one_line(insert_members(text, additions))
        for name, value in json.loads(line).items():
            self._types[name] = _widened(self._types.get(name), value)
        self._rows.write(line + "\n")

    def close(self) -> None:
        arrow = {
            "null": "string",
            "bool": "bool",
            "int": "int64",
            "long": "int64",
            "float": "float64",
            "text": "string",
        }
        pyarrow = library("arrow")
        schema = pyarrow.schema([(name, pyarrow.type_for_alias(arrow[kind])) for name, kind in self._types.items()])
        self._rows.seek(0)
        with self._rows, self._parquet.ParquetWriter(self._stream, schema) as file:
            while rows := [self._converted(line) for line in islice(self._rows, _BATCH)]:
                file.write_table(pyarrow.Table.from_pylist(rows, schema=schema))

    def _converted(self, line: str) -> dict[str, Any]:
        texts = {member.name: line[member.value : member.end] for member in members(line)}
        return {name: _typed(texts[name], self._types[name]) for name in texts}


def _refuse_unknown(names: Iterable[str], columns: Container[str]) -> NoReturn:
    unknown = next(name for name in names if name not in columns)
    raise StorageError(
        f'A row has the column "{printable(unknown, 60)}", which the header of the output does not have.',
        "Export as JSONL (--output NAME.jsonl): there every row keeps its own columns.",
    )


def _unchanged(cell: str) -> str:
    return cell


def neutral(cell: str) -> str:
    """The cell, never a formula."""
    if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def columns_of(text: str) -> Iterator[str]:
    return (member.name for member in members(text))


def _cells(text: str) -> dict[str, str]:
    values: dict[str, Any]
    try:
        values = from_json(text.encode(), allow_inf_nan=False)
    except ValueError:
        values = _spelled(text)
    if not _TEXT.issuperset(map(type, values.values())):
        values = _spelled(text)
    if _TEXT.issuperset(map(type, values.values())):
        return values
    texts = {member.name: text[member.value : member.end] for member in members(text)}
    return {
        name: value if isinstance(value, str) else "" if value is None else texts[name]
        for name, value in values.items()
    }


def _typed(text: str, kind: str) -> Any:
    value = json.loads(text)
    if kind == "float" and value is not None:
        return float(value)
    if kind == "text" and value is not None and not isinstance(value, str):
        return text
    return value


def _widened(known: str | None, value: object) -> str:
    found = _type(value)
    if known is None or known in ("null", found):
        return found
    return known if found == "null" else _COMMON.get(frozenset({known, found}), "text")


def _type(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if abs(value) <= 2**53 else "long" if -(2**63) <= value < 2**63 else "text"
    return "float" if isinstance(value, float) and math.isfinite(value) else "text"
