"""The path of one row through the code: calls, functions, modules, and returns to a module that was left.

    python benchmarks/path.py [--rows N] [--list]

A run over a few rows is profiled with `sys.setprofile` in the loop's thread, and one over a single row more; the
difference is what one more row that succeeds at once costs. `--list` prints the modules in the order in which they are
first entered, and how often. Only functions of the package count, comprehensions as a part of theirs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from measure import HERE

_PACKAGE = str(HERE.parent / "batchrun") + os.sep
_PROFILED = """
import json, sys, threading
package, out, argv = sys.argv[1], sys.argv[2], sys.argv[3:]
calls = []
def note(frame, event, _):
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(package) and not code.co_name.startswith("<"):
        calls.append((code.co_filename[len(package):-3].replace("/", "."), code.co_qualname))
from batchrun.__main__ import main
sys.argv = ["batchrun", *argv]
from batchrun.engine import run as engine_run
inner = engine_run.Run.run
async def run(self):
    sys.setprofile(note)
    try:
        return await inner(self)
    finally:
        sys.setprofile(None)
engine_run.Run.run = run
try:
    main()
finally:
    open(out, "w").write(json.dumps(calls))
"""


def main() -> None:
    """Profile two runs and print what they differ by."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--rows", type=int, default=20)
    words.add_argument("--list", action="store_true")
    asked = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="batchrun-path-") as folder:
        fewer, more = (_calls(Path(folder), rows) for rows in (asked.rows, 2 * asked.rows))
    extra = Counter(map(tuple, more))
    extra.subtract(map(tuple, fewer))
    per_row = {call: count / asked.rows for call, count in extra.items() if count >= asked.rows / 2}
    modules = Counter[str]()
    for (module, _), count in per_row.items():
        modules[module] += count
    print(f"calls a row      {sum(per_row.values()):.0f}")
    print(f"functions        {len(per_row)}")
    print(f"modules          {len(modules)}")
    print(f"returns a row    {(_returns(more) - _returns(fewer)) / asked.rows:.0f} to a module that was left")
    if asked.list:
        for module, count in modules.most_common():
            print(f"  {count:6.1f}  {module}")


def _calls(folder: Path, rows: int) -> list[list[str]]:
    """The calls of a run over so many rows, as module and function, in order."""
    source = folder / f"rows-{rows}.jsonl"
    source.write_text("".join(json.dumps({"id": n, "text": f"row {n}"}) + "\n" for n in range(rows)))
    out = folder / f"calls-{rows}.json"
    command = [
        sys.executable,
        "-c",
        _PROFILED,
        _PACKAGE,
        out,
        "-i",
        source,
        "-p",
        "Say: {{ text }}",
        "--profile",
        "sim",
    ]
    options = ["-o", folder / f"out-{rows}.jsonl", "--no-progress", "--concurrency", "4", "--concurrency-fixed"]
    subprocess.run([*command, *options], cwd=folder, check=True, capture_output=True)
    return json.loads(out.read_text())


def _returns(calls: list[list[str]]) -> int:
    """How often a module is entered that was entered before, from another one."""
    seen, last, returns = set[str](), "", 0
    for module, _ in calls:
        returns += module != last and module in seen
        seen.add(module)
        last = module
    return returns


if __name__ == "__main__":
    main()
