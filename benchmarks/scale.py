"""Ten thousand rows to a million: time and memory, what goes in and comes out, going on.

A machine may be a sixth slower or faster half a minute later, and a long run takes minutes. So the time of a row in it is
held against that of short runs before it, after it and in the middle of it: every few seconds the long run stands still
(SIGSTOP) for the time of a short one, which is taken off.
"""

import os
import shutil
import signal
import sqlite3
import sys
import time
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from measure import Bench, Spent
from mockserver import Mock, serving

BASE = 1_000
"""Rows of the run whose time is taken off: what any run takes."""
SHORT = 10_000
TURNS = 2
"""Pairs of short runs before and after a long one."""
PIECE = 8.0
"""Seconds that a long run works between two pairs."""
FIXED = ("--concurrency", "256", "--concurrency-fixed")


class Pair(NamedTuple):
    """A run of `BASE` rows and one of `SHORT`."""

    base: Spent
    short: Spent


def run(bench: Bench) -> None:
    """10,000 and 100,000 rows."""
    _series(bench, (100_000,))


def million(bench: Bench) -> None:
    """The same and a million."""
    _series(bench, (100_000, 1_000_000))


def _series(bench: Bench, sizes: tuple[int, ...]) -> None:
    with serving(bench.program, cpu=bench.server_cpu) as mock:
        before = [_pair(bench, mock) for _ in range(TURNS)]
        bench.table.row("5", f"{SHORT:,} rows, whole command", f"{_per_row(before) * 1e6:.0f} µs a row")
        _tell_memory(bench, SHORT, max(pair.short.memory for pair in before))
        for size in sizes:
            spent, between = _long(bench, mock, size)
            after = [_pair(bench, mock) for _ in range(TURNS)]
            _tell_long(bench, size, spent, [*before, *between, *after])
            before = after
        _files(bench, sizes[-1])
        _resume(bench, mock, sizes[-1])
    _intake(bench, sizes[-1])


def _pair(bench: Bench, mock: Mock) -> Pair:
    def sent(size: int) -> Spent:
        return bench.run(bench.command(mock.base_url, size, *FIXED, name="short"))

    return Pair(sent(BASE), sent(SHORT))


def _per_row(pairs: list[Pair]) -> float:
    """Seconds of a further row in short runs."""
    return mean((pair.short.wall - pair.base.wall) / (SHORT - BASE) for pair in pairs)


def _long(bench: Bench, mock: Mock, size: int) -> tuple[Spent, list[Pair]]:
    """A whole run, its wall time without the pauses, and the short runs in them."""
    pairs: list[Pair] = []
    stood = 0.0

    def pause(pid: int) -> None:
        nonlocal stood
        while not _ends_within(pid, PIECE):
            began = time.monotonic()
            os.kill(pid, signal.SIGSTOP)
            try:
                pairs.append(_pair(bench, mock))
            finally:
                os.kill(pid, signal.SIGCONT)
            stood += time.monotonic() - began

    mock.reset()
    spent = bench.run(bench.command(mock.base_url, size, *FIXED), meanwhile=pause)
    return spent._replace(wall=spent.wall - stood), pairs


def _ends_within(pid: int, seconds: float) -> bool:
    """Whether the process ends in this time; it is left for `Bench.run` to be waited for."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        time.sleep(0.02)
    return False


def _tell_long(bench: Bench, size: int, spent: Spent, pairs: list[Pair]) -> None:
    per_row = (spent.wall - mean(pair.base.wall for pair in pairs)) / (size - BASE)
    short = _per_row(pairs)
    ratio = per_row / short
    beside = f"{short * 1e6:.0f} µs in {len(pairs)} runs before, between and after"
    figure = f"{per_row * 1e6:.0f} µs a row, {ratio:.2f} × that of {SHORT:,} ({beside})"
    bench.table.row("5", f"{size:,} rows, whole command", figure, "± 10 %", abs(ratio - 1) <= 0.1)
    _tell_memory(bench, size, spent.memory)


def _tell_memory(bench: Bench, size: int, memory: float) -> None:
    bench.table.row("5", f"{size:,} rows, memory", f"{memory:.0f} MB", "≤ 150 MB", memory <= 150)


def _files(bench: Bench, size: int) -> None:
    """What the last run left, and writing its output again."""
    out = bench.folder / "out"
    journal = _journal(out)
    payload = _payload(journal)
    held = journal.stat().st_size
    beside = (held - payload) / size
    figure = f"{held / size:,.0f} bytes a row: its text, id and reply, and {beside:,.0f} beside them"
    bench.table.row("5", f"{size:,} rows, journal after the run", figure)
    command = [
        sys.executable,
        "-m",
        "batchrun",
        "export",
        journal.stem,
        "--runs-dir",
        str(journal.parent),
        "-o",
        "again.jsonl",
    ]
    (bench.folder / "again.jsonl").unlink(missing_ok=True)
    export = (
        bench.run(command).wall
        - bench.run([sys.executable, "-m", "batchrun", "runs", "--runs-dir", str(journal.parent)]).wall
    )
    bench.table.row(
        "5", f"{size:,} rows, export", f"{size / export:,.0f} rows/s", "≥ 100,000 rows/s", size / export >= 100_000
    )


def _journal(out: Path) -> Path:
    return next((out / ".batchrun").glob("*.db"))


def _payload(journal: Path) -> int:
    """Bytes that must be kept: the rows' texts and keys, and the replies."""
    connection = sqlite3.connect(f"file:{journal}?mode=ro", uri=True)
    rows = connection.execute("SELECT sum(length(text) + length(key)) FROM rows").fetchone()[0]
    replies = connection.execute("SELECT sum(length(body)) FROM replies").fetchone()[0]
    connection.close()
    return rows + replies


def _resume(bench: Bench, mock: Mock, size: int) -> None:
    """Resumed on where one row in a hundred is left: spread evenly, and all of them at the end."""
    journal = _journal(bench.folder / "out")
    for where, left in (("spread evenly", "row % 100 = 50"), ("at the end", f"row > {size - size // 100}")):
        _forget(journal, size // 100, left)
        first, rows, memory = _resumed(bench, mock, journal)
        what = f"resume of {size:,} rows, {rows:,} left {where}"
        bench.table.row("5", f"{what}: first request", f"{first:.2f} s", "≤ 2 s", first <= 2.0)
        bench.table.row("5", f"{what}: memory", f"{memory:.0f} MB", "≤ 150 MB", memory <= 150)


def _resumed(bench: Bench, mock: Mock, journal: Path) -> tuple[float, int, float]:
    """Seconds to the first request, how many came, and MB at the highest."""
    mock.reset()
    command = [
        sys.executable,
        "-m",
        "batchrun",
        "resume",
        journal.stem,
        "--runs-dir",
        str(journal.parent),
        *FIXED,
    ]
    spent = bench.run(command)
    seen = mock.arrivals()
    return seen.at[0] - spent.began, len(seen.at), spent.memory


def _forget(journal: Path, count: int, left: str) -> None:
    """As if the run had been stopped before it sent `count` of its rows, those that `left` tells."""
    connection = sqlite3.connect(journal)
    for table in ("outcomes", "attempts", "replies"):
        connection.execute(f"DELETE FROM {table} WHERE {left}")  # noqa: S608  conditions from this file
    change = "UPDATE totals SET done = done - ?1, attempts = attempts - ?1, replies = replies - ?1"
    connection.execute(change, (count,))
    connection.commit()
    connection.close()


def _intake(bench: Bench, size: int) -> None:
    """Rows per second from the file into the journal, by two sizes; the run stops before it sends anything."""
    small = size // 10
    for what, source, options, target in (
        ("a Batch file", bench.batch, (), 100_000),
        ("a prompt", bench.rows, ("-p", "prompt.txt", "-m", "mock"), 40_000),
    ):
        wall = {count: min(_taken_in(bench, source(count), options) for _ in range(2)) for count in (small, size)}
        rate = (size - small) / (wall[size] - wall[small])
        bench.table.row(
            "5", f"intake of {size:,} rows with {what}", f"{rate:,.0f} rows/s", f"≥ {target:,} rows/s", rate >= target
        )


def _taken_in(bench: Bench, path: Path, options: tuple[str, ...]) -> float:
    """`--limit 1`: the whole input is checked and taken in, one row is sent."""
    shutil.rmtree(bench.folder / "in", ignore_errors=True)
    (bench.folder / "in").mkdir()
    with serving(bench.program) as mock:
        command = [
            sys.executable,
            "-m",
            "batchrun",
            "run",
            "-i",
            str(path),
            "-o",
            "in/out.jsonl",
            *options,
        ]
        spent = bench.run([*command, "--base-url", mock.base_url, "--limit", "1"])
        return mock.arrivals().at[0] - spent.began
