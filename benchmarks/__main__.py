"""Everything that is measured, in one table.

python benchmarks [SECTION …]      ceiling cost slots limits scale start stages; all but `million` by default
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cost
import limits
import mockserver
import scale
import slots
import stages
import start
from measure import Bench

SECTIONS: dict[str, Callable[[Bench], None]] = {
    "ceiling": cost.ceiling,
    "cost": cost.run,
    "slots": slots.run,
    "limits": limits.run,
    "scale": scale.run,
    "million": scale.million,
    "start": start.run,
    "stages": stages.run,
}


def main(names: list[str]) -> None:
    """Measure the named sections."""
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise SystemExit(f"no section {unknown[0]}; there are {', '.join(SECTIONS)}")
    cores = sorted(os.sched_getaffinity(0))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="batchrun-bench-") as folder:
        program = mockserver.compiled(Path(folder))
        bench = Bench(Path(folder), program, cores[0] if len(cores) > 1 else None, cores[-1])
        bench.table.head()
        for name, section in SECTIONS.items():
            if name in names or (not names and name != "million"):
                section(bench)
    print(
        f"\n{time.monotonic() - began:.0f} s, {len(cores)} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
