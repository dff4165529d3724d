"""Long texts in pieces, from the function to the command line."""

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from translator import Translator, batchrun, shout, translator

from batchrun.documents import split
from batchrun.errors import StorageError
from batchrun.journal import Journal, Reader

WORDS = st.text(st.sampled_from("ab. \n!?{}<>`。é😀%()*[]&;"), max_size=200).map(str.strip)


@given(WORDS, st.integers(1, 40))
@example("", 5)
@example("a. b", 1)
@example("a <b c d e f> g", 3)
@example("{n, plural, one {A b. C} other {D. E}} f. g", 5)
def test_pieces_joined_are_the_text(text: str, most: int):
    pieces = split(text, most)
    assert "".join(piece.text + piece.gap for piece in pieces) == text
    assert all(piece.text and piece.text == piece.text.strip() and not piece.gap.strip() for piece in pieces)
    assert not pieces or pieces[-1].gap == ""


@given(st.text(st.characters(codec="utf-8"), max_size=200).map(str.strip), st.integers(4, 40))
def test_a_piece_is_no_longer_than_asked_where_nothing_must_stay_whole(text: str, most: int):
    plain = re.sub(r"[<>{}$%`\[\]*&]", "x", text)
    assert all(len(piece.text.encode()) <= most for piece in split(plain, most))


@pytest.mark.parametrize(
    ("text", "most", "pieces"),
    [
        ("One two. Three four. Five.", 20, ["One two. Three four.", "Five."]),
        ("One two.\nThree four", 12, ["One two.", "Three four"]),
        ("one two three four", 9, ["one two", "three", "four"]),
        ("一二。三四。", 9, ["一二。", "三四。"]),
        ("abcdef", 4, ["abcd", "ef"]),
        ("😀😀", 4, ["😀", "😀"]),
        ("a {x. y} b", 4, ["a", "{x. y}", "b"]),
        ("Dr. {{ a. b }}. Ok", 12, ["Dr.", "{{ a. b }}.", "Ok"]),
    ],
)
def test_pieces_end_with_sentences_then_words_then_characters(text: str, most: int, pieces: list[str]):
    assert [piece.text for piece in split(text, most)] == pieces


BOOK = (
    "Short one.\n\n" + "  ".join(f"Sentence {number} of a long paragraph." for number in range(60)) + "\n\nThe end.\n"
)


@pytest.fixture(autouse=True)
def _alone(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    Path("book.txt").write_text(BOOK, encoding="utf-8")


@pytest.fixture
def provider() -> Iterator[Translator]:
    with translator() as found:
        yield found


def translate(provider: Translator, *more: str) -> int:
    url = ("--base-url", provider.base_url, "-m", "m", "-q", "-o", "pl.txt")
    return batchrun("run", "-i", "book.txt", "-p", "translate", "--set", "language=Polish", *url, *more)


def test_a_long_paragraph_is_sent_in_pieces_and_comes_back_whole(provider: Translator):
    assert translate(provider, "--split", "100") == 0
    assert Path("pl.txt").read_text(encoding="utf-8") == shout(BOOK)
    assert len(provider.calls) > 5
    assert max(map(len, provider.calls)) <= 400
    calls = len(provider.calls)
    assert translate(provider, "--split", "100") == 0
    assert len(provider.calls) == calls


def test_what_is_short_enough_is_sent_as_it_is(provider: Translator):
    assert translate(provider, "--split", "auto") == 0
    assert len(provider.calls) == 3


def test_another_length_of_pieces_is_drift(provider: Translator, capsys: pytest.CaptureFixture[str]):
    assert translate(provider) == 0
    assert translate(provider, "--split", "100") == 2
    assert "would be sent again" in capsys.readouterr().err
    assert len(provider.calls) == 3
    assert translate(provider, "--split", "100", "--update") == 0
    assert Path("pl.txt").read_text(encoding="utf-8") == shout(BOOK)


def test_a_piece_that_fails_leaves_its_paragraph_as_it_was():
    with translator(lambda text: "" if "Sentence 30 " in text else shout(text)) as provider:
        assert translate(provider, "--split", "100") == 3
        new = Path("pl.txt").read_text(encoding="utf-8")
        assert new == BOOK.replace("Short one.", "SHORT ONE.").replace("The end.", "THE END.")
        failed = [json.loads(line) for line in Path("pl.errors.jsonl").read_text(encoding="utf-8").splitlines()]
        assert ["Sentence 30 " in row["text"] for row in failed] == [True]
        provider.translate = shout
        assert batchrun("resume", "pl.txt", "--failed", "-q") == 0
    assert Path("pl.txt").read_text(encoding="utf-8") == shout(BOOK)


def cut_off(provider: Translator, monkeypatch: pytest.MonkeyPatch, longest: int) -> None:
    """Replies to sentences around number 30 are cut off where the text has more than so many characters."""
    answer = provider.answer

    def cut(body: dict[str, Any]) -> dict[str, Any]:
        said = answer(body)
        if "Sentence 30 " in provider.calls[-1] and len(provider.calls[-1]) > longest:
            said["choices"][0]["finish_reason"] = "length"
        return said

    monkeypatch.setattr(provider, "answer", cut)


def test_a_piece_that_is_cut_off_is_sent_in_two(provider: Translator, monkeypatch: pytest.MonkeyPatch):
    cut_off(provider, monkeypatch, 250)
    assert translate(provider, "--split", "100") == 0
    assert Path("pl.txt").read_text(encoding="utf-8") == shout(BOOK)
    texts = [text for text in provider.calls if "Sentence 30 " in text]
    assert [len(text) > 250 for text in texts] == [True, False]
    assert not Path("pl.errors.jsonl").exists()
    calls = len(provider.calls)
    assert translate(provider, "--split", "100") == 0
    assert len(provider.calls) == calls
    with Reader.open(next(Path(".batchrun").glob("*.db"))) as reader:
        assert reader.check() == []
        assert reader.totals.rows == reader.totals.done == calls


def test_both_pieces_of_a_lone_text_are_in_flight_at_once(provider: Translator, monkeypatch: pytest.MonkeyPatch):
    Path("book.txt").write_text(" ".join(f"Sentence {number} is long." for number in range(20, 40)), encoding="utf-8")
    cut_off(provider, monkeypatch, 250)
    answer, both = provider.answer, threading.Barrier(2, timeout=20)

    def together(body: dict[str, Any]) -> dict[str, Any]:
        said = answer(body)
        if len(provider.calls) > 1:
            both.wait()
        return said

    monkeypatch.setattr(provider, "answer", together)
    assert translate(provider, "--split", "1000") == 0
    assert len(provider.calls) == 3


def test_a_piece_that_is_cut_off_twice_never_shortens_its_paragraph(
    provider: Translator, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patched:
        cut_off(provider, patched, 0)
        assert translate(provider, "--split", "100") == 3
        assert "SENTENCE" not in Path("pl.txt").read_text(encoding="utf-8")
        failed = [json.loads(line) for line in Path("pl.errors.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [row["_batchrun"]["cause"] for row in failed] == ["truncated"]
        assert len([text for text in provider.calls if "Sentence 30 " in text]) == 2
    calls = len(provider.calls)
    assert batchrun("resume", "pl.txt", "--failed", "-q") == 0
    assert Path("pl.txt").read_text(encoding="utf-8") == shout(BOOK)
    assert len(provider.calls) == calls + 1


@pytest.mark.parametrize("after", [1, 7, 8, 9])
def test_a_run_whose_piece_was_cut_off_goes_on_wherever_it_ended(
    after: int, provider: Translator, monkeypatch: pytest.MonkeyPatch
):
    cut_off(provider, monkeypatch, 250)
    assert translate(provider, "--split", "100", "--max-requests", str(after)) == 6
    assert batchrun("resume", "pl.txt", "-q", "--max-requests", "100") == 0
    assert Path("pl.txt").read_text(encoding="utf-8") == shout(BOOK)
    assert len(provider.calls) == len(set(provider.calls))
    with Reader.open(next(Path(".batchrun").glob("*.db"))) as reader:
        assert reader.check() == []


def test_a_reply_that_was_cut_off_is_not_paid_again_where_the_run_ended_before_its_text_was_divided(
    provider: Translator, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    cut_off(provider, monkeypatch, 250)
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "divide", full)
        assert translate(provider, "--split", "100") == 5
    assert batchrun("resume", "pl.txt", "-q") == 0
    assert Path("pl.txt").read_text(encoding="utf-8") == shout(BOOK)
    cut = [text for text in provider.calls if "Sentence 30 " in text and len(text) > 250]
    assert len(cut) == 1


def test_an_input_that_changed_keeps_what_was_cut_off_in_its_pieces(
    provider: Translator, monkeypatch: pytest.MonkeyPatch
):
    cut_off(provider, monkeypatch, 250)
    assert translate(provider, "--split", "100") == 0
    calls = len(provider.calls)
    Path("book.txt").write_text(f"New one.\n\n{BOOK}\nNew end.\n", encoding="utf-8")
    assert translate(provider, "--split", "100") == 0
    assert provider.calls[calls:] in (["New one.", "New end."], ["New end.", "New one."])
    assert Path("pl.txt").read_text(encoding="utf-8") == shout(f"New one.\n\n{BOOK}\nNew end.\n")
    with Reader.open(next(Path(".batchrun").glob("*.db"))) as reader:
        assert reader.check() == []
    Path("book.txt").write_text("New one.\n", encoding="utf-8")
    assert translate(provider, "--split", "100") == 0
    with Reader.open(next(Path(".batchrun").glob("*.db"))) as reader:
        assert reader.check() == []
        assert reader.totals.rows == 1


def test_a_run_in_pieces_goes_on_where_it_ended(provider: Translator):
    assert translate(provider, "--split", "100", "--max-requests", "3") == 6
    assert "SENTENCE" not in Path("pl.txt.partial").read_text(encoding="utf-8")
    assert batchrun("resume", "pl.txt", "-q", "--max-requests", "100") == 0
    assert Path("pl.txt").read_text(encoding="utf-8") == shout(BOOK)
    assert len(provider.calls) == len(set(provider.calls))


def test_plan_counts_pieces(provider: Translator, capsys: pytest.CaptureFixture[str]):
    url = ("--base-url", provider.base_url, "-m", "m")
    arguments = ("-i", "book.txt", "-p", "translate", "--set", "language=Polish", "-o", "pl.txt", *url)
    assert batchrun("plan", *arguments, "--split", "100", "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] > 6


@pytest.mark.parametrize("name", ["rows.jsonl", "book.txt"])
def test_rows_are_not_split(name: str, provider: Translator, capsys: pytest.CaptureFixture[str]):
    Path("rows.jsonl").write_text('{"text": "One. Two."}\n', encoding="utf-8")
    url = ("--base-url", provider.base_url, "-m", "m", "-o", "out.jsonl")
    assert batchrun("run", "-i", name, "-p", "translate", "--set", "language=Polish", *url, "--split", "auto") == 2
    assert "--split is for documents" in capsys.readouterr().err
    assert not provider.calls


def test_a_length_that_is_none_is_refused(provider: Translator, capsys: pytest.CaptureFixture[str]):
    assert translate(provider, "--split", "many") == 2
    assert "split" in capsys.readouterr().err
    assert not provider.calls
