"""What a run shows: sentences, lines, the bar of a terminal, and events that are all described."""

import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import ExitCode
from batchrun.events import (
    AttemptStarted,
    Draining,
    IntakeProgress,
    LimitsChanged,
    Notice,
    Resumed,
    RowFinished,
    RunEnded,
    RunStarted,
    Waiting,
    WaitReason,
)
from batchrun.models import Flag, Outcome, State, Totals
from batchrun.plan.settings import settings_of
from batchrun.progress import Fold, Progress
from batchrun.report import words
from batchrun.report.reporters import JSON_EVENTS, Bar, JsonLines, Lines, Quiet, choose, plain, postfix, progress_values

DOCUMENT = Path(__file__).parents[1] / "docs" / "events.md"
STARTED = RunStarted("r1", Totals(rows=1000, done=100), "api.example.com", "m", False, 0.0)
LIMITS = LimitsChanged(3, 16, 256, 600.0, None, 0.5, None, WaitReason.REQUESTS, 1.0)
DONE = Outcome(State.DONE, True, None, None, frozenset({Flag.TRUNCATED}), None)


def picture(**changes: Any) -> Progress:
    return dataclasses.replace(Progress(causes={}, rows=1000, done=10, started=0.0, now=5.0), **changes)


def sections() -> dict[str, str]:
    """The document's text for each event."""
    found = re.split(
        r"^## `(\w+)`$", DOCUMENT.read_text(encoding="utf-8").split("## The account")[0], flags=re.MULTILINE
    )
    return dict(zip(found[1::2], found[2::2], strict=True))


def members(kind: type) -> set[str]:
    if dataclasses.is_dataclass(kind):
        return {field.name for field in dataclasses.fields(kind)}
    return set(kind._fields)  # type: ignore[attr-defined]


def named(section: str) -> set[str]:
    rows = re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize(("kind", "name"), JSON_EVENTS.items(), ids=JSON_EVENTS.values())
def test_every_event_is_described_with_every_member(kind: type, name: str) -> None:
    assert named(sections()[name]) == members(kind)


def test_the_picture_and_the_end_are_described() -> None:
    assert named(sections()["progress"]) == set(progress_values(picture()))
    outcome = next(line for line in sections()["row"].splitlines() if line.startswith("| `outcome`"))
    assert members(Outcome) <= set(re.findall(r"`(\w+)`", outcome))
    assert named(sections()["ended"]) == members(RunEnded) | {"resume", "prediction"}
    assert set(sections()) == {*JSON_EVENTS.values(), "progress", "ended"}
    account = DOCUMENT.read_text(encoding="utf-8").split("## The account")[1].split("## Other commands")[0]
    assert members(Totals) <= set(re.findall(r"`(\w+)`", account))
    for reason in WaitReason:
        assert f"`{reason}`" in sections()["waiting"]


def test_an_event_is_plain_json() -> None:
    out = io.StringIO()
    face = JsonLines(out, lambda: None)
    for event in (
        STARTED,
        AttemptStarted(1, 2, 1, 0.5),
        RowFinished(1, 2, 1, "k\u2028", 1.0, DONE),
        LIMITS,
        Resumed(1.0),
    ):
        face.handle(event)
    face.paint(picture())
    face.paint(picture(started=None))
    lines = [json.loads(line) for line in out.getvalue().split("\n") if line]
    assert [line["event"] for line in lines] == ["started", "attempt", "row", "limits", "resumed", "progress"]
    assert lines[0]["totals"]["done"] == 100
    assert lines[2]["outcome"] == plain(DONE)
    assert lines[2]["outcome"]["flags"] == ["truncated"]


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device")])
def test_that_events_can_be_written_no_more_is_told_once(error: OSError) -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise error

    told: list[OSError] = []
    face = JsonLines(Gone(), told.append)
    face.handle(STARTED)
    face.handle(Resumed(1.0))
    assert told == [error]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_tokens_are_told_by_kind() -> None:
    assert words.tokens(picture(input_tokens=9, output_tokens=2)) == "9 tokens in, 2 out"
    told = words.tokens(picture(input_tokens=9000, cached_tokens=4000, output_tokens=2000, reasoning_tokens=1500))
    assert told == "9.0k tokens in (4.0k cached), 2.0k out (1.5k reasoning)"


def test_the_bar_shows_where_the_run_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = Terminal()
    bar = Bar(out, ascii_only=False)
    bar.handle(IntakeProgress(10_000))
    bar.handle(STARTED)
    bar.paint(picture(done=250, failed=2, in_flight=7, limits=LIMITS, throttled=3, row_rate=7.5))
    bar.handle(Notice("the provider is down", 1.0))
    bar.close()
    bar.paint(picture())
    shown = out.getvalue()
    assert "10000 rows checked" in shown
    assert "run r1: 900 of 1,000 rows to api.example.com, model m" in shown
    assert "252/1000" in shown
    for said in ("7.5/s", "2 failed", "7/16 in flight", "3×429", "limit: 600 requests per minute"):
        assert said in shown
    assert "batchrun: the provider is down\n" in shown
    assert shown.endswith("\n")


def test_a_terminal_that_has_gone_away_does_not_end_the_run() -> None:
    lost: list[str] = []

    class Hung(Terminal):
        def write(self, text: str) -> int:
            lost.append(text)
            raise OSError(5, "Input/output error")

    for face in (Lines(Hung()), Bar(Hung(), ascii_only=True)):
        lost.clear()
        face.handle(IntakeProgress(10_000))
        face.handle(STARTED)
        face.paint(picture())
        face.handle(Notice("x", 1.0))
        face.close()
        assert any("900 of 1,000 rows" in text for text in lost)
        assert any("x" in text for text in lost)


def test_lines_come_every_few_seconds_and_rare_facts_at_once() -> None:
    out = io.StringIO()
    face = Lines(out)
    for now in range(13):
        face.paint(picture(now=float(now)))
        if now == 1:
            face.handle(Draining(3, 60.0, "interrupted", 1.0))
    shown = out.getvalue().splitlines()
    assert [line.startswith("batchrun: ") for line in shown] == [True] * 3
    assert shown[0] == "batchrun: stopping (interrupted); waiting for 3 requests in flight"
    assert shown[1].startswith("batchrun: 10/1,000 rows")


def test_why_it_waits_comes_first_on_a_narrow_terminal() -> None:
    wait = Waiting(WaitReason.THROTTLED, 65.0, 1.0)
    assert postfix(picture(waiting=wait)).startswith("waiting 1 min 0 s: the provider said 429, ")
    assert postfix(picture(waiting=wait), 40) == "waiting 1 min 0 s: the provider said 429"
    assert postfix(picture(waiting=wait), 20) == "waiting 1 min 0 s: t"
    assert words.status(picture(waiting=wait)).endswith("waiting 1 min 0 s: the provider said 429")


def test_while_it_waits_the_provider_is_quoted_on_one_line() -> None:
    said = Waiting(WaitReason.THROTTLED, None, 1.0, "try again\n\x1b[2Jin 2 s " + "x" * 300)
    shown = words.waiting(said, 1.0)
    assert shown.startswith("waiting: the provider said 429: try again")
    assert shown.isprintable()
    assert len(shown) < 250


def test_foreign_text_does_not_act_on_the_terminal() -> None:
    out = io.StringIO()
    face = Lines(out)
    face.handle(Notice("\x1b]0;owned\x07", 1.0))
    face.handle(STARTED._replace(model="\x1b[2J", simulated=True))
    assert "\x1b" not in out.getvalue()
    assert "SIMULATED" in out.getvalue()


@pytest.mark.parametrize(
    ("settings", "environ", "terminal", "face"),
    [
        ({"json": True}, {}, True, JsonLines),
        ({"quiet": True}, {}, True, Quiet),
        ({"no_progress": True}, {}, True, Lines),
        ({}, {"TERM": "dumb"}, True, Lines),
        ({}, {}, False, Lines),
        ({}, {}, True, Bar),
    ],
)
def test_the_face_fits_the_place(
    settings: dict[str, Any], environ: dict[str, str], terminal: bool, face: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", Terminal() if terminal else io.StringIO())
    chosen = choose(settings_of(settings), environ=environ, on_closed=lambda _: None)
    assert isinstance(chosen, face)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1.0, "0.0 s"), (0.44, "0.4 s"), (12.4, "12 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_are_short(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0"), (0.25, "0.2"), (7, "7"), (950, "950"), (12_345, "12.3k"), (4_100_000, "4.1M")]
)
def test_numbers_are_short(number: float, said: str) -> None:
    assert words.count(number) == said


counts = st.integers(0, 10**7)


@given(counts, counts, counts, counts, counts)
def test_the_account_adds_up(done: int, failed: int, skipped: int, unknown: int, pending: int) -> None:
    rows = done + failed + skipped + unknown + pending
    said = words.account(Totals(rows=rows, done=done, failed=failed, skipped=skipped, unknown=unknown, truncated=done))
    numbers = [
        int(number.replace(",", ""))
        for number in re.findall(r"([\d,]+) (?:done|failed|skipped|unknown|pending|input row)", said)
    ]
    assert numbers == [done, failed, skipped, unknown, pending, rows]


@pytest.mark.parametrize(
    ("totals", "command"),
    [
        (Totals(rows=3, done=3), None),
        (Totals(rows=3, done=2), "batchrun resume 'my out.jsonl'"),
        (Totals(rows=3, done=2, unknown=1), "batchrun resume 'my out.jsonl'"),
        (Totals(rows=3, done=2, failed=1, retryable=1), "batchrun resume 'my out.jsonl'"),
        (Totals(rows=3, done=2, failed=1), "batchrun resume 'my out.jsonl' --failed"),
        (Totals(rows=3, done=2, skipped=1), None),
    ],
)
def test_the_command_that_goes_on(totals: Totals, command: str | None) -> None:
    assert words.resume_command(totals, "my out.jsonl") == command


def test_a_picture_has_words_from_its_first_moment() -> None:
    fold = Fold()
    assert words.status(fold.snapshot(0.0)).startswith("0/0 rows")
    fold(STARTED)
    fold(RunEnded(ExitCode.OK, Totals(rows=1000, done=1000), None, None, (), 9.0))
    assert words.status(fold.snapshot(9.0)).startswith("1,000/1,000 rows")
