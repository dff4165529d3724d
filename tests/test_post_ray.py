"""The whole program with functions on a real Ray cluster on this machine, which a fixture starts and ends."""

import contextlib
import json
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
from typing import Any

import pytest
from waiting import PATIENCE

pytestmark = pytest.mark.slow  # a cluster takes seconds to start, and each test waits for a run of the whole program

KEY = "sk-canary-on-no-cluster"
SOURCE = """
import os, time
from helper import DOUBLE

class Score:
    def __init__(self):
        self.calls = 0

    def __call__(self, reply):
        self.calls += 1
        print("printed by a function")
        os.write(1, b"written by a function\\n")
        if reply.line == 7:
            raise KeyError("two", "arguments")
        if reply.line == 9:
            os._exit(0)
        return {"length": DOUBLE * len(reply.text), "word": None} if reply.line == 5 else {"length": len(reply.text)}

def slow(reply):
    with open(os.environ["HOME"] + "/calls", "a") as calls:
        calls.write(f"{os.getpid()}\\n")
    time.sleep(0.1)
    return {"pid": os.getpid()}
"""
ROWS = 60


def processes(marked: str) -> dict[int, str]:
    """The processes whose command line has this text, with it."""
    found: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if marked in command and int(folder.name) != os.getpid():
                found[int(folder.name)] = command
    return found


def wait_for(true: Callable[[], Any], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        signal.sigtimedwait((), 0.05)


class Head:
    """A cluster of one node with two processors; `home` is that of its workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
        command += [f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false", "--disable-usage-stats"]
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        with open(folder / "head.txt", "wb") as said:
            self.process = subprocess.Popen(command, env=environ, stdout=said, stderr=said, start_new_session=True)

    @property
    def is_up(self) -> bool:
        assert self.process.poll() is None, (self.folder / "head.txt").read_text()
        return "Ray runtime started" in (self.folder / "head.txt").read_text()

    def end(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        for pid in (*processes(str(self.folder)), self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # Ray's sockets have long names, and their path a limit
    made = Head(folder)
    try:
        wait_for(lambda: made.is_up)
        yield made
    finally:
        made.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def place(alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "f.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "helper.py").write_text("DOUBLE = 2\n", encoding="utf-8")
    (tmp_path / "say.prompty").write_text("---\nname: say\n---\nuser:\nSay {{ text }}.\n", encoding="utf-8")
    rows = "".join(json.dumps({"id": f"r{n}", "text": f"w{n} \u00e9\u4e16"}) + "\n" for n in range(1, ROWS + 1))
    (tmp_path / "in.jsonl").write_text(rows, encoding="utf-8")
    return tmp_path


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "batchrun", "-i", "in.jsonl", "-p", "say.prompty", "-P", "sim", *args]


def batchrun(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_a_cluster_gives_what_local_workers_give_and_nothing_of_ray_is_seen(head: Head) -> None:
    local = batchrun("-o", "local.jsonl", "--post", "f.py:Score", "--workers", "1")
    there = batchrun("-o", "-", "--post", "f.py:Score", "--workers", "ray", "--ray", head.address)
    assert (local.returncode, there.returncode) == (3, 3), there.stderr
    assert there.stdout == Path("local.jsonl").read_text(encoding="utf-8")
    errors = [
        json.loads(line)["_batchrun"] for line in Path("local.errors.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [error["cause"] for error in errors] == ["post: KeyError", "post: worker died"]
    assert [line for line in there.stderr.splitlines() if "KeyError (" in line] == [
        line for line in local.stderr.splitlines() if "KeyError (" in line
    ]
    assert all(line.startswith("batchrun:") for line in there.stderr.splitlines()), there.stderr
    # the key is in no file, environment or argument of the cluster
    assert [path for path in head.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()] == []
    for pid in processes(str(head.folder)):
        with contextlib.suppress(OSError):
            assert KEY.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    assert KEY not in "".join(processes("ray").values())
    # nor are replies, and what lies beside the function but is no code
    sent = {path.name for path in head.folder.glob("session_2*/runtime_resources/working_dir_files/*/functions-0/*")}
    assert sent == {"f.py", "helper.py"}
    assert processes("batchrun.post.ray_main") == {}


def test_a_worker_that_is_killed_costs_no_row(head: Head) -> None:
    calls = head.home / "calls"
    calls.unlink(missing_ok=True)
    arguments = ("-o", "out.jsonl", "--post", "f.py:slow", "--workers", "ray", "--ray", head.address, "--json")
    with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        wait_for(lambda: calls.exists() and len(calls.read_text().split()) > 5)
        os.kill(int(calls.read_text().split()[-1]), signal.SIGKILL)
        stdout, stderr = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, stderr
    events = [json.loads(line) for line in stdout.splitlines()]
    assert events[-1]["totals"]["done"] == ROWS
    assert len({json.loads(line)["pid"] for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()}) in (
        2,
        3,
    )


def test_sigterm_is_batchruns_own(head: Head) -> None:
    calls = head.home / "calls"
    calls.unlink(missing_ok=True)
    arguments = ("-o", "out.jsonl", "--post", "f.py:slow", "--workers", "ray:1", "--ray", head.address)
    with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        wait_for(calls.exists)
        run.terminate()
        _, stderr = run.communicate(timeout=PATIENCE)
    assert run.returncode == 143
    assert all(line.startswith("batchrun:") for line in stderr.splitlines()), stderr
    assert "batchrun export" in stderr
    wait_for(lambda: not processes("batchrun.post.ray_main"))
