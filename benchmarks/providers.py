"""The whole program against difficult providers: limits that headers state, limits that nobody states, faults.

    python benchmarks/providers.py [NAME …]

Each scenario starts the simulated provider with its limit in force there, gives batchrun no `--rpm`, and prints what
the provider counted: time from the first to the last request over the ideal, share of the allowed rate that was used,
429s (`late`: after two seconds), the most requests at once, the window that concurrency settled at. The provider's
count is the truth; batchrun's own account is only checked against it.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from batchrun import sim

PROMPT = "Repeat: {{ text }}"


class Scenario(NamedTuple):
    """One provider and the rows sent to it. `ideal` is the least wall time in seconds that its limit allows."""

    name: str
    rows: int
    settings: dict[str, Any]
    options: tuple[str, ...]
    ideal: float
    meanwhile: Callable[[str], None] | None = None
    long_rows: bool = False


def scenarios() -> list[Scenario]:
    """Those of the table, quick ones first."""
    latencies = (0.05, 0.5, 3.0)
    cap = ("--concurrency", "32")
    found = [Scenario(f"headers-{lag}", 300, {"rpm": 600, "latency": str(lag)}, cap, 30 + lag) for lag in latencies]
    silent = {"rpm": 600, "headers": False, "retry_after": "none"}
    for rows in (300, 3000):
        found += [
            Scenario(f"silent-{rows}-{lag}", rows, {**silent, "latency": str(lag)}, (), rows / 10 + lag)
            for lag in latencies
        ]
    found += [
        Scenario("tokens", 600, {"tpm": 60_000, "latency": "0.3"}, (), 0.0, long_rows=True),
        Scenario("503", 1000, {"faults": ["503=0.1"], "latency": "0.1"}, (), 0.0),
        Scenario("noise-3%", 5000, {"latency": "0.05", "faults": ["throttle=0.03"]}, (), 0.0),
        Scenario("queue-4", 600, {"concurrency": 4, "queue": True, "latency": "0.1"}, (), 600 * 0.1 / 4),
        Scenario("down-10s", 2000, {"latency": "0.2"}, ("--concurrency", "32"), 0.0, meanwhile=_take_down),
    ]
    return found


def _take_down(base_url: str) -> None:
    time.sleep(4)
    sim.down(base_url, 10)


def main(names: list[str]) -> None:
    """Run the chosen scenarios, all by default, and print a line each."""
    chosen = [scenario for scenario in scenarios() if not names or any(scenario.name.startswith(n) for n in names)]
    print(
        f"{'scenario':<18}{'rows':>6}{'done':>6}{'calls':>7}{'429':>6}{'429 late':>9}{'wall':>8}{'ideal':>8}{'×':>6}"
        f"{'used':>7}{'peak':>6}{'window':>8}{'1 s':>5}"
    )
    for scenario in chosen:
        print(measured(scenario), flush=True)


def measured(scenario: Scenario) -> str:
    """One scenario's line."""
    settings = sim.from_json({**scenario.settings, "record": True})
    with tempfile.TemporaryDirectory() as folder, sim.spawn(settings) as base_url:
        _write_rows(Path(folder), scenario)
        beside = threading.Thread(target=scenario.meanwhile or (lambda _: None), args=(base_url,))
        beside.start()
        began = time.monotonic()
        summary = _run(Path(folder), base_url, scenario.options)
        wall = time.monotonic() - began
        beside.join()
        return _line(scenario, summary, wall, sim.stats(base_url, prompts=False), sim.log(base_url))


def _write_rows(folder: Path, scenario: Scenario) -> None:
    lines: list[str] = []
    for number in range(scenario.rows):
        words = 5 + (number * 7919 % 40) ** 2 // 4 if scenario.long_rows else 10
        lines.append(json.dumps({"id": str(number), "text": f"row {number} " + "word " * words}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    (folder / "repeat.txt").write_text(PROMPT)


def _run(folder: Path, base_url: str, options: tuple[str, ...]) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "batchrun",
        "run",
        "-i",
        "rows.jsonl",
        "-p",
        "repeat.txt",
        "-m",
        "any",
        "-o",
        "out.jsonl",
    ]
    command += ["--base-url", base_url, "--json", *options]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OPENAI_API_KEY": "sk-none"},
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    if not events:
        raise SystemExit(done.stderr)
    windows = [event["allowed"] for event in events if event["event"] == "limits"]
    return {**events[-1], "settled": statistics.median(windows[len(windows) // 2 :])}


def _line(
    scenario: Scenario, summary: dict[str, Any], wall: float, stats: dict[str, Any], log: list[dict[str, Any]]
) -> str:
    totals = summary["totals"]
    refused = stats["by_status"].get("429", 0) + stats["by_status"].get(429, 0)
    first = stats["first"]
    late = sum(str(call["status"]) == "429" for call in log if call["at"] > first + 2)
    busy = stats["last"] - first + 1e-9
    rate = scenario.settings.get("rpm")
    used = (stats["calls"] - refused) / busy / (rate / 60) if rate else 0.0
    if "tpm" in scenario.settings:
        used = (stats["input_tokens"] + stats["output_tokens"]) / busy / (scenario.settings["tpm"] / 60)
    ratio = busy / scenario.ideal if scenario.ideal else 0.0
    return (
        f"{scenario.name:<18}{totals['rows']:>6}{totals['done']:>6}{stats['calls']:>7}{refused:>6}"
        f"{late / max(1, stats['calls']):>9.1%}{wall:>8.1f}{scenario.ideal:>8.1f}{ratio:>6.2f}{used:>7.1%}"
        f"{stats['peak']:>6}{summary['settled']:>8.0f}{stats['most_admitted_in_1s']:>5}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
