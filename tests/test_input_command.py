"""Inputs from the command line: what is said, what is refused, what is written, and that nothing is paid for twice."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE

from batchrun.journal import Reader
from batchrun.models import Row
from batchrun.rows import open_input

JOURNALS = Path(".batchrun")


@pytest.fixture(autouse=True)
def _alone(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    Path("p.md").write_text("Say {{ text }}")


def batchrun(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "batchrun", *words]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=PATIENCE, check=False)


def ran(*words: str, code: int = 0) -> str:
    """The command's talk; it ends with `code`."""
    done = batchrun("-P", "sim", "-p", "p.md", "--no-progress", *words)
    assert done.returncode == code, done.stderr
    return done.stderr


def rows_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def calls(output: str) -> int:
    """The attempts in the journals of an output."""
    found = 0
    for path in JOURNALS.glob("*.db"):
        with Reader.open(path) as reader:
            if reader.meta.output.endswith(output):
                found += reader.totals.attempts
    return found


@pytest.mark.parametrize("command", [("plan",), ("run", "--dry-run"), ("run",)])
def test_an_id_that_two_rows_have_is_refused_by_all_that_read_the_input(command: tuple[str, ...]) -> None:
    ids = ["b", "c", "a", "c", "a", "e"]
    Path("in.jsonl").write_text("".join(json.dumps({"id": id, "text": id}) + "\n" for id in ids))
    args = ("-P", "sim", "-p", "p.md", "-i", "in.jsonl", "-o", "out.jsonl", "--no-progress")
    done = batchrun(*command, *args)
    assert (done.returncode, "The id 'a' is on line 3 and again on line 5" in done.stderr) == (2, True), done.stderr


def test_a_table_of_text_comes_back_as_one() -> None:
    Path("in.csv").write_text('id,text\n1,"- a, b"\n2,"c ""d"""\n')
    assert "wrote in.p.csv" in ran("-i", "in.csv")
    header, *rows = csv.reader(Path("in.p.csv").read_text().splitlines())
    assert header == ["id", "text", "output"]
    assert [row[:2] for row in rows] == [["1", "- a, b"], ["2", 'c "d"']]
    Path("in.tsv").write_text('id\ttext\n1\t"a\n2\tb"\n')
    ran("-i", "in.tsv")
    found = [row.fields for row in open_input("in.p.tsv", has_prompt=True) if isinstance(row, Row)]
    assert [row["text"] for row in found] == ['"a', 'b"']
    ran("-i", "in.csv", "-o", "out.xlsx")
    assert len(list(open_input("out.xlsx", has_prompt=True))) == 2


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_csv_output_is_written_as_its_input_is(mark: str) -> None:
    Path("in.csv").write_text(f'{mark}id;text\r\n1;"a; b, c"\r\n2;d\r\n', newline="")
    Path("more.csv").write_text("id|text\n3|e\n")
    ran("-i", "in.csv")
    found = Path("in.p.csv").read_bytes().decode()
    assert found == f'{mark}id;text;output\r\n1;"a; b, c";"[simulated] Say a; b, c"\r\n2;d;[simulated] Say d\r\n'
    assert "wrote again.csv" in batchrun("export", "last", "-o", "again.csv").stderr
    assert Path("again.csv").read_bytes().decode() == found
    ran("-i", "more.csv")
    assert Path("more.p.csv").read_text().splitlines()[0] == "id|text|output"
    ran("-i", "in.csv", "-o", "out.tsv")
    assert Path("out.tsv").read_text().splitlines()[2] == "2\td\t[simulated] Say d"


def test_a_run_under_the_earlier_default_name_goes_on_and_pays_nothing_again() -> None:
    Path("in.csv").write_text("id,text\n1,a\n2,b\n")
    ran("-i", "in.csv", "-o", "in.p.jsonl", "--limit", "1")
    said = ran("-i", "in.csv")
    assert "resuming the run of in.p.jsonl" in said
    assert (len(rows_of("in.p.jsonl")), calls("in.p.jsonl")) == (2, 2)
    assert not Path("in.p.csv").exists()
    assert "resuming" in ran("-i", "in.csv")
    assert calls("in.p.jsonl") == 2
    ran("-i", "in.csv", "-o", "in.p.csv")
    assert "resuming" not in ran("-i", "in.csv"), "there is a run with the new name"
    assert (calls("in.p.csv"), calls("in.p.jsonl")) == (2, 2)


BLANK = '{"id":1,"text":"a"}\n{"id":2,"text":""}\n{"id":3,"text":" \\n"}\n{"id":4,"text":""}\n'


def test_a_table_beside_a_file_of_the_same_name_is_a_run_of_its_own() -> None:
    Path("in.jsonl").write_text('{"text": "of the file"}\n')
    Path("in.csv").write_text("text\nof the table\n")
    ran("-i", "in.jsonl")
    assert "wrote in.p.csv" in ran("-i", "in.csv")
    assert [row["text"] for row in rows_of("in.p.jsonl")] == ["of the file"]


def test_another_file_does_not_take_the_place_of_rows_that_are_done() -> None:
    for place in ("a", "b"):
        Path(place).mkdir()
        Path(place, "in.csv").write_text(f"text\nof {place}\nand {place}\n")
    ran("-i", "a/in.csv")
    said = ran("-i", "b/in.csv", code=2)
    assert (
        "over a/in.csv, which has no row in common with b/in.csv: 2 rows already done would be removed from the output"
        in said
    )
    assert "of a" in Path("in.p.csv").read_text()
    Path("a/in.csv").rename("moved.csv")
    assert "finished: 2 of 2" in ran("-i", "moved.csv", "-o", "in.p.csv")
    ran("-i", "b/in.csv", "--update")
    assert "of a" not in Path("in.p.csv").read_text()


def test_blank_texts_are_said_and_sent_unless_something_else_is_chosen() -> None:
    Path("in.jsonl").write_text(BLANK)
    assert "3 rows (line 2 …): the text is blank and is sent" in ran("-i", "in.jsonl", "-o", "sent.jsonl")
    assert calls("sent.jsonl") == 4
    said = ran("-i", "in.jsonl", "-o", "skipped.jsonl", "--blank", "skip")
    assert "1 done + 0 failed + 3 skipped" in said
    assert (calls("skipped.jsonl"), len(rows_of("skipped.errors.jsonl"))) == (1, 3)


@pytest.mark.parametrize("more", [(), ("--dedupe",)])
def test_blank_texts_are_copied_without_a_call(more: tuple[str, ...]) -> None:
    Path("in.jsonl").write_text(BLANK)
    said = ran("-i", "in.jsonl", "-o", "out.jsonl", "--blank", "copy", *more)
    assert "4 done + 0 failed + 0 skipped" in said
    assert [row["output"] for row in rows_of("out.jsonl")][1:] == ["", "", ""]
    assert calls("out.jsonl") == 1
    assert "4 done" in ran("-i", "in.jsonl", "-o", "out.jsonl", "--blank", "copy", *more)
    assert calls("out.jsonl") == 1
    plan = batchrun("plan", "-P", "sim", "-p", "p.md", "-i", "in.jsonl", "-o", "out.jsonl", "--blank", "copy", *more)
    assert (plan.returncode, "0 to send" in plan.stdout) == (0, True)
    assert batchrun("check", "out.jsonl").returncode == 0


def test_null_is_blank_where_blank_texts_are_not_sent() -> None:
    Path("in.jsonl").write_text('{"id":1,"text":null}\n{"id":2,"text":"a"}\n')
    assert "--blank skip" in ran("-i", "in.jsonl", "-o", "x.jsonl", code=2)
    assert "1 done + 0 failed + 1 skipped" in ran("-i", "in.jsonl", "-o", "skipped.jsonl", "--blank", "skip")
    Path("p.prompty").write_text(
        "---\noutputs:\n  type: object\n  properties: {a: {type: string}}\n---\nuser:\nSay {{ text }}\n"
    )
    words = ("-i", "in.jsonl", "-o", "out.jsonl", "--blank", "copy", "-p", "p.prompty", "--max-total-tokens", "100000")
    ran(*words, "--max-output-tokens", "50")
    assert rows_of("out.jsonl")[0] == {"id": 1, "text": None, "a": None}
    assert calls("out.jsonl") == 1


def test_a_prompt_that_takes_nothing_from_the_rows_is_refused_for_several() -> None:
    Path("in.jsonl").write_text('{"text":"a"}\n{"text":"b"}\n')
    Path("p.md").write_text("Say $text")
    said = ran("-i", "in.jsonl", code=2)
    assert "uses no column of the rows" in said
    assert "{{ text }}" in said
    ran("-i", "in.jsonl", "--yes")
    Path("one.jsonl").write_text('{"text":"a"}\n')
    ran("-i", "one.jsonl")
    Path("p.prompty").write_text("---\ninputs:\n  text: {default: x}\n---\nuser:\nSay hello\n")
    assert "uses no column" in ran("-i", "in.jsonl", "-o", "x.jsonl", "-p", "p.prompty", code=2)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\nHello\n"),
        ("a.po", 'msgid "a"\nmsgstr ""\n'),
        ("a.xml", "<?xml version='1.0'?>\n<a>\n</a>\n"),
        ("a.yml", "a: b\n"),
        ("a.md", "# A\n\ntext\n"),
        ("a.tex", "\\documentclass{a}\nx\n"),
        ("a.eml", "From: a\n\nx\n"),
        ("a", "WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n"),
    ],
)
def test_lines_of_documents_are_not_sent_as_rows(name: str, data: str) -> None:
    from batchrun.errors import InputError  # noqa: PLC0415  beside its use
    from batchrun.plan.inputs import open_rows  # noqa: PLC0415  the same
    from batchrun.plan.sources import gather  # noqa: PLC0415  the same

    Path(name).write_text(data)
    with pytest.raises(InputError, match="its lines are not rows") as refused:
        open_rows(gather({}).settings, name, has_prompt=True)
    assert refused.value.hint
    assert "--yes" in refused.value.hint
    assert len(list(open_rows(gather({"yes": True}).settings, name, has_prompt=True))) > 0


def test_files_of_a_directory_are_named_where_they_cannot_be_sent() -> None:
    Path("in").mkdir()
    Path("in/a.txt").write_text("a")
    Path("in/b.txt").write_bytes("caf\xe9".encode("latin-1"))
    said = ran("-i", "in", code=2)
    assert "b.txt: not text in UTF-8" in said
    ran("-i", "in", "--encoding", "cp1252")


def test_a_table_in_another_encoding_says_so_and_is_read_by_its_name() -> None:
    Path("in.csv").write_bytes("id,text\n1,a\n2,caf\xe9\n".encode("latin-1"))
    assert "--encoding cp1252" in ran("-i", "in.csv", code=2)
    said = ran("-i", "in.csv", "-o", "out.csv", "--skip-invalid")
    assert "1 row skipped, not UTF-8: try --encoding cp1252" in said
    assert ran("-i", "in.csv", "-o", "all.csv", "--encoding", "windows-1252")
    assert "café" in Path("all.csv").read_text()
    assert "must be an encoding of text" in ran("-i", "in.csv", "--encoding", "base64", code=2)


def test_the_list_in_a_wrapper_is_named_where_its_rows_are_missed() -> None:
    Path("in.json").write_text('{"total": 2, "data": [{"text": "a"}, {"text": "b"}]}')
    assert "--path data" in ran("-i", "in.json", code=2)
    ran("-i", "in.json", "--path", "data")
    assert [row["text"] for row in rows_of("in.p.jsonl")] == ["a", "b"]


def test_a_variable_can_be_a_member_of_an_object() -> None:
    Path("in.jsonl").write_text('{"id":1,"data":{"text":"Hello","deep":{"er":"x"}}}\n')
    ran("-i", "in.jsonl", "--column", "text=data.text")
    assert "Hello" in rows_of("in.p.jsonl")[0]["output"]
    ran("-i", "in.jsonl", "-o", "b.jsonl", "--column", "text=data.deep.er")
    assert "no value for `text`" in ran("-i", "in.jsonl", "-o", "c.jsonl", "--column", "text=data.none", code=2)
    assert "no column `date.text`" in ran("-i", "in.jsonl", "-o", "c.jsonl", "--column", "text=date.text", code=2)
