"""`batchrun plan`: what would be sent, cost and take; a pilot's replies are kept and not paid for again."""

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE

from batchrun.cli import main
from batchrun.engine.prediction import Prediction
from batchrun.errors import ExitCode
from batchrun.report import words

pytestmark = pytest.mark.slow  # each test waits for runs of the whole program

SETTINGS = """
[profiles.sim]
input_price = 1.0
output_price = 10.0
[sim]
rpm = 60000
"""
SAME = ("-i", "in.jsonl", "-p", "summarize", "-P", "sim", "-o", "out.jsonl")


def batchrun(folder: Path, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "batchrun", *args]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == code, done.stderr
    return done


def here(folder: Path, *args: str) -> Any:
    """What a command that only reads says as JSON, in this process, which has everything imported."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as said:
        assert main([*args, "--json"]) == ExitCode.OK
    return json.loads(said.getvalue())


def planned(folder: Path, *args: str) -> dict[str, Any]:
    return here(folder, "plan", *SAME, *args)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "batchrun.toml").write_text(SETTINGS)
    rows = [{"text": f"Sentence {n % 90}. " * (1 + n % 7)} for n in range(120)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_plan_measures_every_row_and_makes_nothing(folder: Path) -> None:
    found = planned(folder)
    assert (found["rows"], found["requests"], found["measured"]) == (120, 120, 0)
    assert found["input_tokens"]["expected"] == pytest.approx(found["body_bytes"] / 4)
    assert found["cost"] is None
    assert found["cost_of_prompts"] == pytest.approx(found["body_bytes"] / 4 * 1e-6)
    assert found["cost_at_most"] is None
    assert [example["body"]["model"] for example in found["examples"]] == ["simulated"] * 3
    assert not (folder / ".batchrun").exists()
    said = batchrun(folder, "plan", *SAME).stdout
    assert "requests  120 to send" in said
    assert "request (line" not in said
    shown = batchrun(folder, "plan", *SAME, "--show", "5").stdout
    assert [line.split()[1] for line in shown.splitlines() if " request (line " in line] == [
        *("first", "next", "next", "longest", "last"),
    ]
    assert "the longest request (line " in shown


def test_equal_requests_are_counted_and_what_they_cost(folder: Path) -> None:
    (folder / "in.jsonl").write_text('{"text": "One."}\n' * 5 + '{"text": "Two."}\n')
    assert planned(folder)["duplicates"] == 4
    piloted = planned(folder, "--pilot", "3", "--quiet")
    assert (piloted["requests"], piloted["with_outcome"], piloted["duplicates"]) == (3, 3, 3)
    again = planned(folder)
    assert (again["rows"], again["requests"], again["with_outcome"], again["duplicates"]) == (6, 3, 3, 3)
    rest = again["cost"]["expected"] - again["charged"]
    assert again["cost_of_duplicates"]["expected"] == pytest.approx(rest)  # all three are equal to one that is paid


def test_limit_and_sample_are_planned_as_they_would_be_sent(folder: Path) -> None:
    assert planned(folder, "--limit", "30")["requests"] == 30
    found = planned(folder, "--sample", "7")
    assert (found["rows"], found["requests"]) == (120, 7)
    assert found["examples"][2]["line"] - found["examples"][0]["line"] > 80


def test_every_message_of_an_example_is_seen(folder: Path) -> None:
    said = batchrun(folder, "plan", *SAME, "--show", "3").stdout
    assert "You summarize documents." in said
    assert "Sentence 0." in said
    assert re.search(r" … [\d,]+ characters … ", said)


def test_a_long_input_says_how_far_it_is(folder: Path) -> None:
    (folder / "in.jsonl").write_text('{"text": "One."}\n' * 100_001)
    (folder / "short.md").write_text("Say {{ text }}\n")
    done = batchrun(folder, "plan", "-i", "in.jsonl", "-p", "short.md", "-P", "sim", "-o", "out.jsonl")
    assert "100,000 rows checked" in done.stderr
    assert "100,000 of the requests are equal to another; --dedupe would save them" in done.stdout


def test_with_dedupe_equal_requests_are_not_planned(folder: Path) -> None:
    (folder / "in.jsonl").write_text('{"text": "One."}\n' * 5 + '{"text": "Two."}\n')
    found = planned(folder, "--dedupe")
    assert (found["rows"], found["requests"], found["duplicates"]) == (6, 2, 4)
    assert "4 more rows get the reply of an equal request" in batchrun(folder, "plan", *SAME, "--dedupe").stdout


def test_nothing_left_to_send_is_said(folder: Path) -> None:
    batchrun(folder, "run", *SAME, "--quiet")
    said = batchrun(folder, "plan", *SAME).stdout
    assert "requests  0 to send; 120 rows with an outcome already" in said
    assert "none: nothing is left to send" in said


def test_with_a_limit_of_output_the_most_is_known(folder: Path) -> None:
    found = planned(folder, "--max-output-tokens", "50")
    assert found["output_limit"] == 6000
    assert found["cost_at_most"] == pytest.approx((found["body_bytes"] + 6000 * 10) * 1e-6)


def test_a_price_that_is_not_known_is_said(folder: Path) -> None:
    (folder / "batchrun.toml").write_text("")
    assert planned(folder)["unpriced"] == ["simulated"]
    assert "nothing: replies are simulated" in batchrun(folder, "plan", *SAME).stdout


def test_rows_too_long_for_the_context_window_are_named(folder: Path) -> None:
    with (folder / "in.jsonl").open("a") as stream:
        stream.write(json.dumps({"text": "long " * 200_000}) + "\n")
    found = planned(folder, "--model", "gpt-3.5-turbo")
    assert (found["too_long"], found["too_long_lines"]) == (1, [121])


def test_limits_tell_the_time_and_what_binds(folder: Path) -> None:
    found = planned(folder, "--rpm", "60")
    assert (found["seconds"]["expected"], found["binding"]) == (pytest.approx(120), "requests per minute")


def test_a_pilot_is_kept_and_predicts_the_rest(folder: Path) -> None:
    found = planned(folder, "--pilot", "20", "--quiet")
    assert (found["requests"], found["measured"]) == (100, 20)
    assert found["cost"]["low"] <= found["cost"]["expected"] <= found["cost"]["high"]
    # 20 replies at once may be too few to tell the window of the limit that is announced
    assert found["rpm"] in (None, pytest.approx(60_000, rel=0.02))
    assert not (folder / "out.jsonl").exists()
    again = planned(folder)
    assert (again["requests"], again["measured"]) == (100, 20)
    events = [json.loads(line) for line in batchrun(folder, "run", *SAME, "--json").stdout.splitlines()]
    assert sum(event["event"] == "attempt" for event in events) == 100
    prediction = events[-1]["prediction"]
    assert prediction["cost"] == [pytest.approx(found["cost"][name], abs=1e-8) for name in ("low", "expected", "high")]
    assert prediction["actual_cost"] == pytest.approx(prediction["cost"][1], rel=0.3)
    assert len((folder / "out.jsonl").read_text().splitlines()) == 120


def test_the_end_of_the_run_says_how_far_off_the_pilot_was(folder: Path) -> None:
    batchrun(folder, "plan", *SAME, "--pilot", "20")
    assert "the pilot predicted $0.0" in batchrun(folder, "run", *SAME).stderr


@pytest.mark.parametrize(
    ("cost", "seconds", "said"),
    [
        (None, (0.01, 0.02, 0.03), ""),
        (None, (8.0, 10.0, 12.0), "the pilot predicted 10 s for the rest, and it took 11 s (+10 %)"),
        ((1.0, 2.0, 3.0), (0.01, 0.02, 0.03), "the pilot predicted $2.00 ($1.00 to $3.00), and it is $1.00 (-50 %)"),
    ],
)
def test_a_time_too_short_to_compare_is_left_out(cost: Any, seconds: Any, said: str) -> None:
    assert words.prediction(Prediction(cost, 1.0, seconds, 11.0)) == said


def test_a_pilot_for_a_stream_is_refused(folder: Path) -> None:
    done = batchrun(folder, "plan", *SAME[:-1], "-", "--pilot", "20", code=2)
    assert "name an --output file" in done.stderr


def test_replies_that_would_be_taken_over_are_counted_off(folder: Path) -> None:
    (folder / "in.jsonl").write_text('{"text": "One."}\n' * 2 + '{"text": "Two."}\n')
    batchrun(folder, "run", *SAME, "--quiet")
    run = here(folder, "runs")["id"]
    (folder / "in.jsonl").write_text('{"text": "One."}\n' * 3 + '{"text": "Two."}\n' + '{"text": "Three."}\n' * 2)
    other = (*SAME[:-1], "other.jsonl", "--reuse", "out.jsonl")
    said = batchrun(folder, "plan", *other).stdout
    assert "requests  3 to send" in said
    assert f"reuse     3 rows reuse replies of run {run} without a new request" in said
    found = here(folder, "plan", *other)
    assert (found["requests"], found["reused"], found["reuse"], found["duplicates"]) == (3, 3, run, 2)
    found = here(folder, "plan", *other, "--dedupe")
    assert (found["requests"], found["reused"], found["duplicates"]) == (1, 2, 3)
    found = here(folder, "plan", *other, "--limit", "1")
    assert (found["requests"], found["reused"]) == (0, 1)
    batchrun(folder, "run", *other, "--limit", "1")
    sent = here(folder, "show", "other.jsonl")["attempts"]
    assert sent == 0
    found = here(folder, "plan", *other[:-2])
    assert (found["requests"], found["with_outcome"]) == (3, 3)
    assert "no run" in batchrun(folder, "plan", *other[:-1], "none", code=2).stderr


def test_replies_to_other_requests_measure_nothing(folder: Path) -> None:
    batchrun(folder, "run", *SAME, "--quiet")
    assert planned(folder, "--limit", "60")["measured"] == 120
    assert planned(folder, "--model", "another")["measured"] == 0
    (folder / "p.md").write_text("{{ text }} {{ topic }}")
    (folder / "in.jsonl").write_text('{"text": "One.", "topic": "lids"}\n')
    assert planned(folder, "--prompt", "p.md")["measured"] == 0


def test_a_plan_is_refused_where_its_run_would_mix_simulated_replies_with_real_ones(folder: Path) -> None:
    batchrun(folder, "run", *SAME, "--quiet")
    real = ("plan", *SAME, "-P", "ollama", "-m", "m")
    assert "has simulated replies; real ones would be mixed with them" in batchrun(folder, *real, code=2).stderr
    assert "not known" in batchrun(folder, *real, "--fresh").stdout
