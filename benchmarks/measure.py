"""Running a command and taking its time; the input files; the table."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from runners import KEY, NOT_INSTALLED

HERE = Path(__file__).parent
PROMPT = "Summarize in one sentence: {{ text }}"
_WORDS = (
    "quick",
    "brown",
    "foxes",
    "jump",
    "over",
    "lazy",
    "dogs",
    "and",
    "run",
    "through",
    "open",
    "fields",
    "until",
    "night",
)


class Spent(NamedTuple):
    """What a process used: user and system CPU and wall time in seconds, memory in MB at its highest; when it began."""

    cpu: float
    wall: float
    memory: float
    began: float


class MissingError(Exception):
    """The runner is not installed."""


class Table:
    """One table, printed as it grows."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def head(self) -> None:
        """The first lines."""
        self._say("| point | what | figure | target | met |")
        self._say("|---|---|---|---|---|")

    def row(self, point: str, what: str, figure: str, target: str = "", holds: bool | None = None) -> None:
        """One line."""
        verdict = "" if holds is None else "yes" if holds else "**no**"
        self._say(f"| {point} | {what} | {figure} | {target} | {verdict} |")

    def note(self, text: str) -> None:
        """A sentence under the table."""
        self._say("")
        self._say(text)

    def text(self) -> str:
        """Everything that was printed."""
        return "\n".join([*self._lines, ""])

    def _say(self, line: str) -> None:
        self._lines.append(line)
        print(line, flush=True)


def _environment() -> dict[str, str]:
    """The user's own settings and proxies stay out of it."""
    dropped = ("batchrun_", "openai_", "http_proxy", "https_proxy", "all_proxy", "pythondontwritebytecode")
    kept = {name: value for name, value in os.environ.items() if not name.lower().startswith(dropped)}
    return {**kept, "OPENAI_API_KEY": KEY, "XDG_CONFIG_HOME": "/nonexistent", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


@dataclass
class Bench:
    """Where everything is: the folder to work in, the mock's program, and the cores of client and server."""

    folder: Path
    program: Path
    client_cpu: int | None
    server_cpu: int
    table: Table = field(default_factory=Table)
    environment: dict[str, str] = field(default_factory=_environment)

    def run(
        self, command: Sequence[str | Path], *, pinned: bool = False, meanwhile: Callable[[int], None] | None = None
    ) -> Spent:
        """Run a command in the folder, and `meanwhile` beside it, which gets the process's id.

        Raises RuntimeError with what it said if it fails.
        """
        pin = (lambda: os.sched_setaffinity(0, {self.client_cpu})) if pinned and self.client_cpu is not None else None
        with (self.folder / "said.txt").open("w+") as said:
            began = time.monotonic()
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                preexec_fn=pin,  # noqa: PLW1509  no threads of this process are at work then
            )
            if meanwhile is not None:
                meanwhile(process.pid)
            _, status, used = os.wait4(process.pid, 0)
            wall = time.monotonic() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            if process.returncode == NOT_INSTALLED:
                raise MissingError
            if process.returncode:
                raise RuntimeError(f"{' '.join(map(str, command))}: exit {process.returncode}\n{said.read()[-3000:]}")
        return Spent(used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024, began)

    def batchrun(self, base_url: str, rows: int, *options: str, pinned: bool = False) -> Spent:
        """A whole new run over the first `rows` rows."""
        return self.run(self.command(base_url, rows, *options), pinned=pinned)

    def command(self, base_url: str, rows: int, *options: str, name: str = "out") -> list[str]:
        """The command of a new run."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / name).mkdir()
        return [
            *(sys.executable, "-m", "batchrun", "run", "-i", str(self.rows(rows)), "-p", "prompt.txt", "-m", "mock"),
            *("--base-url", base_url, "-o", f"{name}/out.jsonl", *options),
        ]

    def other(self, runner: str, base_url: str, rows: int, in_flight: int, *, pinned: bool = False) -> Spent:
        """Another runner over the same rows."""
        command = [
            sys.executable,
            HERE / "runners.py",
            runner,
            base_url,
            self.bodies(rows),
            "other.txt",
            str(in_flight),
            str(rows),
        ]
        return self.run(command, pinned=pinned)

    def rows(self, count: int) -> Path:
        """An input with so many rows of about 250 bytes, and the prompt beside it."""
        path = self.folder / f"rows-{count}.jsonl"
        if not path.exists():
            (self.folder / "prompt.txt").write_text(PROMPT)
            with path.open("w") as out:
                out.writelines(json.dumps({"id": f"row-{n}", "text": text(n)}) + "\n" for n in range(count))
        return path

    def bodies(self, count: int) -> Path:
        """The request bodies that batchrun makes of these rows."""
        path = self.folder / f"bodies-{count}.jsonl"
        if not path.exists():
            with path.open("w") as out:
                out.writelines(body(n) + "\n" for n in range(count))
        return path

    def batch(self, count: int) -> Path:
        """The same as an OpenAI Batch file."""
        path = self.folder / f"batch-{count}.jsonl"
        if not path.exists():
            start = '"method": "POST", "url": "/v1/chat/completions", "body": '
            with path.open("w") as out:
                out.writelines(f'{{"custom_id": "row-{n}", {start}{body(n)}}}\n' for n in range(count))
        return path


def text(n: int) -> str:
    """The text of a row: 40 words, not two rows alike."""
    return f"Row {n}: " + " ".join(_WORDS[(n * step + step) % len(_WORDS)] for step in range(1, 41))


def body(n: int) -> str:
    """The request of a row."""
    message = {"role": "user", "content": PROMPT.replace("{{ text }}", text(n))}
    return json.dumps({"model": "mock", "messages": [message]}, separators=(",", ":"))


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)
