"""Rows into a stream as JSONL, CSV or Parquet. The stream, its fsync and its rename are the caller's.

JSONL is exact. CSV is for spreadsheets: numbers keep their spelling, lists and objects are JSON text, null is an empty
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
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, BinaryIO, Protocol

from batchrun.display import printable
from batchrun.errors import StorageError
from batchrun.rows.check import members, one_line
from batchrun.rows.extras import library
from batchrun.rows.members import insert_members

_FORMULA = re.compile(r"[\t\r\n]|[\s'\"]*[=+\-@＝＋－＠]")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?")
_BATCH = 10_000
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
    if format == "parquet":
        library("arrow")


def writer(format: str, stream: BinaryIO, *, columns: Sequence[str] = (), exact: bool = False) -> RowWriter:
    """The writer of a format: jsonl, csv or parquet.

    `columns` are the CSV columns if they are known, the new ones included; else the first row decides. `exact` leaves
    CSV cells as they are. Raises RefusedError if the format needs an extra that is missing.
    """
    if format == "jsonl":
        return JsonlWriter(stream)
    if format == "csv":
        return CsvWriter(stream, columns, exact=exact)
    if format == "parquet":
        return ParquetWriter(stream)
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
    """RFC 4180 in UTF-8, with a header and CRLF."""

    def __init__(self, stream: BinaryIO, columns: Sequence[str], *, exact: bool) -> None:
        self._stream = stream
        self._columns = dict.fromkeys(columns)
        self._exact = exact
        self._buffer = io.StringIO(newline="")
        self._csv = csv.writer(self._buffer)
        if columns:
            self._put(list(columns))

    def write(self, text: str, additions: Mapping[str, str]) -> None:
        """Raises StorageError for a column that the header does not have."""
        cells = _cells(text)
        for name, value in additions.items():
            cells[name] = _cells(f'{{"":{value}}}')[""]
        if not self._columns:
            self._columns = dict.fromkeys(cells)
            self._put(list(cells))
        if not cells.keys() <= self._columns.keys():
            unknown = next(name for name in cells if name not in self._columns)
            raise StorageError(
                f'A row has the column "{printable(unknown, 60)}", which the header of the CSV output does not have.',
                "Export as JSONL (--output NAME.jsonl): there every row keeps its own columns.",
            )
        self._put([cells.get(name, "") for name in self._columns])

    def close(self) -> None:
        """Nothing is held back."""

    def _put(self, cells: list[str]) -> None:
        self._csv.writerow(cells if self._exact else map(neutral, cells))
        self._stream.write(self._buffer.getvalue().encode())
        self._buffer.seek(0)
        self._buffer.truncate()


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
