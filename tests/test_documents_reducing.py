"""Texts that are answered in parts, whose answers are put together: from the tree to the command line."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from translator import Translator, batchrun, translator

from batchrun.journal import Reader
from batchrun.plan.reducing import tree

SENTENCES = 120
BOOK = " ".join(f"Here is number {number} of the sentences." for number in range(SENTENCES))
SHORT = "Here is number 0 alone."


def numbers(text: str) -> str:
    """A summary that shows what it is of: the numbers of the text in their order."""
    return " ".join(re.findall(r"\d+", text))


ALL = numbers(BOOK)


@given(st.integers(1, 300), st.integers(2, 20))
def test_each_reply_is_put_in_one_place_and_in_order(pieces: int, fan_in: int):
    nodes = tree(pieces, fan_in)
    assert [part for node in nodes for part in node.parts] == list(range(len(nodes) - 1))
    assert all(part + nodes[part].ahead == number for number, node in enumerate(nodes) for part in node.parts)
    assert all(len(node.parts) <= fan_in for node in nodes)
    assert [bool(node.parts) for node in nodes] == [False] * pieces + [True] * (len(nodes) - pieces)
    assert nodes[-1].ahead == 0


@pytest.fixture(autouse=True)
def _alone(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    Path("book.txt").write_text(BOOK, encoding="utf-8")
    Path("sum.md").write_text("{{ text }}", encoding="utf-8")


@pytest.fixture
def provider() -> Iterator[Translator]:
    with translator(numbers) as found:
        yield found


def summarise(provider: Translator, *more: str, name: str = "book.txt", command: str = "run") -> int:
    url = ("--base-url", provider.base_url, "-m", "m", "-o", "out.jsonl")
    quiet = ("-q",) if command == "run" else ()
    return batchrun(command, "-i", name, "-p", "sum.md", *url, "--reduce", "100", *quiet, *more)


def written() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_long_text_is_one_row_whose_answer_is_put_together_from_all_of_it(provider: Translator):
    assert summarise(provider) == 0
    assert written() == [{"path": "book.txt", "name": "book.txt", "text": BOOK, "output": ALL}]
    parts = [text for text in provider.calls if "sentences" in text]
    assert " ".join(sorted(parts, key=BOOK.index)) == BOOK
    assert max(map(len, parts)) <= 400
    assert (len(parts), len(provider.calls)) == (12, 15)  # at most eight go together: two, and the whole
    *both, last = (text for text in provider.calls if "sentences" not in text)
    first, second = sorted(map(numbers, both), key=ALL.index)
    assert last == f"{first}\n\n{second}"
    assert summarise(provider) == 0
    assert len(provider.calls) == 15


def test_what_fits_goes_in_one_request_that_is_no_other_than_before(provider: Translator):
    Path("rows.jsonl").write_text(json.dumps({"id": 7, "text": SHORT}), encoding="utf-8")
    url = ("--base-url", provider.base_url, "-m", "m", "-o", "out.jsonl", "-q")
    assert batchrun("run", "-i", "rows.jsonl", "-p", "sum.md", *url) == 0
    assert summarise(provider, name="rows.jsonl") == 0
    assert provider.calls == [SHORT]


def test_a_limit_of_output_tokens_tells_how_many_answers_go_together(provider: Translator):
    assert summarise(provider, "--param", "max_tokens=5") == 0
    assert len([text for text in provider.calls if "sentences" not in text]) == 1
    assert written()[0]["output"] == ALL


def test_a_prompt_can_tell_answers_from_a_text(provider: Translator):
    head = "---\ninputs: {text: {kind: string}, reduced: {kind: integer, default: 0}}\n---\n"
    body = "{% if reduced %}put together {{ reduced }}: {% endif %}{{ text }}"
    Path("sum.md").rename("sum.prompty")
    Path("sum.prompty").write_text(head + body, encoding="utf-8")
    url = ("--base-url", provider.base_url, "-m", "m", "-o", "out.jsonl", "-q")
    assert batchrun("run", "-i", "book.txt", "-p", "sum.prompty", *url, "--reduce", "100") == 0
    assert [re.findall(r"together (\d+)", text) for text in provider.calls].count([]) == 12
    assert sorted(found[0] for text in provider.calls if (found := re.findall(r"together (\d+)", text))) == [
        "2",
        "6",
        "6",
    ]


@pytest.mark.parametrize("lost", ["empty", "truncated"])
def test_a_part_that_fails_fails_the_text_and_never_shortens_it(
    lost: str, provider: Translator, monkeypatch: pytest.MonkeyPatch
):
    answer = provider.answer

    def fails(body: dict[str, Any]) -> dict[str, Any]:
        said = answer(body)
        if "number 50 " in provider.calls[-1]:
            said["choices"][0] |= {"finish_reason": "length"} if lost == "truncated" else {"message": {"content": ""}}
        return said

    with monkeypatch.context() as patched:
        patched.setattr(provider, "answer", fails)
        assert summarise(provider) == 3
    assert written() == []
    (failed,) = [json.loads(line) for line in Path("out.errors.jsonl").read_text(encoding="utf-8").splitlines()]
    assert failed["text"] == BOOK
    assert failed["_batchrun"]["cause"] == lost
    assert "a part of the text failed" in failed["_batchrun"]["message"]
    calls = len(provider.calls)
    assert batchrun("resume", "out.jsonl", "--failed", "-q") == 0
    assert written()[0]["output"] == ALL
    assert "number 50 " in provider.calls[calls]
    assert len(provider.calls) - calls == 3  # the part, what it is put into, the whole
    assert not Path("out.errors.jsonl").exists()


def test_one_failed_text_that_is_sent_again_alone_takes_its_parts_along(provider: Translator):
    provider.translate = lambda text: "" if "number 50 " in text else numbers(text)
    assert summarise(provider) == 3
    provider.translate = numbers
    assert batchrun("resume", "out.jsonl", "--rows", "1", "-q") == 0
    assert written()[0]["output"] == ALL


@pytest.mark.parametrize("after", [1, 12, 13, 14])
def test_a_run_goes_on_where_its_budget_ended_and_pays_for_nothing_twice(after: int, provider: Translator):
    assert summarise(provider, "--max-requests", str(after)) == 6
    assert len(provider.calls) == after
    assert not Path("out.jsonl").exists()
    assert batchrun("resume", "out.jsonl", "-q", "--max-requests", "100") == 0
    assert written()[0]["output"] == ALL
    assert len(provider.calls) == len(set(provider.calls)) == 15


def test_another_length_of_parts_is_drift(provider: Translator, capsys: pytest.CaptureFixture[str]):
    assert summarise(provider) == 0
    calls = len(provider.calls)
    assert summarise(provider, "--reduce", "200") == 2
    assert "would be sent again" in capsys.readouterr().err
    assert len(provider.calls) == calls
    assert summarise(provider, "--reduce", "200", "--update") == 0
    assert written()[0]["output"] == ALL


def test_a_text_that_grew_sends_what_is_new_and_what_that_is_put_into(provider: Translator):
    assert summarise(provider) == 0
    calls = len(provider.calls)
    Path("book.txt").write_text(f"{BOOK} Here is number 500 of the sentences.", encoding="utf-8")
    assert summarise(provider, "--update") == 0
    assert written()[0]["output"] == f"{ALL} 500"
    assert len(provider.calls) - calls == 3


def test_equal_texts_share_their_parts(provider: Translator):
    Path("rows.jsonl").write_text("".join(json.dumps({"text": BOOK, "n": n}) + "\n" for n in (1, 2)), encoding="utf-8")
    assert summarise(provider, "--dedupe", name="rows.jsonl") == 0
    assert [row["output"] for row in written()] == [ALL, ALL]
    assert len(provider.calls) == 12 + 2 * 3


def test_only_whole_texts_are_post_processed(provider: Translator):
    Path("f.py").write_text("def marked(reply):\n    return f'<{reply.text}>'\n", encoding="utf-8")
    assert summarise(provider, "--post", "f.py:marked") == 0
    assert written()[0]["output"] == f"<{ALL}>"
    Path("g.py").write_text("def marked(reply):\n    return f'({reply.text})'\n", encoding="utf-8")
    assert batchrun("post", "out.jsonl", "--post", "g.py:marked", "-q") == 0
    assert written()[0]["output"] == f"({ALL})"
    assert len(provider.calls) == 15


def test_the_plan_counts_every_stage(provider: Translator, capsys: pytest.CaptureFixture[str]):
    assert summarise(provider, "--json", command="plan") == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["rows"] == 15
    assert planned["requests"] == 15
    assert summarise(provider, "--dry-run") == 0
    assert not provider.calls
    assert summarise(provider, "--max-requests", "12") == 6
    assert summarise(provider, "--json", command="plan") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["requests"] == 3


def test_the_row_shows_what_its_request_was_put_together_from(provider: Translator, capsys: pytest.CaptureFixture[str]):
    assert summarise(provider, "--max-requests", "12") == 6
    capsys.readouterr()
    assert batchrun("show", "out.jsonl", "--row", "1") == 0
    assert "no request yet: 2 of the 2 parts of the text have no reply" in capsys.readouterr().out
    assert batchrun("resume", "out.jsonl", "-q", "--max-requests", "100") == 0
    assert batchrun("show", "out.jsonl", "--row", "1", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert provider.calls[-1] in shown["request"]
    assert json.loads(shown["text"])["text"] == BOOK


def test_a_text_that_is_named_stands_for_all_its_parts(provider: Translator):
    assert summarise(provider) == 0
    with Reader.open(next(Path(".batchrun").glob("*.db"))) as reader:
        (whole,) = reader.export_rows()
        assert sorted(reader.with_parts([whole.position or 0])) == list(range(1, 16))


@pytest.mark.parametrize(
    ("name", "text", "more", "said"),
    [
        ("rows.csv", "a,b\n1,2\n", (), "--reduce splits the column text"),
        ("rows.jsonl", '{"custom_id": "1", "body": {"messages": []}}', (), "--reduce is for rows with a prompt"),
        ("book.txt", BOOK, ("--split", "auto"), "--split"),
        ("book.txt", BOOK, ("--reduce", "few"), "auto, or a number of tokens"),
        ("book.txt", BOOK, ("--reduce", "100", "-o", "x/{path}"), "is for documents, and book.txt is read as rows"),
    ],
)
def test_what_cannot_be_answered_in_parts_is_refused(  # noqa: PLR0917  a table, and where to look
    name: str,
    text: str,
    more: tuple[str, ...],
    said: str,
    provider: Translator,
    capsys: pytest.CaptureFixture[str],
):
    Path(name).write_text(text, encoding="utf-8")
    Path("sum.md").write_text("{{ b }}" if name == "rows.csv" else "{{ text }}", encoding="utf-8")
    prompt = () if "body" in text else ("-p", "sum.md")
    url = ("--base-url", provider.base_url, "-m", "m", "-o", "out.jsonl")
    options = more if "--reduce" in more else ("--reduce", "100", *more)
    if "body" in text:
        url = ("--base-url", provider.base_url, "-o", "out.jsonl")
    assert batchrun("run", "-i", name, *prompt, *url, *options) == 2
    assert said in capsys.readouterr().err
    assert not provider.calls
