"""Coroutine functions: rows in flight on the event loop of each worker, handed over as others end."""

import asyncio
import json
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_post_queue import Outlet

from batchrun.post import Failure, Item, Result, Value
from batchrun.post.async_worker import MOST, AsyncWorker
from batchrun.post.event_loop import EventLoopWorker, UnknownRowsError, worker
from batchrun.post.load import load
from batchrun.post.pool import LostError, Pool
from batchrun.post.reply import KEPT, Done, Shard, Task
from batchrun.post.worker import Setup

SOURCE = """
import asyncio, os, signal, time

late = asyncio.Event()
async def first_waits_for_a_late_one(reply):
    if reply.fields["n"] == 0:
        await late.wait()
    if reply.fields["n"] == 90:
        late.set()
    await asyncio.sleep(0)
    return reply.fields["n"]

async def deadly(reply):
    await asyncio.sleep(0.01)
    if reply.fields["n"] == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(0.01)
    return reply.fields["n"]

async def leaves(reply):
    await asyncio.sleep(0.01)
    if reply.fields["n"] == 7:
        os._exit(0)
    return reply.fields["n"]

async def hangs(reply):
    if reply.fields["n"] == 7:
        time.sleep(20)
    await asyncio.sleep(0)
    return reply.fields["n"]

async def stubborn(reply):
    while reply.fields["n"] == 7:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
    return reply.fields["n"]

async def ends_in_a_task(reply):
    async def leave():
        raise SystemExit(3)
    if reply.fields["n"] == 7:
        await asyncio.create_task(leave())
    await asyncio.sleep(0.01)
    return reply.fields["n"]

async def where(reply):
    await asyncio.sleep(0.001)
    return {"pid": os.getpid()}

async def heavy(reply):
    end = time.thread_time() + 0.001
    while time.thread_time() < end:
        pass
    return {"pid": os.getpid()}

async def heavy_after_a_nap(reply):
    if reply.fields["n"] == 0:
        time.sleep(0.04)
    return await heavy(reply)

async def waits(reply):
    await asyncio.sleep(3600)

async def at_once(reply):
    return reply.text

class Resource:
    def __init__(self):
        self.loop = asyncio.get_running_loop()
    async def __call__(self, reply):
        return self.loop is asyncio.get_running_loop()
"""


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    path = tmp_path / "coroutines.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_slow_row_keeps_no_other_from_the_loop(functions: Path, workers: int) -> None:
    outlet = await Outlet(functions, "first_waits_for_a_late_one", workers=workers, concurrency=4).put(100)
    assert outlet.results == {n: Value(str(n), None) for n in range(100)}
    assert next(iter(outlet.results)) != 0


@pytest.mark.parametrize(
    ("name", "said"),
    [("deadly", "killed by SIGKILL"), ("leaves", "exit code 70"), ("hangs", "no result after 0.6 s (--post-timeout)")],
)
async def test_of_rows_in_flight_only_the_one_at_fault_fails(functions: Path, name: str, said: str) -> None:
    outlet = await Outlet(functions, name, workers=2, concurrency=6, timeout=0.6).put(60)
    assert outlet.failed.keys() == {7}
    assert said in outlet.failed[7].message
    assert {n: r for n, r in outlet.results.items() if n != 7} == {n: Value(str(n), None) for n in range(60) if n != 7}


@pytest.mark.parametrize(("name", "workers"), [("hangs", 0), ("stubborn", 0), ("stubborn", 1), ("hangs", None)])
async def test_a_row_that_does_not_end_fails_alone_wherever_it_runs(
    functions: Path, name: str, workers: int | None
) -> None:
    outlet = await Outlet(functions, name, workers=workers, concurrency=6, timeout=0.6).put(30)
    assert outlet.failed == {7: Failure("post: timed out", "no result after 0.6 s (--post-timeout)")}
    assert len(outlet.results) == 30


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_task_that_would_end_the_process_fails_its_row(functions: Path, workers: int) -> None:
    outlet = await Outlet(functions, "ends_in_a_task", workers=workers, concurrency=6, timeout=5).put(30)
    assert {n: failure.cause for n, failure in outlet.failed.items()} == {7: "post: SystemExit"}
    assert len(outlet.results) == 30


async def test_a_new_worker_does_not_pass_for_the_one_that_had_the_rows(functions: Path) -> None:
    pool = Pool(1, Setup((f"{functions}:where",), concurrency=2, timeout=5, batch=False), os.environ)
    try:
        with pytest.raises(LostError) as lost:
            await pool.run(Shard([], held=3), 5)
        assert lost.value.failure.cause == "post: worker died"
    finally:
        await pool.close()


async def test_rows_are_shared_evenly_between_the_workers(functions: Path) -> None:
    outlet = await Outlet(functions, "where", workers=2, concurrency=16).put(12)
    pids = [row["pid"] for row in outlet.added]
    assert sorted(pids.count(pid) for pid in set(pids)) == [6, 6]


@pytest.mark.parametrize(("name", "moves"), [("where", False), ("heavy", True), ("heavy_after_a_nap", True)])
async def test_coroutines_move_to_processes_if_they_compute(functions: Path, name: str, *, moves: bool) -> None:
    outlet = await Outlet(functions, name, concurrency=8).put(200)
    here = [row["pid"] for row in outlet.added].count(os.getpid())
    assert len(outlet.added) == 200
    assert here <= 20 if moves else here == 200
    assert (outlet.workers > 0) is moves


async def test_a_class_is_made_on_the_loop_that_its_rows_run_on(functions: Path) -> None:
    outlet = await Outlet(functions, "Resource", workers=1).put(3)
    assert list(outlet.results.values()) == [Value("true", None)] * 3


@pytest.fixture
def flight(functions: Path) -> Iterator[EventLoopWorker]:
    own = worker(load([f"{functions}:stubborn"]), concurrency=2, timeout=60, batch=False)
    assert isinstance(own, EventLoopWorker)
    yield own
    own.close()


def item(number: int) -> Item:
    return Item("text", json.dumps({"n": number}))


def test_a_row_in_flight_does_not_hold_back_what_comes_later(flight: EventLoopWorker) -> None:
    assert flight.run(Shard([item(7)], first=10)).numbers == []
    shard, came = Shard([item(n) for n in range(3)], first=11, held=1), dict[int, Result]()
    while len(came) < 3:
        done = flight.run(shard)
        came |= zip(done.numbers, done.results, strict=True)
        shard = Shard([], first=14, held=4 - len(came))
    assert came == {11 + n: Value(str(n), None) for n in range(3)}
    assert flight.run(shard).numbers == []


def test_a_worker_refuses_to_answer_for_rows_that_it_was_not_given(flight: EventLoopWorker) -> None:
    flight.run(Shard([item(7)], first=3))
    with pytest.raises(UnknownRowsError):
        flight.run(Shard([item(1)], first=9, held=5))
    assert flight.run(Shard([item(2)], first=10)).results == [Value("2", None)]


class Backend:
    """A worker whose answers are written down beforehand: numbers that end, or that it is lost."""

    def __init__(self, *answers: list[int] | LostError) -> None:
        self.answers = deque(answers)
        self.shards: list[tuple[list[str], int, int]] = []

    async def run(self, shard: Shard, seconds: float, grace: float = 0.0) -> Done:
        self.shards.append(([one.text for one in shard.items], shard.first, shard.held))
        answer = self.answers.popleft()
        if isinstance(answer, LostError):
            raise answer
        return Done([KEPT] * len(answer), 0.0, 0.0, {}, answer)


def worker_with(*answers: list[int] | LostError, concurrency: int = 3) -> tuple[AsyncWorker, Backend]:
    backend: Any = Backend(*answers)
    return AsyncWorker(backend, concurrency=concurrency, timeout=1.0), backend


def tasks(count: int) -> deque[Task]:
    return deque((f"row {n}", Item(str(n))) for n in range(count))


async def test_a_lane_fills_the_places_of_the_rows_that_have_ended() -> None:
    async_worker, backend = worker_with([], [1], [])
    queue = tasks(5)
    ended: list[Any] = []
    for _ in range(3):
        results, _ = await async_worker.turn(async_worker.take(queue, 100))
        ended += results
    assert backend.shards[0] == (["0", "1", "2"], 0, 0)
    assert backend.shards[1] == ([], 3, 3)
    assert backend.shards[2][1:] == (3, 2)
    assert ended == [("row 1", KEPT)]


async def test_a_fast_loop_is_given_rows_ahead_but_not_without_end() -> None:
    async_worker, _ = worker_with(list(range(3)), [], concurrency=3)
    await async_worker.turn(async_worker.take(tasks(3), 100))
    assert 3 < async_worker.capacity <= 3 + MOST


async def test_rows_of_a_lost_worker_are_run_alone_before_any_others() -> None:
    failure = Failure("post: worker died", "killed")
    async_worker, backend = worker_with(LostError(failure), [3], LostError(failure), [], [5], concurrency=3)
    queue = tasks(9)
    ended: list[Any] = []
    while backend.answers:
        results, _ = await async_worker.turn(async_worker.take(queue, 100))
        ended += results
    assert [texts for texts, _, _ in backend.shards] == [["0", "1", "2"], ["0"], ["1"], ["2"], []]
    assert ended == [("row 0", KEPT), ("row 1", failure), ("row 2", KEPT)]
    assert async_worker.held == 0
    assert [token for token, _ in async_worker.take(queue, 2)] == ["row 3", "row 4"]


async def test_rows_in_flight_are_given_up_with_the_stage(functions: Path) -> None:
    outlet = Outlet(functions, "waits", workers=1, concurrency=4)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await outlet.put(10)
    assert outlet.results == {}
