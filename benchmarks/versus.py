"""This checkout beside an earlier revision, in alternating rounds: CPU per row, wall time of a start, memory.

    python benchmarks/versus.py REVISION [--rounds N] [--in-flight N …]

The revision is unpacked into a folder of its own and runs with the packages that are installed here. A figure is the
median over the rounds, a ratio the median of the rounds' ratios, which a busy machine hardly moves.
"""

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path

import mockserver
from measure import HERE, Bench, Spent, Table, median

SMALL, LARGE = 2_000, 22_000


def main() -> None:
    """Measure, and print the table."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("revision")
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--in-flight", type=int, nargs="+", default=[64, 512])
    asked = words.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="batchrun-versus-") as name:
        folder = Path(name)
        unpack(asked.revision, folder / "then")
        builds = {"then": folder / "then", "now": HERE.parent}
        table = Table()
        table.row("", f"{'what':<40}", f"then ({asked.revision})", "now", None)
        bench = Bench(folder, mockserver.compiled(folder), cores[0] if len(cores) > 1 else None, cores[-1])
        found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        with mockserver.serving(bench.program, cpu=bench.server_cpu) as mock:
            for number in range(asked.rounds):
                order = list(builds) if number % 2 == 0 else list(reversed(builds))
                for in_flight in asked.in_flight:
                    for build in order:
                        fixed = ("--concurrency", str(in_flight), "--concurrency-fixed")
                        small = _run(bench, builds[build], mock.base_url, SMALL, *fixed)
                        large = _run(bench, builds[build], mock.base_url, LARGE, *fixed)
                        cpu = (large.cpu - small.cpu) / (LARGE - SMALL) * 1e6
                        found[f"CPU of a row, {in_flight} in flight, µs"][build].append(cpu)
                        found[f"memory, {LARGE:,} rows, {in_flight} in flight, MB"][build].append(large.memory)
                        found[f"CPU of {SMALL:,} rows and the start, s"][build].append(small.cpu)
                        found[f"wall of {LARGE:,} rows, {in_flight} in flight, s"][build].append(large.wall)
        for what, of in found.items():
            then, now = of["then"], of["now"]
            ratio = median([after / before for before, after in zip(then, now, strict=True)])
            table.row("", what, f"{median(then):,.2f}", f"{median(now):,.2f} = {ratio:.2f} ×")


def unpack(revision: str, folder: Path) -> None:
    """The files of a revision, in a folder of their own. Raises SystemExit where there is no such revision."""
    archive = subprocess.run(["git", "archive", revision], cwd=HERE.parent, capture_output=True, check=False)
    if archive.returncode:
        raise SystemExit(archive.stderr.decode().strip())
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as packed:
        packed.extractall(folder, filter="data")


def _run(bench: Bench, build: Path, base_url: str, rows: int, *options: str) -> Spent:
    """A whole run of that build; it is found before the installed one."""
    bench.environment["PYTHONPATH"] = str(build)
    try:
        return bench.batchrun(base_url, rows, *options, pinned=True)
    finally:
        del bench.environment["PYTHONPATH"]


if __name__ == "__main__":
    sys.exit(main())
