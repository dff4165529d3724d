"""The whole program against providers that state their limits in ways of their own, an exact limiter each.

    python benchmarks/dialects.py [--server SCRIPT] [--batchrun FOLDER] [--at-once N] [NAME …]

By default the providers are the dialects of the simulated one (docs/sim.md) at 600 requests a minute. The targets: no row
lost; busy at most 1.10 times the ideal for buckets, 1.25 times rows over rate for windows; refused at most 3 % of the
calls where the limit that binds stands on every reply, 8 % else.

Another server can be given as a script. It takes `--list` (one dialect a line, its name first and `N rows` after it), `--port 0 --dialect NAME`,
says `listening on URL` when it is ready, and answers `GET /stats` with what it counted: calls, statuses, admitted,
distinct, busy (seconds from the first call to the last answer) and ideal (the least that its limit allows). `--batchrun`
is a checkout to measure instead of this one. Most of the time passes in sleep, so two at once do not disturb each other.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from batchrun import providers, sim
from batchrun.sim.dialects import Bucket, Limiter
from batchrun.sim.settings import Settings

HERE = Path(__file__).parent
LONGEST = "400s"
ROWS, RPM, LATENCY = 300, 600, 0.08
"""Of the simulated provider: rows, requests a minute, seconds of a reply."""


class Provider(NamedTuple):
    """One that is under way: its address, and what it counted."""

    base_url: str
    stats: Callable[[], dict[str, Any]]


def simulated(name: str, rows: int) -> AbstractContextManager[Provider]:
    """A dialect of the simulated provider."""
    settings = sim.from_json({"dialect": name, "rpm": RPM, "latency": str(LATENCY)})

    @contextmanager
    def serving() -> Iterator[Provider]:
        with sim.spawn(settings) as base_url:
            yield Provider(base_url, lambda: _of_simulated(settings, rows, sim.stats(base_url, prompts=False)))

    return serving()


def _of_simulated(settings: Settings, rows: int, stats: dict[str, Any]) -> dict[str, Any]:
    """The account of the simulated provider in the terms of the table."""
    done = max(1, stats["by_status"].get("200", 0))
    need = {"requests": 1.0, "input": stats["input_tokens"] / done, "output": stats["output_tokens"] / done}
    need["tokens"] = need["input"] + need["output"]
    limiter = Limiter(settings, 0.0, epoch=time.time())
    ideal = LATENCY if limiter.places is None else rows / limiter.places * LATENCY
    paced = 0.0
    for limit in limiter.limits:
        if limit.binding:
            total, enforced = rows * need[limit.unit], limit.enforced
            if isinstance(enforced, Bucket):
                ideal = max(ideal, LATENCY + (total - enforced.depth) / enforced.rate)
            else:
                ideal = max(ideal, LATENCY + (math.ceil(total / enforced.depth) - 1) * enforced.span)
                paced = max(paced, total / enforced.depth * enforced.span)
    busy = stats["last"] - stats["first"] + LATENCY
    return {"calls": stats["calls"], "admitted": done, "busy": busy, "ideal": ideal, "paced": paced}


def listed(server: Path | None) -> dict[str, int]:
    """The dialects of a server script, or of the simulated provider, and how many rows each is tried with."""
    if server is None:
        return dict.fromkeys(providers.table("simulated"), ROWS)
    told = subprocess.run([sys.executable, str(server), "--list"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0]: int(found[1]) for line in told.splitlines() if (found := re.search(r" (\d+) rows", line))}


@contextmanager
def scripted(server: Path, name: str, rows: int) -> Iterator[Provider]:
    """A dialect of a server script."""
    command = [sys.executable, str(server), "--port", "0", "--dialect", name, "--rows", str(rows)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            base_url = process.stdout.readline().split()[-1]
            yield Provider(base_url, lambda: _fetched(base_url.removesuffix("/v1") + "/stats"))
        finally:
            process.terminate()


def _fetched(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(address) as answer:  # noqa: S310  # loopback
        return json.load(answer)


def measured(server: Path | None, checkout: Path, name: str, rows: int) -> str:
    """One dialect's line of the table."""
    one = simulated(name, rows) if server is None else scripted(server, name, rows)
    with tempfile.TemporaryDirectory() as folder, one as provider:
        began = time.monotonic()
        code, summary, said = _run(Path(folder), checkout, provider.base_url, rows)
        wall = time.monotonic() - began
        line = _line(name, rows, summary, provider.stats())
    return line + f" {wall:.1f} | {code} |" + (f"\n    {said}" if said else "")


def _run(folder: Path, checkout: Path, base_url: str, rows: int) -> tuple[int, dict[str, Any], str]:
    texts = (json.dumps({"id": str(number), "text": f"row number {number:06} of many"}) for number in range(rows))
    (folder / "rows.jsonl").write_text("\n".join(texts))
    (folder / "repeat.txt").write_text("Repeat: {{ text }}")
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "batchrun", "run", "-i", "rows.jsonl", "-p", "repeat.txt", "-m", "any"),
            *("-o", "out.jsonl", "--base-url", base_url, "--json", "--stop-after", LONGEST, "--drain", "2s"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OPENAI_API_KEY": "sk-none", "PYTHONPATH": str(checkout)},
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    sentence = "" if done.returncode == 0 else " ".join(done.stderr.split())[-200:]
    return done.returncode, events[-1] if events else {}, sentence


HEAD = (
    "| dialect | done | lost | calls | refused | busy s | ideal s | × | rows/rate × | wall s | exit |\n"
    + "|---" * 11
    + "|"
)


def _line(name: str, rows: int, summary: dict[str, Any], stats: dict[str, Any]) -> str:
    totals = summary.get("totals", {})
    done, failed = totals.get("done", 0), totals.get("failed", 0)
    calls = max(1, stats["calls"])
    refused = calls - stats["admitted"]
    ratio = f"{stats['busy'] / stats['ideal']:.2f}" if stats["ideal"] > 1 and done == rows else "-"
    paced = f"{stats['busy'] / stats['paced']:.2f}" if stats.get("paced") and done == rows else ""
    return (
        f"| {name} | {done} of {rows} | {failed} | {stats['calls']} | {refused} ({refused / calls:.1%}) "
        f"| {stats['busy']:.1f} | {stats['ideal']:.1f} | {ratio} | {paced} |"
    )


def main() -> None:
    """Measure the chosen dialects, all by default, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path)
    parser.add_argument("--batchrun", type=Path, default=HERE.parent)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("names", nargs="*")
    chosen = parser.parse_args()
    every = listed(chosen.server)
    names = chosen.names or list(every)
    print(HEAD, flush=True)
    with ThreadPoolExecutor(chosen.at_once) as pool:
        for line in pool.map(lambda name: measured(chosen.server, chosen.batchrun, name, every[name]), names):
            print(line, flush=True)


if __name__ == "__main__":
    main()
