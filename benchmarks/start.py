"""How long a user waits before anything happens; bytecode compiled, the best state of a machine that is in use."""

import sys

from measure import Bench, median
from mockserver import serving

TIMES = 7


def run(bench: Bench) -> None:
    """--help, runs, the first request of a small run."""
    base = [sys.executable, "-m", "batchrun"]
    bare = median([bench.run([sys.executable, "-c", ""]).wall for _ in range(TIMES)])
    bench.table.row("6", "python itself", f"{bare * 1000:.0f} ms")
    with serving(bench.program) as mock:
        first: list[float] = []
        for _ in range(TIMES):
            mock.reset()
            spent = bench.batchrun(mock.base_url, 20)
            first.append(mock.arrivals().at[0] - spent.began)
    for what, command, limit in (
        ("--help", [*base, "--help"], 100),
        ("runs", [*base, "runs", "--runs-dir", "out/.batchrun"], 250),
    ):
        taken = median([bench.run(command).wall for _ in range(TIMES)]) * 1000
        bench.table.row("6", f"batchrun {what}", f"{taken:.0f} ms", f"≤ {limit} ms", taken <= limit)
    taken = median(first)
    bench.table.row("6", "first request of a run of 20 rows", f"{taken:.2f} s", "≤ 1.2 s", taken <= 1.2)
