"""Requests and replies of many bytes: memory of the whole tree of processes, CPU and wall beside bare aiohttp, and
beside the least that keeping every row before it is sent costs.

    python benchmarks/large.py [--rounds N] [--only NAME …] [--then REVISION|FOLDER]

Rounds alternate between the runners. Memory is the sum over the run's processes of the pages that they do not share
with anybody and their part of those that they share, sampled every 20 ms; `VmHWM` of the run itself where it is alone.
With `--then` an earlier revision runs beside this checkout.
"""

import argparse
import base64
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import mockserver
from measure import HERE, Bench, Spent, Table, median

MB = 1_000_000


class Load(NamedTuple):
    """So many rows of so many bytes, answered by so many; the most memory in MB, the most CPU and wall beside aiohttp,
    and the most that the first request leaves after, beside reading and hashing the file."""

    rows: int
    size: int
    reply: int
    memory: float
    cpu: float | None = None
    wall: float | None = None
    first: float | None = None
    post: bool = False


LOADS = {
    "2 MB": Load(400, 2 * MB, 100, 200, 2.0, 1.2, 1.5),
    "157 kB": Load(2_000, 157_000, 100, 200, 1.6, 1.2),
    "20 MB": Load(20, 20 * MB, 100, 260),
    "replies": Load(1_000, 200, 200_000, 200, post=True),
}
BARE, NOW, THEN = "bare aiohttp", "batchrun", "then"
FLOOR = "bare aiohttp behind SQLite"
"""The least that the promises of a run cost: each row hashed, in a journal and on the disk before it is sent."""
OTHERS = {BARE: "aiohttp", FLOOR: "journaled"}


class Watched(NamedTuple):
    """What a run used, the most of its whole tree of processes in MB, and when its first request came after its start."""

    spent: Spent
    tree: float
    first: float
    export: float | None = None


def run(bench: Bench, rounds: int = 3, only: list[str] | None = None, then: Path | None = None) -> None:
    """All loads, in alternating rounds."""
    builds = {NOW: HERE.parent, **({} if then is None else {THEN: then})}
    for name, load in LOADS.items():
        if only and name not in only:
            continue
        found: dict[str, list[Watched]] = defaultdict(list)
        runners = [NOW, BARE, FLOOR, *([THEN] if then else [])]
        files = bodies, batch = files_of(bench.folder, load)
        reading = [_reading(bench, batch) for _ in range(rounds)]
        with mockserver.serving(bench.program, cpu=bench.server_cpu, reply_bytes=load.reply) as mock:
            for number in range(rounds):
                for runner in runners if number % 2 == 0 else reversed(runners):
                    mock.reset()
                    found[runner].append(_measured(bench, mock, load, builds.get(runner) or OTHERS[runner], files))
        _tell(bench.table, name, load, found, median(reading))
        copying = median([_copying(bench, batch) for _ in range(rounds)])
        bench.table.row("14", f"{load.rows:,} rows of {name}: cp and fsync of the file", f"{copying:.2f} s")
        for file in (bodies, batch):
            file.unlink()


def files_of(folder: Path, load: Load) -> tuple[Path, Path]:
    """The bodies, one a line, and the same as an OpenAI Batch file: an image as base64, no two alike."""
    bodies, batch = folder / "large-bodies.jsonl", folder / "large-batch.jsonl"
    noise = random.Random(load.size)  # noqa: S311  not a secret
    with bodies.open("w") as plain, batch.open("w") as wrapped:
        for number in range(load.rows):
            image = base64.b64encode(noise.randbytes(max(1, load.size * 3 // 4 - 200))).decode()
            parts = [
                {"type": "text", "text": f"What is in picture {number}?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
            ]
            body = json.dumps(
                {"model": "mock", "messages": [{"role": "user", "content": parts}]}, separators=(",", ":")
            )
            plain.write(f"{body}\n")
            head = f'"custom_id": "row-{number}", "method": "POST", "url": "/v1/chat/completions"'
            wrapped.write(f'{{{head}, "body": {body}}}\n')
    return bodies, batch


def _reading(bench: Bench, batch: Path) -> float:
    """Seconds that reading the file and hashing its lines takes, by BLAKE2b as earlier builds did."""
    script = "import sys, hashlib\nfor line in open(sys.argv[1], 'rb'): hashlib.blake2b(line, digest_size=16).digest()"
    return bench.run([sys.executable, "-c", script, batch], pinned=True).wall


def _copying(bench: Bench, batch: Path) -> float:
    """Seconds that it takes to have the file on the disk once more."""
    copy = bench.folder / "copy"
    spent = bench.run(["sh", "-c", f"cp {batch} {copy} && sync {copy}"])
    copy.unlink()
    return spent.wall


def _measured(bench: Bench, mock: mockserver.Mock, load: Load, build: Path | str, files: tuple[Path, Path]) -> Watched:
    """A run of a build, or of another runner by its name."""
    bodies, batch = files
    if isinstance(build, str):
        command = [sys.executable, HERE / "runners.py", build, mock.base_url, bodies, "other.txt", "64", load.rows]
        spent = _watched(bench, mock, [str(part) for part in command])
        (bench.folder / "other.db").unlink(missing_ok=True)
        return spent
    shutil.rmtree(bench.folder / "out", ignore_errors=True)
    (bench.folder / "out").mkdir()
    start = [sys.executable, "-m", "batchrun"]
    options = ["--base-url", mock.base_url, "-o", "out/out.jsonl", "--no-progress"]
    if load.post:
        (bench.folder / "lengths.py").write_text("def length(reply):\n    return str(len(reply.text))\n")
        options += ["--post", "lengths.py:length"]
    bench.environment["PYTHONPATH"] = str(build)
    try:
        sent = _watched(bench, mock, [*start, "run", "-i", str(batch), *options])
        again = [*start, "export", "out/out.jsonl", "-o", "again.jsonl"]
        (bench.folder / "again.jsonl").unlink(missing_ok=True)
        return sent._replace(export=_watched(bench, None, again).tree)
    finally:
        del bench.environment["PYTHONPATH"]


def _watched(bench: Bench, mock: mockserver.Mock | None, command: list[str]) -> Watched:
    most = 0.0
    over = threading.Event()

    def look(pid: int) -> None:
        nonlocal most
        while not over.wait(0.02):
            most = max(most, _tree(pid), _highest(pid))

    def meanwhile(pid: int) -> None:
        threading.Thread(target=look, args=(pid,), daemon=True).start()

    spent = bench.run(command, meanwhile=meanwhile)
    over.set()
    first = mock.arrivals().at[0] - spent.began if mock is not None else 0.0
    return Watched(spent, most, first)


def _highest(pid: int) -> float:
    """The most MB that a process by itself has had since it was executed; what `wait4` tells knows its parent's as well."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _tree(pid: int) -> float:
    """MB of a process and its descendants: their sets of resident pages, shared ones by their parts."""
    size, todo = 0.0, [pid]
    while todo:
        one = todo.pop()
        with contextlib.suppress(OSError, ValueError):
            for task in os.listdir(f"/proc/{one}/task"):
                todo += [int(child) for child in Path(f"/proc/{one}/task/{task}/children").read_text().split()]
            told = Path(f"/proc/{one}/smaps_rollup").read_text()
            size += next(int(line.split()[1]) for line in told.splitlines() if line.startswith("Pss:")) / 1024
    return size


def _tell(table: Table, name: str, load: Load, found: dict[str, list[Watched]], reading: float) -> None:
    what = f"{load.rows:,} rows of {name}" if not load.post else "1,000 replies of 200 kB, with post-processing"
    bare = found[BARE]
    for runner, of in found.items():
        memory = median([one.tree for one in of])
        ours = runner == NOW
        table.row(
            "14",
            f"{what}: memory, {runner}",
            f"{memory:,.0f} MB",
            f"≤ {load.memory:.0f} MB" if ours else "",
            memory <= load.memory if ours else None,
        )
        for kind, most in (("cpu", load.cpu), ("wall", load.wall)):
            value = median([getattr(one.spent, kind) for one in of])
            ratio = median(
                [getattr(one.spent, kind) / getattr(floor.spent, kind) for one, floor in zip(of, bare, strict=True)]
            )
            judged = ours and most is not None
            table.row(
                "14",
                f"{what}: {kind}, {runner}",
                f"{value:.2f} s, {ratio:.2f} × bare",
                f"≤ {most} ×" if judged else "",
                ratio <= (most or 0) if judged else None,
            )
        first = median([one.first for one in of])
        table.row(
            "14",
            f"{what}: first request, {runner}",
            f"{first:.2f} s, {first / reading:.2f} × reading and hashing ({reading:.2f} s)",
            f"≤ {load.first} ×" if ours and load.first else "",
            first <= load.first * reading if ours and load.first else None,
        )
        if runner not in OTHERS:
            table.row("14", f"{what}: export, {runner}", f"{median([one.export or 0 for one in of]):,.0f} MB")


def main() -> None:
    """Measure, and print the table."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--only", nargs="+")
    words.add_argument("--then", type=Path)
    asked = words.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="batchrun-bytes-") as name:
        bench = Bench(Path(name), mockserver.compiled(Path(name)), None, cores[-1])
        run(bench, asked.rounds, asked.only, asked.then)


if __name__ == "__main__":
    sys.exit(main())
