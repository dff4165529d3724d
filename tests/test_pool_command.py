"""Several endpoints behind one command: members of a pool that are away, gone, new, or of another model."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import PATIENCE

from batchrun import sim

POOL = """
[profiles.one]
base_url = "{one}"
api_key_env = "KEY_OF_ONE"
model = "m"

[profiles.two]
base_url = "{two}"
api_key_env = "KEY_OF_TWO"
model = "m"

[profiles.away]
base_url = "http://127.0.0.1:9/v1"
model = "m"

[profiles.other]
base_url = "{two}"
model = "other"

[pools.fleet]
members = [{members}]
"""


BOTH = ("-P", "one", "--fallback", "other")


def batchrun(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "batchrun", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    monkeypatch.setenv("KEY_OF_ONE", "key-of-one")
    monkeypatch.setenv("KEY_OF_TWO", "key-of-two")
    settings = sim.Settings(require_key=True)
    with sim.spawn(settings) as one, sim.spawn(settings) as two:
        yield {"one": one, "two": two}


def test_members_that_are_away_gone_or_new_make_no_difference_to_the_rows(
    servers: dict[str, str], tmp_path: Path
) -> None:
    def pool(*members: str) -> None:
        names = ", ".join(f'"{name}"' for name in members)
        (tmp_path / "batchrun.toml").write_text(POOL.format(**servers, members=names))

    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": f"Sentence {n}."}) + "\n" for n in range(80)))
    command = ("-i", "in.jsonl", "-p", "summarize", "--pool", "fleet", "-o", "out.jsonl", "--lane-column", "lane")
    pool("away", "one")
    found = batchrun(tmp_path, *command, "--limit", "40")
    assert found.returncode == 0, found.stderr
    assert "away: its rows go to other lanes" in found.stderr
    pool("one", "two")
    found = batchrun(tmp_path, *command)
    assert found.returncode == 0, found.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 80
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {row["lane"] for row in rows} == {"one", "two"}
    assert all(row["output"] for row in rows)
    shown = json.loads(batchrun(tmp_path, "show", "last", "--json").stdout)["lanes"]
    assert {"one", "two"} <= {lane["name"] for lane in shown}
    assert sum(lane["replies"] for lane in shown) == 80
    assert any(line.startswith("batchrun: two: ") for line in found.stderr.splitlines())
    with sqlite3.connect(next((tmp_path / ".batchrun").glob("*.db"))) as journal:
        lanes = journal.execute("SELECT base_url, key_name, count(*) FROM lanes JOIN attempts ON lane = id GROUP BY id")
        found_lanes = {(url, key): count for url, key, count in lanes}
        assert journal.execute("SELECT count(*) FROM attempts WHERE counted AND cause IS NOT NULL").fetchone() == (0,)
    assert sum(found_lanes.values()) >= 80
    assert {(servers["one"], "KEY_OF_ONE"), (servers["two"], "KEY_OF_TWO")} <= found_lanes.keys()
    pool("one", "other")
    found = batchrun(tmp_path, *command)
    assert found.returncode == 2
    assert "the model (m → m | other)" in found.stderr
    text = found.stderr + (tmp_path / "out.jsonl").read_text()
    assert "key-of" not in text


def test_a_pool_that_is_not_in_order_is_refused_before_any_call(servers: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "batchrun.toml").write_text(POOL.format(**servers, members='"one", "nobody"'))
    (tmp_path / "in.jsonl").write_text('{"text": "x"}\n')
    found = batchrun(tmp_path, "-i", "in.jsonl", "-p", "summarize", "--pool", "fleet", "-o", "out.jsonl")
    assert found.returncode == 2
    assert "nobody" in found.stderr


@pytest.mark.parametrize(
    ("row", "chosen", "next_step"),
    [
        (
            '{"custom_id": "a", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}',
            BOTH,
            "leave `model` out",
        ),
        ('{"messages": []}', ("--pool", "fleet"), "choose one with --model"),
    ],
)
def test_requests_of_one_model_get_a_hint_that_can_be_followed(
    row: str, chosen: tuple[str, ...], next_step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_ONE", "key-of-one")
    monkeypatch.setenv("KEY_OF_TWO", "key-of-two")
    servers = {"one": "http://127.0.0.1:9/v1", "two": "http://127.0.0.1:9/v1"}
    (tmp_path / "batchrun.toml").write_text(POOL.format(**servers, members='"one", "other"'))
    (tmp_path / "in.jsonl").write_text(row)
    found = batchrun(tmp_path, "plan", "-i", "in.jsonl", *chosen)
    assert found.returncode == 2
    assert "ready-made requests are for one model" in found.stderr
    assert next_step in found.stderr


def test_a_plan_says_what_each_lane_would_cost_and_a_cap_needs_the_price_of_each(tmp_path: Path) -> None:
    prices = "[profiles.dear]\nbase_url = 'http://127.0.0.1:9/v1'\nmodel = 'm'\ninput_price = 2.0\noutput_price = 8.0\n"
    cheap = (
        "[profiles.cheap]\nbase_url = 'http://127.0.0.1:10/v1'\nmodel = 'n'\ninput_price = 1.0\noutput_price = 4.0\n"
    )
    free = "[profiles.own]\nbase_url = 'http://127.0.0.1:11/v1'\nmodel = 'n'\n"
    pools = "[pools.two]\nmembers = ['dear', 'cheap']\n[pools.three]\nmembers = ['dear', 'cheap', 'own']\n"
    (tmp_path / "batchrun.toml").write_text(prices + cheap + free + pools)
    (tmp_path / "in.jsonl").write_text('{"text": "Some words."}\n' * 10)
    common = ("-i", "in.jsonl", "-p", "summarize", "-o", "out.jsonl", "--max-output-tokens", "40")
    planned = json.loads(batchrun(tmp_path, "plan", *common, "--pool", "two", "--json").stdout)
    dear, cheap_lane = planned["lanes"]
    assert (dear["name"], cheap_lane["name"]) == ("dear", "cheap")
    assert dear["most"] == pytest.approx(2 * cheap_lane["most"], rel=0.01)
    assert 0 < cheap_lane["prompts"] < cheap_lane["most"]
    refused = batchrun(tmp_path, *common, "--pool", "three", "--max-cost", "1")
    assert refused.returncode == 2
    assert "the price of model n is unknown" in refused.stderr


def test_a_single_place_with_a_fallback_is_a_run_like_any_other(servers: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "batchrun.toml").write_text(POOL.format(**servers, members='"one"'))
    (tmp_path / "in.jsonl").write_text('{"text": "Some words."}\n' * 5)
    command = ("-i", "in.jsonl", "-p", "summarize", "-o", "out.jsonl", "-P", "one")
    assert batchrun(tmp_path, *command).returncode == 0
    found = batchrun(tmp_path, *command, "--fallback", "other")  # its model makes no row another one
    assert found.returncode == 0, found.stderr
    assert "5 done" in found.stderr
    assert batchrun(tmp_path, *command, "--fallback", "one").returncode == 2
