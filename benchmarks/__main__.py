"""Everything that is measured, in one table.

python benchmarks [SECTION …]      ceiling cost documents large slots limits scale start stages tui; all but `million` and `tui-million` by default.
"""

import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cost
import documents
import large
import limits
import mockserver
import scale
import slots
import stages
import start
import tui
from measure import Bench, Table

SECTIONS: dict[str, Callable[[Bench], None]] = {
    "ceiling": cost.ceiling,
    "cost": cost.run,
    "documents": documents.run,
    "large": large.run,
    "slots": slots.run,
    "limits": limits.run,
    "scale": scale.run,
    "million": scale.million,
    "start": start.run,
    "stages": stages.run,
    "tui": tui.run,
    "tui-million": tui.million,
}


def main(words: list[str]) -> None:
    """Measure the named sections; `--into FILE` puts the table into a document, too."""
    into = Path(words[1]) if words[:1] == ["--into"] else None
    names = words[2:] if into else words
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise SystemExit(f"no section {unknown[0]}; there are {', '.join(SECTIONS)}")
    began = time.monotonic()
    table = measured(names)
    table.note(f"{time.monotonic() - began:.0f} s on {machine()}; load at the end {os.getloadavg()[0]:.1f}.")
    if into is not None:
        replace(into, "million" if names == ["million"] else "all", table.text())


def measured(names: list[str]) -> Table:
    """The table of these sections, of all but `million` without names; printed as it grows."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="batchrun-bench-") as folder:
        program = mockserver.compiled(Path(folder))
        bench = Bench(Path(folder), program, cores[0] if len(cores) > 1 else None, cores[-1])
        bench.table.head()
        for name, section in SECTIONS.items():
            if name in names or (not names and "million" not in name):
                section(bench)
    return bench.table


def machine() -> str:
    """What it was measured on."""
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    return f"{os.cpu_count()} cores ({models[0] if models else platform.machine()}), {system}, Python {platform.python_version()}"


def replace(document: Path, name: str, table: str) -> None:
    """The table in the place of the one between the two comments of that name."""
    first, last = f"<!-- table: {name} -->\n", f"<!-- end of table: {name} -->"
    text = document.read_text()
    before, found, rest = text.partition(first)
    if not found or last not in rest:
        raise SystemExit(f"{document} has no place for the table {name!r}")
    document.write_text(f"{before}{first}\n{table}\n{last}{rest.partition(last)[2]}")


if __name__ == "__main__":
    main(sys.argv[1:])
