"""Documents from the command line: translated, written back, gone on with, refused."""

import contextlib
import hashlib
import json
import re
import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import polib
import pytest
from test_documents_keyed import CATALOG, PROPERTIES, STRINGS, YAML
from test_documents_markdown import MARKDOWN
from test_documents_po import PO
from test_documents_subtitles import SRT, VTT
from test_documents_xml import ANDROID, RESX, TMX, TS, XLIFF2, XLIFF12
from translator import Translator, batchrun, shout, translator

from batchrun.journal import Reader
from batchrun.tui.draft import Draft, read_head

FILES = {
    "movie.srt": SRT,
    "movie.vtt": VTT,
    "messages.po": PO,
    "README.md": MARKDOWN,
    "en.json": '{\n  "menu": {\n    "open": "Open {name}"\n  },\n  "item_one": "{{count}} item",\n  "item_other": "{{count}} items"\n}\n',
    "app_en.arb": '{\n  "@@locale": "en",\n  "hello": "Hello {name}"\n}\n',
    "Localizable.xcstrings": CATALOG,
    "strings.xml": ANDROID,
    "a.xlf": XLIFF12,
    "b.xliff": XLIFF2,
    "app_pl.ts": TS,
    "Strings.resx": RESX,
    "memory.tmx": TMX,
    "en.yml": YAML,
    "Localizable.strings": STRINGS,
    "messages.properties": PROPERTIES,
}


@pytest.fixture(autouse=True)
def _alone(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test")


@pytest.fixture
def provider() -> Iterator[Translator]:
    with translator() as found:
        yield found


def translate(provider: Translator, source: str, output: str | None, *more: str) -> int:
    place = () if output is None else ("-o", output)
    url = ("--base-url", provider.base_url, "-m", "m", "-q")
    return batchrun("run", "-i", source, "-p", "translate", "--set", "language=Polish", *place, *url, *more)


@pytest.mark.parametrize("name", FILES)
def test_a_document_is_translated_into_the_same_file(name: str, provider: Translator):
    Path(name).write_text(FILES[name], encoding="utf-8", newline="")
    assert translate(provider, name, f"out-{name}") == 0
    old, new = FILES[name].splitlines(), Path(f"out-{name}").read_text(encoding="utf-8").splitlines()
    assert provider.calls
    assert new != old
    kept = [line for line in old if line in new]
    assert len(kept) >= len(old) // 3
    assert Path(name).read_text(encoding="utf-8") == FILES[name]
    calls = len(provider.calls)
    assert translate(provider, name, f"out-{name}") == 0
    assert len(provider.calls) == calls


def test_plural_forms_are_one_request_with_the_keys_of_the_target(provider: Translator):
    Path("a.po").write_text(PO, encoding="utf-8")
    assert translate(provider, "a.po", "pl.po") == 0
    bodies = [body for body in provider.bodies if "response_format" in body]
    assert len(bodies) == 1
    assert list(bodies[0]["response_format"]["json_schema"]["schema"]["properties"]) == ["form_0", "form_1", "form_2"]
    entry = next(entry for entry in polib.pofile("pl.po") if entry.msgid_plural)
    assert entry.msgstr_plural == {n: f"form_{n} %d FILES" for n in range(3)}
    assert polib.pofile("pl.po").find("Open", msgctxt="menu").msgstr == "Otwórz"


def test_existing_translations_are_made_again_where_that_is_chosen(provider: Translator):
    Path("a.po").write_text(PO, encoding="utf-8")
    assert translate(provider, "a.po", "pl.po", "--existing", "fuzzy") == 0
    assert polib.pofile("pl.po").find("New %d").msgstr == "NEW %d"
    assert polib.pofile("pl.po").find("New %d").flags == ["python-format"]


def test_a_cue_that_is_put_in_front_costs_one_call(provider: Translator):
    Path("a.srt").write_text(SRT, encoding="utf-8")
    assert translate(provider, "a.srt", "b.srt") == 0
    provider.calls.clear()
    Path("a.srt").write_text("1\n00:00:00,000 --> 00:00:00,500\nNew\n\n" + SRT, encoding="utf-8")
    assert translate(provider, "a.srt", "b.srt") == 0
    assert provider.calls == ["New"]
    assert Path("b.srt").read_text(encoding="utf-8").startswith("1\n00:00:00,000 --> 00:00:00,500\nNEW\n\n1\n")


def test_a_text_that_changed_under_its_id_is_drift(provider: Translator, capsys: pytest.CaptureFixture[str]):
    Path("en.json").write_text('{\n  "a": "one",\n  "b": "two"\n}\n', encoding="utf-8")
    assert translate(provider, "en.json", "pl.json") == 0
    Path("en.json").write_text('{\n  "a": "one",\n  "b": "three"\n}\n', encoding="utf-8")
    assert translate(provider, "en.json", "pl.json") == 2
    assert "1 row now has a different request" in capsys.readouterr().err
    assert translate(provider, "en.json", "pl.json", "--update") == 0
    assert provider.calls == ["one", "two", "three"]
    assert json.loads(Path("pl.json").read_text(encoding="utf-8")) == {"a": "ONE", "b": "THREE"}


def test_a_reply_that_fails_a_check_is_asked_again_with_the_complaint():
    answers = iter(["BEFORE", "HELLO {name}"])
    with translator(lambda text: next(answers)) as provider:
        Path("en.json").write_text('{\n  "a": "hello {name}"\n}\n', encoding="utf-8")
        assert translate(provider, "en.json", "pl.json") == 0
    assert json.loads(Path("pl.json").read_text(encoding="utf-8")) == {"a": "HELLO {name}"}
    said = provider.bodies[1]["messages"][-1]["content"]
    assert said.startswith("Your reply cannot be used: the placeholder {name} of the source is missing")


def test_a_segment_that_fails_keeps_its_source_and_is_listed(capsys: pytest.CaptureFixture[str]):
    with translator(lambda text: "lost" if "{" in text else shout(text)) as provider:
        Path("en.json").write_text('{\n  "a": "hello {name}",\n  "b": "two"\n}\n', encoding="utf-8")
        assert translate(provider, "en.json", "pl.json", "--schema-retries", "1") == 3
    assert len(provider.calls) == 3
    assert json.loads(Path("pl.json").read_text(encoding="utf-8")) == {"a": "hello {name}", "b": "TWO"}
    failed = json.loads(Path("pl.errors.jsonl").read_text(encoding="utf-8"))
    assert (failed["path"], failed["segment"], failed["text"]) == ("en.json", "/a", "hello {name}")
    assert failed["_batchrun"]["cause"] == "fails the check placeholders"
    assert "fails the check placeholders (line 2)" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "output"), [("messages.po", "pl.po"), ("a.xlf", "pl.xlf")])
def test_a_unit_that_fails_stays_without_a_translation_and_is_filled_by_the_next_run(name: str, output: str):
    Path(name).write_text(FILES[name], encoding="utf-8", newline="")
    with translator(lambda text: "") as provider:
        assert translate(provider, name, output) == 3
        assert Path(output).read_text(encoding="utf-8") == FILES[name]
        failed = len(Path(output).with_suffix(".errors.jsonl").read_text(encoding="utf-8").splitlines())
        provider.translate = shout
        provider.calls.clear()
        assert translate(provider, output, f"again-{output}") == 0
    assert failed == len(provider.calls) > 1
    assert Path(f"again-{output}").read_text(encoding="utf-8") != FILES[name]


def test_a_text_that_would_damage_the_document_is_not_spliced():
    with translator(lambda text: text.upper().replace("<B>", "<b>").replace("</B>", "</b") + " & more") as provider:
        Path("strings.xml").write_text('<resources><string name="a">x <b>y</b></string></resources>', encoding="utf-8")
        assert translate(provider, "strings.xml", "pl.xml", "--check", "none", "--schema-retries", "0") == 3
    assert Path("pl.xml").read_text(encoding="utf-8") == '<resources><string name="a">x <b>y</b></string></resources>'


def test_checks_by_name_hold_for_plain_rows_too():
    Path("a.jsonl").write_text('{"text": "12 rows"}\n{"text": "13 rows"}\n', encoding="utf-8")
    with translator(lambda text: text.upper().replace("13", "14")) as provider:
        assert (
            translate(
                provider, "a.jsonl", "b.jsonl", "--check", "numbers", "--fail-on", "numbers", "--schema-retries", "0"
            )
            == 3
        )
    assert json.loads(Path("b.jsonl").read_text(encoding="utf-8"))["output"] == "12 ROWS"
    reason = json.loads(Path("b.errors.jsonl").read_text(encoding="utf-8"))["_batchrun"]
    assert reason["cause"] == "fails the check numbers"


def test_other_numbers_are_a_flag_of_a_done_row_and_not_asked_again(capsys: pytest.CaptureFixture[str]):
    Path("a.jsonl").write_text('{"text": "12 rows"}\n{"text": "13 rows"}\n', encoding="utf-8")
    with translator(lambda text: text.upper().replace("13", "14")) as provider:
        assert translate(provider, "a.jsonl", "b.jsonl", "--check", "numbers") == 0
        assert len(provider.calls) == 2
    outputs = [json.loads(line)["output"] for line in Path("b.jsonl").read_text(encoding="utf-8").splitlines()]
    assert outputs == ["12 ROWS", "14 ROWS"]
    assert "1 numbers" in capsys.readouterr().err
    with Reader.open(next(Path(".batchrun").glob("*.db"))) as reader:
        assert [sorted(record.flags) for record in reader.export_rows()] == [[], ["numbers"]]
        assert reader.totals.numbers == 1
        assert reader.check() == []


def test_a_reply_in_the_wrong_language_is_asked_again_with_the_complaint(capsys: pytest.CaptureFixture[str]):
    english = "The quick brown fox jumps over the lazy dog while the whole village is looking at it."
    german = "Der schnelle braune Fuchs springt über den faulen Hund, während das ganze Dorf zusieht."
    Path("a.jsonl").write_text(json.dumps({"text": english}), encoding="utf-8")
    replies = iter([english, german])
    with translator(lambda _: next(replies)) as provider:
        url = ("--base-url", provider.base_url, "-m", "m", "-o", "b.jsonl", "-p", "translate", "--check", "language")
        assert batchrun("run", "-i", "a.jsonl", *url, "--set", "language=Klingon") == 2
        assert "the check language needs a target language" in capsys.readouterr().err
        assert not provider.calls
        assert batchrun("run", "-i", "a.jsonl", *url, "--set", "language=German", "-q") == 0
        assert "it is in the language en, not in de" in json.dumps(provider.bodies[1])
    assert json.loads(Path("b.jsonl").read_text(encoding="utf-8"))["output"] == german


def test_a_prompt_can_name_its_checks(capsys: pytest.CaptureFixture[str]):
    Path("a.jsonl").write_text('{"text": "13 rows"}\n', encoding="utf-8")
    Path("p.prompty").write_text("---\nname: p\nchecks: [numbers]\n---\n{{ text }}", encoding="utf-8")
    with translator(lambda text: text.replace("13", "14")) as provider:
        url = ("--base-url", provider.base_url, "-m", "m", "-q", "--schema-retries", "0", "--fail-on", "numbers")
        assert batchrun("run", "-i", "a.jsonl", "-p", "p.prompty", "-o", "b.jsonl", *url) == 3
        assert "fails the check numbers" in capsys.readouterr().err
        Path("p.prompty").write_text("---\nname: p\nchecks: numbers, names\n---\n{{ text }}", encoding="utf-8")
        assert batchrun("run", "-i", "a.jsonl", "-p", "p.prompty", "-o", "c.jsonl", *url) == 2
        assert "there is no check `names`" in capsys.readouterr().err


def test_resume_and_export_need_no_source(provider: Translator):
    Path("a.srt").write_text(SRT, encoding="utf-8")
    assert translate(provider, "a.srt", "b.srt") == 0
    whole = Path("b.srt").read_bytes()
    Path("a.srt").unlink()
    Path("b.srt").unlink()
    assert batchrun("export", "last", "--output", "c.srt") == 0
    assert Path("c.srt").read_bytes() == whole
    assert batchrun("export", "last", "--output", "c.jsonl") == 0
    assert json.loads(Path("c.jsonl").read_text(encoding="utf-8").partition("\n")[0])["text"] == "Hello <i>there</i>."


def test_a_journal_without_its_documents_is_not_taken_for_whole(
    provider: Translator, capsys: pytest.CaptureFixture[str]
):
    """A kill between the intake of the rows and that of the documents."""
    Path("a.srt").write_text(SRT, encoding="utf-8")
    assert translate(provider, "a.srt", "b.srt", "--limit", "1") == 0
    (journal,) = Path(".batchrun").glob("*.db")
    with contextlib.closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute("DELETE FROM meta WHERE name LIKE 'note.documents%'")
    assert batchrun("resume", "b.srt", "-q") == 5
    assert "run its first command again" in capsys.readouterr().err
    assert translate(provider, "a.srt", "b.srt") == 0
    assert "HOW ARE" in Path("b.srt").read_text(encoding="utf-8")
    assert len(provider.calls) == 3


def test_a_run_that_ends_early_leaves_a_partial_document(provider: Translator):
    Path("a.srt").write_text(SRT, encoding="utf-8")
    assert translate(provider, "a.srt", "b.srt", "--max-requests", "1") == 6
    assert not Path("b.srt").exists()
    partial = Path("b.srt.partial").read_text(encoding="utf-8")
    assert "HELLO <i>THERE</i>." in partial
    assert "How are\nyou?" in partial
    assert batchrun("resume", "b.srt", "--max-requests", "9", "-q") == 0
    assert "HOW ARE\nYOU?" in Path("b.srt").read_text(encoding="utf-8")
    assert not Path("b.srt.partial").exists()


def test_another_encoding_is_named_and_kept(capsys: pytest.CaptureFixture[str]):
    data = SRT.replace("there", "Ren\u00e9e").encode("cp1252")
    Path("a.srt").write_bytes(data)
    with translator(lambda text: text.replace("How", "C\u00f4mo")) as provider:
        assert translate(provider, "a.srt", "b.srt") == 2
        assert "--encoding" in capsys.readouterr().err
        assert translate(provider, "a.srt", "b.srt", "--encoding", "cp1252") == 0
        assert Path("b.srt").read_bytes() == data.replace(b"How", b"C\xf4mo")
    with translator(lambda text: f"{text} \u0416") as provider:
        assert translate(provider, "a.srt", "c.srt", "--encoding", "cp1252", "--schema-retries", "0") == 3
    assert Path("c.srt").read_bytes() == data
    assert "cannot be written in CP1252" in Path("c.errors.jsonl").read_text(encoding="utf-8")


def test_segments_as_rows(provider: Translator, capsys: pytest.CaptureFixture[str]):
    Path("a.srt").write_text(SRT, encoding="utf-8")
    assert translate(provider, "a.srt", "-", "--format", "rows") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert list(rows[0])[:6] == ["path", "segment", "text", "context", "note", "max"]
    assert [row["output"] for row in rows] == [shout(row["text"]) for row in rows]


def test_plan_says_how_many_segments_and_documents(provider: Translator, capsys: pytest.CaptureFixture[str]):
    tree("docs/a.md", "docs/b.md")
    url = ("--base-url", provider.base_url, "-m", "m")
    asked = ("plan", "-i", "docs", "-p", "translate", "--set", "language=Polish", "-o", "pl/{path}", *url)
    assert batchrun(*asked) == 0
    assert capsys.readouterr().out.startswith("rows      4, segments of 2 documents\nrequests  4 to send")
    assert batchrun(*asked, "--json") == 0
    assert json.loads(capsys.readouterr().out)["documents"] == 2


def tree(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"# {Path(name).stem}\n\nfine *words* of {name}\n", encoding="utf-8")


def test_a_tree_goes_in_and_the_same_tree_comes_out(provider: Translator):
    tree("docs/a.md", "docs/sub/b.md", "docs/sub/deep/c.md")
    assert translate(provider, "docs/**/*.md", "pl/{path}") == 0
    found = sorted(path.as_posix() for path in Path("pl").rglob("*.md"))
    assert found == ["pl/docs/a.md", "pl/docs/sub/b.md", "pl/docs/sub/deep/c.md"]
    assert Path("pl/docs/sub/b.md").read_text(encoding="utf-8") == "# B\n\nFINE *WORDS* OF DOCS/SUB/B.MD\n"
    calls = len(provider.calls)
    tree("docs/new.md")
    assert translate(provider, "docs/**/*.md", "pl/{path}") == 0
    assert len(provider.calls) == calls + 2
    assert translate(provider, "docs", "flat/{path}") == 0
    assert Path("flat/sub/deep/c.md").is_file()


def test_one_file_that_fails_does_not_hold_back_the_others():
    tree("docs/a.md", "docs/b.md")
    with translator(lambda text: "" if "b.md" in text else shout(text)) as provider:
        assert translate(provider, "docs", "pl/{path}", "--schema-retries", "0") == 3
    assert Path("pl/a.md").read_text(encoding="utf-8").startswith("# A\n\nFINE")
    assert Path("pl/b.md").read_text(encoding="utf-8") == "# B\n\nfine *words* of docs/b.md\n"
    assert json.loads(Path("pl/documents.errors.jsonl").read_text(encoding="utf-8"))["path"] == "b.md"


def test_at_an_early_end_finished_documents_are_in_place(provider: Translator, capsys: pytest.CaptureFixture[str]):
    tree("docs/a.md", "docs/b.md")
    assert translate(provider, "docs", "pl/{path}", "--max-requests", "3", "--concurrency", "1") == 6
    assert batchrun("export", "pl/{path}") == 0
    assert re.findall("wrote (.*)", capsys.readouterr().err) == ["pl/{path}", "pl/{path}.partial"]
    assert Path("pl/a.md").is_file()
    assert not Path("pl/b.md").exists()
    assert Path("pl/b.md.partial").is_file()
    assert batchrun("resume", "pl/{path}", "--max-requests", "9", "-q") == 0
    assert Path("pl/b.md").is_file()
    assert not Path("pl/b.md.partial").exists()


def test_a_document_with_rows_in_a_batch_is_not_complete(capsys: pytest.CaptureFixture[str]):
    tree("docs/a.md", "pl/a.md")
    asked = ("-i", "docs", "-p", "translate", "--set", "language=Polish", "-o", "pl/{path}", "-P", "sim", "--fresh")
    assert batchrun(*asked, "--batch", "--batch-detach") == 7
    assert "wrote pl/{path}.partial" in capsys.readouterr().err
    assert Path("pl/a.md").read_text(encoding="utf-8").endswith("of pl/a.md\n")
    assert Path("pl/a.md.partial").is_file()


def test_a_document_that_is_not_translated_to_its_end_is_partial(provider: Translator):
    Path("a.srt").write_text(SRT, encoding="utf-8")
    assert translate(provider, "a.srt", "b.srt", "--limit", "1") == 0
    assert not Path("b.srt").exists()
    assert "HELLO <i>THERE</i>." in Path("b.srt.partial").read_text(encoding="utf-8")
    assert translate(provider, "a.srt", "b.srt") == 0
    assert not Path("b.srt.partial").exists()
    assert "HOW ARE" in Path("b.srt").read_text(encoding="utf-8")


def test_a_file_of_a_tree_that_cannot_be_read_is_named_and_can_be_left_out(
    provider: Translator, capsys: pytest.CaptureFixture[str]
):
    tree("docs/a.md")
    Path("docs/b.po").write_text("oops\n", encoding="utf-8")
    assert translate(provider, "docs", "pl/{path}") == 2
    assert "b.po: line 1: not an entry of a PO file" in capsys.readouterr().err
    assert translate(provider, "docs", "pl/{path}", "--skip-invalid") in (0, 3)
    assert Path("pl/a.md").is_file()
    assert not Path("pl/b.po").exists()
    assert "b.po" in Path("pl/documents.errors.jsonl").read_text(encoding="utf-8")


def test_a_file_of_a_tree_that_is_damaged_further_down_is_left_out_as_a_whole(provider: Translator):
    Path("docs").mkdir()
    Path("docs/whole.json").write_text('{"one": "First text"}')
    Path("docs/cut.json").write_text('{"two": "Second text", "three": ')
    Path("docs/cut.po").write_text('msgid "fourth"\nmsgstr ""\n\nmsgid "fif\n')
    assert translate(provider, "docs", "pl/{path}", "--skip-invalid") in (0, 3)
    assert json.loads(Path("pl/whole.json").read_text()) == {"one": "FIRST TEXT"}
    assert not Path("pl/cut.json").exists()
    assert not Path("pl/cut.po").exists()
    assert provider.calls == ["First text"]


@pytest.mark.parametrize(
    ("source", "output", "said"),
    [
        ("docs", "docs/{path}", "next time"),
        ("docs", "docs/pl/{path}", "next time"),
        ("docs/*.md", "{path}", "would overwrite the input docs/a.md"),
        ("docs/**/*.md", "docs/pl/{path}", "next time"),
        ("docs", "pl/same{path}/../x.md", "same output"),
        ("docs/a.md", "docs/a.md", "would overwrite"),
        ("mixed", "pl/{path}", "mixed/page.html is an HTML page"),
    ],
)
def test_what_would_lose_a_file_is_refused_before_any_call(
    source: str, output: str, said: str, provider: Translator, capsys: pytest.CaptureFixture[str]
):
    tree("docs/a.md", "docs/b.md", "mixed/a.md")
    Path("mixed/page.html").write_text("<html></html>", encoding="utf-8")
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in Path("docs").rglob("*.md")}
    assert translate(provider, source, output) == 2
    assert re.sub(r"\s+", " ", capsys.readouterr().err).replace("page.html is", "mixed/page.html is").find(said) >= 0
    assert provider.calls == []
    assert before == {path: hashlib.sha256(path.read_bytes()).digest() for path in Path("docs").rglob("*.md")}


def test_an_output_that_belongs_to_no_run_is_not_replaced(provider: Translator):
    tree("docs/a.md", "pl/a.md")
    assert translate(provider, "docs", "pl/{path}") == 2
    assert provider.calls == []


def test_a_document_with_nothing_to_translate_comes_back_the_same(provider: Translator):
    Path("a.po").write_text('msgid ""\nmsgstr ""\n\nmsgid "a"\nmsgstr "b"\n', encoding="utf-8")
    assert translate(provider, "a.po", "b.po") == 0
    assert Path("b.po").read_bytes() == Path("a.po").read_bytes()
    assert provider.calls == []


def test_text_is_a_document_where_the_output_says_so(provider: Translator):
    Path("book.txt").write_text("It was the best\nof times.\n\nIt was the worst.\n", encoding="utf-8")
    assert translate(provider, "book.txt", "book.pl.txt") == 0
    assert Path("book.pl.txt").read_text(encoding="utf-8") == "IT WAS THE BEST\nOF TIMES.\n\nIT WAS THE WORST.\n"
    assert translate(provider, "book.txt", "lines.jsonl") == 0
    assert len(Path("lines.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def test_a_file_that_is_not_of_its_format_is_named_with_its_line(
    provider: Translator, capsys: pytest.CaptureFixture[str]
):
    Path("a.po").write_text('msgid "a"\nmsgstr ""\noops\n', encoding="utf-8")
    assert translate(provider, "a.po", "b.po") == 2
    assert "a.po: line 3: not an entry of a PO file" in capsys.readouterr().err
    Path("a.tmx").write_text(TMX, encoding="utf-8")
    url = ("--base-url", provider.base_url, "-m", "m")
    assert batchrun("run", "-i", "a.tmx", "-p", "{{ text }}", "-o", "b.tmx", *url) == 2
    assert "--target-language" in capsys.readouterr().err


def test_the_app_shows_the_segments_of_a_document_as_rows():
    Path("movie.srt").write_text(SRT, encoding="utf-8")
    head = read_head("movie.srt", {}, has_prompt=True)
    assert head.format == "srt document"
    assert [row.fields["text"] for row in head.rows] == ["Hello <i>there</i>.", "{\\an8}How are\nyou?", "42"]
    draft = Draft()
    draft.take_head(head, None)
    assert draft.output_name == "movie.output.srt"


MANUAL = Path(__file__).parent.parent / "docs" / "documents.md"
COMMANDS = re.findall(
    r"^(?:\|[^|]*\| `|    )batchrun (-i .*?)(?:`|$)", MANUAL.read_text(encoding="utf-8"), re.MULTILINE
)


def test_the_manual_has_a_command_for_every_format():
    assert len(COMMANDS) == 20


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_of_the_manual_does_what_it_says(command: str, provider: Translator):
    tree("docs/a.md", "docs/sub/b.md")
    for name, text in (FILES | {"book.txt": "One.\n\nTwo.\n"}).items():
        Path(name).write_text(text, encoding="utf-8", newline="")
    args = shlex.split(command)
    assert batchrun("run", *args, "--base-url", provider.base_url, "-m", "m", "-q") == 0
    output = Path(args[args.index("-o") + 1].replace("{path}", "docs/sub/b.md"))
    source = Path(args[1].replace("**/*.md", "sub/b.md"))
    assert provider.calls
    assert output.read_bytes() != source.read_bytes()
