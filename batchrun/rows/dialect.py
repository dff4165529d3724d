"""The delimiter and the quoting of a table in a text file.

CSV follows RFC 4180, or escapes with a backslash (Spark, MySQL), as its first records fit. TSV has no quoting (IANA,
text/tab-separated-values), unless every cell that begins with a quotation mark is well formed.
"""

import contextlib
import csv
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Self

from batchrun.errors import InputError
from batchrun.rows.lines import raw_lines
from batchrun.rows.source import BOM

if TYPE_CHECKING:
    import _csv

DELIMITERS = (",", ";", "\t", "|")
NO_DELIMITER = "\x1f"
"""For tables with one column: the unit separator."""
_SAMPLE = 20
_SEPARATOR_LINE = re.compile(r"\ufeff?sep=(.)[ \t]*\r?\n", re.IGNORECASE)
_WELL_FORMED = re.compile(r'"(?:[^"]|"")*"')
_ESCAPED_QUOTE = re.compile(r'(\\+)"')


class Dialect(NamedTuple):
    """How the cells of a table are written."""

    delimiter: str
    quotes: bool = True
    backslash: bool = False  # \" is a quotation mark inside a quoted cell
    spaces: bool = False  # blanks after a delimiter are not part of the cell
    skip: int = 0  # lines before the header


class Table(NamedTuple):
    """How a CSV output is written: as its input."""

    delimiter: str = ","
    marked: bool = False  # begins with a byte order mark, without which Excel takes UTF-8 for the system's encoding

    @classmethod
    def of(cls, dialect: Dialect, head: bytes) -> Self:
        """That of a table that begins with `head`."""
        delimiter = dialect.delimiter if dialect.delimiter in (",", ";", "|") else ","
        return cls(delimiter, head.startswith(BOM))


COMMAS = Table()


def csv_dialect(head: str, name: str, delimiter: str | None = None) -> Dialect:
    """The dialect that the first records fit. Raises InputError for a title above the header."""
    if stated := _SEPARATOR_LINE.match(head):  # Excel's own first line `sep=;`
        return _fitting(head[stated.end() :], Dialect(stated[1], skip=1))
    delimiter = delimiter or delimiter_of(head)
    found = widths(head, delimiter)
    if found[0] == 1 and max(found) > 1:
        _refuse_title(found, name)
        return Dialect(NO_DELIMITER if delimiter != "\t" else delimiter)
    return _fitting(head, Dialect(delimiter))


def tsv_dialect(chunks: Callable[[], Iterable[bytes]], name: str, skip: int = 0) -> Dialect:
    """Whether quotation marks are text in a TSV file; reads all of it.

    They quote if well formed in every line, or if lines are unequally wide and the file is a table by RFC 4180.
    """
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
    """The delimiter that gives equally wide, wide records."""
    return max(DELIMITERS, key=lambda delimiter: (is_regular(widths(head, delimiter)), max(widths(head, delimiter))))


def widths(head: str, delimiter: str) -> list[int]:
    """The numbers of cells in the first records."""
    found: list[int] = []
    with contextlib.suppress(csv.Error):
        found.extend(len(cells) for cells in islice(csv.reader(_first_lines(head), delimiter=delimiter), _SAMPLE))
    return [width for width in found if width] or [1]


def records_of(lines: Iterable[str], dialect: Dialect) -> "_csv.Reader":
    """The csv reader of a dialect; it raises csv.Error for a malformed record."""
    if dialect.backslash:
        lines = map(_double, lines)
    return csv.reader(lines, delimiter=dialect.delimiter, strict=True, skipinitialspace=dialect.spaces)


def is_regular(found: list[int]) -> bool:
    """Whether records are equally wide, with several cells."""
    return found[0] > 1 and len(set(found)) == 1


def _first_lines(head: str) -> Iterator[str]:
    lines = head.split("\n")
    return (f"{line}\n" for line in (lines[:-1] if len(lines) > _SAMPLE else lines))


def _fitting(head: str, plain: Dialect) -> Dialect:
    candidates = [plain, plain._replace(spaces=True), plain._replace(backslash=True)]
    fitting = (dialect for dialect in candidates if _is_table(_first_lines(head), dialect, cut=True))
    return next(fitting, plain)


def _is_table(lines: Iterable[str], dialect: Dialect, *, cut: bool = False) -> bool:
    """Whether records have one width; `cut`: reads only the first."""
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
    """Backslash-escaped quotation marks doubled instead."""
    if '\\"' not in line:
        return line
    return _ESCAPED_QUOTE.sub(lambda found: "\\" * (len(found[1]) // 2) + ('""' if len(found[1]) % 2 else '"'), line)


def _refuse_title(found: list[int], name: str) -> None:
    """One cell above wider records is no header."""
    below = found[1:]
    if len(below) > 1 and len(set(below)) == 1:
        raise InputError(
            f"{name}: the first line has 1 cell and the lines below it have {below[0]}: it looks like a title.",
            "Delete the lines above the header.",
        )
