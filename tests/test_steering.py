"""A run that is steered from another process, through the socket beside its journal."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE, wait_until

from batchrun import steering
from batchrun.errors import RefusedError
from batchrun.journal import Reader

moment = threading.Event().wait
Process = subprocess.Popen[str]


@pytest.fixture(autouse=True)
def _alone(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    Path("batchrun.toml").write_text('profile = "sim"\n[sim]\nlatency = "0.2"\n')
    Path("say.md").write_text("Say {{ text }}")
    Path("in.jsonl").write_text("".join(json.dumps({"id": f"r{n}", "text": f"row {n}"}) + "\n" for n in range(400)))


def program(*args: str, cwd: Path | None = None) -> Process:
    command = [sys.executable, "-m", "batchrun", *args]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd)


def said(*args: str) -> tuple[int, str]:
    process = program(*args)
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out + err


def journal(folder: Path = Path(".batchrun")) -> Path | None:
    return next((path.with_suffix(".db") for path in folder.glob("*.sock")), None)


def status_of(path: Path) -> dict[str, Any]:
    return steering.send(path, {"command": "status"})


def has_replies(path: Path) -> bool:
    return status_of(path)["done"] > 0


def attempts(path: Path) -> int:
    with Reader.open(path) as reader:
        return reader.totals.attempts


@pytest.fixture
def running() -> Iterator[tuple[Process, Path]]:
    """A run of 400 rows at 2 in flight, which has a reply."""
    process = program("-i", "in.jsonl", "-p", "say.md", "--concurrency", "2", "-o", "out.jsonl")
    try:
        path = wait_until(journal)
        wait_until(lambda: has_replies(path))
        yield process, path
    finally:
        process.kill()
        process.communicate()


def test_a_run_is_paused_goes_on_under_other_limits_and_stops(running: tuple[Process, Path]) -> None:
    process, path = running
    code, text = said("steer", "last", "pause")
    assert (code, "paused" in text) == (0, True), text
    wait_until(lambda: status_of(path)["in_flight"] == 0)
    before = status_of(path)
    assert before["state"] == "paused"
    assert sum(before[n] for n in ("done", "failed", "skipped", "pending", "in_batches", "in_flight")) == 400
    sent = attempts(path)
    moment(1.0)  # several latencies: nothing is sent meanwhile, though the last reply may still be written
    assert attempts(path) == sent

    code, text = said("steer", "out.jsonl", "resume", "--concurrency", "20", "--rpm", "9000", "--json")
    found = json.loads(text)
    assert (code, found["state"], found["concurrency"], found["rpm"], found["tpm"]) == (0, "running", 20, 9000, None)
    wait_until(lambda: status_of(path)["done"] > before["done"])
    assert "rpm auto" in said("steer", "last", "--rpm", "auto")[1]

    code, text = said("steer", "last", "stop")
    assert code == 0, text
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "stopped: requested by `batchrun steer`" in err
    assert " 0 unknown" in err  # what was in flight was awaited
    assert Path("out.jsonl.partial").exists()
    assert not list(Path(".batchrun").glob("*.sock"))
    code, text = said("steer", "last", "pause")
    assert (code, "is not sending requests" in text) == (2, True), text


def test_stop_now_waits_for_nothing(running: tuple[Process, Path]) -> None:
    process, path = running
    assert steering.send(path, {"command": "stop-now"})["state"] == "stopping"
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert not Path("out.jsonl.partial").exists()


def test_the_socket_is_the_owners_alone_and_refuses_what_it_does_not_know(running: tuple[Process, Path]) -> None:
    _, path = running
    assert steering.socket_of(path).stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    for request, why in (
        ({"command": "dance"}, "the command must be one of status"),
        ({"command": "limits"}, "limits takes concurrency"),
        ({"command": "limits", "concurrency": None}, "only the rates may be null"),
        ({"command": "limits", "concurrency": 0}, "must be a number above 0"),
        ({"command": "limits", "rpm": "many"}, "must be a number above 0"),
    ):
        with pytest.raises(RefusedError, match=why):
            steering.send(path, request)
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rwb") as stream:
        connection.connect(str(steering.socket_of(path)))
        for line, why in ((b"[]\n", "a request is a JSON object"), (b"{\n", "not performed")):
            stream.write(line)
            stream.flush()
            assert why in json.loads(stream.readline())["error"]
    assert status_of(path)["state"] == "running"
    for arguments, why in ((("last", "danc"), "unknown action"), (("last", "--rpm", "x"), "must be a number")):
        code, text = said("steer", *arguments)
        assert (code, why in text) == (2, True), text


def test_a_socket_left_by_a_killed_process_is_replaced(running: tuple[Process, Path]) -> None:
    process, path = running
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert steering.socket_of(path).exists()
    with pytest.raises(RefusedError, match="is not sending requests"):
        status_of(path)
    again = program("resume", "last", "--concurrency", "2")

    def answered() -> bool:
        try:
            return status_of(path)["state"] == "running"
        except RefusedError:
            return False

    try:
        wait_until(answered)
        steering.send(path, {"command": "stop-now"})
    finally:
        again.communicate(timeout=PATIENCE)
    assert not steering.socket_of(path).exists()


def test_a_path_too_long_for_a_socket_is_steered_where_descriptors_have_paths(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 80) / ("e" * 80)
    deep.mkdir(parents=True)
    output = deep / "out.jsonl"
    process = program("-i", "in.jsonl", "-p", "say.md", "--concurrency", "2", "-o", str(output))
    try:
        if not Path("/proc/self/fd").is_dir():  # the run goes on without a socket
            wait_until(lambda: list(deep.glob(".batchrun/2*.db")))
            assert journal(deep / ".batchrun") is None
            process.send_signal(signal.SIGINT)
            return
        path = wait_until(lambda: journal(deep / ".batchrun"))
        assert wait_until(lambda: has_replies(path))
        assert said("steer", str(output), "stop-now")[0] == 0
    finally:
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 130


def test_a_run_in_which_no_socket_can_be_made_goes_on_without_one(running: tuple[Process, Path]) -> None:
    """A directory stands where the socket of a resumed run would be."""
    process, path = running
    steering.send(path, {"command": "stop-now"})
    process.communicate(timeout=PATIENCE)
    steering.socket_of(path).mkdir()
    code, text = said("resume", "last", "--limit", "20", "--verbose")
    assert code == 0, text
    assert "cannot be steered from other processes" in text


async def test_the_socket_accepts_connections_as_soon_as_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs" / "run.db"
    path.parent.mkdir()
    there: list[bool] = []

    class Watched(socket.socket):
        def listen(self, *backlog: int) -> None:
            there.append(steering.socket_of(path).exists())
            super().listen(*backlog)

    monkeypatch.setattr(steering.socket, "socket", Watched)
    server = steering.Server(path, lambda request: {"state": request["command"]})
    await server.open()
    try:
        assert there == [False]
        assert await asyncio.to_thread(status_of, path) == {"state": "status"}
        assert [found.name for found in path.parent.iterdir()] == ["run.sock"]
    finally:
        await server.close()
    assert not list(path.parent.iterdir())
