"""The soak: one long run; memory, file descriptors and tasks stay flat, and the last minute is as fast as the first.

    python tests/reliability/campaign_soak.py [ROWS [BYTES]]        the figures, and exit code 1 if one is bad

The text of a row has that many bytes; replies are short.

The program is looked at from outside, in /proc, once a second; threads stand for what it has under way, since its
tasks are as many as its crew from the first second on. The rate is the journal's, by its samples.
"""

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from program import Program

from batchrun import sim

GROWTH = 50e6
DESCRIPTORS = 5
SLOWER = 0.10
WARM = 0.15


class Look(NamedTuple):
    at: float
    memory: int
    descriptors: int
    threads: int
    done: int


def look(program: Program, pid: int) -> Look | None:
    """The program at this moment; None once it is gone or before it has begun."""
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        memory, threads = int(status["VmRSS"].split()[0]) * 1024, int(status["Threads"])
        ((done,),) = program.ask("SELECT done FROM totals")
        return Look(time.monotonic(), memory, len(os.listdir(f"/proc/{pid}/fd")), threads, done)
    except (OSError, KeyError, ValueError, sqlite3.OperationalError):  # gone, or its journal is being made
        return None


def soak(rows: int, size: int = 0) -> list[str]:
    """Run it with texts of `size` bytes, or short ones; what is bad about it."""
    with tempfile.TemporaryDirectory(prefix="soak-") as name, sim.spawn(sim.from_json({"latency": "0.05-0.15"})) as url:
        program = Program(Path(name))
        program.rows(f"row {number} of a long run".ljust(size, ".") for number in range(rows))
        looks: list[Look] = []
        with program.going(*program.send(url, "--concurrency", "64", "--concurrency-fixed", "--quiet")) as process:
            while True:
                try:
                    process.wait(1)
                    break
                except subprocess.TimeoutExpired:
                    found = look(program, process.pid)
                    looks += [found] if found and found.done else []
            err = process.stderr.read() if process.stderr else ""
        calls = sim.stats(url, prompts=False)["calls"]
        return _judged(looks, process.returncode, err, calls, rows)


def _judged(looks: list[Look], code: int, err: str, calls: int, rows: int) -> list[str]:
    busy = [each for each in looks if each.done < rows]
    warm = busy[int(len(busy) * WARM) :]
    growth = max(each.memory for each in warm) - warm[0].memory
    descriptors = [each.descriptors for each in warm]
    threads = [each.threads for each in warm]
    minute = max(3, min(60, len(warm) // 3))
    first, last = _rate(warm[:minute]), _rate(warm[-minute:])
    print(f"{rows:,} rows, {calls:,} calls, {looks[-1].at - looks[0].at:.0f} s, {err.strip().splitlines()[-1]}")
    print(
        f"  memory {mean(each.memory for each in warm) / 1e6:.0f} MB, growth after warm-up {growth / 1e6:.1f} MB (< 50)"
    )
    print(f"  file descriptors {min(descriptors)} to {max(descriptors)}, threads {min(threads)} to {max(threads)}")
    print(f"  {first:.0f} rows/s in the first {minute} s, {last:.0f} in the last (within 10 %)", flush=True)
    bad = {
        "exit code": code == 0,
        "calls": calls == rows,
        "memory": growth < GROWTH,
        "descriptors": max(descriptors) - min(descriptors) <= 2 * DESCRIPTORS,
        "threads": max(threads) - min(threads) <= DESCRIPTORS,
        "throughput": last >= first * (1 - SLOWER),
    }
    return [what for what, holds in bad.items() if not holds]


def _rate(looks: list[Look]) -> float:
    return (looks[-1].done - looks[0].done) / (looks[-1].at - looks[0].at)


def main(arguments: list[str]) -> int:
    found = soak(*map(int, arguments or ["100000"]))
    print(f"BAD: {', '.join(found)}" if found else "all as promised")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
