"""A run as others see it: `show`, `runs` and the app read from the journal what the run's own terminal says."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE, read_up_to, wait_until

from batchrun import registry
from batchrun.journal import Reader
from batchrun.tui.replay import Replay

ROOT = Path(__file__).parents[1]
COUNT = 40


@pytest.fixture(autouse=True)
def _alone(alone: None) -> None:
    rows = (json.dumps({"id": f"r{number}", "text": f"Row {number} says a word."}) for number in range(1, COUNT + 1))
    Path("rows.jsonl").write_text("not a row\n" + "\n".join(rows) + "\n")
    Path("say.md").write_text("Say {{ text }}")


def begun(*args: str, **sim: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "batchrun", "-i", "rows.jsonl", "-p", "say.md", "-P", "sim", "-o", "out.jsonl"]
    return subprocess.Popen(
        [*command, "--skip-invalid", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "BATCHRUN_SIM": json.dumps(sim)},
    )


def ran(*args: str, **sim: Any) -> str:
    process = begun(*args, **sim)
    _, said = process.communicate(timeout=PATIENCE)
    return said


def asked(*args: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "batchrun", *args],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=PATIENCE,
    ).stdout


def test_a_run_that_left_rows_out_is_partial_and_not_finished() -> None:
    ran("--limit", "5")
    (line,) = asked("runs").splitlines()
    assert "partial" in line
    assert "finished" not in line
    assert json.loads(asked("show", "last", "--json"))["state"] == "partial"
    ran()
    assert "finished" in asked("runs")


def test_rows_in_flight_are_shown_as_such_by_who_looks_on() -> None:
    process = begun("--concurrency", "3", "--concurrency-fixed", latency="600")
    try:
        read_up_to(process, "run ")
        found = registry.find("last", None)
        with Reader.open(found.path) as reader:
            wait_until(lambda: reader.totals.unknown == 3)
        shown = asked("show", "last")
        assert "0 skipped + 3 in flight" in shown.replace("1 skipped", "0 skipped")
        assert "unknown" not in shown
        assert re.search(r"session .*, running", shown)
        values = json.loads(asked("show", "last", "--json"))
        assert (values["in_flight"], values["unknown"]) == (3, 0)
    finally:
        process.kill()
        process.communicate()
    assert "3 unknown" in asked("show", "last")


def test_who_looks_on_sees_as_many_429s_and_retries_as_the_run() -> None:
    said = ran("--concurrency", "4", faults=["503=first"], concurrency=2, latency="0.05")
    assert f"{COUNT} done" in said
    found = registry.find("last", None)
    with Reader.open(found.path) as reader:
        ends = [attempt for seq in range(1, COUNT + 2) for attempt in reader.attempts(seq) if attempt.cause]
    replay = Replay(found)
    replay.read_again()
    progress = replay.snapshot().progress
    assert progress.throttled == sum(attempt.throttled for attempt in ends) > 0
    assert progress.retries == sum(not attempt.throttled for attempt in ends) > 0


def test_an_output_of_a_part_is_never_older_than_what_stands_beside_it() -> None:
    ran("--limit", "6")
    assert len(Path("out.jsonl").read_text().splitlines()) == 5
    process = begun("--concurrency", "2", "--concurrency-fixed", latency="0.2")
    read_up_to(process, "run ")
    with Reader.open(registry.find("last", None).path) as reader:
        wait_until(lambda: reader.totals.done >= 9)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert not Path("out.jsonl.partial").exists()
    assert len(Path("out.jsonl").read_text().splitlines()) >= 9
    ran()
    whole = Path("out.jsonl").read_text()
    assert len(whole.splitlines()) == COUNT
    with Path("rows.jsonl").open("a") as more:
        more.writelines(f'{{"id": "more{number}", "text": "One more {number}."}}\n' for number in range(30))
    process = begun("--concurrency", "2", "--concurrency-fixed", "--stop-after", "1s", latency="0.4")
    process.communicate(timeout=PATIENCE)
    assert Path("out.jsonl").read_text() == whole
    assert Path("out.jsonl.partial").exists()


def test_the_log_calls_a_row_as_everything_else_does() -> None:
    ran("--log-file", "log.txt", faults=["400=text:Row 7 "])
    (failed,) = [line for line in Path("log.txt").read_text().splitlines() if ": failed, " in line]
    (entry,) = [json.loads(line) for line in Path("out.errors.jsonl").read_text().splitlines() if "Row 7" in line]
    assert f"line {entry['_batchrun']['line']} (id r7)" in failed
    assert entry["_batchrun"]["line"] == 8
