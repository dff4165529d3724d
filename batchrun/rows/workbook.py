"""Excel workbooks (extra `data`, openpyxl); formulas are their stored values."""

import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from batchrun.display import printable
from batchrun.errors import InputError
from batchrun.models import Invalid
from batchrun.rows.check import Record, Remarks, encode, invalid
from batchrun.rows.extras import explained, library, plain, record
from batchrun.rows.source import Source, refuse_bomb
from batchrun.rows.table import misfit, named_columns, nameless

_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")
_UNSTORED = "formulas without a stored value are null: open the workbook in a spreadsheet program and save it"
_STALE = "formulas may have no computed value yet: open the workbook in a spreadsheet program and save it"
_HIDDEN = "hidden rows (for example by a filter) are read as well"


def read_excel(source: Source, sheet: str | None, remarks: Remarks) -> Iterator[Record | Invalid]:
    """`sheet`: a name or a number from 1. Raises InputError."""
    openpyxl = library("excel")
    with explained(source.name, "an Excel workbook"), zipfile.ZipFile(source.path) as archive:
        refuse_bomb(sum(entry.file_size for entry in archive.infolist()), source.size, source.name)
    with explained(source.name, "an Excel workbook"), source.path.open("rb") as file:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            chosen = _chosen(book.worksheets, sheet, source.name)
            if len(book.worksheets) > 1:
                others = _names(book.worksheets, chosen)
                remarks.add(f'the sheet "{printable(chosen.title, 60)}" is read; choose another with --sheet: {others}')
            empty = True
            for found in _records(_rows(book, chosen, remarks), source.name, remarks):
                empty = False
                yield found
        if empty and len(book.worksheets) > 1:
            raise InputError(
                f'{source.name}: the sheet "{printable(chosen.title, 60)}" has no rows under a header.',
                f"Choose another with --sheet: {_names(book.worksheets, chosen)}.",
            )
    source.refuse_change()


def _chosen(sheets: Sequence[Any], wanted: str | None, name: str) -> Any:
    if not sheets:
        raise InputError(f"{name} has no sheet with cells.")
    if wanted is None:
        return next((sheet for sheet in sheets if sheet.sheet_state == "visible"), sheets[0])
    alike = [sheet for sheet in sheets if sheet.title.casefold() == wanted.strip().casefold()]
    if alike:
        return next((sheet for sheet in alike if sheet.title == wanted), alike[0])
    if wanted.isdecimal() and 1 <= int(wanted) <= len(sheets):
        return sheets[int(wanted) - 1]
    raise InputError(f"{name} has no sheet {printable(wanted, 60)}.", f"Its sheets: {_names(sheets, None)}.")


def _names(sheets: Sequence[Any], but: Any) -> str:
    return ", ".join(
        f'"{printable(sheet.title, 60)}"' + (" (hidden)" if sheet.sheet_state != "visible" else "")
        for sheet in sheets
        if sheet is not but
    )


def _rows(book: Any, sheet: Any, remarks: Remarks) -> Iterator[tuple[int, list[object]]]:
    # openpyxl's own iteration cuts rows at the range that the sheet states, which may be too small, and does not report
    # hidden ones.
    from openpyxl.worksheet import _reader  # noqa: PLC0415  only where a workbook is read

    formula, stale = _reader.FORMULA_TAG, bool(book.calculation is not None and book.calculation.fullCalcOnLoad)
    with sheet._get_source() as part:
        parser: Any = _reader.WorkSheetParser(
            part,
            sheet._shared_strings,
            data_only=True,
            epoch=book.epoch,
            date_formats=book._date_formats,
            timedelta_formats=book._timedelta_formats,
        )
        parse_cell = parser.parse_cell

        def noted(element: Any) -> dict[str, Any]:
            cell = parse_cell(element)
            if len(element) and element.find(formula) is not None and (stale or cell["value"] is None):
                remarks.add(_UNSTORED if cell["value"] is None else _STALE, parser.row_counter)
            return cell

        parser.parse_cell = noted
        for number, cells in parser.parse():
            hidden = parser.row_dimensions.pop(str(number), {}).get("hidden") in ("1", "true")
            if hidden and any(cell["value"] is not None for cell in cells):
                remarks.add(_HIDDEN, number)
            values: list[object] = [None] * max((cell["column"] for cell in cells), default=0)
            for cell in cells:
                value = cell["value"]
                if type(value) is str and "_x" in value:  # `_x000D_` (ECMA-376 part 1, ST_Xstring)
                    value = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value)
                values[cell["column"] - 1] = value
            yield number, values


def _records(rows: Iterator[tuple[int, list[object]]], name: str, remarks: Remarks) -> Iterator[Record | Invalid]:
    header: list[str] | None = None
    columns: list[str | None] | None = None
    for number, cells in rows:
        values = _trimmed(cells)
        if not values:
            continue
        if header is None:
            header = ["" if cell is None else str(cell).strip() for cell in values]
            continue
        if columns is None:
            _refuse_title(header, values, number, name)
            columns = named_columns(header, values, name, remarks)
        if len(values) > len(columns):
            yield invalid(number, encode([plain(value) for value in values]), misfit(len(values), len(columns)))
            continue
        row = [*values, *[None] * (len(columns) - len(values))]
        if (place := nameless(columns, row)) is not None:
            reason = f"cell {place} has a value, but column {place} has no name in the header"
            yield invalid(number, encode([plain(value) for value in row]), reason)
            continue
        yield record(number, {column: cell for column, cell in zip(columns, row, strict=True) if column is not None})


def _refuse_title(header: Sequence[str], values: Sequence[object], number: int, name: str) -> None:
    if sum(map(bool, header)) == 1 and sum(value is not None for value in values) > 1:
        raise InputError(
            f"{name}: the row above row {number} has 1 cell, and row {number} has more: it looks like a title.",
            "Delete the rows above the header.",
        )


def _trimmed(cells: Sequence[object]) -> Sequence[object]:
    end = len(cells)
    while end and cells[end - 1] is None:
        end -= 1
    return cells[:end]
