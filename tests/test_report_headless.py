"""What a run says on stderr, on stdout and into its log, as the real program says it."""

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import PATIENCE

from batchrun.errors import ExitCode, StorageError
from batchrun.events import (
    AttemptEnded,
    BatchChanged,
    Draining,
    Event,
    IntakeProgress,
    Notice,
    Resumed,
    RowDivided,
    RowFinished,
    RowLost,
    RunEnded,
    Waiting,
)
from batchrun.events import WaitReason as Reason
from batchrun.journal import Reader
from batchrun.models import Flag, Outcome, State
from batchrun.plan import plan_from_json
from batchrun.progress import Progress
from batchrun.registry import find, summary
from batchrun.report import headless
from batchrun.report.event_log import level_and_text
from batchrun.report.reporters import Bar, Lines, notable

pytestmark = pytest.mark.slow  # each test waits for runs of the whole program

ROWS = "".join(f'{{"id":"r{number}","text":"text {number}"}}\n' for number in range(1, 7))
FAULTS = '{"faults":["context=text:text 2","context=text:text 5","404=text:text 4"]}'
IN_TURN = ("--concurrency", "1")  # a 404 before any success concerns the run


@pytest.fixture(autouse=True)
def _alone(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    Path("rows.jsonl").write_text(ROWS)


def batchrun(*args: str, sim: str = "{}") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "batchrun", "-i", "rows.jsonl", "-p", "summarize", "-P", "sim", *args]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "BATCHRUN_SIM": sim},
    )


@pytest.mark.parametrize("output", ["out.jsonl", "-"])
def test_the_end_tells_why_rows_failed_and_where(output: str) -> None:
    ran = batchrun("-o", output, "--quiet", *IN_TURN, sim=FAULTS)
    assert ran.returncode == 3
    assert "finished" not in ran.stderr  # the sums in the last line say it
    assert "batchrun: failed, permanent: 2 × too long for the model (line 2, 5): " in ran.stderr
    assert "batchrun:   to send them again: batchrun resume" in ran.stderr
    assert "--cause 'too long for the model'\n" in ran.stderr
    assert "batchrun: failed, permanent: 1 × 404" in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("batchrun: 3 done + 3 failed + ")


@pytest.mark.parametrize("status", [True, False])
def test_no_progress_leaves_the_facts_and_no_status_lines(*, status: bool) -> None:
    heard = io.StringIO()
    face = Lines(heard, status=status)
    for now in (100.0, 101.0, 106.0):
        face.paint(Progress(causes={}, now=now, rows=10, done=4))
    face.handle(Notice("the provider is down", 107.0))
    shown = ["batchrun: 4/10 rows"] * status + ["batchrun: the provider is down"]
    assert [line.partition(",")[0] for line in heard.getvalue().splitlines()] == shown


@pytest.mark.parametrize("make", [Lines, lambda heard: Bar(heard, ascii_only=True)])
def test_a_batch_that_is_as_it_was_is_not_spoken_of_again(make: Callable[[io.StringIO], Lines | Bar]) -> None:
    heard = io.StringIO()
    face = make(heard)
    look = BatchChanged(1, "unsure", 30, None, None, 0, 0, None, None, 10.0, "lost", 30, 5.0)
    for event in (
        look,
        look._replace(next=20.0),
        look._replace(chunk=2),
        look._replace(at=9.0),
        look._replace(note="x"),
    ):
        face.handle(event)
    assert heard.getvalue().splitlines() == [
        "batchrun: batch 1: 30 rows unsure: lost",
        "batchrun: batch 2: 30 rows unsure: lost",
        "batchrun: batch 1: 30 rows unsure: x",
    ]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Draining(3, 20.0, "interrupted", 9.0), "stopping (interrupted); waiting for 3 requests in flight"),
        (
            Draining(0, 20.0, "interrupted", 9.0, 64),
            "stopping (interrupted); waiting for 0 requests in flight; 64 in post-processing get a few more seconds; "
            "resume processes the rest",
        ),
    ],
)
def test_a_stop_says_what_is_awaited(event: Event, line: str) -> None:
    assert notable(event, {}) == line


def test_a_log_tells_every_attempt_and_why_it_is_sent_again() -> None:
    ran = batchrun("--log-file", "log.txt", sim='{"faults":["503=first"]}')
    log = Path("log.txt").read_text()
    assert ran.returncode == 0
    assert Path("log.txt").stat().st_mode & 0o777 == 0o600
    assert log.count("status 503") == 6
    assert log.count("to be sent again") == 6
    assert log.count(": done") == 6
    assert "503" not in ran.stderr


TOLD: list[tuple[Event, int, str]] = [
    (IntakeProgress(5), logging.INFO, "5 rows read"),
    (
        AttemptEnded(7, 8, 2, 9.0, 0, "timeout", False, True, False, True, 1.5, None),
        logging.INFO,
        "line 8, attempt 2: no answer after 1.500 s: timeout, may have been billed, to be sent again",
    ),
    (
        RowFinished(7, 8, 7, "k", 9.0, Outcome(State.DONE, True, None, None, frozenset({Flag.TRUNCATED}), None)),
        logging.DEBUG,
        "line 8 (id k): done (truncated)",
    ),
    (
        RowFinished(7, 8, 7, "k", 9.0, Outcome(State.FAILED, False, "503", "busy", frozenset(), None)),
        logging.WARNING,
        "line 8 (id k): failed, retryable: 503: busy",
    ),
    (RowDivided(7, 8, 2, 9.0), logging.INFO, "line 8: its reply was cut off; the text is sent in 2 pieces"),
    (RowLost(7, 8, 9.0), logging.WARNING, "line 8: abandoned in flight, it may have been billed"),
    (Waiting(Reason.THROTTLED, 12.0, 9.0), logging.INFO, "waiting 3.0 s: the provider said 429"),
    (Waiting(Reason.PAUSED, None, 9.0), logging.INFO, "waiting: paused"),
    (Resumed(9.0), logging.INFO, "resumed"),
    (Draining(3, 20.0, "interrupted", 9.0), logging.INFO, "stopping (interrupted), 3 in flight"),
    (Notice("the provider is down", 9.0), logging.WARNING, "the provider is down"),
]


@pytest.mark.parametrize(("event", "level", "text"), TOLD)
def test_an_event_is_told_in_words(event: Event, level: int, text: str) -> None:
    assert level_and_text(event) == (level, text)


def test_a_run_that_stops_short_counts_towards_what_it_sends() -> None:
    assert "2 of 6 rows to" in batchrun("--limit", "2").stderr
    ran = batchrun("--json", "--limit", "5")
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    pictures = [event for event in events if event["event"] == "progress"]
    assert [event["to_send"] for event in events if event["event"] == "started"] == [3]
    assert pictures[-1]["goal"] == pictures[-1]["done"] == 5
    assert "3 of 6 rows to" in batchrun("--sample", "3", "-o", "sample.jsonl").stderr


def test_a_simulated_run_is_not_billed() -> None:
    assert "cost" not in batchrun("--limit", "1").stderr
    told = batchrun("--limit", "1", "--model", "gpt-4.1-mini", "-o", "priced.jsonl").stderr
    assert "cost: $0.0" in told
    assert "(simulated: nothing was paid)" in told


def test_json_events_end_with_the_account_and_the_command_that_goes_on() -> None:
    ran = batchrun("--json", "--limit", "2")
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    names = [event["event"] for event in events]
    assert (names[-1], names.count("row"), names.count("started")) == ("ended", 2, 1)
    assert events[-1]["resume"] == "batchrun resume rows.summarize.jsonl"
    assert events[-1]["totals"]["done"] == 2


def test_going_on_with_a_finished_stream_writes_it_again() -> None:
    first = batchrun("-o", "-", "--quiet")
    assert len(first.stdout.splitlines()) == 6
    command = [sys.executable, "-m", "batchrun", "resume", "last", "--quiet"]
    again = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL
    )
    assert (again.returncode, again.stdout) == (0, first.stdout)


def test_where_the_journal_cannot_be_read_the_end_says_what_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(path: Path) -> Reader:
        raise StorageError(f"{path} cannot be read: Input/output error")

    assert batchrun("-o", "out.jsonl", "--quiet", *IN_TURN, sim=FAULTS).returncode == 3
    run = find("out.jsonl", None)
    plan = replace(plan_from_json(run.meta.plan), tier=("flex",))
    ended = RunEnded(ExitCode.ROWS_FAILED, summary(run).totals, None, None, (), 0.0)
    monkeypatch.setattr(Reader, "open", unreadable)
    unknown = f"cannot be read: {run.path} cannot be read: Input/output error"
    assert headless.failure_lines(ended, run) == [f"why rows failed {unknown}"]
    assert headless.share_lines(ended, plan, run) == [f"the shares of tiers and lanes {unknown}"]
