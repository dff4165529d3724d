"""A Ray cluster on this machine, of one node or several, which is started here and ended."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from waiting import PATIENCE


def processes(marked: str) -> dict[int, str]:
    """The processes whose command line has this text, with it."""
    found: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if marked in command and int(folder.name) != os.getpid():
                found[int(folder.name)] = command
    return found


def family(root: int) -> set[int]:
    """A process and all that descend from it."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def wait_for(true: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Until something holds. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError
        signal.sigtimedwait((), 0.05)


class Cluster:
    """Its nodes, each a process with all that descends from it. `home` is that of its workers."""

    def __init__(self, processors: int) -> None:
        # Ray's sockets have long names, and their paths a limit
        self.folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
        self.home = self.folder / "home"
        self.home.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self.nodes: list[subprocess.Popen[bytes]] = []
        head = ["--head", f"--port={port}", f"--temp-dir={self.folder}", "--include-dashboard=false"]
        self._start(*head, f"--num-cpus={processors}")

    def _start(self, *words: str) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *words]
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        log = self.folder / f"node-{len(self.nodes)}.txt"
        with open(log, "wb") as said:
            node = subprocess.Popen(command, env=environ, stdout=said, stderr=said, start_new_session=True)
        self.nodes.append(node)
        wait_for(lambda: "Ray runtime started" in log.read_text() or node.poll() is not None)
        assert node.poll() is None, log.read_text()

    def add(self, processors: int) -> None:
        """Another node."""
        self._start(f"--address={self.address}", f"--num-cpus={processors}")

    def workers(self, node: int) -> list[int]:
        """The actors at work on a node."""
        mine = family(self.nodes[node].pid)
        return sorted(pid for pid, command in processes("ray::Actor").items() if pid in mine and "IDLE" not in command)

    def end(self) -> None:
        """End all of it; agents outlive a node that was killed, under a name that does not tell whose they are."""
        mine = {pid for node in self.nodes for pid in family(node.pid)}
        for node in reversed(self.nodes):
            if node.poll() is None:
                node.terminate()
        for node in self.nodes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.wait(20)
        for pid in mine | set(processes(str(self.folder))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for node in self.nodes:
            node.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def cluster(processors: int) -> Iterator[Cluster]:
    """A cluster with one node of so many processors."""
    made = Cluster(processors)
    try:
        yield made
    finally:
        made.end()
