"""CSV, TSV, text, Parquet and Excel."""

import csv
import datetime
import importlib
import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import InputError, RefusedError
from batchrun.models import Invalid, Row
from batchrun.rows import Input, extras, open_input
from batchrun.rows.check import Remarks
from batchrun.rows.table import Dialect, read_table


def opened(path: Path, data: str | bytes) -> Input:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return open_input(str(path), has_prompt=True)


def fields(rows: Input) -> list[dict[str, Any]]:
    return [row.fields for row in rows if isinstance(row, Row)]


def reasons(rows: Input) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in rows if isinstance(row, Invalid)]


def test_a_table_is_rows_of_text_in_column_order(tmp_path: Path) -> None:
    table = opened(tmp_path / "t.csv", '\ufeffid, n ,text\r\n1,-5,"a ""b"", c"\r\n\r\n2,007,é\u2028\0\r\n')
    assert (table.format, table.id_column, table.columns) == ("csv", "id", ("id", "n", "text"))
    first, second = table
    assert isinstance(first, Row)
    assert first == Row(2, "1", '{"id":"1","n":"-5","text":"a \\"b\\", c"}', first.fields)
    assert isinstance(second, Row)
    assert second.line == 4
    assert second.fields == {"id": "2", "n": "007", "text": "é\u2028\0"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_of_a_csv_file_is_found(tmp_path: Path, delimiter: str) -> None:
    lines = [delimiter.join(cells) for cells in (["id", "text"], ["1", '"a,b;c\td"'], ["2", "x"])]
    assert fields(opened(tmp_path / "t.csv", "\n".join(lines))) == [
        {"id": "1", "text": "a,b;c\td"},
        {"id": "2", "text": "x"},
    ]


def test_a_comma_in_the_cells_does_not_hide_the_semicolon(tmp_path: Path) -> None:
    assert fields(opened(tmp_path / "t.csv", "id;size, m\n1;1,5\n2;1,2,3\n"))[0] == {"id": "1", "size, m": "1,5"}


def test_a_record_over_several_lines_is_named_by_its_first(tmp_path: Path) -> None:
    table = opened(tmp_path / "t.csv", 'a,b\n"x\r\ny\nz",1\nragged\n1,2,3\n"x"y,2\n5,6')
    assert fields(table) == [{"a": "x\r\ny\nz", "b": "1"}, {"a": "5", "b": "6"}]
    assert reasons(table)[:2] == [(5, "1 cell where the header has 2"), (6, "3 cells where the header has 2")]
    assert reasons(table)[2][0] == 7


def test_a_cell_longer_than_the_csv_module_allows_is_read(tmp_path: Path) -> None:
    assert len(fields(opened(tmp_path / "t.csv", f'a,b\n"{"x" * 200_000}",1\n'))[0]["a"]) == 200_000


def test_a_table_that_is_not_utf8_says_so(tmp_path: Path) -> None:
    assert reasons(opened(tmp_path / "t.csv", b"a,b\nx,caf\xe9\n")) == [(2, "not UTF-8")]
    with pytest.raises(InputError, match="header cannot be decoded"):
        opened(tmp_path / "t.csv", b"a,caf\xe9\nx,y\n")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("a,b,a\n1,2,3\n", 'the column "a" twice'),
        ("a,,b\n1,2,3\n", "column 2 has no name in the header"),
        ('a,b\n1,2\n3,"x\n4,5\n', "opened in the record of line 3 is never closed"),
        ("a,b\n", "has no rows"),
        ('"a\n', "never closed"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, data: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        opened(tmp_path / "t.csv", data)


def test_a_record_that_is_no_row_keeps_its_very_text(tmp_path: Path) -> None:
    found = opened(tmp_path / "t.csv", b'a,b\n1,"x ""y""\nz",3\r\n"q"r,2\n4,\xe9\n5,6\n')
    assert [row.text for row in found] == ['1,"x ""y""\nz",3', '"q"r,2', "4,\xe9", '{"a":"5","b":"6"}']


def test_lines_of_text_are_rows(tmp_path: Path) -> None:
    text = opened(tmp_path / "t.txt", b'a "b"\x0b\x0c\r\n\n{not json\n\xff\n[x] last')
    assert fields(text) == [{"text": 'a "b"\x0b\x0c'}, {"text": "{not json"}, {"text": "[x] last"}]
    assert [row.line for row in text] == [1, 3, 4, 5]
    assert reasons(text) == [(4, "not UTF-8 at byte 1 of the line (0xff)")]


CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(
    st.integers(2, 4).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=1, max_size=5)),
    st.sampled_from([",", ";", "\t"]),
    st.integers(1, 30),
)
def test_what_python_writes_as_csv_is_read_back(rows: list[list[str]], delimiter: str, size: int) -> None:
    header = [f"c{index}" for index in range(len(rows[0]))]
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([header, *rows])
    data = written.getvalue().encode()
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    assert [record[2] for record in read_table(chunks, Dialect(delimiter), "x", Remarks())] == [
        dict(zip(header, row, strict=True)) for row in rows
    ]


def test_parquet_values_become_json(tmp_path: Path) -> None:
    pyarrow = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    values = {
        "id": 7,
        "price": Decimal("1.10"),
        "day": datetime.date(2026, 1, 2),
        "at": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        "text": b"caf\xc3\xa9",
        "raw": b"\xff\x00",
        "nan": float("nan"),
        "long": datetime.timedelta(seconds=90),
        "list": [{"a": 1.5, "b": None}],
    }
    parquet.write_table(pyarrow.Table.from_pylist([values]), tmp_path / "t.bin")
    row = next(iter(open_input(str(tmp_path / "t.bin"), has_prompt=True)))
    assert isinstance(row, Row)
    assert row.key == "7"
    assert row.text == (
        '{"id":7,"price":"1.10","day":"2026-01-02","at":"2026-01-02T03:04:05+00:00","text":"café","raw":"/wA=",'
        '"nan":null,"long":90.0,"list":[{"a":1.5,"b":null}]}'
    )


def test_nanoseconds_are_cut_off(tmp_path: Path) -> None:
    pyarrow = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"t": pyarrow.array([1], pyarrow.timestamp("ns"))}), tmp_path / "t.parquet")
    assert fields(open_input(str(tmp_path / "t.parquet"), has_prompt=True)) == [{"t": "1970-01-01T00:00:00"}]


def test_the_first_sheet_of_a_workbook_is_read(tmp_path: Path) -> None:
    openpyxl = importlib.import_module("openpyxl")
    book = openpyxl.Workbook()
    for cells in (["id", "text", None], [1, "=1+1x"], [], [2], [3, datetime.date(2026, 1, 2), None], [4, 5, 6]):
        book.active.append(cells)
    book.save(tmp_path / "t.xlsx")
    rows = open_input(str(tmp_path / "t.xlsx"), has_prompt=True)
    assert rows.format == "excel"
    assert [(row.line, row.key) for row in rows if isinstance(row, Row)] == [(2, "1"), (4, "2"), (5, "3")]
    assert fields(rows)[1:] == [{"id": 2, "text": None}, {"id": 3, "text": "2026-01-02T00:00:00"}]
    assert reasons(rows) == [(6, "3 cells where the header has 2")]


def test_a_missing_extra_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras._MODULES, "parquet", ("no_such_module_here", "Parquet files", "data"))  # pyright: ignore[reportPrivateUsage]
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and so on")
    with pytest.raises(RefusedError) as refused:
        open_input(str(tmp_path / "t.parquet"), has_prompt=True)
    assert refused.value.hint == (
        "pip install no_such_module_here; with uv tool, install batchrun again with --with no_such_module_here"
    )


@pytest.mark.parametrize("data", [b"PAR1 and so on PAR1", b"PK\x03\x04 and so on"])
def test_a_damaged_file_is_refused(tmp_path: Path, data: bytes) -> None:
    importlib.import_module("pyarrow")
    importlib.import_module("openpyxl")
    with pytest.raises(InputError, match="cannot be read as"):
        opened(tmp_path / "t", data)
