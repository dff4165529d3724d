"""Parquet, Arrow and Excel files as programs write them: every row, every value, and what is said of them."""

import datetime
import importlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import InputError
from batchrun.models import Invalid, Row
from batchrun.rows import Input, Reading, columnar, open_input

pyarrow: Any = importlib.import_module("pyarrow")
parquet: Any = importlib.import_module("pyarrow.parquet")
openpyxl: Any = importlib.import_module("openpyxl")


def opened(path: Path, **reading: Any) -> Input:
    return open_input(str(path), has_prompt=True, reading=Reading(**reading))


def fields(rows: Input) -> list[dict[str, Any]]:
    found = list(rows)
    assert not [row for row in found if isinstance(row, Invalid)]
    return [row.fields for row in found if isinstance(row, Row)]


def said(rows: Input) -> list[str]:
    list(rows)
    return [what for what, _, _ in rows.remarks.all()]


NS = 1_700_000_000_123_456_789
AT = "2023-11-14T22:13:20.123456"


@pytest.mark.parametrize(
    ("type", "value", "text"),
    [
        (pyarrow.timestamp("ns"), NS, AT),
        (pyarrow.timestamp("us"), -62_200_000_000_000_000, "-0002-12-17T14:13:20"),
        (pyarrow.timestamp("us"), 2**63 - 1, "infinity"),
        (pyarrow.timestamp("us"), -(2**63) + 1, "-infinity"),
        (pyarrow.timestamp("s"), 300_000_000_000, "+11476-08-15T05:20:00"),
        (pyarrow.timestamp("ms", "Europe/Berlin"), 1_767_225_600_000, "2026-01-01T01:00:00+01:00"),
        (pyarrow.timestamp("ms", "+05:30"), 1_767_225_600_000, "2026-01-01T05:30:00+05:30"),
        (pyarrow.timestamp("us", "UTC"), -62_200_000_000_000_000, "-0002-12-17T14:13:20+00:00"),
        (pyarrow.date32(), -735_160, "-0043-03-15"),
        (pyarrow.date32(), 2**31 - 1, "infinity"),
        (pyarrow.date64(), 86_400_000, "1970-01-02"),
        (pyarrow.time64("ns"), 3_600_000_001_999, "01:00:00.000001"),
        (pyarrow.time32("s"), 86_399, "23:59:59"),
        (pyarrow.duration("ns"), 1_001, 1.001e-06),
        (pyarrow.duration("s"), 90, 90.0),
    ],
)
@pytest.mark.parametrize("place", ["column", "list", "large list", "fixed list", "struct", "map"])
def test_times_are_text_at_any_depth(tmp_path: Path, type: Any, value: int, text: Any, place: str) -> None:
    whole = pyarrow.int32() if type in (pyarrow.date32(), pyarrow.time32("s")) else pyarrow.int64()
    numbers = pyarrow.array([value, None], whole).cast(type, safe=False)
    nested: dict[str, tuple[Callable[[], Any], Any]] = {
        "column": (lambda: numbers, [text, None]),
        "list": (lambda: pyarrow.ListArray.from_arrays([0, 2, 2], numbers), [[text, None], []]),
        "large list": (lambda: pyarrow.LargeListArray.from_arrays([0, 1, 2], numbers), [[text], [None]]),
        "fixed list": (lambda: pyarrow.FixedSizeListArray.from_arrays(numbers, 1), [[text], [None]]),
        "struct": (lambda: pyarrow.StructArray.from_arrays([numbers], ["x"]), [{"x": text}, {"x": None}]),
        "map": (
            lambda: pyarrow.MapArray.from_arrays([0, 1, 2], pyarrow.array(["a", "b"]), numbers),
            [[["a", text]], [["b", None]]],
        ),
    }
    make, expected = nested[place]
    table = pyarrow.table({"t": make()})
    with pyarrow.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    assert [row["t"] for row in fields(opened(tmp_path / "a.arrow"))] == expected


@given(st.datetimes(datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 30)))
def test_a_moment_is_the_one_that_python_writes(moment: datetime.datetime) -> None:
    micros = (moment - datetime.datetime(1970, 1, 1)) // datetime.timedelta(microseconds=1)
    assert columnar.timestamp(micros, "us", None) == moment.isoformat()
    assert columnar.day(micros // 86_400_000_000) == moment.date().isoformat()


@given(st.integers(-5_000_000, 5_000_000))
def test_days_beyond_python_s_years_follow_each_other(day: int) -> None:
    """400 years later is the same day of the calendar."""
    early, late = columnar.day(day), columnar.day(day + 146_097)
    assert early[-5:] == late[-5:]
    assert int(late[:-6]) - int(early[:-6]) == 400


def test_an_interval_of_parquet_is_a_period(tmp_path: Path) -> None:
    value = (14).to_bytes(4, "little") + (3).to_bytes(4, "little") + (4_500).to_bytes(4, "little")
    assert columnar.parquet_interval(value) == "P14M3DT4.5S"
    assert columnar.parquet_interval(bytes(12)) == "PT0S"
    table = pyarrow.table({"i": pyarrow.array([pyarrow.MonthDayNano([1, 0, 0])])})
    with pyarrow.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    assert fields(opened(tmp_path / "a.arrow")) == [{"i": "P1M"}]


def test_bytes_of_a_column_are_written_alike(tmp_path: Path) -> None:
    table = {"text": [b"caf\xc3\xa9", b"a"], "raw": [b"a", b"\xff"], "in": [{"b": b"\xff"}, {"b": b"a"}]}
    parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
    rows = opened(tmp_path / "a.parquet")
    assert fields(rows) == [
        {"text": "café", "raw": "YQ==", "in": {"b": "/w=="}},
        {"text": "a", "raw": "/w==", "in": {"b": "a"}},
    ]
    assert len(said(rows)) == 2


def test_a_column_without_a_name_is_a_column(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"a.b": ["x"], "": ["y"]}), tmp_path / "a.parquet")
    assert fields(opened(tmp_path / "a.parquet")) == [{"a.b": "x", "": "y"}]


def workbook(path: Path, sheets: dict[str, list[list[Any]]], change: Callable[[Any], None] | None = None) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for cells in rows:
            sheet.append(cells)
    if change is not None:
        change(book)
    book.save(path)
    return path


def rewritten(path: Path, change: Callable[[str], str]) -> None:
    """The first sheet of a workbook, changed as text."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = "xl/worksheets/sheet1.xml"
    parts[name] = change(parts[name].decode()).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in parts.items():
            archive.writestr(member, data)


ROWS = [["id", "text", "n"], [1, "a", 1], [2, "b", 2], [3, "c", 3]]


@pytest.mark.parametrize("stated", ["A1:B2", "A1", "A1:C2", "B2:B3", "A1:ZZ9000"])
def test_the_range_that_a_sheet_states_cuts_nothing(tmp_path: Path, stated: str) -> None:
    path = workbook(tmp_path / "a.xlsx", {"s": ROWS})
    rewritten(path, lambda text: text.replace('<dimension ref="A1:C4"', f'<dimension ref="{stated}"'))
    assert [list(row.values()) for row in fields(opened(path))] == ROWS[1:]


def hide(*titles: str) -> Callable[[Any], None]:
    def change(book: Any) -> None:
        for title in titles:
            book[title].sheet_state = "hidden"

    return change


@pytest.mark.parametrize(
    ("sheet", "text"), [(None, "b"), ("lists", "a"), ("1", "a"), ("3", "c"), ("MORE", "c"), (" data ", "b")]
)
def test_a_sheet_is_chosen_by_name_or_number_else_the_first_that_is_not_hidden(
    tmp_path: Path, sheet: str | None, text: str
) -> None:
    sheets = {name: [["text"], [cell]] for name, cell in (("lists", "a"), ("Data", "b"), ("more", "c"))}
    rows = opened(workbook(tmp_path / "a.xlsx", sheets, hide("lists")), sheet=sheet)
    assert fields(rows) == [{"text": text}]
    assert len(said(rows)) == 1
    assert "is read; choose another with --sheet" in said(rows)[0]


def test_a_sheet_that_does_not_exist_or_has_no_rows_names_the_others(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", {"Cover": [["Report of May"]], "Data": ROWS, "x": []}, hide("x"))
    with pytest.raises(InputError, match="has no sheet Dta") as refused:
        opened(path, sheet="Dta")
    assert refused.value.hint == 'Its sheets: "Cover", "Data", "x" (hidden).'
    with pytest.raises(InputError, match='the sheet "Cover" has no rows') as refused:
        opened(path)
    assert refused.value.hint == 'Choose another with --sheet: "Data", "x" (hidden).'
    assert len(fields(opened(path, sheet="Data"))) == 3


def test_rows_that_are_hidden_are_read_and_said(tmp_path: Path) -> None:
    def change(book: Any) -> None:
        book["s"].row_dimensions[3].hidden = True

    rows = opened(workbook(tmp_path / "a.xlsx", {"s": ROWS}, change))
    assert len(fields(rows)) == 3
    assert [(count, line) for _, count, line in rows.remarks.all()] == [(1, 3)]
    assert "hidden" in said(rows)[0]


def test_formulas_without_a_value_are_said(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", {"s": [["text", "f"], ["a", "=1+1"], ["b", 2]]})
    rows = opened(path)
    assert fields(rows) == [{"text": "a", "f": None}, {"text": "b", "f": 2}]
    assert "formulas without a stored value" in said(rows)[0]
    rewritten(
        path, lambda text: text.replace("<v></v>", "<v>0</v>").replace("<v/>", "<v>0</v>").replace("<v />", "<v>0</v>")
    )
    assert "no computed value" in said(opened(path))[0], "the workbook asks to be computed when it is opened"


def test_a_workbook_has_an_index_gaps_and_titles_as_a_table_has(tmp_path: Path) -> None:
    rows = opened(workbook(tmp_path / "a.xlsx", {"s": [[None, "text", None, "n"], [0, "a", None, 1]]}))
    assert fields(rows) == [{"index": 0, "text": "a", "n": 1}]
    with pytest.raises(InputError, match="looks like a title"):
        opened(workbook(tmp_path / "b.xlsx", {"s": [["Report"], [], ["id", "text"], [1, "a"]]}))
    found = list(
        opened(workbook(tmp_path / "c.xlsx", {"s": [["a", None, "b"], [1, None, 2], [1, "x", 2], [1, None, 2, 3]]}))
    )
    assert [(row.line, row.reason) for row in found if isinstance(row, Invalid)] == [
        (3, "cell 2 has a value, but column 2 has no name in the header"),
        (4, "4 cells where the header has 3"),
    ]


def test_text_that_xml_cannot_hold_is_read(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", {"s": [["text"], ["a_x000D_b_x0041_"]]})
    assert fields(opened(path)) == [{"text": "a\rbA"}]
