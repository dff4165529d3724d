"""The campaign of `--processes` and of `--senders`: senders, nodes and the driver are killed, frozen and interrupted, and no row
is lost.

    python tests/reliability/campaign_scale.py processes|ray [FAULTS [ROWS [SEED]]]

It prints the figures, and its exit code is 1 if one is bad. With `ray` senders are on two nodes on this machine, each a raylet
with processes of its own; a node that is killed or frozen is replaced. First each fault alone, then FAULTS random ones over
ROWS rows. The simulated provider is a process of its own; its count of
calls is the reference, and the output is compared with that of a run without faults, byte by byte. It reads /proc.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from ray_cluster import Cluster, cluster, family, processes

from batchrun import sim

PROCESSES, IN_FLIGHT = 2, 64
SENDER = "ray::SenderActor"
KILLED_BACK, FROZEN_BACK, NO_NEW_LEASES, LEFT_BEHIND = 3.0, 35.0, 6.0, 5.0
"""Seconds: until rows are sent again after a sender was killed, or frozen; after which a frozen one is given no row; and
until nothing is left after the end."""
LOST = "its sender was lost"
MARK = f"CAMPAIGN={uuid4()}"
INTERRUPTED = 130
_PAUSE = threading.Event()


class Session:
    """One session of a run and what it tells; events are read in a thread."""

    def __init__(self, folder: Path, *words: str) -> None:
        name, value = MARK.split("=")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "batchrun", *words, "--json"],
            cwd=folder,
            env={**os.environ, "XDG_CONFIG_HOME": str(folder / "none"), name: value},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.began: dict[int, float] = {}
        self.lost: list[tuple[int, float, float]] = []
        """Rows whose sender was lost: when the attempt had left, and when that was told."""
        self.again: dict[int, float] = {}
        self.finished = self.ready = 0
        self.down: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                self._hear(json.loads(line))
            except ValueError:
                return  # the line that was cut off by a kill

    def _hear(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "attempt":
                self.began[event["seq"]] = event["at"]
                self.again.setdefault(event["seq"], event["at"])
            case "attempt_ended":
                left = self.began.pop(event["seq"], 0.0)
                if event["cause"] == LOST:
                    self.lost.append((event["seq"], left, event["at"]))
                    self.again.pop(event["seq"], None)
            case "row":
                self.finished += 1
            case "senders":
                self.ready = event["ready"]
            case "waiting" if event["reason"] == "the provider is down":
                self.down.append(f"{event} at {time.monotonic():.3f}")
            case _:
                pass

    def until(self, holds: Callable[[], bool], seconds: float = 120.0) -> bool:
        """Wait for something while the run is under way; whether it came."""
        end = time.monotonic() + seconds
        while not holds():
            if self.process.poll() is not None or time.monotonic() > end:
                return holds()
            _PAUSE.wait(0.01)
        return True

    def ends(self) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(timeout=900)
        self._reader.join()
        return code


def marked() -> Iterator[int]:
    """The processes of this campaign's runs."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if MARK.encode() in (entry / "environ").read_bytes():
                    yield int(entry.name)
            except OSError:
                continue


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


class Children:
    """Senders that are child processes."""

    words = ("--processes", str(PROCESSES))
    faults: tuple[str, ...] = ("kill", "freeze", "driver", "interrupt")
    weights = (8, 2, 5, 5)

    def all(self) -> list[int]:
        """Their processes, without those that are frozen."""
        return [pid for pid in self.left() if "senders" in _words(pid) and not _is_frozen(pid)]

    def left(self) -> list[int]:
        """What is there of runs of this campaign, and their senders."""
        return list(marked())

    def hit(self, victim: int, number: int) -> None:
        """Do that to the sender that is this process."""
        os.kill(victim, number)

    def replace(self) -> None:
        """Put in the place of a node that was hit another one."""


class Actors(Children):
    """Senders that are actors on the nodes of a cluster."""

    faults = (*Children.faults, "kill node", "freeze node")
    weights = (5, 1, 4, 4, 4, 2)

    def __init__(self, at: Cluster) -> None:
        self._cluster = at
        self._hit = False
        self.words = ("--senders", str(PROCESSES), "--ray", at.address)

    def all(self) -> list[int]:
        return [pid for pid in self._there() if not _is_frozen(pid)]

    def left(self) -> list[int]:
        return [*super().left(), *self._there()]

    def _there(self) -> list[int]:
        mine = {pid for node in self._cluster.nodes for pid in family(node.pid)}
        return [pid for pid in processes(SENDER) if pid in mine]

    def hit_node(self, number: int) -> None:
        """Do that to all processes of the last node."""
        self._hit = True
        for pid in sorted(family(self._cluster.nodes[-1].pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def replace(self) -> None:
        if self._hit:
            self._hit = False
            self.hit_node(signal.SIGKILL)
            self._hit = False
            self._cluster.nodes[-1].wait()
            self._cluster.add(1)


def _is_frozen(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return True


@dataclass
class Figures:
    """What was found; `bad` says what must not be."""

    in_flight: int = 0
    killed_back: list[float] = field(default_factory=list)
    frozen_back: list[float] = field(default_factory=list)
    new_after: float = 0.0
    bad: list[str] = field(default_factory=list)

    def holds(self, what: str, *, right: bool) -> None:
        if not right:
            self.bad.append(what)


class Run:
    """A run over rows that is hurt on its way, with the same command or `resume` until it is whole."""

    def __init__(self, folder: Path, url: str, senders: Children, figures: Figures) -> None:
        self.folder, self.senders, self.figures = folder, senders, figures
        self._words = (
            *("run", "-i", "rows.jsonl", "-p", "{{ text }}", "-m", "m", "--base-url", url, "-o", "out.jsonl"),
            *(*senders.words, "--concurrency", str(IN_FLIGHT), "--concurrency-fixed"),
        )
        self.session = Session(folder, *self._words)

    def restart(self) -> None:
        """Go on in another session."""
        self.session = Session(self.folder, "resume", "out.jsonl")

    def hurt(self, fault: str, chance: random.Random) -> None:
        """One fault in the middle of a session, and what becomes of it."""
        session, figures = self.session, self.figures
        start = session.finished
        senders = self.senders
        if not session.until(lambda: session.finished > start + 100 and session.ready == PROCESSES):
            return
        victim = chance.choice(senders.all())
        lost, now = len(session.lost), time.monotonic()
        in_flight = len(session.began)
        if fault == "driver":
            session.process.kill()
        elif fault == "interrupt":
            os.killpg(session.process.pid, signal.SIGINT)
        elif isinstance(senders, Actors) and fault.endswith("node"):
            senders.hit_node(signal.SIGKILL if fault.startswith("kill") else signal.SIGSTOP)
        else:
            senders.hit(victim, signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
        if fault in ("driver", "interrupt"):
            code = session.ends()
            figures.holds(f"exit code {code} after {fault}", right=code in (-signal.SIGKILL, INTERRUPTED))
            figures.holds(f"{fault}: senders were left behind", right=not _left_after(LEFT_BEHIND, senders))
            figures.in_flight += max(in_flight, self._open())  # the journal knows more than what was told
            self.restart()
            return
        figures.in_flight += in_flight
        killed = fault.startswith("kill")
        limit = KILLED_BACK if killed else FROZEN_BACK
        session.until(lambda: len(session.lost) > lost, limit + 5)
        session.until(lambda: all(seq in session.again for seq, *_ in session.lost[lost:]), limit)
        rows = session.lost[lost:]
        back = [session.again.get(seq, float("inf")) - now for seq, *_ in rows]
        if rows:  # at the end of a run a sender may have nothing in flight
            (figures.killed_back if killed else figures.frozen_back).append(max(back))
        if not killed:
            figures.new_after = max(figures.new_after, *(left - now for _, left, _ in rows), 0.0)

    def _open(self) -> int:
        """Attempts that the journal has and whose end it does not know."""
        (journal,) = self.folder.glob(".batchrun/*.db")
        with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT count(*) FROM attempts WHERE ended IS NULL").fetchone()[0]

    def ends(self) -> None:
        """Go on until it is whole."""
        code = self.session.ends()
        self.figures.holds(f"the run ended with {code}", right=code == 0)
        self.figures.holds(f"the provider was taken for down: {self.session.down}", right=not self.session.down)


def _left_after(seconds: float, senders: Children) -> list[int]:
    end = time.monotonic() + seconds
    while (left := senders.left()) and time.monotonic() < end:
        _PAUSE.wait(0.05)
    return left


def hurt(
    senders: Children, rows: int, faults: list[str], chance: random.Random, expected: bytes | None
) -> tuple[Figures, bytes]:
    """A run with these faults: the figures, and its output."""
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = Path(name)
        with (folder / "rows.jsonl").open("w") as out:
            out.writelines(json.dumps({"id": f"r{n}", "text": f"row {n} of many"}) + "\n" for n in range(rows))
        with sim.spawn(sim.from_json({"latency": "0.1-0.3", "reply": "echo"})) as url:
            run = Run(folder, url, senders, figures)
            for fault in faults:
                run.hurt(fault, chance)
                senders.replace()
            run.ends()
            seen = sim.stats(url)
        figures.holds("processes were left behind", right=not _left_after(LEFT_BEHIND, senders))
        output = (folder / "out.jsonl").read_bytes()
        second = seen["calls"] - rows
        figures.holds(f"{second} second calls, {figures.in_flight} in flight", right=0 <= second <= figures.in_flight)
        figures.holds("the output differs", right=expected is None or output == expected)
        figures.holds("rows came back late after a kill", right=max(figures.killed_back, default=0) <= KILLED_BACK)
        figures.holds("rows came back late after a freeze", right=max(figures.frozen_back, default=0) <= FROZEN_BACK)
        figures.holds("a frozen sender was given rows", right=figures.new_after <= NO_NEW_LEASES)
        back = f"killed {max(figures.killed_back, default=0):.1f} s, frozen {max(figures.frozen_back, default=0):.1f} s"
        print(
            f"{', '.join(faults) or 'no fault'}: {rows:,} rows, {second} second calls of {figures.in_flight} in flight; "
            f"rows back after {back}; last row to a frozen sender after {figures.new_after:.1f} s"
            f"{''.join(f'; BAD: {what}' for what in figures.bad)}",
            flush=True,
        )
    return figures, output


def campaign(senders: Children, faults: int, rows: int, seed: int) -> int:
    """All of it; the exit code."""
    chance = random.Random(seed)
    _, few = hurt(senders, 4000, [], chance, None)
    bad = [hurt(senders, 4000, [fault], chance, few)[0].bad for fault in senders.faults]
    _, many = hurt(senders, rows, [], chance, None)
    drawn = chance.choices(senders.faults, senders.weights, k=faults)
    bad.append(hurt(senders, rows, drawn, chance, many)[0].bad)
    return int(any(bad))


def main(words: list[str]) -> int:
    """The campaign; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("where", choices=("processes", "ray"))
    for name, default in (("faults", 20), ("rows", 20_000), ("seed", 1)):
        parser.add_argument(name, nargs="?", type=int, default=default)
    chosen = parser.parse_args(words)
    if chosen.where == "processes":
        return campaign(Children(), chosen.faults, chosen.rows, chosen.seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the cluster ends with it
    with cluster(1) as at:
        at.add(1)
        return campaign(Actors(at), chosen.faults, chosen.rows, chosen.seed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
