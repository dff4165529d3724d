"""The whole program with functions, or senders, on a real Ray cluster on this machine, which a fixture starts and ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import pytest
from ray_cluster import Cluster, cluster, family, processes, wait_for
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

def waits(reply):
    with open(os.environ["HOME"] + "/calls", "a") as calls:
        calls.write(f"{os.getpid()}\\n")
    while not os.path.exists(os.environ["HOME"] + "/go"):
        time.sleep(0.01)
    return {"pid": os.getpid()}
"""
ROWS = 60


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    with cluster(2) as made:
        yield made


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


def drivers() -> list[int]:
    """The processes of this test's runs that are Ray's drivers."""
    found: list[int] = []
    for pid in processes("batchrun.cluster.ray_main"):
        with contextlib.suppress(OSError):
            if f"HOME={os.environ['HOME']}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
    return found


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "batchrun", "-i", "in.jsonl", "-p", "say.prompty", "-P", "sim", *args]


def batchrun(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_a_cluster_gives_what_local_workers_give_and_nothing_of_ray_is_seen(head: Cluster) -> None:
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
    assert sent - {"__pycache__"} == {"f.py", "helper.py"}
    assert drivers() == []


@pytest.fixture
def calls(head: Cluster) -> Path:
    """Where functions on the cluster say who they are, before they wait for a file `go` beside it."""
    for path in (found := head.home / "calls", head.home / "go"):
        path.unlink(missing_ok=True)
    return found


def under_way(*args: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command("-o", "out.jsonl", *args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_worker_that_is_killed_costs_no_row(head: Cluster, calls: Path) -> None:
    with under_way("--post", "f.py:waits", "--workers", "ray", "--ray", head.address, "--json") as run:
        wait_for(lambda: calls.exists() and calls.read_text().endswith("\n"))
        killed = int(calls.read_text().split()[0])
        os.kill(killed, signal.SIGKILL)
        calls.with_name("go").touch()
        stdout, stderr = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, stderr
    assert json.loads(stdout.splitlines()[-1])["totals"]["done"] == ROWS
    pids = {json.loads(line)["pid"] for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()}
    assert killed not in pids


def test_sigterm_is_batchruns_own(head: Cluster, calls: Path) -> None:
    with under_way("--post", "f.py:waits", "--workers", "ray:1", "--ray", head.address) as run:
        wait_for(calls.exists)
        assert len(drivers()) == 1
        run.terminate()
        _, stderr = run.communicate(timeout=PATIENCE)
    assert run.returncode == 143
    assert all(line.startswith("batchrun:") for line in stderr.splitlines()), stderr
    assert "batchrun export" in stderr
    wait_for(lambda: not drivers())


class Held(ThreadingHTTPServer):
    """A provider that answers when it is told to, from then on at once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.go = threading.Event()
        self.calls = 0
        self.keys = set[str | None]()

    def __enter__(self) -> "Held":
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()
        self.shutdown()
        self.server_close()


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server = cast("Held", self.server)
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server.calls += 1
        server.keys.add(self.headers["authorization"])
        server.go.wait()
        message = {"role": "assistant", "content": asked["messages"][-1]["content"]}
        said = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        pass


def test_senders_on_a_cluster_send_every_row_also_when_one_is_killed(head: Cluster, tmp_path: Path) -> None:
    with Held() as server:
        words = [
            "-i",
            "in.jsonl",
            "-p",
            "say.prompty",
            "-m",
            "m",
            "--base-url",
            f"http://127.0.0.1:{server.server_port}",
        ]
        words += ["-o", "out.jsonl", "--senders", "2", "--ray", head.address, "--json", "--log-file", "log.txt"]
        with subprocess.Popen(
            [sys.executable, "-m", "batchrun", *words, "--concurrency", "8", "--concurrency-fixed"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as run:  # fmt: skip
            assert run.stdout is not None
            events = map(json.loads, run.stdout)
            assert any(event["event"] == "senders" and event["ready"] == 2 for event in events)
            wait_for(lambda: server.calls >= 8)
            victims = [pid for pid, command in processes("ray::SenderActor").items() if pid in family_of(head)]
            assert len(victims) == 2
            os.kill(victims[0], signal.SIGKILL)
            assert any(event["event"] == "senders" and event["lost"] == 1 for event in events)
            server.go.set()
            last = list(events)[-1]
            _, stderr = run.communicate(timeout=PATIENCE)
        assert run.returncode == 0, stderr
        assert last["totals"]["done"] == ROWS
        written = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [row["output"] for row in written] == [f"Say {row['text']}." for row in written]
        assert ROWS <= server.calls <= ROWS + 8
        assert server.keys == {f"Bearer {KEY}"}
    assert all(line.startswith("batchrun:") for line in stderr.splitlines()), stderr
    # the key is in no file, environment or argument of the cluster, and nothing is left of the run
    assert [path for path in head.folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()] == []
    for pid in family_of(head):
        with contextlib.suppress(OSError):
            assert KEY.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    assert KEY not in "".join(processes("ray").values()) + Path("log.txt").read_text()
    wait_for(lambda: not drivers() and not family_of(head) & set(processes("ray::SenderActor")))


def family_of(head: Cluster) -> set[int]:
    return {pid for node in head.nodes for pid in family(node.pid)}
