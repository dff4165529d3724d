"""The crash campaign of batches: killed before each write and around each call, every answer lost once; nothing is paid twice.

    python tests/reliability/campaign_batch.py [ROWS [LINES]]   the figures, and exit code 1 if one is bad

A run of ROWS rows goes to the provider in batches of LINES. Once for each commit of its journal, and twice for each call
about a file or a batch, it is killed (SIGKILL) there and run again to its end. Then each kind of call loses its answer once,
in every way that the simulated provider knows. The provider, a process of its own, counts the completions that it is paid
for: one a row, whatever happened, and as many batches as chunks.
"""

import importlib
import itertools
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import altered
from program import Program

from batchrun import sim

QUICK = "0.01"
PROVIDER = {"latency": "0", "batch_validation": 0.02, "batch_seconds": 0.1, "batch_cancelling": 0.02}
LOST = ("close", "reset", "502", "html", "empty", "gateway")
"""Faults by which a call was made, or was not, and its answer does not say so."""
EVERY = [f"{fault}@{call}" for call in ("upload", "create", "list", "retrieve", "content") for fault in LOST]
BATCHES = ("--batch", "--batch-min", "1", "--batch-tail", "batch", "--quiet")
PRELOADED = ("openai", "aiohttp", "batchrun.report.headless", "batchrun.plan.resolve", "batchrun.client.sdk")
PRELOADED += ("batchrun.engine.batches", "batchrun.lanes.batch", "batchrun.client.calls")


@dataclass
class Figures:
    """What a campaign found; from `failed_runs` on all must be 0. `places` are the first where something was not."""

    runs: int = 0
    kills: int = 0
    lost_answers: int = 0
    spare_files: int = 0
    failed_runs: int = 0
    rows_missing_or_repeated: int = 0
    wrong_answers: int = 0
    paid_too_much: int = 0
    batches_too_many: int = 0
    sent_live: int = 0
    places: list[str] = field(default_factory=list[str])

    @property
    def bad(self) -> list[str]:
        named = [each.name for each in fields(self)][4:]
        return [name for name in named if getattr(self, name)]

    def __str__(self) -> str:
        return "\n".join(f"  {each.name.replace('_', ' '):36} {getattr(self, each.name)}" for each in fields(self))


class Campaign:
    """Runs of `rows` rows in batches of `lines`, one after the other, each with a key of its own at one provider."""

    def __init__(self, base_url: str, rows: int, lines: int) -> None:
        self.figures = Figures()
        self._base_url = base_url
        self._rows, self._lines = rows, lines
        self._keys = itertools.count(1)

    def kill(self, what: str, number: int) -> bool:
        """Kill a run at its `number`-th `what`, and finish it; whether it had come so far."""
        with self._run(f"{what} {number}") as (program, arguments):
            child = altered.fork(program, arguments, quick=QUICK, **{what: str(number)})
            _, status = os.waitpid(child, 0)
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            self.figures.kills += killed
            if killed:
                _, status = os.waitpid(altered.fork(program, arguments, quick=QUICK), 0)
            self.figures.failed_runs += os.waitstatus_to_exitcode(status) != 0
        return killed

    def lose(self, fault: str) -> None:
        """Run with this fault of the provider to the end."""
        sim.change(self._base_url, faults=[fault])
        with self._run(fault) as (program, arguments):
            _, status = os.waitpid(altered.fork(program, arguments, quick=QUICK), 0)
            self.figures.lost_answers += 1
            self.figures.failed_runs += os.waitstatus_to_exitcode(status) != 0
        sim.change(self._base_url, faults=[])

    @contextmanager
    def _run(self, where: str) -> Iterator[tuple[Program, list[str]]]:
        """A run in a directory of its own, that is accounted for at the end."""
        before = sim.stats(self._base_url, prompts=False)
        with tempfile.TemporaryDirectory(prefix="batches-") as place:
            program = Program(Path(place))
            program.environment["OPENAI_API_KEY"] = f"key-{next(self._keys)}"
            program.rows(f"row {number}" for number in range(1, self._rows + 1))
            (Path(place) / "batchrun.toml").write_text(f"[batches.any]\nlines = {self._lines}\n", encoding="utf-8")
            yield program, [*program.send(self._base_url), "--batch-first", str(self._lines), *BATCHES]
            ((chunks,),) = program.ask("SELECT count(*) FROM tickets")
            self._account(where, before, program.done(), chunks)

    def _account(self, where: str, before: dict[str, Any], answers: dict[str, Any], chunks: int) -> None:
        after, figures = sim.stats(self._base_url, prompts=False), self.figures
        wrong = len(figures.bad)
        figures.runs += 1
        figures.rows_missing_or_repeated += len(answers) != self._rows
        figures.wrong_answers += sum(text != f"[simulated] row {name[1:]}" for name, text in answers.items())
        figures.paid_too_much += after["completions_paid"] - before["completions_paid"] != self._rows
        figures.batches_too_many += len(after["batches"]) - len(before["batches"]) != chunks
        figures.sent_live += after["calls"] - before["calls"]
        figures.spare_files += after["uploads"] - before["uploads"] - chunks
        figures.places += [where] * (len(figures.bad) > wrong)


def campaign(rows: int, lines: int, kills: int = sys.maxsize, faults: Iterable[str] | None = None) -> Figures:
    """All of it, or so many kills of a kind, and these faults."""
    with sim.spawn(sim.from_json(dict(PROVIDER))) as base_url:
        this = Campaign(base_url, rows, lines)
        for what in ("commit", "before", "after"):
            number = 1
            while number <= kills and this.kill(what, number):
                number += 1
        for fault in EVERY if faults is None else faults:
            this.lose(f"{fault}=first")
    return this.figures


def main(arguments: list[str]) -> int:
    rows, lines = [*map(int, arguments), *(300, 20)[len(arguments) :]]
    for name in PRELOADED:
        importlib.import_module(name)
    began = time.monotonic()
    figures = campaign(rows, lines)
    print(f"{rows} rows in batches of {lines}: {time.monotonic() - began:.0f} s\n{figures}", flush=True)
    print(f"BAD: {', '.join(figures.bad)}" if figures.bad else "all as promised")
    return 1 if figures.bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
