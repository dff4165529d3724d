"""The crash campaign: the program is killed (SIGKILL) again and again and goes on, and nothing may be lost or paid
twice.

    python tests/reliability/campaign_crash.py [KILLS [WRITES [ROWS [C]]]]   the figures, and exit code 1 if one is bad

Each program is forked from this process, which has imported everything, so that a kill costs little more than the run
itself. The simulated provider is a process of its own; its count of calls per request is the reference, and the
journal is read by an independent SQLite connection after each kill.
"""

import importlib
import os
import random
import select
import signal
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field, fields
from pathlib import Path

import altered
from program import Program

from batchrun import sim

C = 16
READY = 32
"""Of so many requests in flight one more is begun in the journal ahead of its slot: it is in doubt after a kill, too."""
LATENCY = "0.02-0.15"
COMMITTED = "SELECT request FROM rows JOIN outcomes ON outcomes.row = seq"
OPEN = "SELECT count(*) FROM attempts WHERE ended IS NULL"
PRELOADED = ("openai", "aiohttp", "batchrun.report.headless", "batchrun.plan.resolve", "batchrun.client.sdk")


@dataclass
class Figures:
    """What a campaign with `c` requests in flight found; `bad` names what must not be."""

    c: int = C
    kills: int = 0
    rounds: int = 0
    lost_committed_rows: int = 0
    duplicate_rows: int = 0
    missing_rows: int = 0
    second_calls_for_committed_rows: int = 0
    damaged_journals: int = 0
    failed_resumes: int = 0
    calls_over_n: int = 0
    most_in_doubt_at_a_kill: int = 0
    resume_seconds: list[float] = field(default_factory=list)

    @property
    def bad(self) -> list[str]:
        names = ("lost_committed_rows", "duplicate_rows", "missing_rows", "second_calls_for_committed_rows")
        found = [name for name in (*names, "damaged_journals", "failed_resumes") if getattr(self, name)]
        found += ["calls_over_n"] * (self.calls_over_n > self.kills * self.c)
        return found + ["most_in_doubt_at_a_kill"] * (self.most_in_doubt_at_a_kill > self.c + self.c // READY)

    def __str__(self) -> str:
        told = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "resume_seconds"}
        times = sorted(self.resume_seconds)
        if times:
            told["resume, start to end (s)"] = f"median {times[len(times) // 2]:.2f}, most {times[-1]:.2f}"
        return "\n".join(f"  {name.replace('_', ' '):36} {value}" for name, value in told.items())


class Round:
    """One run over `rows` rows, killed and continued until it is whole."""

    def __init__(self, rows: int, figures: Figures) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="crash-")
        self.program = Program(Path(self._place.name))
        self.program.rows(f"row {number}" for number in range(rows))
        self._rows = rows
        self._figures = figures
        self._noted: dict[str, int] = {}

    def start(self, base_url: str, commit: int = 0) -> int:
        """Fork the program; 0 kills it at no commit."""
        arguments = [*self.program.send(base_url, "--concurrency", str(self._figures.c)), "--quiet"]
        return altered.fork(self.program, arguments, **({"commit": str(commit)} if commit else {}))

    def look(self, base_url: str) -> None:
        """After a kill: what was committed is still there, and was not asked again."""
        calls = sim.stats(base_url)["prompts"]
        done, in_doubt, whole = self._journal()
        figures = self._figures
        figures.lost_committed_rows += len(self._noted.keys() - done)
        figures.second_calls_for_committed_rows += sum(calls[row] - before for row, before in self._noted.items())
        figures.damaged_journals += not whole
        figures.most_in_doubt_at_a_kill = max(figures.most_in_doubt_at_a_kill, in_doubt)
        self._noted = {row: calls[row] for row in done}

    def _journal(self) -> tuple[set[str], int, bool]:
        found = list((self.program.directory / ".batchrun").glob("*.db"))
        if not found:
            return set(), 0, True
        with closing(sqlite3.connect(f"file:{found[-1]}?mode=ro", uri=True)) as connection:
            done = {request for (request,) in connection.execute(COMMITTED)}
            (in_doubt,) = connection.execute(OPEN).fetchone()
            ((check,), *_) = connection.execute("PRAGMA integrity_check").fetchall()
        return done, in_doubt, check == "ok" and len(found) == 1

    def finish(self, base_url: str) -> None:
        """Let it run to its end, and account for every row."""
        began = time.monotonic()
        _, status = os.waitpid(self.start(base_url), 0)
        self._figures.resume_seconds.append(time.monotonic() - began)
        self.account(base_url, status)

    def account(self, base_url: str, status: int) -> None:
        """The round is over: each row once, and no call too many."""
        self.look(base_url)
        ids = [row["id"] for row in self.program.output()]
        figures = self._figures
        figures.rounds += 1
        figures.failed_resumes += os.waitstatus_to_exitcode(status) != 0
        figures.duplicate_rows += len(ids) - len(set(ids))
        figures.missing_rows += self._rows - len(set(ids))
        figures.calls_over_n += sim.stats(base_url, prompts=False)["calls"] - self._rows
        self._place.cleanup()


def random_kills(kills: int, rows: int, seed: int = 0, c: int = C) -> Figures:
    """Kill at random moments; where a run ends before all kills were made, begin another."""
    lots, figures = random.Random(seed), Figures(c)
    while figures.kills < kills:
        with sim.spawn(sim.from_json({"latency": LATENCY})) as base_url:
            this, status = Round(rows, figures), None
            while figures.kills < kills and status is None:
                child = this.start(base_url)
                _wait(child, lots.uniform(0.02, 1.2))
                os.kill(child, signal.SIGKILL)
                _, ended = os.waitpid(child, 0)
                if os.WIFSIGNALED(ended):
                    figures.kills += 1
                    this.look(base_url)
                else:
                    status = ended
            if status is None:
                this.finish(base_url)
            else:
                this.account(base_url, status)
    return figures


def _wait(child: int, seconds: float) -> None:
    """For the end of the child, so long at most."""
    descriptor = os.pidfd_open(child)
    select.select([descriptor], [], [], seconds)
    os.close(descriptor)


def kills_at_writes(writes: int, rows: int) -> Figures:
    """Kill before each of the first commits of a fresh run, and go on to the end."""
    figures = Figures()
    for commit in range(1, writes + 1):
        with sim.spawn(sim.from_json({"latency": "0.005"})) as base_url:
            this = Round(rows, figures)
            _, ended = os.waitpid(this.start(base_url, commit), 0)
            figures.kills += os.WIFSIGNALED(ended)
            this.look(base_url)
            this.finish(base_url)
    return figures


def main(arguments: list[str]) -> int:
    kills, writes, rows, c = [*map(int, arguments), *(100, 200, 1000, C)[len(arguments) :]]
    for name in PRELOADED:
        importlib.import_module(name)
    bad: list[str] = []
    for title, campaign in (
        (f"kill -9 at {kills} random moments, N = {rows}, C = {c}", lambda: random_kills(kills, rows, c=c)),
        (f"kill -9 at each of the first {writes} journal writes", lambda: kills_at_writes(writes, rows)),
    ):
        began = time.monotonic()
        figures = campaign()
        print(f"{title}: {time.monotonic() - began:.0f} s\n{figures}", flush=True)
        bad += figures.bad
    print(f"BAD: {', '.join(bad)}" if bad else "all as promised")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
