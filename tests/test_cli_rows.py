"""Single rows from the command line: shown, sent again by cause, by id and by line; old runs deleted."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from waiting import PATIENCE

ROOT = Path(__file__).parents[1]
FAULTS = ["400=text:Row 3 ", "context=text:Row 5 ", "context=text:Row 6 "]


def batchrun(*args: str, **sim: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "batchrun", *args],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT), "BATCHRUN_SIM": json.dumps(sim)},
    )


@pytest.fixture(autouse=True)
def _run(alone: None) -> None:
    """A run of which rows 3, 5 and 6 failed."""
    rows = ({"id": f"r{number}", "text": f"Row {number} says a word."} for number in range(1, 9))
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("say.md").write_text("Say {{ text }}")
    ran = batchrun("-i", "rows.jsonl", "-p", "say.md", "-P", "sim", "-o", "out.jsonl", faults=FAULTS)
    assert "5 done + 3 failed" in ran.stderr


def failed() -> set[str]:
    path = Path("out.errors.jsonl")
    return {json.loads(line)["id"] for line in path.read_text().splitlines()} if path.exists() else set()


def test_a_row_is_shown_by_id_and_by_line_with_request_reply_and_attempts() -> None:
    shown = batchrun("show", "last", "--row", "r4").stdout
    assert shown == batchrun("show", "last", "--row", "4").stdout
    for said in (
        "line     4, id r4",
        "state    done",
        "Say Row 4 says a word.",
        "[simulated]",
        "attempt  1, ",
        "status 200",
    ):
        assert said in shown
    values = json.loads(batchrun("show", "last", "--row", "5", "--json").stdout)
    assert (values["line"], values["key"], values["state"], values["reply"]) == (5, "r5", "failed", None)
    assert [attempt["status"] for attempt in values["attempts"]] == [400]
    missing = batchrun("show", "last", "--row", "r99")
    assert missing.returncode == 2
    assert "no row has the id or line number 'r99'" in missing.stderr


def test_rows_that_failed_for_a_cause_are_sent_again_and_the_output_has_them() -> None:
    other = batchrun("resume", "last", "--cause", "nothing")
    assert other.returncode == 2
    assert "too long for the model" in other.stderr
    ran = batchrun("resume", "last", "--cause", "too long")
    assert "7 done + 1 failed" in ran.stderr
    assert failed() == {"r3"}
    assert len(Path("out.jsonl").read_text().splitlines()) == 7


def test_rows_are_sent_again_by_id_by_line_and_by_the_errors_file() -> None:
    ran = batchrun("resume", "last", "--rows", "r3,5")
    assert "7 done + 1 failed" in ran.stderr
    assert failed() == {"r6"}
    assert len(Path("out.jsonl").read_text().splitlines()) == 7
    ran = batchrun("resume", "last", "--rows", "out.errors.jsonl")
    assert "8 done + 0 failed" in ran.stderr
    assert failed() == set()
    again = batchrun("resume", "last", "--rows", "r3", "--done")
    assert "8 done + 0 failed" in again.stderr
    attempts = json.loads(batchrun("show", "last", "--row", "r3", "--json").stdout)["attempts"]
    assert [(attempt["spent"], attempt["body"] is not None) for attempt in attempts][-2:] == [
        (True, True),
        (False, True),
    ]
    assert batchrun("resume", "last", "--done").returncode == 2
    refused = batchrun("resume", "last", "--rows", "nobody")
    assert refused.returncode == 2
    assert "nobody" in refused.stderr


def test_runs_name_prompt_and_model_and_old_ones_are_deleted() -> None:
    assert "say, simulated  out.jsonl" in batchrun("runs").stdout
    values = json.loads(batchrun("runs", "--json").stdout)
    assert (values["prompt"], values["model"], values["input"]) == ("say", "simulated", "rows.jsonl")
    batchrun("-i", "rows.jsonl", "-p", "say.md", "-P", "sim", "-o", "second.jsonl")
    (journal,) = [Path(json.loads(line)["journal"]) for line in batchrun("runs", "--json").stdout.splitlines()[1:]]
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("UPDATE sessions SET started = started - 864000, ended = ended - 864000")
        connection.commit()
    said = batchrun("rm", "--older-than", "30d", "--yes")
    assert (said.returncode, "no run here ended more than 30d ago" in said.stderr) == (0, True)
    assert len(batchrun("runs").stdout.splitlines()) == 2
    assert batchrun("rm", "--older-than", "9d").returncode == 2  # nobody to ask
    said = batchrun("rm", "--older-than", "9d", "--yes")
    assert (said.returncode, "batchrun: deleted " in said.stderr) == (0, True)
    (left,) = batchrun("runs").stdout.splitlines()
    assert "second.jsonl" in left
    assert batchrun("rm").returncode == 2
    assert batchrun("rm", "--older-than", "long").returncode == 2
