"""CSV and TSV (all cells are strings), and text with a row per line.

CSV follows RFC 4180, or escapes with a backslash (Spark, MySQL), as its first records fit. TSV has no quoting (IANA,
text/tab-separated-values), unless every cell that begins with a quotation mark is well formed, or if lines are
unequally wide and the file is a table by RFC 4180.
"""

import contextlib
import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import add
from typing import TYPE_CHECKING, NamedTuple, Self

from batchrun.display import printable
from batchrun.errors import InputError
from batchrun.models import Invalid, made
from batchrun.rows.check import NOT_UTF8, ROW_LIMIT, Record, Remarks, encodable, invalid, string
from batchrun.rows.source import BOM, encoding_hint, line_groups, raw_lines

if TYPE_CHECKING:
    import _csv

DELIMITERS = (",", ";", "\t", "|")
INDEX = "index"
NO_DELIMITER = "\x1f"  # for one column: the unit separator
_SAMPLE = 20
_SEPARATOR_LINE = re.compile(r"\ufeff?sep=(.)[ \t]*\r?\n", re.IGNORECASE)
_WELL_FORMED = re.compile(r'"(?:[^"]|"")*"')
_ESCAPED_QUOTE = re.compile(r'(\\+)"')


class Dialect(NamedTuple):
    delimiter: str
    quotes: bool = True
    backslash: bool = False  # \" is a quotation mark inside a quoted cell
    spaces: bool = False  # blanks after a delimiter are not part of the cell
    skip: int = 0  # lines before the header


class Table(NamedTuple):
    """As the input."""

    delimiter: str = ","
    marked: bool = False  # begins with a byte order mark, without which Excel takes UTF-8 for the system's encoding

    @classmethod
    def of(cls, dialect: Dialect, head: bytes) -> Self:
        """`head`: the beginning of the input."""
        delimiter = dialect.delimiter if dialect.delimiter in (",", ";", "|") else ","
        return cls(delimiter, head.startswith(BOM))


COMMAS = Table()


def csv_dialect(head: str, name: str, delimiter: str | None = None) -> Dialect:
    """Raises InputError for a title above the header."""
    if stated := _SEPARATOR_LINE.match(head):  # Excel's own first line `sep=;`
        return _fitting(head[stated.end() :], Dialect(stated[1], skip=1))
    delimiter = delimiter or delimiter_of(head)
    found = widths(head, delimiter)
    if found[0] == 1 and max(found) > 1:
        _refuse_title(found, name)
        return Dialect(NO_DELIMITER if delimiter != "\t" else delimiter)
    return _fitting(head, Dialect(delimiter))


def tsv_dialect(chunks: Callable[[], Iterable[bytes]], name: str, skip: int = 0) -> Dialect:
    """Reads the whole file."""
    begun = even = True
    width = -1
    quoted = False
    for line in islice(raw_lines(chunks(), name), skip, None):
        text = line.rstrip("\r\n")
        if not text:
            continue
        tabs = text.count("\t")
        width = tabs if width < 0 else width
        even = even and tabs == width
        if text[0] == '"' or '\t"' in text:
            quoted = True
            begun = begun and all(_WELL_FORMED.fullmatch(cell) for cell in text.split("\t") if cell[:1] == '"')
        if not (even or begun):
            break
    if not quoted or (even and not begun):
        return Dialect("\t", quotes=False, skip=skip)
    whole = Dialect("\t", skip=skip)
    return whole if begun or _is_table(raw_lines(chunks(), name), whole) else whole._replace(quotes=False)


def delimiter_of(head: str) -> str:
    """Gives equally wide, wide records."""
    return max(DELIMITERS, key=lambda delimiter: (is_regular(widths(head, delimiter)), max(widths(head, delimiter))))


def widths(head: str, delimiter: str) -> list[int]:
    """Numbers of cells in the first records."""
    found: list[int] = []
    with contextlib.suppress(csv.Error):
        found.extend(len(cells) for cells in islice(csv.reader(_first_lines(head), delimiter=delimiter), _SAMPLE))
    return [width for width in found if width] or [1]


def records_of(lines: Iterable[str], dialect: Dialect) -> "_csv.Reader":
    """Its iteration raises csv.Error."""
    if dialect.backslash:
        lines = map(_double, lines)
    return csv.reader(lines, delimiter=dialect.delimiter, strict=True, skipinitialspace=dialect.spaces)


def is_regular(found: list[int]) -> bool:
    """Equally wide, with several cells."""
    return found[0] > 1 and len(set(found)) == 1


def _first_lines(head: str) -> Iterator[str]:
    lines = head.split("\n")
    return (f"{line}\n" for line in (lines[:-1] if len(lines) > _SAMPLE else lines))


def _fitting(head: str, plain: Dialect) -> Dialect:
    candidates = [plain, plain._replace(spaces=True), plain._replace(backslash=True)]
    fitting = (dialect for dialect in candidates if _is_table(_first_lines(head), dialect, cut=True))
    return next(fitting, plain)


def _is_table(lines: Iterable[str], dialect: Dialect, *, cut: bool = False) -> bool:
    # whether records have one width; `cut`: the first ones
    reader = records_of(islice(lines, dialect.skip if not cut else 0, None), dialect)
    width = 0
    try:
        for cells in islice(reader, _SAMPLE if cut else None):
            if cells and len(cells) != (width := width or len(cells)):
                return False
    except csv.Error as error:
        return cut and width > 0 and "unexpected end" in str(error)
    return True


def _double(line: str) -> str:
    # backslash-escaped quotation marks doubled instead
    if '\\"' not in line:
        return line
    return _ESCAPED_QUOTE.sub(lambda found: "\\" * (len(found[1]) // 2) + ('""' if len(found[1]) % 2 else '"'), line)


def _refuse_title(found: list[int], name: str) -> None:
    # one cell above wider records is no header
    below = found[1:]
    if len(below) > 1 and len(set(below)) == 1:
        raise InputError(
            f"{name}: the first line has 1 cell and the lines below it have {below[0]}: it looks like a title.",
            "Delete the lines above the header.",
        )


class _Lines:
    # remembers the lines of the current record

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
    line: int  # in which the record begins
    cells: Sequence[str]


def read_text(chunks: Iterable[bytes]) -> Iterator[Record | Invalid]:
    number = 0
    for group in line_groups(chunks):
        for line in group:
            number += 1
            if isinstance(line, Invalid):
                yield line
            elif line.strip():
                yield number, f'{{"text":{string(line)}}}', {"text": line}


def read_table(chunks: Iterable[bytes], dialect: Dialect, name: str, remarks: Remarks) -> Iterator[Record | Invalid]:
    """Raises InputError."""
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
        text = "{" + ",".join(map(add, prefixes, map(string, cells))) + "}"
        if encodable(text):
            yield line, text, dict(zip(kept, cells, strict=True))
        else:
            yield invalid(line, lines.text, NOT_UTF8)


def named_columns(header: Sequence[str], first: Sequence[object], name: str, remarks: Remarks) -> list[str | None]:
    """None for an unnamed empty column, `index` for row names of pandas and R. Raises InputError."""
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
    """Position from 1."""
    places = (at for at, column in enumerate(columns, 1) if column is None)
    return next((at for at in places if cells[at - 1] is not None and str(cells[at - 1]).strip()), None)


def misfit(count: int, width: int) -> str:
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
    reader, skipped = records_of(source, dialect), dialect.skip
    while True:
        line = reader.line_num + 1 + skipped
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
            yield made(Cells, (line, cells))


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
