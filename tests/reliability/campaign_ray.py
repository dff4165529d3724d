"""The campaign of `--workers ray`: workers and nodes are killed and frozen while they process replies, and no row is lost.

    python tests/reliability/campaign_ray.py [ROWS] [--fault FAULT …]     the figures, and exit code 1 if one is bad

Two nodes on this machine, each with a processor; the one that is killed is replaced afterwards. The output of each run is held
against that of local workers, byte by byte, and nothing may be left of a run when it has ended. It reads /proc.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from ray_cluster import Cluster, cluster, family, processes, wait_for

ROWS = 3000
LEFT_BEHIND = 5.0
"""Seconds until nothing is left of a run."""
MARK = f"CAMPAIGN={uuid4()}"
TIMEOUT = "5s"
"""What a row may take, after which a frozen worker is given up."""
SOURCE = """
import time

def work(reply):
    end = time.process_time() + 0.004
    while time.process_time() < end:
        pass
    return {"length": len(reply.text), "line": reply.line}
"""


class Place:
    """Where runs are; each is a process."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder = folder
        self.rows = rows
        (folder / "f.py").write_text(SOURCE, encoding="utf-8")
        (folder / "say.prompty").write_text("---\nname: say\n---\nuser:\nSay {{ word }}.\n", encoding="utf-8")
        lines = (json.dumps({"id": f"r{n}", "word": f"w{n}"}) + "\n" for n in range(rows))
        (folder / "in.jsonl").write_text("".join(lines), encoding="utf-8")

    def run(self, name: str, *words: str) -> "subprocess.Popen[str]":
        """A run with its output in a file of this name."""
        command = [
            sys.executable,
            "-m",
            "batchrun",
            "-i",
            "in.jsonl",
            "-p",
            "say.prompty",
            "-P",
            "sim",
            "-o",
            name,
            "--json",
        ]
        command += ["--post", "f.py:work", "--post-timeout", TIMEOUT, "--log-file", f"{name}.log", *words]
        environ = {**os.environ, "XDG_CONFIG_HOME": str(self.folder), "XDG_STATE_HOME": str(self.folder)}
        environ |= dict([MARK.split("=")])
        with open(self.folder / f"{name}.events", "w", encoding="utf-8") as events:
            return subprocess.Popen(
                command, cwd=self.folder, env=environ, stdout=events, stderr=subprocess.PIPE, text=True
            )

    def done(self, name: str) -> int:
        """Rows that have ended."""
        return (self.folder / f"{name}.events").read_text(encoding="utf-8").count('"event": "row"')


def kill_worker(at: Cluster) -> None:
    """Kill one worker."""
    os.kill(at.workers(0)[0], signal.SIGKILL)


def freeze_worker(at: Cluster) -> None:
    """Freeze one worker, for good."""
    os.kill(at.workers(0)[0], signal.SIGSTOP)


def kill_node(at: Cluster) -> None:
    """Kill all processes of a node."""
    for pid in family(at.nodes[-1].pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def freeze_node(at: Cluster) -> None:
    """Freeze all processes of a node, for good."""
    for pid in family(at.nodes[-1].pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)


def kill_driver(_: Cluster) -> None:
    """Kill the process that is Ray's driver."""
    for pid in drivers():
        os.kill(pid, signal.SIGKILL)


def drivers() -> list[int]:
    """The processes that are Ray's drivers of runs of this campaign."""
    found: list[int] = []
    for pid in processes("batchrun.cluster.ray_main"):
        with contextlib.suppress(OSError):
            if MARK in Path(f"/proc/{pid}/environ").read_text(encoding="utf-8", errors="replace"):
                found.append(pid)
    return found


FAULTS: tuple[tuple[Callable[[Cluster], None], bool], ...] = (
    (kill_worker, False),
    (freeze_worker, False),
    (kill_driver, False),
    (kill_node, True),
    (freeze_node, True),
)
"""Each with whether it takes a node."""


def main(words: list[str]) -> int:
    """Every fault alone; the number of bad figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [fault.__name__ for fault, _ in FAULTS]
    parser.add_argument("rows", nargs="?", type=int, default=ROWS)
    parser.add_argument("--fault", action="append", choices=names, help="only this one, or these; all by default")
    arguments = parser.parse_args(words)
    rows = arguments.rows
    chosen = [each for each in FAULTS if each[0].__name__ in (arguments.fault or names)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the cluster ends with it
    bad = 0
    with tempfile.TemporaryDirectory() as folder, cluster(1) as at:
        at.add(1)
        place = Place(Path(folder), rows)
        local = place.run("local.jsonl", "--workers", "2")
        _, said = local.communicate()
        assert local.returncode == 0, said
        expected = (place.folder / "local.jsonl").read_bytes()
        for number, (fault, takes_node) in enumerate(chosen):
            name = f"{number}.jsonl"
            began = time.monotonic()
            with place.run(name, "--workers", "ray", "--ray", at.address) as run:
                wait_for(lambda name=name, run=run: place.done(name) > rows // 4 or run.poll() is not None)
                before, at_fault = place.done(name), time.monotonic()
                fault(at)
                _, said = run.communicate()
            ended = time.monotonic()
            output = place.folder / name
            same = output.exists() and output.read_bytes() == expected
            with contextlib.suppress(TimeoutError):
                wait_for(lambda: not drivers(), LEFT_BEHIND)
            left = len(drivers())
            good = run.returncode == 0 and same and not left and before < rows
            bad += not good
            print(
                f"{fault.__name__:<14} after {before:>5} rows: exit {run.returncode}, output {'the same' if same else 'OTHER'}, "
                f"{ended - at_fault:5.1f} s more of {ended - began:5.1f} s, left behind {left}   {'' if good else 'BAD'}",
                flush=True,
            )
            if not good:
                print(said[-2000:])
            if takes_node:
                for pid in family(at.nodes[-1].pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                at.add(1)
    return bad


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
