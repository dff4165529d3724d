"""Post-processing from the command line: in a run, after a kill, and again over a run that has ended."""

import contextlib
import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE, wait_until

pytestmark = pytest.mark.slow  # each test waits for runs of the whole program

SOURCE = '''
import os, time
from pathlib import Path

def upper(reply):
    return reply.text.upper()

def score(reply):
    return {"length": len(reply.text), "line": reply.line}

def third(reply):
    print("looking at", reply.line)
    if reply.line % 3 == 0:
        raise ValueError(f"line {reply.line} is bad")
    return {"checked": True}

def clash(reply):
    return {"word": 1}

def noted(reply):
    """Says where it is, and takes its time."""
    with open("calls.txt", "a") as calls:
        calls.write(f"{reply.line} {os.getpid()}\\n")
    time.sleep(0.15)
    return {"pid": os.getpid()}

def waits(reply):
    with open("calls.txt", "a") as calls:
        calls.write(f"{reply.line} {os.getpid()}\\n")
    while True:
        pass

async def blocks(reply):
    time.sleep(0.15)
'''
PROMPT = "---\nname: say\n---\nuser:\nSay {{ word }}.\n"
ROWS = 12


@pytest.fixture(autouse=True)
def place(alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    (tmp_path / "f.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "say.prompty").write_text(PROMPT, encoding="utf-8")
    rows = "".join(json.dumps({"id": f"r{n}", "word": f"w{n}"}) + "\n" for n in range(1, ROWS + 1))
    (tmp_path / "in.jsonl").write_text(rows, encoding="utf-8")
    return tmp_path


RUN = ("-i", "in.jsonl", "-p", "say.prompty", "-P", "sim", "-o", "out.jsonl")


def batchrun(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "batchrun", *args],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def journal(query: str) -> list[Any]:
    (path,) = Path(".batchrun").glob("*.db")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def attempts() -> int:
    return journal("SELECT attempts FROM totals")[0][0]


def test_a_run_writes_what_functions_return(place: Path) -> None:
    ran = batchrun(*RUN, "--post", "f.py:upper", "--post", "f.py:score")
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    rows = read("out.jsonl")
    assert [row["id"] for row in rows] == [f"r{n}" for n in range(1, ROWS + 1)]
    assert all(row["output"].isupper() and row["length"] == len(row["output"]) for row in rows)
    assert [row["line"] for row in rows] == list(range(1, ROWS + 1))


def test_a_function_that_raises_fails_its_rows_and_names_the_stage() -> None:
    ran = batchrun(*RUN, "--post", "f.py:third", "--log-file", "log.txt")
    assert ran.returncode == 3
    assert "8 done + 4 failed (4 in post-processing) +" in ran.stderr
    errors = read("out.errors.jsonl")
    assert [error["_batchrun"]["line"] for error in errors] == [3, 6, 9, 12]
    assert errors[0]["_batchrun"] == {
        "cause": "post: ValueError",
        "message": "ValueError: line 3 is bad (f.py:14 in third)",
        "line": 3,
        "attempts": 1,
        "permanent": True,
        "stage": "post-processing",
    }
    assert "looking at 12" in Path("log.txt").read_text(encoding="utf-8")
    traces = [trace for (trace,) in journal("SELECT trace FROM outcomes WHERE post")]
    assert len(traces) == 4
    assert all('f.py", line 14, in third' in trace and trace.startswith("Traceback") for trace in traces)
    assert "4 × post: ValueError (line 3, 6, 9, 12)" in batchrun("show").stdout


def test_failed_rows_are_processed_again_without_a_call() -> None:
    batchrun(*RUN, "--post", "f.py:third")
    ran = batchrun("resume", "--failed", "--post", "f.py:score")
    assert ran.returncode == 0
    assert attempts() == ROWS
    rows = read("out.jsonl")
    assert ["length" in row for row in rows] == [n % 3 == 0 for n in range(1, ROWS + 1)]
    assert not Path("out.errors.jsonl").exists()


def test_post_takes_a_finished_run_through_other_functions_without_a_call() -> None:
    batchrun(*RUN)
    plain = read("out.jsonl")
    first = batchrun("post", "last", "--post", "f.py:score", "--json")
    assert first.returncode == 0, first.stderr
    assert [json.loads(line)["event"] for line in first.stdout.splitlines()].count("attempt") == 0
    assert read("out.jsonl") == [{**row, "length": len(row["output"]), "line": n} for n, row in enumerate(plain, 1)]
    second = batchrun("post", "out.jsonl", "--post", "f.py:third", "--workers", "1")
    assert second.returncode == 3
    assert [row["id"] for row in read("out.jsonl")] == [row["id"] for n, row in enumerate(plain, 1) if n % 3]
    third = batchrun("post", "out.jsonl", "--post", "strip")
    assert (third.returncode, read("out.jsonl")) == (0, [{**row, "output": row["output"].strip()} for row in plain])
    assert attempts() == ROWS


def test_post_leaves_rows_without_a_reply_alone() -> None:
    batchrun(*RUN, "--limit", "5")
    ran = batchrun("post", "--post", "f.py:score")
    assert ran.returncode == 0
    assert "5 done + 0 failed + 0 skipped + 0 unknown + 7 pending = 12 input rows" in ran.stderr
    assert len(read("out.jsonl")) == 5
    assert attempts() == 5


def test_other_post_processing_is_no_drift() -> None:
    batchrun(*RUN, "--post", "f.py:upper")
    before = read("out.jsonl")
    ran = batchrun(*RUN, "--post", "f.py:score")
    assert (ran.returncode, attempts(), read("out.jsonl")) == (0, ROWS, before)
    assert f"post-processing has changed (before: {Path('f.py').absolute()}:upper): 12 finished rows keep" in ran.stderr
    again = batchrun(*RUN, "--post", "f.py:score")
    assert "post-processing has changed" not in again.stderr
    assert batchrun("post", "out.jsonl").returncode == 0
    assert all("length" in row for row in read("out.jsonl"))


def test_a_member_that_is_a_column_fails_the_row() -> None:
    ran = batchrun(*RUN, "--post", "f.py:clash")
    assert ran.returncode == 3
    assert {error["_batchrun"]["cause"] for error in read("out.errors.jsonl")} == {"post: column exists"}


@pytest.mark.parametrize(
    "spec", ["f.py:nothing", "missing.py:f", "no.such.package:f", "nothing_built_in", "f.py:Path.home.x"]
)
def test_what_cannot_be_used_is_refused_before_anything_is_made(spec: str) -> None:
    ran = batchrun(*RUN, "--post", spec)
    assert ran.returncode == 2
    assert f"{spec.rpartition(':')[2]}" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not Path("out.jsonl").exists()
    assert not list(Path().glob(".batchrun/*.db"))


def test_the_configuration_of_a_directory_may_not_name_code() -> None:
    Path("batchrun.toml").write_text('post = ["f.py:upper"]\n', encoding="utf-8")
    ran = batchrun(*RUN)
    assert ran.returncode == 2
    assert "may not select which code runs" in ran.stderr


def test_the_users_own_configuration_and_a_variable_may() -> None:
    own = Path("config/batchrun/batchrun.toml")
    own.parent.mkdir(parents=True)
    own.write_text('post = ["../../f.py:upper"]\n', encoding="utf-8")
    assert batchrun(*RUN).returncode == 0
    assert all(row["output"].isupper() for row in read("out.jsonl"))
    ran = batchrun(*RUN, "--fresh", BATCHRUN_POST="strip, f.py:score")
    assert ran.returncode == 0
    assert all("length" in row for row in read("out.jsonl"))


def test_a_journal_from_elsewhere_runs_no_code_here() -> None:
    assert batchrun(*RUN, "--limit", "2", "--post", "f.py:noted").returncode == 0
    assert Path("state/batchrun/seal").stat().st_mode & 0o777 == 0o600
    assert batchrun("post").returncode == 0
    before = calls_made()
    for args in (("resume",), ("post",)):
        ran = batchrun(*args, XDG_STATE_HOME=str(Path("elsewhere").absolute()))
        assert ran.returncode == 2
        assert "were not chosen on this machine" in ran.stderr
        assert "f.py:noted" in ran.stderr
    assert calls_made() == before
    named = batchrun("post", "--post", "f.py:score", XDG_STATE_HOME=str(Path("elsewhere").absolute()))
    assert named.returncode == 0


def test_built_in_functions_run_wherever_the_journal_comes_from() -> None:
    assert batchrun(*RUN, "--post", "strip").returncode == 0
    assert batchrun("post", XDG_STATE_HOME=str(Path("elsewhere").absolute())).returncode == 0


def test_csv_has_the_columns_that_functions_add() -> None:
    Path("g.py").write_text("def g(reply):\n    return {'odd' if reply.line % 2 else 'even': reply.line}\n")
    ran = batchrun(*RUN[:-1], "out.csv", "--post", "g.py:g")
    assert ran.returncode == 0, ran.stderr
    with open("out.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "word", "output", "odd", "even"]
    assert [row["odd"] + row["even"] for row in rows] == [str(n) for n in range(1, ROWS + 1)]


def test_csv_has_a_column_for_values_that_take_the_place_of_the_schemas_fields() -> None:
    schema = "outputs: {type: object, properties: {mark: {type: integer}}, required: [mark]}"
    Path("say.prompty").write_text(PROMPT.replace("---\nuser", f"{schema}\n---\nuser"), encoding="utf-8")
    Path("g.py").write_text("def g(reply):\n    return reply.line if reply.line % 2 else None\n")
    ran = batchrun(*RUN[:-1], "out.csv", "--post", "g.py:g")
    assert ran.returncode == 0, ran.stderr
    with open("out.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "word", "mark", "output"]
    assert [row["output"] for row in rows] == ["" if n % 2 == 0 else str(n) for n in range(1, ROWS + 1)]
    assert all((row["mark"] == "") == (row["output"] != "") for row in rows)


def test_a_column_of_the_input_is_not_taken_by_a_value_in_place_of_the_schemas_fields() -> None:
    schema = "outputs: {type: object, properties: {mark: {type: integer}}, required: [mark]}"
    Path("say.prompty").write_text(PROMPT.replace("---\nuser", f"{schema}\n---\nuser"), encoding="utf-8")
    Path("in.jsonl").write_text('{"word": "w", "output": 1}\n', encoding="utf-8")
    assert batchrun(*RUN).returncode == 0
    ran = batchrun(*RUN, "--fresh", "--post", "f.py:upper")
    assert ran.returncode == 2
    assert "already has a column output" in ran.stderr


def test_a_coroutine_that_blocks_is_named_in_the_summary() -> None:
    ran = batchrun(*RUN, "--limit", "2", "--post", "f.py:blocks", "--workers", "1", "--quiet")
    assert ran.returncode == 0
    assert "f.py:blocks is a coroutine function that blocked its event loop" in ran.stderr


@contextlib.contextmanager
def under_way(*args: str, calls: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """A run whose function has been called so many times."""
    command = [sys.executable, "-m", "batchrun", *args]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
        try:
            wait_until(lambda: len(calls_made()) >= calls)
            yield run
        finally:
            run.kill()


def calls_made() -> list[str]:
    path = Path("calls.txt")
    return path.read_text().splitlines() if path.exists() else []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_run_goes_on_with_what_is_missing_and_sends_nothing_twice() -> None:
    with under_way(*RUN, "--post", "f.py:noted", "--workers", "1", calls=4) as run:
        run.kill()
        run.wait()
    done, replies = journal("SELECT (SELECT count(*) FROM outcomes), (SELECT count(*) FROM replies)")[0]
    assert done < ROWS
    before, sent = len(calls_made()), attempts()
    ran = batchrun("resume")
    assert ran.returncode == 0, ran.stderr
    assert attempts() == sent + ROWS - replies
    assert len(calls_made()) - before == ROWS - done
    assert all("pid" in row for row in read("out.jsonl"))


def test_no_worker_outlives_a_killed_run() -> None:
    with under_way(*RUN, "--post", "f.py:waits", "--workers", "2", calls=2) as run:
        run.kill()
        run.wait()
        workers = {int(line.split()[1]) for line in calls_made()}
        assert len(workers) == 2
        wait_until(lambda: not any(map(alive, workers)))  # by themselves they never end


def test_a_second_interrupt_does_not_wait_for_a_function() -> None:
    with under_way(*RUN, "--post", "f.py:waits", "--workers", "2", "--drain", "1h", calls=2) as run:
        run.send_signal(signal.SIGINT)
        assert run.stderr is not None
        assert any(b"stopping" in line for line in run.stderr)
        run.send_signal(signal.SIGINT)
        assert run.wait(PATIENCE) == 130
    workers = {int(line.split()[1]) for line in calls_made()}
    assert not any(map(alive, workers))
    assert journal("SELECT count(*) FROM replies")[0][0] >= 2
    unanswered = attempts() - journal("SELECT count(*) FROM replies")[0][0]  # in flight at the second interrupt
    assert batchrun("resume", "--post", "strip").returncode == 0
    assert attempts() == ROWS + unanswered
