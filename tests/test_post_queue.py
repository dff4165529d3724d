"""The stage as the engine meets it: rows in, results out, whatever functions do to their worker."""

import asyncio
import gc
import json
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE

from batchrun.child_processes import without_secrets
from batchrun.post import Choices, Failure, Item, PostQueue, Result, Value

SOURCE = """
import asyncio, os, signal, sys, threading, time

def work(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass

def where(reply):
    return {"pid": os.getpid(), "thread": threading.current_thread().name}

def slow(reply):
    work(0.001)
    return {"pid": os.getpid()}

def deadly(reply):
    if reply.fields["n"] == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return reply.fields["n"]

def leaves(reply):
    if reply.fields["n"] == 7:
        os._exit(0)
    return reply.fields["n"]

def forks(reply):
    child = os.fork()
    if not child:
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def hangs(reply):
    while reply.fields["n"] == 7:
        pass
    return reply.fields["n"]

def waits(reply):
    if reply.fields["n"] == 7:
        threading.Event().wait()
    return reply.fields["n"]

def talks(reply):
    print("row", reply.line)
    print("to stderr", file=sys.stderr)
    os.write(1, b"from below\\n")
    return None

def prints(reply):
    print("row", reply.line)

def environment(reply):
    with open("/proc/self/environ") as file:
        return {"now": dict(os.environ), "at the start": file.read()}

def reads(reply):
    return sys.stdin.read()

class Once:
    def __init__(self):
        self.calls = 0
    def __call__(self, reply):
        self.calls += 1
        return {"pid": os.getpid(), "calls": self.calls}

most = 0
now = 0
async def together(reply):
    global most, now
    now += 1
    most = max(most, now)
    await asyncio.sleep(0.02)
    now -= 1
    return {"most": most, "pid": os.getpid()}

async def blocks(reply):
    work(0.15)
    await asyncio.sleep(0)
    return None

async def stuck(reply):
    await asyncio.sleep(3600 if reply.fields["n"] == 7 else 0)
    return reply.fields["n"]
"""


@pytest.fixture(scope="module", autouse=True)
def _no_tracker_is_left() -> Iterator[None]:
    """`multiprocessing` keeps a process that tracks its semaphores; other tests count the children of this one."""
    yield
    gc.collect()  # semaphores that go later would start it again
    resource_tracker._resource_tracker._stop()


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    path = tmp_path / "functions.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


class Outlet:
    """Runs rows through a stage and keeps what comes out."""

    def __init__(self, path: Path, name: str, **choices: Any) -> None:
        self.results: dict[int, Result] = {}
        self.busy: list[bool] = []
        self.blocked: dict[str, float] = {}
        self.workers = 0
        self._choices = Choices(specs=(f"{path}:{name}",), **choices)

    async def put(self, count: int, environ: dict[str, str] | None = None) -> "Outlet":
        stage = PostQueue(self._choices, self._deliver, environ=environ or dict(os.environ), busy=self.busy.append)
        try:
            stage.start()
            for number in range(count):
                await stage.put(number, Item("text", json.dumps({"n": number}), line=number))
            async with asyncio.timeout(PATIENCE):
                await stage.drain()
            self.blocked, self.workers = stage.blocked, stage.workers
        finally:
            await stage.close()
        return self

    async def _deliver(self, results: list[tuple[int, Result]]) -> None:
        for number, result in results:
            assert number not in self.results
            self.results[number] = result

    @property
    def added(self) -> list[dict[str, Any]]:
        return [json.loads(result.added or "{}") for result in self.results.values() if isinstance(result, Value)]

    @property
    def failed(self) -> dict[int, Failure]:
        return {number: result for number, result in self.results.items() if isinstance(result, Failure)}


async def test_short_work_stays_in_one_thread_beside_the_loop(functions: Path) -> None:
    outlet = await Outlet(functions, "where").put(300)
    assert {(row["pid"], row["thread"]) for row in outlet.added} == {(os.getpid(), "post")}
    assert (len(outlet.added), outlet.workers) == (300, 0)


async def test_long_work_moves_to_worker_processes(functions: Path) -> None:
    outlet = await Outlet(functions, "slow").put(300)
    pids = [row["pid"] for row in outlet.added]
    assert len(pids) == 300
    assert 1 <= pids.count(os.getpid()) <= 20
    assert outlet.workers == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("workers", [0, 2])
async def test_the_number_of_workers_is_obeyed(functions: Path, workers: int) -> None:
    outlet = await Outlet(functions, "slow", workers=workers).put(100)
    assert ({row["pid"] for row in outlet.added} == {os.getpid()}) is (workers == 0)
    assert outlet.workers == workers


@pytest.mark.parametrize(
    ("name", "said"),
    [("deadly", "killed by SIGKILL"), ("leaves", "exit code 70"), ("hangs", "no result after 1 s")],
)
async def test_only_the_row_at_fault_fails_and_the_pool_goes_on(functions: Path, name: str, said: str) -> None:
    outlet = await Outlet(functions, name, workers=2, timeout=1.0).put(200)
    assert len(outlet.results) == 200
    assert outlet.failed.keys() == {7}
    assert said in outlet.failed[7].message
    assert all(result == Value(str(n), None) for n, result in outlet.results.items() if n != 7)


async def test_a_function_that_would_end_batchruns_own_process_fails_its_row(functions: Path) -> None:
    outlet = await Outlet(functions, "leaves", workers=0).put(50)
    assert outlet.failed.keys() == {7}
    assert outlet.failed[7].cause == "post: worker died"
    assert outlet.failed[7].message == "the function ends its process with os._exit(0) (functions.py:23 in leaves)"


async def test_a_process_that_a_function_forks_may_end(functions: Path) -> None:
    outlet = await Outlet(functions, "forks", workers=1).put(2)
    assert list(outlet.results.values()) == [Value("0", None)] * 2


async def test_a_row_that_hangs_in_the_thread_fails_alone(functions: Path) -> None:
    outlet = await Outlet(functions, "stuck", workers=0, timeout=0.6).put(50)
    assert outlet.failed.keys() == {7}
    assert outlet.failed[7].cause == "post: timed out"


async def test_a_row_that_never_ends_in_the_thread_keeps_no_other_waiting(functions: Path) -> None:
    outlet = await Outlet(functions, "waits", workers=0, timeout=0.6).put(50)
    assert outlet.failed.keys() == {7}
    assert outlet.failed[7].cause == "post: timed out"
    assert len(outlet.results) == 50


async def test_what_functions_print_goes_to_the_log(
    functions: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, "batchrun"):
        await Outlet(functions, "talks", workers=1).put(3)
    assert capfd.readouterr() == ("", "")
    said = [record.getMessage() for record in caplog.records if "output" in record.name]
    assert sorted(said) == ["from below"] * 3 + ["row 0", "row 1", "row 2"] + ["to stderr"] * 3


async def test_what_functions_print_in_the_thread_goes_to_the_log_and_other_output_does_not(
    functions: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    outlet = Outlet(functions, "prints", workers=0)
    with caplog.at_level(logging.INFO, "batchrun"):
        putting = asyncio.create_task(outlet.put(3))
        await asyncio.sleep(0)
        print("mine")
        await putting
    assert capsys.readouterr().out == "mine\n"
    assert [record.getMessage() for record in caplog.records if "output" in record.name] == ["row 0", "row 1", "row 2"]


async def test_no_worker_sees_a_secret(functions: Path) -> None:
    environ = {**os.environ, "MY_API_KEY": "canary-1", "PLAIN": "canary-2 inside", "NAMED": "canary-3", "HARMLESS": "x"}
    choices = {"secret_names": frozenset({"NAMED"}), "secret_values": ("canary-2",), "workers": 1}
    outlet = await Outlet(functions, "environment", **choices).put(1, environ)
    text = json.dumps(outlet.added)
    assert "HARMLESS" in text
    assert "canary" not in text


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "db_password", "GOOGLE_CREDENTIALS", "SECRET_2"]
)
def test_variables_named_like_secrets_are_taken_out(name: str) -> None:
    assert without_secrets({name: "x", "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize("name", ["PWD", "TOKENIZERS_PARALLELISM", "KEYBOARD", "XAUTHORITY", "HOME"])
def test_other_variables_stay(name: str) -> None:
    assert name in without_secrets({name: "x"})


async def test_a_worker_has_no_standard_input(functions: Path) -> None:
    outlet = await Outlet(functions, "reads", workers=1).put(1)
    assert outlet.results == {0: Value('""', None)}


async def test_a_class_is_made_once_in_each_worker(functions: Path) -> None:
    outlet = await Outlet(functions, "Once", workers=2).put(400)
    calls: dict[int, list[int]] = {}
    for row in outlet.added:
        calls.setdefault(row["pid"], []).append(row["calls"])
    assert len(calls) <= 2
    assert all(sorted(own) == list(range(1, len(own) + 1)) for own in calls.values())


async def test_coroutines_wait_together_but_not_more_than_may(functions: Path) -> None:
    outlet = await Outlet(functions, "together", workers=1, concurrency=5).put(40)
    assert max(row["most"] for row in outlet.added) == 5
    assert len(outlet.added) == 40


async def test_a_coroutine_that_blocks_its_loop_is_named(functions: Path) -> None:
    outlet = await Outlet(functions, "blocks", workers=1).put(2)
    assert list(outlet.blocked) == ["functions.py:blocks"]
    assert outlet.blocked["functions.py:blocks"] > 0.14


async def test_a_coroutine_that_takes_too_long_fails_alone(functions: Path) -> None:
    outlet = await Outlet(functions, "stuck", workers=1, timeout=0.6).put(20)
    assert outlet.failed.keys() == {7}
    assert outlet.failed[7].cause == "post: timed out"


async def test_a_full_stage_makes_rows_wait_and_says_so(functions: Path) -> None:
    outlet = await Outlet(functions, "slow", workers=1).put(400)
    assert outlet.busy[:2] == [True, False]
    assert outlet.busy.count(True) == outlet.busy.count(False)
    assert len(outlet.results) == 400


async def test_a_row_waits_until_its_reply_is_safe(functions: Path) -> None:
    came: list[int] = []
    first = asyncio.Event()

    async def deliver(results: Sequence[tuple[int, Result]]) -> None:
        came.extend(number for number, _ in results)
        first.set()

    stage = PostQueue(Choices(specs=(f"{functions}:where",), workers=0), deliver, environ={})
    safe, lost = asyncio.get_running_loop().create_future(), asyncio.get_running_loop().create_future()
    await stage.put(1, Item("a"), safe)
    await stage.put(2, Item("b"), lost)
    await stage.put(3, Item("c"))
    await first.wait()
    assert came == [3]
    safe.set_result(None)
    lost.set_exception(OSError("disk full"))
    await stage.drain()
    await stage.close()
    assert came == [3, 1]


@pytest.mark.parametrize("early", [True, False])
async def test_a_stage_in_a_hurry_lets_nobody_wait_and_ends_soon(
    functions: Path, monkeypatch: pytest.MonkeyPatch, *, early: bool
) -> None:
    monkeypatch.setattr("batchrun.post.queue.LINGER", 0.3)
    came: list[int] = []

    async def deliver(results: Sequence[tuple[int, Result]]) -> None:
        came.extend(number for number, _ in results)

    stage = PostQueue(Choices(specs=(f"{functions}:hangs",), workers=2), deliver, environ=dict(os.environ))
    if early:
        stage.end_soon()
    async with asyncio.timeout(PATIENCE):
        for number in range(500 if early else 20):
            await stage.put(number, Item("a", json.dumps({"n": number})))
        if not early:
            asyncio.get_running_loop().call_later(0.5, stage.end_soon)
        await stage.drain()
    await stage.close()
    assert 7 not in came


async def test_a_hurry_counts_the_rows_that_wait_outside_too(functions: Path) -> None:
    async def deliver(results: object) -> None:
        raise AssertionError("nothing comes out")

    stage = PostQueue(Choices(specs=(f"{functions}:hangs",), workers=1), deliver, environ=dict(os.environ))
    puts = [asyncio.create_task(stage.put(n, Item("a", '{"n": 7}'))) for n in range(100)]
    await asyncio.sleep(0)
    assert stage.inside < stage.end_soon() == 100
    await asyncio.gather(*puts)
    await stage.close()


async def test_workers_that_die_at_once_fail_every_row_however_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchrun.post.pool.REBUILDS", 1)
    monkeypatch.setattr("batchrun.post.pool.LOOK", 0.1)
    path = tmp_path / "dies.py"
    path.write_text(
        "import multiprocessing, os\n"
        "if multiprocessing.parent_process() is not None:\n"
        "    os._exit(3)\n"
        "def reads(reply):\n"
        "    return None\n",
        encoding="utf-8",
    )
    causes: list[str] = []

    async def deliver(results: Sequence[tuple[int, Result]]) -> None:
        causes.extend(result.cause for _, result in results if isinstance(result, Failure))

    stage = PostQueue(Choices(specs=(f"{path}:reads",), workers=2), deliver, environ=dict(os.environ))
    for number in range(8):
        await stage.put(number, Item("long " * 40_000))  # more than a pipe holds: the pool keeps the rest in a queue
    async with asyncio.timeout(PATIENCE):
        await stage.drain()
    await stage.close()
    assert causes == ["post: no workers"] * 8


@pytest.mark.parametrize("turns", [0, 1, 2, 4])
async def test_a_stage_that_is_closed_while_its_workers_start_leaves_none(functions: Path, turns: int) -> None:
    async def deliver(results: object) -> None:
        raise AssertionError("nothing comes out")

    stage = PostQueue(Choices(specs=(f"{functions}:hangs",), workers=1), deliver, environ=dict(os.environ))
    await stage.put(0, Item("a", '{"n": 7}'))
    for _ in range(turns):
        await asyncio.sleep(0)
    await stage.close()
    assert worker_processes() == []
    assert "post output" not in {thread.name for thread in threading.enumerate()}


async def test_an_abandoned_stage_leaves_no_process_and_no_thread(functions: Path) -> None:
    async def deliver(results: object) -> None:
        raise AssertionError("nothing comes out")

    stage = PostQueue(Choices(specs=(f"{functions}:hangs",), workers=2), deliver, environ=dict(os.environ))
    stage.start()
    await stage.put(0, Item("a", '{"n": 7}'))
    await asyncio.sleep(0.2)
    stage.abandon()
    await stage.drain()  # the function never ends
    await stage.close()
    assert worker_processes() == []
    assert "post output" not in {thread.name for thread in threading.enumerate()}


def worker_processes() -> list[int]:
    """The children of this process that were spawned to work; not the tracker that multiprocessing keeps."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    return [int(pid) for pid in children if b"spawn_main" in command_of(pid)]


def command_of(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
