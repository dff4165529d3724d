"""One process beside several (`--processes`), and beside one process of an earlier revision, in alternating rounds.

    python benchmarks/scale_out.py [--than REVISION [--python PYTHON]] [--rounds N] [--rows N] [--only short large free ray limits …]

The provider is `mock.c` on the same cores. A rate is that of the requests between a fifth and nine tenths of them, as the
provider counts them; a ratio is the median of the rounds' ratios, which a busy machine hardly moves, where the rates
themselves say little. CPU of a row is that of the run and its senders, starts left out, but not that of senders that cost
nothing (`free_sender.py`). The bound of a run on two cores is 2
by the CPU of a row, that of the server included.
"""

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import free_sender
import large
import limits
import mockserver
from measure import HERE, Bench, Table, median
from versus import unpack

sys.path.append(str(HERE.parent / "tests" / "reliability"))

from ray_cluster import cluster  # the same clusters as in the tests

PROCESSES = 2
FEW = 2_000
RATES = (200.0, 2_000.0)


class Way(NamedTuple):
    """How a run is made: the folder of its build, its name, its options, and the Python that has what it imports."""

    name: str
    build: Path
    options: tuple[str, ...] = ()
    program: tuple[str, ...] = ("-m", "batchrun")
    python: str = sys.executable


class Seen(NamedTuple):
    """Requests a second, microseconds of CPU of a row (the run's and the server's), seconds until the first request, and MB
    of the driver and of each of its children."""

    rate: float
    own: float
    server: float
    first: float
    memory: tuple[float, ...]


def main() -> None:
    """Measure, and print the table."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--than", default="14dbcb1")
    words.add_argument("--python", default=sys.executable, help="that has the requirements of that revision")
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--rows", type=int, default=22_000)
    words.add_argument("--in-flight", type=int, default=256)
    words.add_argument("--only", nargs="+", default=["short", "large", "free", "ray", "limits"])
    asked = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="batchrun-out-") as name:
        folder = Path(name)
        unpack(asked.than, folder / "then")
        bench = Bench(folder, mockserver.compiled(folder), None, max(os.sched_getaffinity(0)))
        now, several = HERE.parent, ("--processes", str(PROCESSES))
        then = Way(f"1 process of {asked.than}", folder / "then", python=asked.python)
        ways = (then, Way("1 process", now), Way(f"{PROCESSES} processes", now, several))
        bench.table.head()
        if "short" in asked.only:
            fixed = ("--concurrency", str(asked.in_flight), "--concurrency-fixed")
            loads = bench.rows(FEW), bench.rows(asked.rows)
            found = compared(bench, ways, asked.rounds, loads, ("-p", "prompt.txt", "-m", "mock", *fixed))
            tell(bench.table, "short rows", ways, found, 1.5)
            start(bench.table, ways, found)
        if "large" in asked.only:
            files = _large(folder, 60), _large(folder, 2400)
            # 64 in flight would bound all of them: 3,200/s at the latency of 20 ms
            fixed = ("--concurrency", str(asked.in_flight), "--concurrency-fixed")
            found = compared(bench, ways, asked.rounds, files, fixed)
            tell(bench.table, "rows of 157 kB", ways, found, 1.7)
        if "free" in asked.only:
            free = Way("senders that cost nothing", now, several, (str(HERE / "free_sender.py"),))
            fixed = ("--concurrency", "512", "--concurrency-fixed", "-p", "prompt.txt", "-m", "mock")
            alone = compared(bench, (then, free), asked.rounds, (bench.rows(FEW), bench.rows(asked.rows)), fixed)
            ratio = median(
                [
                    after.own / before.own
                    for before, after in zip(*(alone[way.name] for way in (then, free)), strict=True)
                ]
            )
            cpu = median([one.own for one in alone[free.name]])
            bench.table.row(
                "18.7",
                "CPU of a row, senders that cost nothing",
                f"{cpu:.0f} µs, {ratio:.2f} × {then.name}",
                "≤ 0.30 ×",
                ratio <= 0.30,
            )
        if "ray" in asked.only:
            fixed = ("--concurrency", str(asked.in_flight), "--concurrency-fixed", "-p", "prompt.txt", "-m", "mock")
            with cluster(1) as at:
                at.add(1)
                there = Way(f"{PROCESSES} Ray senders", now, ("--senders", str(PROCESSES), "--ray", at.address))
                pair = (ways[1], there)
                of = compared(bench, pair, asked.rounds, (bench.rows(FEW), bench.rows(asked.rows)), fixed)
            rates = [[seen.rate for seen in of[way.name]] for way in pair]
            share = median([after / before for before, after in zip(*rates, strict=True)])
            bench.table.row(
                "18.7", there.name, f"{median(rates[1]):,.0f}/s, {share:.2f} × 1 process", "≥ 0.95 ×", share >= 0.95
            )
        if "limits" in asked.only:
            for rate in RATES:
                known(bench, rate)


def _large(folder: Path, rows: int) -> Path:
    """An input of so many rows of 157 kB."""
    bodies, batch = large.files_of(folder, large.LOADS["157 kB"]._replace(rows=rows))
    bodies.unlink()
    return batch.rename(folder / f"large-{rows}.jsonl")


def compared(
    bench: Bench, ways: Iterable[Way], rounds: int, loads: Iterable[Path], options: tuple[str, ...]
) -> dict[str, list[Seen]]:
    """What was seen of each way over a small and a large input, round by round."""
    small, big = loads
    found: dict[str, list[Seen]] = defaultdict(list)
    for number in range(rounds):
        for way in ways if number % 2 == 0 else reversed(list(ways)):
            with mockserver.serving(bench.program, latency_ms=20) as mock:
                few = _run(bench, way, mock, small, options)
                many = _run(bench, way, mock, big, options)
            rows = many.rows - few.rows
            own, server = (many.cpu - few.cpu) / rows * 1e6, (many.server - few.server) / rows * 1e6
            found[way.name].append(Seen(many.rate, own, server, few.first, many.memory))
    return found


class _Ran(NamedTuple):
    rows: int
    cpu: float
    server: float
    rate: float
    first: float
    memory: tuple[float, ...]


def _run(bench: Bench, way: Way, mock: mockserver.Mock, rows: Path, options: tuple[str, ...]) -> _Ran:
    mock.reset()
    command = bench.command(mock.base_url, FEW, *options, *way.options)
    command[:3] = way.python, *way.program
    command[command.index("-i") + 1] = str(rows)
    for word in ("-p", "-m"):  # the options have them, where the rows need a prompt
        place = command.index(word, 4)
        del command[place : place + 2]
    memory: list[tuple[float, ...]] = [()]
    over = threading.Event()

    def look(pid: int) -> None:
        while not over.wait(0.5):
            memory.append(_memory(pid))

    of_senders = bench.folder / "senders.txt"
    of_senders.write_text("")
    bench.environment |= {"PYTHONPATH": str(way.build), free_sender.OWN: str(of_senders)}
    before = _cpu(mock.pid)
    try:
        spent = bench.run(
            command, meanwhile=lambda pid: threading.Thread(target=look, args=(pid,), daemon=True).start()
        )
    finally:
        over.set()
        del bench.environment["PYTHONPATH"], bench.environment[free_sender.OWN]
    served = _cpu(mock.pid) - before
    with rows.open("rb") as lines:
        count = sum(1 for _ in lines)
    at = mock.arrivals().at if not way.program[0].endswith("free_sender.py") else []
    low, high = len(at) // 5, len(at) * 9 // 10
    rate = (high - low) / (at[high] - at[low]) if at else count / spent.wall
    most = max(memory, key=sum)
    own = spent.cpu - sum(map(float, of_senders.read_text().split()))
    return _Ran(count, own, served, rate, at[0] - spent.began if at else 0.0, most)


def _cpu(pid: int) -> float:
    """Seconds of CPU of a process until now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> tuple[float, ...]:
    """MB of a process, and of each of its children, with their parts of the pages that they share."""
    found: list[float] = []
    for one in (pid, *_children(pid)):
        try:
            told = Path(f"/proc/{one}/smaps_rollup").read_text()
            found.append(next(int(line.split()[1]) for line in told.splitlines() if line.startswith("Pss:")) / 1024)
        except (OSError, StopIteration):
            continue
    return tuple(found)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    except OSError:
        pass
    return found


def tell(table: Table, what: str, ways: Iterable[Way], found: dict[str, list[Seen]], target: float) -> None:
    """The lines of one load: the first way is the one that others are held against."""
    then, one, several = ways
    for way in (then, one, several):
        of = found[way.name]
        against = median([seen.rate / before.rate for seen, before in zip(of, found[then.name], strict=True)])
        cpu = f"CPU {median([seen.own for seen in of]):.0f} µs and {median([seen.server for seen in of]):.0f} of the server"
        judged = way is several
        table.row(
            "18.7", f"{what}, {way.name}", f"{median([seen.rate for seen in of]):,.0f}/s, {against:.2f} ×; {cpu}",
            f"≥ {target} ×" if judged else "", against >= target if judged else None,
        )  # fmt: skip
    bounds = [2e6 / (alone.own + alone.server) for alone in found[one.name]]
    shares = [seen.rate / bound for seen, bound in zip(found[several.name], bounds, strict=True)]
    table.row(
        "18.7", f"{what}, {several.name}: of the bound {median(bounds):,.0f}/s", f"{median(shares):.2f}",
        "≥ 0.90", median(shares) >= 0.9,
    )  # fmt: skip


def start(table: Table, ways: Iterable[Way], found: dict[str, list[Seen]]) -> None:
    """How much later the first request comes, and what a child takes."""
    _, one, several = ways
    later = median(
        [after.first - before.first for before, after in zip(found[one.name], found[several.name], strict=True)]
    )
    table.row("18.7", f"{several.name}: first request later by", f"{later:.2f} s", "≤ 0.5 s", later <= 0.5)
    children = [megabytes for seen in found[several.name] for megabytes in seen.memory[1:]]
    beside = statistics.median(children)
    table.row("18.7", "memory of a child", f"{beside:.0f} MB", "≤ 60 MB", beside <= 60)


def known(bench: Bench, rate: float) -> None:
    """A limit that is known, with one process and with several."""
    for processes in (1, PROCESSES):
        case = limits.Case(rate, True, False, 40 if rate < 1000 else 25)
        seen = limits.seen(bench, case, "--processes", str(processes))
        late = seen.after(limits.SETTLED)
        used = late.admitted.count(True) / (late.at[-1] - late.at[0]) / rate
        share, most = seen.refused / len(seen.at), late.most_in(1.0) / rate
        name, least = f"{rate:,.0f}/s known, {processes} processes", 0.97 if rate < 1000 else 0.95
        judged = processes > 1
        table = bench.table
        table.row("18.7", f"{name}: used", f"{used:.1%}", f"≥ {least:.0%}" * judged, used >= least if judged else None)
        table.row("18.7", f"{name}: 429s", f"{share:.2%}", "< 0.5 %" * judged, share < 0.005 if judged else None)
        table.row(
            "18.7", f"{name}: most in 1 s", f"{most:.3f} ×", "≤ 1.02 ×" * judged, most <= 1.02 if judged else None
        )
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
