"""CSV and TSV after RFC 4180, and text where a line is a row.

All cells are strings. Header names lose the blanks around them. A record is named by the line it begins in; blank
lines are no records. Raises InputError where the header is unusable or a quotation mark is never closed.
"""

import contextlib
import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from batchrun.display import printable
from batchrun.errors import InputError
from batchrun.models import Invalid
from batchrun.rows.check import ROW_LIMIT, Record, encodable, invalid, string
from batchrun.rows.lines import line_groups, raw_lines

DELIMITERS = (",", ";", "\t")
_LOOKED_AT = 20


class _Lines:
    """The lines of a table; `text` is those that the record at hand was read from."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._read: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self._read.append(line)
            yield line

    def next_record(self) -> None:
        """Forget the lines of the last record."""
        self._read.clear()

    @property
    def text(self) -> str:
        return "".join(self._read).rstrip("\r\n")


class Cells(NamedTuple):
    """One record of a table as it was read, and the line it begins in."""

    line: int
    cells: Sequence[str]


def read_text(chunks: Iterable[bytes]) -> Iterator[Record | Invalid]:
    """A record `{"text": …}` per line that is not blank."""
    number = 0
    for group in line_groups(chunks):
        for line in group:
            number += 1
            if isinstance(line, Invalid):
                yield line
            elif line.strip():
                yield number, f'{{"text":{string(line)}}}', {"text": line}


def read_table(chunks: Iterable[bytes], delimiter: str, name: str) -> Iterator[Record | Invalid]:
    """A record per line of the table after the header."""
    csv.field_size_limit(ROW_LIMIT)
    lines = _Lines(raw_lines(chunks, name))
    records = _records(lines, delimiter, name)
    header = _header(records, name)
    names = [string(column) + ":" for column in header]
    for record in records:
        if isinstance(record, Invalid):
            yield record
            continue
        line, cells = record
        if len(cells) != len(header):
            yield invalid(line, lines.text, f"{_cells(len(cells))} where the header has {len(header)}")
            continue
        text = "{" + ",".join(map(str.__add__, names, map(string, cells))) + "}"
        if encodable(text):
            yield line, text, dict(zip(header, cells, strict=True))
        else:
            yield invalid(line, lines.text, "not UTF-8: save the table as UTF-8")


def delimiter_of(head: str) -> str:
    """The delimiter whose records in the beginning of a table are equally wide, and widest; a comma in doubt."""
    return max(DELIMITERS, key=lambda delimiter: (_regular(widths(head, delimiter)), max(widths(head, delimiter))))


def widths(head: str, delimiter: str) -> list[int]:
    """The number of cells of each of the first records. The last line may be cut: it counts only in a short head."""
    lines = head.split("\n")
    whole = lines[:-1] if len(lines) > _LOOKED_AT else lines
    reader = csv.reader((f"{line}\n" for line in whole), delimiter=delimiter)
    found: list[int] = []
    with contextlib.suppress(csv.Error):
        found.extend(len(cells) for cells in islice(reader, _LOOKED_AT))
    return [width for width in found if width] or [1]


def _regular(found: list[int]) -> bool:
    return found[0] > 1 and len(set(found)) == 1


def _records(lines: _Lines, delimiter: str, name: str) -> Iterator[Cells | Invalid]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        lines.next_record()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            _refuse_runaway(str(error), name, line)
            yield invalid(line, lines.text, f"not a record of a table: {_plain(str(error))}")
            continue
        if cells:
            yield Cells(line, cells)


def _refuse_runaway(message: str, name: str, line: int) -> None:
    if "unexpected end" in message or "field limit" in message:
        raise InputError(
            f"{name}: a quotation mark opened in the record of line {line} is never closed.",
            'A quotation mark inside a quoted cell is written twice: "".',
        )


def _plain(message: str) -> str:
    return message.partition(" - do you")[0]


def _header(records: Iterator[Cells | Invalid], name: str) -> list[str]:
    first = next(records, None)
    if first is None:
        raise InputError(f"{name} has no rows: it is empty.")
    if isinstance(first, Invalid):
        raise InputError(f"{name}: the header in line {first.line} is {first.reason}.")
    header = [cell.strip() for cell in first.cells]
    if not encodable("".join(header)):
        raise InputError(f"{name} is not UTF-8: its header is not.", "Save the table as UTF-8.")
    refuse_header(header, name)
    return header


def refuse_header(header: Sequence[str], name: str) -> None:
    """Raises InputError for columns without a name and for names that appear twice."""
    if "" in header:
        place = list(header).index("") + 1
        raise InputError(f"{name}: column {place} of the header has no name.", "Give it one in the first line.")
    double = next((column for index, column in enumerate(header) if column in header[:index]), None)
    if double is not None:
        raise InputError(
            f'{name}: the header has the column "{printable(double, 60)}" twice.', "Give each column a name of its own."
        )


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"
