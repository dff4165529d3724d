"""Ordinary files, as programs and people write them: how many rows they are, or what to do about them."""

import csv
import importlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchrun.errors import InputError
from batchrun.models import Invalid, Row
from batchrun.rows import Input, Reading, Refusal, open_input
from batchrun.rows.check import Remarks
from batchrun.rows.table import csv_dialect, read_table, tsv_dialect


def opened(path: Path, data: str | bytes, /, **reading: Any) -> Input:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return open_input(str(path), has_prompt=True, reading=Reading(**reading))


def fields(rows: Input) -> list[dict[str, Any]]:
    found = list(rows)
    assert not [row for row in found if isinstance(row, Invalid)]
    return [row.fields for row in found if isinstance(row, Row)]


HELLO = [{"id": "1", "text": "Hello"}, {"id": "2", "text": "Bye"}]


@pytest.mark.parametrize(
    ("name", "data", "rows"),
    [
        # TSV: quotation marks are text unless every cell that begins with one is well formed
        ("a.tsv", 'id\ttext\n1\t"Hello\n2\tBye"\n', [("1", '"Hello'), ("2", 'Bye"')]),
        ("a.tsv", 'id\ttext\n1\t"Hello" she said\n2\t5" pipe\n', [("1", '"Hello" she said'), ("2", '5" pipe')]),
        ("a.tsv", 'id\ttext\n1\t"Hello"\n2\t"a ""b"" c"\n', [("1", "Hello"), ("2", 'a "b" c')]),
        ("a.tsv", 'id\ttext\n1\t"Hello"\n2\t"open\n', [("1", '"Hello"'), ("2", '"open')]),
        ("a.tsv", 'id\ttext\n1\t"one\ntwo"\n2\tx\n', [("1", "one\ntwo"), ("2", "x")]),
        ("a.tsv", 'id\ttext\n1\t"a\tb"\n2\tx\n', [("1", "a\tb"), ("2", "x")]),
        ("a.tsv", "id\ttext\r\n1\ta\rb\r\n2\tx", [("1", "a\rb"), ("2", "x")]),
        # CSV: dialects
        ("a.csv", "sep=;\r\nid;text\r\n1;Hello\r\n2;Bye\r\n", [("1", "Hello"), ("2", "Bye")]),
        ("a.csv", "\ufeffSEP=|\nid|text\n1|Hello\n2|Bye\n", [("1", "Hello"), ("2", "Bye")]),
        ("a.csv", "id|text\n1|Hello\n2|Bye, then\n", [("1", "Hello"), ("2", "Bye, then")]),
        ("a.psv", "id|text\n1|Hello\n", [("1", "Hello")]),
        ("a.csv", "id,text\r1,Hello\r2,Bye\r", [("1", "Hello"), ("2", "Bye")]),
        ("a.csv", 'id,text\n1,"say \\"hi\\", ok"\n2,x\n', [("1", 'say "hi", ok'), ("2", "x")]),
        ("a.csv", 'id,text\n1,"C:\\new\\"\n2,x\n', [("1", "C:\\new\\"), ("2", "x")]),
        ("a.csv", 'id,text\n1,"ends \\\\"\n2,"a \\"b\\", c"\n', [("1", "ends \\"), ("2", 'a "b", c')]),
        ("a.csv", 'id, text\n1, "Hello, you"\n2, x\n', [("1", "Hello, you"), ("2", "x")]),
    ],
)
def test_a_table_is_read_as_it_was_written(tmp_path: Path, name: str, data: str, rows: list[tuple[str, str]]) -> None:
    assert [(row["id"], row["text"]) for row in fields(opened(tmp_path / name, data))] == rows


def test_one_column_of_text_with_commas_is_one_column(tmp_path: Path) -> None:
    found = fields(opened(tmp_path / "a.csv", 'text\nHello; world, really\nIt was: one; two\n"a, b"\n'))
    assert found == [{"text": "Hello; world, really"}, {"text": "It was: one; two"}, {"text": "a, b"}]


@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize(
    ("header", "first", "columns"),
    [
        (["", "text"], ["0", "Hello"], {"index": "0", "text": "Hello"}),
        (["text", ""], ["Hello", ""], {"text": "Hello"}),
        (["text", "", "n"], ["Hello", " ", "1"], {"text": "Hello", "n": "1"}),
        (["", "text"], ["", "Hello"], {"text": "Hello"}),
    ],
)
def test_a_column_without_a_name_is_the_index_or_left_out(
    tmp_path: Path, delimiter: str, header: list[str], first: list[str], columns: dict[str, str]
) -> None:
    rows = opened(
        tmp_path / ("a.csv" if delimiter == "," else "a.tsv"), "\n".join(map(delimiter.join, [header, first]))
    )
    assert fields(rows) == [columns]
    assert bool(rows.remarks.all()) == ("index" in columns)


def test_a_cell_in_a_column_without_a_name_is_never_dropped(tmp_path: Path) -> None:
    rows = list(opened(tmp_path / "a.csv", "text,\nHello,\nBye,note\n"))
    assert [row.line for row in rows if isinstance(row, Invalid)] == [3]
    with pytest.raises(InputError, match="column 2 has no name in the header"):
        opened(tmp_path / "b.csv", "text,\nHello,note\n")


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
TABLES = st.integers(2, 4).flatmap(
    lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), min_size=1, max_size=5)
)


def reread(data: str, delimiter: str, size: int) -> list[list[str]]:
    def chunks() -> list[bytes]:
        return [data.encode()[at : at + size] for at in range(0, len(data.encode()), size)]

    dialect = csv_dialect(data, "x", delimiter)
    if delimiter == "\t":
        dialect = tsv_dialect(chunks, "x")
    found = list(read_table(chunks(), dialect, "x", Remarks()))
    assert not [record for record in found if isinstance(record, Invalid)]
    return [list(record[2].values()) for record in found if not isinstance(record, Invalid)]


@given(TABLES, st.integers(1, 30))
def test_a_tsv_without_quotation_has_a_row_for_every_line(table: list[list[str]], size: int) -> None:
    """Whatever quotation marks it has: no line is swallowed, unless all of them are well formed."""
    cells = [[cell.replace("\t", " ").replace("\n", " ").replace("\r", " ") for cell in row] for row in table]
    assume(all("".join(row) for row in cells))
    header = [f"c{index}" for index in range(len(cells[0]))]
    found = reread("".join("\t".join(row) + "\n" for row in [header, *cells]), "\t", size)
    quoted = [cell for row in cells for cell in row if cell.startswith('"')]
    assert len(found) == len(cells)
    if any(len(cell) < 2 or not cell.endswith('"') or '"' in cell[1:-1].replace('""', "") for cell in quoted):
        assert found == cells


@given(TABLES, st.integers(1, 30), st.sampled_from(["\n", "\r\n"]))
def test_a_tsv_with_quotation_is_read_back(table: list[list[str]], size: int, end: str) -> None:
    header = [f"c{index}" for index in range(len(table[0]))]
    written = io.StringIO(newline="")
    csv.writer(written, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator=end).writerows([header, *table])
    broken = any("\n" in cell or "\t" in cell for row in table for cell in row)
    lines = written.getvalue().split("\n")
    assume(not broken or {line.count("\t") for line in lines if line.strip("\r")} != {len(header) - 1})
    assert reread(written.getvalue(), "\t", size) == table


@pytest.mark.parametrize(
    ("name", "data", "rows"),
    [
        ("a.json", '["Hello","Bye"]', [{"text": "Hello"}, {"text": "Bye"}]),
        ("a.jsonl", '"Hello"\n"B\\u0079e"\n', [{"text": "Hello"}, {"text": "Bye"}]),
        ("a.json", '{"text":"Hello"}{"text":"Bye"}', [{"text": "Hello"}, {"text": "Bye"}]),
        ("a", '{\n "text": "Hello"\n}\n{\n "text": "Bye"\n}\n', [{"text": "Hello"}, {"text": "Bye"}]),
        ("a.json", '{\n "text": "Hello"\n}', [{"text": "Hello"}]),
    ],
)
def test_json_is_read_as_programs_print_it(tmp_path: Path, name: str, data: str, rows: list[dict[str, str]]) -> None:
    assert fields(opened(tmp_path / name, data)) == rows


@pytest.mark.parametrize("path", ["data", "a.b"])
@pytest.mark.parametrize("indent", [None, 2])
def test_the_list_inside_a_wrapper_is_read_by_its_path(tmp_path: Path, path: str, indent: int | None) -> None:
    items = [{"text": "Hello", "n": 1.0}, {"text": "[{]", "more": [{"x": 1}]}]
    wrapped: dict[str, Any] = {"more": [1, "a\\"], "x": {"data": [0], "a": {"b": 1}}}
    wrapped |= {"data": items} if path == "data" else {"a": {"c": [2], "b": items}}
    wrapped["after"] = [{"text": "no row"}]
    data = json.dumps(wrapped, indent=indent)
    assert fields(opened(tmp_path / "a.json", data, path=path)) == items


def test_a_path_to_no_list_names_the_lists_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no list at --path rows") as refused:
        opened(tmp_path / "a.json", '{"data":{"items":[]},"n":{"rows":1},"list":[1]}', path="rows")
    assert refused.value.hint == "Its lists: data.items, list."
    with pytest.raises(InputError, match="more than one object"):
        list(opened(tmp_path / "b.json", '{"data":[{"a":1}]}\n{"data":[{"a":2}]}', path="data"))


@given(st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=3), min_size=1), st.integers(1, 50))
def test_a_wrapped_list_is_the_list_over_pieces_of_any_size(items: list[dict[str, str]], size: int) -> None:
    from batchrun.rows.jsons import read_array  # noqa: PLC0415  the reader below the files

    data = json.dumps({"x": '"[{', "y": [[1]], "data": items, "z": ["]"]}).encode()
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    found = list(read_array(chunks, "x", "data", Remarks()))
    assert [record[2] for record in found if not isinstance(record, Invalid)] == items


@pytest.mark.parametrize(
    ("name", "data", "message", "hint"),
    [
        ("a.json", '{"text":{"0":"a","1":"b"},"n":{"0":1,"1":2}}', 'orient="columns"', 'orient="records", lines=True'),
        ("a.json", '{"0":{"text":"a"},"1":{"text":"b"}}', 'orient="index"', 'orient="records"'),
        ("a.json", '{"columns":["text"],"index":[0],"data":[["a"]]}', 'orient="split"', 'orient="records"'),
        ("a.csv", "Report of May\nid,text\n1,a\n2,b\n", "looks like a title", "above the header"),
        (
            "a.txt",
            "It was a bright\nday in April.\n\nThe clocks were\nstriking one.\n",
            "continue on the next line",
            "--yes",
        ),
        ("a.jsonl", '{"a":1}\n'.encode("utf-16"), "UTF-16", "--encoding utf-16"),
    ],
)
def test_what_cannot_be_rows_says_what_to_do(
    tmp_path: Path, name: str, data: str | bytes, message: str, hint: str
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        opened(tmp_path / name, data)
    assert refused.value.hint
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    "data",
    ["one line\nanother line\n", "a list\nof words\n\nmore\nwords\n", "Hello there.\nHow are you?\n\nFine.\nBye.\n"],
)
def test_text_with_a_row_in_each_line_is_not_taken_for_paragraphs(tmp_path: Path, data: str) -> None:
    assert len(fields(opened(tmp_path / "a.txt", data))) == sum(bool(line) for line in data.split("\n"))


def test_lines_of_a_document_are_rows_only_if_they_are_asked_for(tmp_path: Path) -> None:
    def structured(name: str, head: bytes) -> Refusal | None:
        return Refusal("subtitles", "Do this.") if name.endswith(".srt") and b"-->" in head else None

    data = "1\n00:00:01,000 --> 00:00:02,000\nHello\n"
    with pytest.raises(InputError, match=r"a\.srt is subtitles: its lines are not rows") as refused:
        opened(tmp_path / "a.srt", data, structured=structured)
    assert refused.value.hint is not None
    assert refused.value.hint.startswith("Do this. With --yes")
    assert len(fields(opened(tmp_path / "a.srt", data, structured=structured, lines=True))) == 3


@pytest.mark.parametrize(
    ("member", "content", "what"),
    [
        ("ppt/presentation.xml", "", "PowerPoint"),
        ("mimetype", "application/vnd.oasis.opendocument.spreadsheet", r"\.ods"),
        ("data.csv", "a", "a ZIP archive"),
        ("xl/workbook.bin", "", r"\.xlsb"),
    ],
)
def test_an_archive_is_called_by_its_name(tmp_path: Path, member: str, content: str, what: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.dat", "w") as archive:
        archive.writestr(member, content)
    with pytest.raises(InputError, match=what) as refused:
        open_input(str(tmp_path / "a.dat"), has_prompt=True)
    assert refused.value.hint


def test_text_in_another_encoding_is_read_by_its_name(tmp_path: Path) -> None:
    for encoding in ("cp1252", "utf-16", "utf-16-le", "shift_jis"):
        text = "id,text\n1,日本\n" if encoding == "shift_jis" else "id,text\n1,Hällo €\n"
        if encoding == "cp1252":
            text = "id,text\n1,Hällo – “x”\n"
        found = opened(tmp_path / "a.csv", text.encode(encoding), encoding=encoding)
        assert fields(found) == [{"id": "1", "text": text.split(",")[-1].strip()}]
    with pytest.raises(InputError, match="is not text in ascii"):
        list(opened(tmp_path / "a.csv", "text\né\n", encoding="ascii"))


def test_what_is_remarkable_about_rows_is_counted_with_the_first_line(tmp_path: Path) -> None:
    rows = opened(tmp_path / "a.jsonl", '{"text":"a"}\n{"text":"b","text":"c"}\n{"text":"d","x":{"y":1,"y":2}}\n')
    assert len(fields(rows)) == 3
    assert [(count, line) for _, count, line in rows.remarks.all()] == [(1, 2), (1, 3)]
    chat = '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n'
    (tmp_path / "b.jsonl").write_text(chat * 2)
    bodies = open_input(str(tmp_path / "b.jsonl"), has_prompt=False)
    assert len(list(bodies)) == len(list(bodies)) == 2
    assert [(count, line) for _, count, line in bodies.remarks.all()] == [(2, 1)]


def shards(folder: Path, **files: str) -> None:
    for name, data in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(data)


def test_files_of_rows_in_a_directory_are_one_input(tmp_path: Path) -> None:
    shards(tmp_path, b__2_jsonl='\n{"n":3}\n', b__1_jsonl='{"n":1}\n{"n":2}\n', c_jsonl="{bad\n")
    (tmp_path / "_SUCCESS").touch()
    rows = open_input(str(tmp_path), has_prompt=True)
    assert (rows.format, rows.stem) == ("jsonl", tmp_path.name)
    assert [row.fields["n"] for row in rows if isinstance(row, Row)] == [1, 2, 3]
    assert [rows.where(row.line) for row in rows] == [
        "b/1.jsonl, line 1",
        "b/1.jsonl, line 2",
        "b/2.jsonl, line 2",
        "c.jsonl, line 1",
    ]
    assert len({row.line for row in rows}) == 4


def test_tables_in_a_directory_need_the_same_columns(tmp_path: Path) -> None:
    shards(tmp_path, a_csv="id,text\n1,a\n", b_csv='id,text\n2,"b\nc"\n')
    assert [row["id"] for row in fields(open_input(f"{tmp_path}/*.csv", has_prompt=True))] == ["1", "2"]
    shards(tmp_path, c_csv="id,body\n3,a\n")
    with pytest.raises(InputError, match=r"c\.csv has other columns \(id, body\) than .*a\.csv \(id, text\)"):
        list(open_input(f"{tmp_path}/*.csv", has_prompt=True))


@pytest.mark.parametrize("extra", [{"notes_md": "x"}, {"b_txt": "x"}])
def test_a_directory_of_other_files_is_a_row_for_each(tmp_path: Path, extra: dict[str, str]) -> None:
    shards(tmp_path, a_csv="id,text\n1,a\n", **extra)
    rows = open_input(str(tmp_path), has_prompt=True)
    assert (rows.format, rows.where(1)) == ("files", "a.csv")
    assert len(fields(rows)) == 2


def test_json_files_of_one_object_each_stay_a_row_for_each_file(tmp_path: Path) -> None:
    shards(tmp_path, a_json='{"title":"a"}', b_json='{"title":"b"}')
    assert [row["name"] for row in fields(open_input(str(tmp_path), has_prompt=True))] == ["a.json", "b.json"]
    shards(tmp_path / "lists", a_json='[{"n":1}]', b_json='[{"n":2},{"n":3}]')
    assert [row["n"] for row in fields(open_input(str(tmp_path / "lists"), has_prompt=True))] == [1, 2, 3]
    shards(tmp_path / "lines", a_json='{"n":1}\n{"n":2}\n', b_json='{"n":3}\n{"n":4}\n')
    assert len(fields(open_input(str(tmp_path / "lines"), has_prompt=True))) == 4


def test_parquet_and_arrow_files_are_one_input_too(tmp_path: Path) -> None:
    pyarrow: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    feather: Any = importlib.import_module("pyarrow.feather")
    table = pyarrow.table({"text": ["a", "b"], "n": [1, 2]})
    (tmp_path / "p").mkdir()
    for number in (2, 1):
        parquet.write_table(table, tmp_path / "p" / f"part-{number}.parquet")
    assert len(fields(open_input(str(tmp_path / "p"), has_prompt=True))) == 4
    feather.write_feather(table, tmp_path / "a.feather")
    with pyarrow.OSFile(str(tmp_path / "b.arrow"), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    for name in ("a.feather", "b.arrow"):
        rows = open_input(str(tmp_path / name), has_prompt=True)
        assert (rows.format, fields(rows)) == ("arrow", [{"text": "a", "n": 1}, {"text": "b", "n": 2}])


def test_options_that_a_format_has_no_use_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--sheet is for Excel"):
        opened(tmp_path / "a.csv", "a\n1\n", sheet="x")


def test_a_line_of_blanks_is_no_record_of_a_table(tmp_path: Path) -> None:
    assert [row["id"] for row in fields(opened(tmp_path / "a.csv", "id,text\n1,a\n   \n2,b\n"))] == ["1", "2"]
    assert [row["id"] for row in fields(opened(tmp_path / "a.tsv", 'id\ttext\n1\t"a\n  \n2\tb\n'))] == ["1", "2"]


def test_files_of_rows_among_others_are_no_texts(tmp_path: Path) -> None:
    shards(tmp_path, README_md="# Data", data__a_jsonl='{"n":1}\n', data__b_jsonl='{"n":2}\n')
    with pytest.raises(InputError, match=r"files of rows \(data/a\.jsonl\) among others \(README\.md\)") as refused:
        open_input(str(tmp_path), has_prompt=True)
    assert refused.value.hint is not None
    assert "**/*.jsonl" in refused.value.hint
    assert len(fields(open_input(f"{tmp_path}/**/*.jsonl", has_prompt=True))) == 2
    assert len(fields(open_input(str(tmp_path), has_prompt=True, reading=Reading(lines=True)))) == 3


@given(
    TABLES,
    st.sampled_from([",", ";", "|"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_is_found_of_a_table_does_not_change_what_python_wrote(
    table: list[list[str]], delimiter: str, quoting: int, end: str
) -> None:
    """Neither quotation marks nor backslashes, blanks or other delimiters in cells mislead it. A carriage return is left
    out: Python before 3.13 does not quote it."""
    table = [[cell.replace("\r", " ") for cell in row] for row in table]
    header = [f"c{index}" for index in range(len(table[0]))]
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows([header, *table])  # pyright: ignore[reportArgumentType]  one of the constants
    dialect = csv_dialect(written.getvalue(), "x")
    found = list(read_table([written.getvalue().encode()], dialect, "x", Remarks()))
    assert [list(record[2].values()) for record in found if not isinstance(record, Invalid)] == table
