"""Output lines and files: the row's own text with the new members, CSV for spreadsheets, Parquet, OpenAI Batch lines."""

import csv
import importlib
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from test_rows_json import OBJECTS

from batchrun.errors import StorageError
from batchrun.models import Row
from batchrun.rows import (
    Exact,
    batch_error_line,
    batch_line,
    clash,
    columns_of,
    error_text,
    insert_members,
    open_input,
    restore,
    writer,
)
from batchrun.rows.check import one_line
from batchrun.rows.members import output_line
from batchrun.rows.table import Table
from batchrun.rows.writers import neutral


def written(format: str, rows: list[tuple[str, dict[str, str]]], **options: Any) -> bytes:
    stream = io.BytesIO()
    sink = writer(format, stream, **options)
    for text, additions in rows:
        sink.write(text, additions)
    sink.close()
    return stream.getvalue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", '{"output":"x"}'),
        ("{ }", '{ "output":"x"}'),
        ('{"a":1.10}', '{"a":1.10,"output":"x"}'),
        ('{"a":1 } ', '{"a":1 ,"output":"x"} '),
        ('{"a":"{"}', '{"a":"{","output":"x"}'),
        ('{"a":{}}', '{"a":{},"output":"x"}'),
        ('{"a":{} }', '{"a":{} ,"output":"x"}'),
    ],
)
def test_new_members_stand_before_the_last_brace(text: str, expected: str) -> None:
    assert insert_members(text, {"output": '"x"'}) == expected
    assert json.loads(expected) == json.loads(text) | {"output": "x"}


def test_no_new_members_change_nothing() -> None:
    assert insert_members('{"a":1}', {}) == '{"a":1}'
    assert insert_members("{}", {}) == "{}"


@given(OBJECTS, st.dictionaries(st.text(), st.text(), min_size=1, max_size=3))
def test_a_line_is_the_row_and_its_additions_whatever_they_are(text: str, values: dict[str, str]) -> None:
    line = insert_members(text, {name: json.dumps(value) for name, value in values.items()})
    assert line.startswith(text.rstrip()[:-1])
    assert json.loads(line) == json.loads(text) | values


SPACE = st.text(" \t\r\n", max_size=3)


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2), st.lists(SPACE, min_size=9, max_size=9))
def test_an_output_line_is_the_row_with_its_additions_in_one_line(values: dict[str, str], spaces: list[str]) -> None:
    inside = f"{spaces[0]},{spaces[1]}".join(
        f"{json.dumps(name)}{spaces[2]}:{spaces[3]}{json.dumps(value, ensure_ascii=False)}"
        for name, value in values.items()
    )
    text = f"{{{spaces[4]}{inside}{spaces[5]}}}{spaces[6]}"
    for additions in ({}, {"new": f"{spaces[7]}[1,{spaces[8]}2]"}, {"new": '"é"', "more": "{}"}):
        line = output_line(text, additions)
        assert line == (one_line(insert_members(text, additions)) + "\n").encode()
        assert json.loads(line) == values | {name: json.loads(value) for name, value in additions.items()}


def test_a_clash_names_the_columns() -> None:
    assert clash(("id", "summary", "topic"), ["topic", "output", "summary"]) == ("topic", "summary")
    assert clash(("id",), ["output"]) == ()


def test_an_error_line_is_the_row_and_the_reason() -> None:
    assert error_text('{"a":1.0}', {"cause": "é", "line": 3}) == '{"a":1.0,"_batchrun":{"cause":"é","line":3}}'


def test_a_row_comes_back_from_its_text() -> None:
    row = restore(3, "k", '{"a":1.10}')
    assert (row.line, row.key, row.text, row.fields) == (3, "k", '{"a":1.10}', {"a": 1.1})
    with pytest.raises(ValueError, match="not an object"):
        restore(1, None, "[]")


def test_jsonl_is_a_line_per_row() -> None:
    rows = [('{"a":1.10}', {"output": '"é\\n"'}), ("{}", {"output": '{\n  "b": "x  y"\n}'})]
    assert written("jsonl", rows).decode() == '{"a":1.10,"output":"é\\n"}\n{"output":{"b": "x  y"}}\n'


def test_csv_cells_keep_the_spelling_of_the_row() -> None:
    text = '{"id":"007","n":1.10,"big":1E400,"yes":true,"no":null,"list":[1.0, "a"],"text":"a\\r\\"b\\",\\nc"}'
    data = written("csv", [(text, {"output": '{"x":1.50}'}), ('{"id":"8"}', {"output": "null"})]).decode()
    assert data.startswith("id,n,big,yes,no,list,text,output\r\n")
    _, first, second = csv.reader(io.StringIO(data, newline=""))
    assert first == ["007", "1.10", "1E400", "true", "", '[1.0, "a"]', 'a\r"b",\nc', '{"x":1.50}']
    assert second == ["8", "", "", "", "", "", "", ""]


def test_a_csv_header_can_be_known_before_the_first_row() -> None:
    rows = [('{"a":1}', {"output": '"x"'}), ('{"b":2}', {"output": '"y"'})]
    columns = dict.fromkeys(name for text, _ in rows for name in columns_of(text)) | {"output": None}
    assert written("csv", rows, columns=list(columns)) == b"a,b,output\r\n1,,x\r\n,2,y\r\n"
    assert written("csv", [], columns=["a"]) == b"a\r\n"


def test_a_column_that_the_csv_header_lacks_is_not_dropped_silently() -> None:
    with pytest.raises(StorageError, match='the column "b"') as refused:
        written("csv", [('{"a":1}', {}), ('{"a":1,"b":2}', {})])
    assert refused.value.hint
    assert "JSONL" in refused.value.hint


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("=1+1", "'=1+1"),
        ("+49 170", "'+49 170"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\tx", "'\tx"),
        ("\r=1", "'\r=1"),
        ("\n=1", "'\n=1"),
        ("  =1", "'  =1"),
        ("'=1", "''=1"),
        ('"=1"', '\'"=1"'),
        ("＝1", "'＝1"),
        ("-5", "-5"),
        ("+5.25", "+5.25"),
        ("-1e-5", "-1e-5"),
        ("-", "'-"),
        ("a=1", "a=1"),
        ("'tis", "'tis"),
        ("", ""),
    ],
)
def test_a_spreadsheet_never_sees_a_formula(cell: str, shown: str) -> None:
    assert neutral(cell) == shown
    header, row = csv.reader(io.StringIO(written("csv", [(json.dumps({cell: cell, "b": 1}), {})]).decode(), newline=""))
    assert (header[0], row[0]) == (shown, shown)


def test_exact_csv_leaves_formulas_alone() -> None:
    assert written("csv", [('{"a":"=1"}', {})], exact=Exact.ALL) == b"a\r\n=1\r\n"


def test_cells_of_a_table_come_back_as_they_were_and_only_replies_are_made_harmless() -> None:
    rows = [('{"=a":"- item"}', {"output": '"- item"'})]
    assert written("csv", rows, exact=Exact.OWN) == b"=a,output\r\n- item,'- item\r\n"


@given(st.lists(st.fixed_dictionaries({"a": st.text(), "b": st.text()}), min_size=1, max_size=4))
def test_exact_csv_is_read_back_as_it_was(rows: list[dict[str, str]]) -> None:
    data = written("csv", [(json.dumps(row), {}) for row in rows], exact=Exact.ALL).decode()
    assert list(csv.DictReader(io.StringIO(data, newline=""))) == rows


CELLS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('",;\t\r\n '), max_size=6)


@given(st.lists(st.lists(CELLS, min_size=1, max_size=3), min_size=1, max_size=3), st.sampled_from(",;"), st.booleans())
def test_csv_is_quoted_as_by_the_standard_library(rows: list[list[str]], delimiter: str, marked: bool) -> None:
    columns = [str(number) for number in range(max(map(len, rows)))]
    texts = [json.dumps(dict(zip(columns, row, strict=False))) for row in rows]
    table = Table(delimiter, marked)
    data = written("csv", [(text, {}) for text in texts], columns=columns, exact=Exact.ALL, table=table)
    expected = io.StringIO(newline="")
    writer = csv.DictWriter(expected, columns, delimiter=delimiter)
    writer.writeheader()
    writer.writerows([dict(zip(columns, row, strict=False)) for row in rows])
    assert data.decode() == "\ufeff" * marked + expected.getvalue()


@example('{"a":"1","b":"x","a":"2"}')
@example('{"a":1.10,"b":1E400,"c":-0,"d":"x"}')
@given(OBJECTS)
def test_a_cell_is_a_text_or_a_number_as_it_is_spelled(text: str) -> None:
    values = json.loads(text, parse_int=str, parse_float=str)
    assume(values)
    data = written("csv", [(text, {})], exact=Exact.ALL).decode()
    header, row = csv.reader(io.StringIO(data, newline=""))
    cells = dict(zip(header, row, strict=True))
    assert list(cells) == list(values)
    assert [cells[name] for name, value in values.items() if isinstance(value, str)] == [
        value for value in values.values() if isinstance(value, str)
    ]


def test_parquet_finds_the_types_of_all_rows() -> None:
    parquet = importlib.import_module("pyarrow.parquet")
    rows = [
        ('{"id":1,"n":1,"m":1,"t":"a","big":1,"nested":[1.0],"none":null}', {"output": '"x"'}),
        ('{"id":2,"n":1.5,"m":"a","t":null,"big":123456789012345678901,"late":true}', {"output": "null"}),
    ]
    table = parquet.read_table(io.BytesIO(written("parquet", rows)))
    assert {field.name: str(field.type) for field in table.schema} == {
        "id": "int64",
        "n": "double",
        "m": "string",
        "t": "string",
        "big": "string",
        "nested": "string",
        "none": "string",
        "output": "string",
        "late": "bool",
    }
    first, second = table.to_pylist()
    assert (first["n"], first["m"], first["nested"], first["late"]) == (1.0, "1", "[1.0]", None)
    assert (second["n"], second["m"], second["big"], second["output"]) == (1.5, "a", "123456789012345678901", None)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["9007199254740993", "1"], "int64"),
        (["1.5", "9007199254740992"], "double"),
        (["1.5", "9007199254740993"], "string"),
        (["-9007199254740993", "2.5"], "string"),
        (["1e999", "1.5"], "string"),
    ],
)
def test_no_number_changes_its_value_to_fit_a_column(values: list[str], kind: str) -> None:
    rows: list[tuple[str, dict[str, str]]] = [(f'{{"n":{value}}}', {}) for value in values]
    table = importlib.import_module("pyarrow.parquet").read_table(io.BytesIO(written("parquet", rows)))
    assert str(table.schema.field("n").type) == kind
    assert [Decimal(str(row["n"])) for row in table.to_pylist()] == [Decimal(value) for value in values]


def test_a_batch_result_has_openai_s_shape_and_the_reply_s_text() -> None:
    line = batch_line("batch_req_1", "../é\n\0", 200, "req_1", '{\n  "n": 1.10,\n  "text": "a  b"\n}\n')
    assert line == (
        '{"id": "batch_req_1", "custom_id": "../é\\n\\u0000", "response": {"status_code": 200, "request_id": "req_1", '
        '"body": {"n": 1.10,"text": "a  b"}}, "error": null}'
    )
    assert json.loads(line)["custom_id"] == "../é\n\0"


@pytest.mark.parametrize(
    ("options", "response", "told"),
    [
        ({}, None, False),
        (
            {"status_code": 400, "body_text": '{"error":1}'},
            {"status_code": 400, "request_id": None, "body": {"error": 1}},
            True,
        ),
        (
            {"status_code": 502, "request_id": "r", "body_text": "<html>\n"},
            {"status_code": 502, "request_id": "r", "body": "<html>\n"},
            True,
        ),
        ({"status_code": 500}, {"status_code": 500, "request_id": None, "body": None}, False),
        (
            {"status_code": 200, "body_text": '{"choices": []}'},
            {"status_code": 200, "request_id": None, "body": {"choices": []}},
            False,
        ),
    ],
)
def test_a_batch_error_has_the_answer_if_there_was_one_and_else_says_why(
    options: dict[str, Any], response: dict[str, Any] | None, *, told: bool
) -> None:
    line = batch_error_line("batch_req_1", "a", "deadline", 'no "answer"', **options)
    assert "\n" not in line
    assert json.loads(line) == {
        "id": "batch_req_1",
        "custom_id": "a",
        "response": response,
        "error": None if told else {"code": "deadline", "message": 'no "answer"'},
    }


def test_tsv_is_a_table_with_tabs_and_is_read_back(tmp_path: Path) -> None:
    rows = [
        ('{"id":"1","text":"a\\tb \\"c\\""}', {"output": '"x\\ny"'}),
        ('{"id":"2","text":"=1"}', {"output": '{"a":1}'}),
    ]
    data = written("tsv", rows)
    assert data.startswith(b'id\ttext\toutput\n1\t"a\tb ""c"""\t"x\ny"\n')
    (tmp_path / "a.tsv").write_bytes(data)
    again = [row.fields for row in open_input(str(tmp_path / "a.tsv"), has_prompt=True) if isinstance(row, Row)]
    assert again == [
        {"id": "1", "text": 'a\tb "c"', "output": "x\ny"},
        {"id": "2", "text": "=1", "output": '{"a":1}'},
    ]


def test_a_workbook_keeps_texts_numbers_and_what_no_cell_of_numbers_holds(tmp_path: Path) -> None:
    text = '{"id":"007","t":"=1+1\\u0001_x0041_ a\\r\\nb","n":1.10,"big":12345678901234567890,"l":[1.0],"none":null}'
    (tmp_path / "a.xlsx").write_bytes(written("xlsx", [(text, {"output": '"é"'}), ('{"id":"8","n":true}', {})]))
    first, second = open_input(str(tmp_path / "a.xlsx"), has_prompt=True)
    assert isinstance(first, Row)
    assert isinstance(second, Row)
    assert first.fields == {
        "id": "007",
        "t": "=1+1\1_x0041_ a\r\nb",
        "n": 1.1,
        "big": "12345678901234567890",
        "l": "[1.0]",
        "none": None,
        "output": "é",
    }
    assert (second.fields["id"], second.fields["n"]) == ("8", True)


def test_what_a_workbook_cannot_hold_is_refused() -> None:
    with pytest.raises(StorageError, match="too long for a cell"):
        written("xlsx", [(json.dumps({"a": "x" * 32_768}), {})])
