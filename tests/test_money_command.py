"""Prompt caches and service tiers by the command line, against the simulated provider."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE

from batchrun import registry
from batchrun.cli import main
from batchrun.errors import ExitCode
from batchrun.tui.replay import Replay
from batchrun.tui.widgets.paint import cost_lines

pytestmark = pytest.mark.slow  # each test waits for runs of the whole program

FIXED = "You answer briefly and to the point, in one sentence. " * 160
SETTINGS = """
[sim]
cache = "explicit"
latency = 0.05
"""
SAME = ("-i", "in.jsonl", "-p", "p.prompty", "-P", "sim", "-m", "gpt-5.6-luna", "-o", "out.jsonl")


def batchrun(folder: Path, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "batchrun", *args]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == code, done.stderr
    return done


def shown(folder: Path) -> dict[str, Any]:
    """In this process, which has everything imported."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["show", "out.jsonl", "--json"]) == ExitCode.OK
    return json.loads(said.getvalue())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "batchrun.toml").write_text(SETTINGS)
    (tmp_path / "p.prompty").write_text(f"---\nname: p\n---\nsystem:\n{FIXED}\nuser:\n{{{{ text }}}}\n")
    rows = [{"id": number, "text": f"Question {number}?"} for number in range(120)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_run_reads_from_the_cache_what_one_request_wrote_and_says_so(folder: Path) -> None:
    said = batchrun(folder, "run", *SAME).stderr
    found = shown(folder)
    assert found["cache_write_tokens"] == pytest.approx(len(FIXED) / 4, abs=2)
    assert found["cached_tokens"] > 0.5 * found["input_tokens"]
    assert "input tokens were read from a prompt cache" in said
    parts = found["cost_by_kind"]
    assert sum(parts.values()) == pytest.approx(found["cost"])
    batchrun(folder, "run", *SAME, "--cache", "off")
    assert shown(folder)["attempts"] == 120  # what is added is no part of a row: nothing was sent again


def test_without_it_nothing_is_kept(folder: Path) -> None:
    batchrun(folder, "run", *SAME, "--cache", "off")
    found = shown(folder)
    assert (found["cached_tokens"], found["cache_write_tokens"], found["done"]) == (0, 0, 120)


def test_a_provider_that_does_not_know_the_marks_gets_none_and_no_row_is_lost(folder: Path) -> None:
    (folder / "batchrun.toml").write_text(SETTINGS.replace("explicit", "automatic"))
    said = batchrun(folder, "run", *SAME, "--max-attempts", "1").stderr
    assert shown(folder)["done"] == 120
    assert "without prompt cache marks" in said


def test_a_variable_with_the_same_value_in_every_row_is_part_of_what_is_fixed(folder: Path) -> None:
    prompt = f"---\nname: p\ninputs:\n  tone: {{default: friendly}}\n---\nsystem:\nBe {{{{ tone }}}}. {FIXED}\nuser:\n{{{{ text }}}}\n"
    (folder / "p.prompty").write_text(prompt)
    planned = json.loads(batchrun(folder, "plan", *SAME, "--json").stdout)["cache"]
    assert planned["tokens"] == pytest.approx(len(FIXED) / 4, abs=40)
    assert planned["saved"] > 0
    batchrun(folder, "run", *SAME)
    found = shown(folder)
    assert found["cache_write_tokens"] == pytest.approx(len(FIXED) / 4, abs=40)
    assert found["cached_tokens"] > 0.5 * found["input_tokens"]


def test_the_plan_says_what_the_cache_saves(folder: Path) -> None:
    found = json.loads(batchrun(folder, "plan", *SAME, "--json").stdout)["cache"]
    assert found["kept"]
    assert 0 < found["saved"] < 120 * 2200 * 0.2e-6
    assert "is marked for the provider's cache, which saves about $" in batchrun(folder, "plan", *SAME).stdout
    assert json.loads(batchrun(folder, "plan", *SAME, "--json", "--cache", "off").stdout)["cache"] is None
    one = json.loads(batchrun(folder, "plan", *SAME, "--json", "--limit", "2").stdout)["cache"]
    assert one["saved"] < 0


def test_rows_fall_back_to_the_standard_tier_and_the_end_says_at_which_price(folder: Path) -> None:
    (folder / "batchrun.toml").write_text(SETTINGS + 'faults = ["flex=1.0"]\n')
    said = batchrun(folder, "run", *SAME, "--tier", "flex,standard", "--tier-patience", "500ms").stderr
    assert "tiers: 120 replies at default $" in said
    assert [share["tier"] for share in shown(folder)["cost_by_tier"]] == ["default"]


def test_flex_costs_half(folder: Path) -> None:
    said = batchrun(folder, "run", *SAME, "--cache", "off", "--tier", "flex").stderr
    flex = shown(folder)["cost"]
    assert "tiers: 120 replies at flex $" in said
    shares = json.loads(batchrun(folder, "report", "out.jsonl", "--json").stdout)["cost_by_tier"]
    assert shares == shown(folder)["cost_by_tier"] == [{"tier": "flex", "replies": 120, "cost": flex}]
    batchrun(folder, "report", "out.jsonl", "--output", "report.html")
    assert "120 replies at flex $" in (folder / "report.html").read_text()
    run = registry.find(str(folder / "out.jsonl"), None)
    replay = Replay(run)
    replay.read_again()
    assert "120 at flex $" in "".join(line.plain for line in cost_lines(replay.snapshot().progress))
    batchrun(folder, "run", *SAME, "--cache", "off", "--fresh")
    assert flex * 2 == shown(folder)["cost"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--tier", "batch"), "--batch"),
        (("--tier", "flex", "--param", "service_tier=flex"), "--tier and the parameter service_tier"),
        (("--cache", "on"), "must be auto or off"),
        (("--finish-by", "soon"), "must be a time such as 07:00"),
        (("--tier", "turbo", "--max-cost", "1", "--max-output-tokens", "9"), "in service tier turbo is unknown"),
    ],
)
def test_what_cannot_be_meant_is_refused(args: tuple[str, ...], said: str, folder: Path) -> None:
    assert said in batchrun(folder, "run", *SAME, *args, code=2).stderr
