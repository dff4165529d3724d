"""The whole program against providers that state their limits in ways of their own, an exact limiter each.

    python benchmarks/dialects.py [--server SCRIPT] [--batchrun FOLDER] [--at-once N] [NAME …]

A server script takes `--list` (one dialect a line, its name first and `N rows` after it), `--port 0 --dialect NAME`,
says `listening on URL` when it is ready, and answers `GET /stats` with what it counted: calls, statuses, admitted,
distinct, busy (seconds from the first call to the last answer) and ideal (the least that its limit allows). `--batchrun`
is a checkout to measure instead of this one. Most of the time passes in sleep, so two at once do not disturb each other.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LONGEST = "400s"


def listed(server: Path) -> dict[str, int]:
    """The dialects of a server script, and how many rows each is tried with."""
    told = subprocess.run([sys.executable, str(server), "--list"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0]: int(found[1]) for line in told.splitlines() if (found := re.search(r" (\d+) rows", line))}


def measured(server: Path, checkout: Path, name: str, rows: int) -> str:
    """One dialect's line of the table."""
    command = [sys.executable, str(server), "--port", "0", "--dialect", name, "--rows", str(rows)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            base_url = process.stdout.readline().split()[-1]
            began = time.monotonic()
            code, summary, said = _run(Path(folder), checkout, base_url, rows)
            wall = time.monotonic() - began
            with urllib.request.urlopen(base_url.removesuffix("/v1") + "/stats") as answer:  # noqa: S310  # loopback
                stats = json.load(answer)
        finally:
            process.terminate()
    return _line(name, rows, summary, stats) + f" {wall:.1f} | {code} |" + (f"\n    {said}" if said else "")


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
    parser.add_argument("--server", type=Path, required=True)
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
