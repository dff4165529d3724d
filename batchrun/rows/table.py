"""CSV and TSV (all cells are strings), and text with a row per line."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from batchrun.display import printable
from batchrun.errors import InputError
from batchrun.models import Invalid
from batchrun.rows.check import NOT_UTF8, ROW_LIMIT, Record, encodable, invalid, string
from batchrun.rows.dialect import Dialect, records_of
from batchrun.rows.guess import encoding_hint
from batchrun.rows.lines import line_groups, raw_lines
from batchrun.rows.remarks import Remarks

INDEX = "index"


class _Lines:
    """Remembers the lines of the current record."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._read: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self._read.append(line)
            yield line

    def next_record(self) -> None:
        self._read.clear()

    @property
    def text(self) -> str:
        return "".join(self._read).rstrip("\r\n")


class Cells(NamedTuple):
    """A record, and the line it begins in."""

    line: int
    cells: Sequence[str]


def read_text(chunks: Iterable[bytes]) -> Iterator[Record | Invalid]:
    """A record `{"text": …}` per non-blank line."""
    number = 0
    for group in line_groups(chunks):
        for line in group:
            number += 1
            if isinstance(line, Invalid):
                yield line
            elif line.strip():
                yield number, f'{{"text":{string(line)}}}', {"text": line}


def read_table(chunks: Iterable[bytes], dialect: Dialect, name: str, remarks: Remarks) -> Iterator[Record | Invalid]:
    """A record per row. Raises InputError for an unusable header or an unclosed quotation."""
    csv.field_size_limit(ROW_LIMIT)
    lines = _Lines(raw_lines(chunks, name))
    records = _records(lines, dialect, name)
    header = _header(records, name)
    ahead = next(records, None)
    columns = named_columns(header, ahead.cells if isinstance(ahead, Cells) else (), name, remarks)
    named = [(at, column, string(column) + ":") for at, column in enumerate(columns) if column is not None]
    prefixes, gaps = [prefix for _, _, prefix in named], len(named) < len(columns)
    kept = [column for _, column, _ in named]
    for record in chain([ahead] if ahead is not None else [], records):
        if isinstance(record, Invalid):
            yield record
            continue
        line, cells = record
        if len(cells) != len(columns):
            if len(cells) == 1 and not cells[0].strip():
                continue
            yield invalid(line, lines.text, misfit(len(cells), len(columns)))
            continue
        if gaps:
            if (place := nameless(columns, cells)) is not None:
                yield invalid(line, lines.text, f"cell {place} has text, but column {place} has no name in the header")
                continue
            cells = [cells[at] for at, _, _ in named]
        text = "{" + ",".join(map(str.__add__, prefixes, map(string, cells))) + "}"
        if encodable(text):
            yield line, text, dict(zip(kept, cells, strict=True))
        else:
            yield invalid(line, lines.text, NOT_UTF8)


def named_columns(header: Sequence[str], first: Sequence[object], name: str, remarks: Remarks) -> list[str | None]:
    """The column names; None for an unnamed empty one, `index` for the row names of pandas and R.

    Raises InputError for other unnamed columns and duplicates.
    """
    columns: list[str | None] = [column or None for column in header]
    double = next((column for at, column in enumerate(header) if column and column in header[:at]), None)
    if double is not None:
        raise InputError(
            f'{name}: the header has the column "{printable(double, 60)}" twice.', "Give each column a name of its own."
        )
    for at, cell in enumerate(first[: len(columns)]):
        if columns[at] is not None or cell is None or not str(cell).strip():
            continue
        if at or INDEX in columns:
            raise InputError(f"{name}: column {at + 1} has no name in the header.", "Add one in the first line.")
        columns[0] = INDEX
        remarks.add(f"the first column has no name: it is read as `{INDEX}` (pandas leaves it out with index=False)")
    return columns


def nameless(columns: Sequence[str | None], cells: Sequence[object]) -> int | None:
    """Position from 1 of a non-empty cell in an unnamed column."""
    places = (at for at, column in enumerate(columns, 1) if column is None)
    return next((at for at in places if cells[at - 1] is not None and str(cells[at - 1]).strip()), None)


def misfit(count: int, width: int) -> str:
    """The reason for a wrong number of cells."""
    return f"{'1 cell' if count == 1 else f'{count} cells'} where the header has {width}"


def _records(lines: _Lines, dialect: Dialect, name: str) -> Iterator[Cells | Invalid]:
    if not dialect.quotes:
        for number, line in enumerate(lines, 1):
            text = line.rstrip("\r\n")
            if text and number > dialect.skip:
                yield Cells(number, text.split(dialect.delimiter))
            lines.next_record()
        return
    source = iter(lines)
    for _ in range(dialect.skip):
        next(source, None)
    reader = records_of(source, dialect)
    while True:
        line = reader.line_num + 1 + dialect.skip
        lines.next_record()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            _refuse_runaway(str(error), name, line)
            yield invalid(line, lines.text, f"not a record of a table: {str(error).partition(' - do you')[0]}")
            continue
        if cells:
            yield Cells(line, cells)


def _refuse_runaway(message: str, name: str, line: int) -> None:
    if "unexpected end" in message or "field limit" in message:
        raise InputError(
            f"{name}: a quotation mark opened in the record of line {line} is never closed.",
            'A quotation mark inside a quoted cell is written twice: "".',
        )


def _header(records: Iterator[Cells | Invalid], name: str) -> list[str]:
    first = next(records, None)
    if first is None:
        raise InputError(f"{name} has no rows: it is empty.")
    if isinstance(first, Invalid):
        raise InputError(f"{name}: the header in line {first.line} is {first.reason}.")
    header = [cell.strip() for cell in first.cells]
    if not encodable("".join(header)):
        guess = encoding_hint("".join(header).encode(errors="surrogateescape"))
        raise InputError(
            f"{name} is not UTF-8: its header cannot be decoded.",
            f"State its encoding (for example --encoding {guess}), or save it as UTF-8.",
        )
    return header
