"""A whole book, translated and summarised, by a program that is killed again and again on the way."""

import json
import runpy
import unicodedata
from collections.abc import Iterator

import pytest
from program import ROOT, Program
from waiting import PATIENCE

from batchrun import sim

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
BOOK: str = runpy.run_path(str(ROOT / "examples" / "make_book.py"))["book"]()
MARK = "[simulated] "


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """A simulated provider; the wait keeps a run from being over before it is killed."""
    with sim.spawn(sim.Settings(latency=sim.parse_latency("0.2"))) as base_url:
        yield base_url


def survive(program: Program, kills: int, rows: int, *command: str) -> None:
    """Give the command, kill it when so many rows have ended, `kills` times; then let it finish."""
    for _ in range(kills):
        with program.going("run", *command, "--json") as process:
            assert process.stdout is not None
            for _ in range(rows):
                assert next(line for line in process.stdout if json.loads(line)["event"] == "row")
            process.kill()
            process.wait(PATIENCE)
    ran = program("run", *command, "-q", "--concurrency", "64")
    assert ran.code == 0, ran.err
    assert program.ask("SELECT count(*) FROM sessions") == [(kills + 1,)]


def plain(text: str) -> str:
    """A text without the accents and the marks that the simulated translator adds."""
    letters = unicodedata.normalize("NFD", text.replace(MARK, ""))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def paid_twice(program: Program) -> int:
    return program.ask("SELECT count(*) - count(DISTINCT row) FROM replies")[0][0]


def test_a_book_that_is_translated_comes_back_whole_however_often_the_program_is_killed(
    program: Program, provider: str
):
    (program.directory / "book.txt").write_text(BOOK, encoding="utf-8")
    named = ("-i", "book.txt", "-p", "translate", "--set", "language=Polish", "-o", "pl.txt")
    survive(program, 2, 300, *named, "-m", "m", "--base-url", provider, "--split", "250", "--concurrency", "32")
    translated = (program.directory / "pl.txt").read_text(encoding="utf-8")
    assert plain(translated) == plain(BOOK)
    assert MARK in translated
    before, after = (text.split("\n\n") for text in (BOOK, translated))
    assert all(one != other for one, other in zip(before, after, strict=True))
    assert max(part.count(MARK) for part in after) > 1  # a paragraph that was sent in pieces
    assert paid_twice(program) == 0


def test_a_book_that_is_summarised_is_summarised_whole_however_often_the_program_is_killed(
    program: Program, provider: str
):
    (program.directory / "book.txt").write_text(BOOK, encoding="utf-8")
    named = ("-i", "book.txt", "-p", "summarize", "-o", "out.jsonl", "-m", "m", "--base-url", provider)
    survive(program, 5, 3, *named, "--reduce", "2000", "--concurrency", "4")
    (row,) = program.output()
    assert row["text"] == BOOK
    assert row["output"].replace(MARK, "").startswith("Chapter 1 Four score and seven years ago")
    levels = program.ask("SELECT count(*) FROM rows LEFT JOIN reductions ON target = seq GROUP BY target IS NULL, seq")
    pieces = [count for (count,) in program.ask("SELECT count(*) FROM reductions GROUP BY target ORDER BY target")]
    assert sum(pieces) == len(levels) - 1
    assert max(pieces) <= 8
    assert program.account() == {"done": len(levels)}
    assert paid_twice(program) == 0
