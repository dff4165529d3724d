"""The real program in a directory of its own, and what it leaves there: exit code, output, errors file, journal."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from waiting import PATIENCE

ROOT = Path(__file__).parents[2]
CANARY = "sk-canary-6f1d8c2b7a904e35"
_OWN = ("BATCHRUN_", "OPENAI_", "AZURE_")
_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}


class Ran(NamedTuple):
    """A command that has ended; `seconds` include the start of the interpreter."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def account(self) -> str:
        """The accounting sentence, the last line of every run."""
        return self.err.strip().splitlines()[-1]


class Program:
    """`python -m batchrun` in `directory`, with an environment that holds the canary key and nothing of the user's."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_OWN) and name.lower() not in _PROXIES and name != "COVERAGE_PROCESS_START"
        }
        self.environment |= {
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(directory / "config"),
            "OPENAI_API_KEY": CANARY,
        }
        (directory / "say.txt").write_text("{{ text }}", encoding="utf-8")

    def beside(self, name: str) -> "Program":
        """Another one, in a directory of this one's."""
        directory = self.directory / name
        directory.mkdir()
        return Program(directory)

    def rows(self, texts: Iterable[str], name: str = "in.jsonl") -> None:
        """An input whose rows are `{"id": "r1", "text": …}`, so that the text is the prompt that the server sees."""
        lines = (json.dumps({"id": f"r{number}", "text": text}) for number, text in enumerate(texts, 1))
        (self.directory / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def popen(self, *args: str, env: Mapping[str, str] | None = None, **options: Any) -> "subprocess.Popen[str]":
        """Start it; text pipes unless `options` say otherwise, and signals as a terminal's child has them."""
        piped = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [sys.executable, "-m", "batchrun", *args],
            cwd=self.directory,
            env=self.environment | dict(env or {}),
            text=True,
            **(piped | options),
        )

    @contextmanager
    def going(self, *args: str, **options: Any) -> "Generator[subprocess.Popen[str]]":
        """The same for the length of a block, killed at its end if it is still there."""
        with self.popen(*args, **options) as process:
            try:
                yield process
            finally:
                process.kill()

    def __call__(
        self, *args: str, env: Mapping[str, str] | None = None, timeout: float = PATIENCE, given: str | None = None
    ) -> Ran:
        """Run it to its end, with `given` on its standard input."""
        began = time.monotonic()
        options: dict[str, Any] = {} if given is None else {"stdin": subprocess.PIPE}
        with self.going(*args, env=env, **options) as process:
            out, err = process.communicate(given, timeout)
        return Ran(process.returncode, out, err, time.monotonic() - began)

    def altered(self, *args: str) -> "subprocess.CompletedProcess[str]":
        """Run it to its end with one thing about its world altered, see altered.py."""
        return subprocess.run(
            [sys.executable, str(ROOT / "tests" / "reliability" / "altered.py"), *args],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def weigh(self, *args: str) -> tuple[int, int]:
        """Run it to its end; its exit code, and the most memory it held, in bytes."""
        command = [sys.executable, "-c", WEIGH, sys.executable, "-m", "batchrun", *args]
        options: dict[str, Any] = {"cwd": self.directory, "env": self.environment, "timeout": PATIENCE}
        told = subprocess.run(command, check=True, capture_output=True, text=True, **options)
        code, memory = map(int, told.stdout.splitlines()[-1].split())
        return code, memory

    async def run(self, *args: str, **options: Any) -> Ran:
        """The same beside a server on this event loop."""
        return await asyncio.to_thread(self, *args, **options)

    def send(self, base_url: str, *more: str, output: str = "out.jsonl") -> tuple[str, ...]:
        """The arguments of a run of `in.jsonl` against this provider."""
        named = ("--input", "in.jsonl", "--prompt", "say.txt", "--model", "m", "--base-url", base_url)
        return (*named, "--output", output, *more)

    def output(self, name: str = "out.jsonl") -> list[dict[str, Any]]:
        """The rows of the output."""
        return _lines(self.directory / name)

    def done(self, name: str = "out.jsonl") -> dict[str, Any]:
        """The output column by id."""
        return {row["id"]: row["output"] for row in self.output(name)}

    def failed(self, name: str = "out.errors.jsonl") -> dict[str, dict[str, Any]]:
        """Why rows failed, by id."""
        return {row["id"]: row["_batchrun"] for row in _lines(self.directory / name)}

    @property
    def journal(self) -> Path:
        """The journal of the only run here."""
        (path,) = (self.directory / ".batchrun").glob("*.db")
        return path

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What an independent reader finds in the journal."""
        with closing(sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True)) as connection:
            return connection.execute(query, values).fetchall()

    def account(self) -> dict[str, int]:
        """How many rows of the journal are in which state."""
        query = """
        SELECT ifnull(state, CASE WHEN EXISTS (SELECT 1 FROM attempts AS a WHERE a.row = seq AND a.ended IS NULL)
                             THEN 'unknown' ELSE 'pending' END) AS s, count(*)
        FROM rows LEFT JOIN outcomes ON outcomes.row = seq WHERE position IS NOT NULL GROUP BY s"""
        return dict(self.ask(query))


WEIGH = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""
"""The system counts the memory of who starts a process to the process's own, so who starts it has to be small."""


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Look every few milliseconds whether it holds now; TimeoutError if it never does."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is looked at is another process and sets no event
            await asyncio.sleep(0.005)


async def holds_once(tries: int, measure: Callable[[int], Awaitable[list[str]]]) -> None:
    """Judge figures that other processes can only spoil: one good measurement in so many is enough.

    `measure` gets the number of the try, and names the promises that did not hold. AssertionError where none was good.
    """
    found = [await measure(0)]
    while found[-1] and len(found) < tries:
        found.append(await measure(len(found)))
    assert [] in found, found


class Stalls:
    """While this context lasts, `worst` is how many seconds this event loop was held up at most.

    A server on the loop reads in one instant what reached it meanwhile.
    """

    def __init__(self) -> None:
        self.worst = 0.0

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()

    async def _watch(self) -> None:
        loop, step = asyncio.get_running_loop(), 0.01
        while True:
            began = loop.time()
            await asyncio.sleep(step)
            self.worst = max(self.worst, loop.time() - began - step)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
