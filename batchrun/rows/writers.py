"""Rows into a stream as JSONL, CSV, TSV, Parquet or Excel. The stream, its fsync and its rename are the caller's.

JSONL is exact. TSV is CSV with tabs: cells with tabs, line ends or quotation marks are quoted. CSV is for spreadsheets: numbers keep their spelling, lists and objects are JSON text, null is an empty
cell; a cell that a spreadsheet would take for a formula gets a `'` in front (OWASP, "CSV injection"): one that begins
with = + - @ (also the full-width ones), a tab or a line break, blanks and quotation marks before them included. A
plain number such as -5 stays.
"""

import csv
import io
import json
import math
import re
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from enum import Enum
from itertools import islice
from typing import Any, BinaryIO, NoReturn, Protocol

from batchrun.display import printable
from batchrun.errors import StorageError
from batchrun.rows.check import members, one_line
from batchrun.rows.dialect import COMMAS, Table
from batchrun.rows.extras import library
from batchrun.rows.members import insert_members

_FORMULA = re.compile(r"[\t\r\n]|[\s'\"]*[=+\-@＝＋－＠]")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?")
_BATCH = 10_000
SHEET_ROWS, CELL_LENGTH = 1_048_576, 32_767
"""What an Excel sheet and a cell hold at most (support.microsoft.com, "Excel specifications and limits")."""
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\r\x0e-\x1f\ufffe\uffff]")
_ESCAPE_LIKE = re.compile(r"_(?=x[0-9A-Fa-f]{4}_)")
_COMMON = {frozenset({"int", "float"}): "float", frozenset({"int", "long"}): "long"}
_spelled = json.JSONDecoder(parse_int=str, parse_float=str).decode


class RowWriter(Protocol):
    """What writes the rows of an output."""

    def write(self, text: str, additions: Mapping[str, str]) -> None:
        """One row: its own text and the new members, name to JSON text."""
        ...

    def close(self) -> None:
        """Finish what the format needs; the stream stays open."""
        ...


def check_format(format: str) -> None:
    """Raises RefusedError where the extra that writes this format is not installed."""
    if format in ("parquet", "xlsx"):
        library("arrow" if format == "parquet" else "excel")


class Exact(Enum):
    """Which cells of a CSV table are written as they are, though a spreadsheet may take them for formulas: none, those
    of the input, which came out of such a table, or all."""

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
    """The writer of a format: jsonl, csv, tsv, parquet or xlsx.

    `columns` are those of a CSV or TSV table if they are known, the new ones included; else the first row
    decides. `exact` and `table` are about CSV; TSV, which programs read, has all cells as they are. Raises RefusedError if the
    format needs an extra that is missing.
    """
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
    """One row a line."""

    def __init__(self, stream: BinaryIO) -> None:
        self._put = stream.write

    def write(self, text: str, additions: Mapping[str, str]) -> None:
        """Raises OSError of the stream."""
        self._put((one_line(insert_members(text, additions)) + "\n").encode())

    def close(self) -> None:
        """Nothing is held back."""


class CsvWriter:
    """RFC 4180 in UTF-8, with a header and CRLF; TSV with a tab in the place of the comma, and LF."""

    def __init__(self, stream: BinaryIO, columns: Sequence[str], table: Table, exact: Exact) -> None:
        self._stream = stream
        self._columns = dict.fromkeys(columns)
        self._own = _as_it_is if exact is not Exact.NOTHING else neutral
        self._new = _as_it_is if exact is Exact.ALL else neutral
        self._buffer = io.StringIO(newline="")
        end = "\n" if table.delimiter == "\t" else "\r\n"
        self._csv = csv.writer(self._buffer, delimiter=table.delimiter, lineterminator=end)
        if table.marked:
            self._buffer.write("\ufeff")
        if columns:
            self._put([self._own(name) for name in columns])

    def write(self, text: str, additions: Mapping[str, str]) -> None:
        """Raises StorageError for a column that the header does not have."""
        cells = {name: self._own(cell) for name, cell in _cells(text).items()}
        for name, value in additions.items():
            cells[name] = self._new(_cells(f'{{"":{value}}}')[""])
        if not self._columns:
            self._columns = dict.fromkeys(cells)
            self._put([self._own(name) for name in cells])
        if not cells.keys() <= self._columns.keys():
            _refuse_unknown(cells, self._columns)
        self._put([cells.get(name, "") for name in self._columns])

    def close(self) -> None:
        """Nothing is held back."""

    def _put(self, cells: list[str]) -> None:
        self._csv.writerow(cells)
        self._stream.write(self._buffer.getvalue().encode())
        self._buffer.seek(0)
        self._buffer.truncate()


class ExcelWriter:
    """One sheet with a header. Rows wait in a temporary file until all columns are known.

    Numbers are cells of numbers where Excel keeps all of their digits (15), else text; lists and objects are JSON text.
    A text is never a formula, and one that is longer than a cell can be is refused.
    """

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
        """Write the file."""
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
        if isinstance(value, int | float) and _fits_excel(value, text):
            return value
        return self._text(sheet, value if isinstance(value, str) else text)

    def _text(self, sheet: Any, text: str) -> Any:
        """A cell that is text whatever it begins with; what XML cannot hold is written as Excel escapes it
        (ECMA-376 part 1, 22.9.2.19 ST_Xstring)."""
        escaped = _NO_XML.sub(lambda found: f"_x{ord(found.group()):04X}_", _ESCAPE_LIKE.sub("_x005F_", text))
        cell = self._openpyxl.cell.WriteOnlyCell(sheet, value="")
        cell._value, cell.data_type = escaped, "s"
        return cell


class ParquetWriter:
    """Rows wait in a temporary file until all columns and their types are known.

    A column is boolean, int64, double or text if all its values are; else it is text, with JSON for what is no string.
    It is text too where a double would be another number than an integer among them.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._parquet = library("parquet")
        self._stream = stream
        self._rows = tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n")  # noqa: SIM115 (closed by close)
        self._types: dict[str, str] = {}

    def write(self, text: str, additions: Mapping[str, str]) -> None:
        """Keeps the row, and widens the types of its columns."""
        line = one_line(insert_members(text, additions))
        for name, value in json.loads(line).items():
            self._types[name] = _widened(self._types.get(name), value)
        self._rows.write(line + "\n")

    def close(self) -> None:
        """Write the file."""
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


def _fits_excel(value: float, text: str) -> bool:
    """Whether a cell of numbers shows this one with all the digits that it is written with."""
    return math.isfinite(value) and len(re.sub(r"[eE].*|[-+.]", "", text).strip("0")) <= 15 and abs(value) < 1e308


def _as_it_is(cell: str) -> str:
    return cell


def neutral(cell: str) -> str:
    """The cell as a spreadsheet may see it: never a formula."""
    if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def columns_of(text: str) -> Iterator[str]:
    """The names of a row's members, to collect the columns of a CSV output."""
    return (member.name for member in members(text))


def _cells(text: str) -> dict[str, str]:
    """The cell of each member. Numbers are read as text, so that they keep their spelling."""
    values: dict[str, Any] = _spelled(text)
    if all(type(value) is str for value in values.values()):
        return values
    texts = {member.name: text[member.value : member.end] for member in members(text)}
    return {name: _cell(value, texts[name]) for name, value in values.items()}


def _cell(value: object, text: str) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else text


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
