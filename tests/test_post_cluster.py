"""Post-processing on a cluster, with a driver that is made up: who is given what, and what becomes of rows whose actor is
lost. `test_ray.py` has the real one."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE

from batchrun.cluster import address
from batchrun.cluster.address import check_address, found, refusal_of
from batchrun.cluster.driver import ActorLostError, DriverLostError, Node
from batchrun.errors import RefusedError
from batchrun.events import PostChanged
from batchrun.post import Choices, Failure, Item, PostQueue, Result, Value, queue
from batchrun.post.actor import pack_done, pack_shard, unpack_shard
from batchrun.post.cluster import Cluster, OneActor, Order, receiver, slots_of
from batchrun.post.pool import LostError
from batchrun.post.reply import Done, Shard
from batchrun.post.worker import Setup
from batchrun.report.event_log import level_and_text

TWO = [Node("a", 1), Node("b", 1)]
SETUP = Setup(("strip",), 16, 5.0, False)


class Made:
    """A driver of a cluster that is made up. Rows take `seconds`, a shard and its answer `way`
    each; `does` may do something else for a row."""

    def __init__(self, *nodes: Node, seconds: float = 0.001, way: float = 0.0) -> None:
        self.there = list(nodes)
        self.seconds = seconds
        self.way = way
        self.result = ""
        self.waited = 0
        self.full: set[str] = set()
        self.refusal: Failure | None = None
        self.does: Callable[[int, int], Awaitable[None]] | None = None
        self.actors: dict[int, str] = {}
        self.placed: dict[int, str] = {}
        self.calls: dict[int, list[int]] = {}
        self.turns: dict[int, asyncio.Lock] = {}
        self.shards: list[tuple[str, list[int]]] = []
        self.killed: list[int] = []
        self.joined = 0
        self.closed = 0
        self.failing: Exception | None = None

    async def join(self, address: str) -> None:
        self.joined += 1
        if self.failing is not None:
            raise self.failing

    async def nodes(self) -> list[Node]:
        if self.failing is not None:
            raise self.failing
        return list(self.there)

    async def create(self, number: int, node: str, setup: Setup) -> Failure | None:
        if node in self.full:
            await asyncio.Event().wait()
        await asyncio.sleep(0.5)
        if self.failing is not None:
            raise self.failing
        if node not in {each.id for each in self.there}:
            raise ActorLostError("cannot be placed", by_node=True)
        self.actors[number] = self.placed[number] = node
        return self.refusal

    async def run(self, number: int, shard: bytes) -> bytes:
        data = unpack_shard(shard)
        calls = self.calls.setdefault(number, [])
        self.waited += len(calls)
        calls.append(len(data.items))
        assert len(calls) == 1 or (len(calls) == 2 and min(calls) > 1), f"{calls} rows at one actor"
        try:
            await asyncio.sleep(self.way)
            async with self.turns.setdefault(number, asyncio.Lock()):
                done = await self._work(number, data)
            await asyncio.sleep(self.way)
            if number not in self.actors:
                by_node = self.placed[number] not in {each.id for each in self.there}
                raise ActorLostError("it died before its answer had left", by_node=by_node)
            return done
        finally:
            calls.remove(len(data.items))

    async def _work(self, number: int, data: Shard) -> bytes:
        if self.failing is not None:
            raise self.failing
        if number not in self.actors:
            raise ActorLostError("it is dead", by_node=False)
        try:
            self.shards.append((self.actors[number], [item.line for item in data.items]))
            for item in data.items if self.does is not None else ():
                await self.does(number, item.line)
            await asyncio.sleep(self.seconds * len(data.items))
            numbers = range(data.first, data.first + len(data.items))
            results: list[Result] = [Value(self.result or str(item.line), None) for item in data.items]
            return pack_done(Done(results, self.seconds * len(results), 0.0, {}, numbers))
        except ActorLostError:
            self.actors.pop(number, None)
            raise

    def kill(self, number: int) -> None:
        self.killed.append(number)
        self.actors.pop(number, None)

    async def close(self) -> None:
        self.closed += 1

    async def lose_node(self, name: str) -> None:
        """A machine is gone, with what was at work there."""
        self.there = [node for node in self.there if node.id != name]
        raise ActorLostError("its node is gone", by_node=True)


class Outlet:
    """Puts rows through a queue on the made-up cluster, and keeps what comes out."""

    def __init__(self, made: Made, monkeypatch: pytest.MonkeyPatch, spec: str = "strip", **choices: Any) -> None:
        monkeypatch.setattr(queue, "prepared", lambda *_: (made, SETUP))
        self.results: dict[int, Result] = {}
        self.choices = Choices(specs=(spec,), ray="head:6379", timeout=5.0, **choices)
        self.queue = PostQueue(self.choices, self._deliver, environ={})

    async def _deliver(self, results: list[tuple[int, Result]]) -> None:
        for number, result in results:
            assert number not in self.results, "delivered twice"
            self.results[number] = result

    async def put(self, count: int) -> "Outlet":
        await self.queue.join()
        try:
            for number in range(count):
                await self.queue.put(number, Item("text", line=number))
            async with asyncio.timeout(3600):
                await self.queue.drain()
        finally:
            await self.queue.close()
        return self

    @property
    def failed(self) -> dict[int, str]:
        return {number: result.cause for number, result in self.results.items() if isinstance(result, Failure)}


@pytest.mark.looptime
async def test_only_actors_that_have_answered_are_given_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(Node("a", 2), Node("full", 2))
    made.full = {"full"}
    outlet = await Outlet(made, monkeypatch).put(2000)
    assert (len(outlet.results), outlet.failed) == (2000, {})
    assert {node for node, _ in made.shards} == {"a"}
    assert made.closed == 1


@pytest.mark.looptime
async def test_a_shard_has_a_quarter_of_a_second_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(*TWO)
    await Outlet(made, monkeypatch).put(3000)
    assert max(len(lines) for _, lines in made.shards) == 250


@pytest.mark.looptime
async def test_actors_are_hardly_idle_between_shards_and_end_together(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(*TWO, seconds=0.002, way=0.002)
    outlet = Outlet(made, monkeypatch)
    clock = asyncio.get_running_loop().time
    await outlet.queue.join()
    await asyncio.sleep(1)
    for number in range(10):
        await outlet.queue.put(number, Item("text", line=number))
    await outlet.queue.drain()
    began = clock()
    for number in range(10, 5010):
        await outlet.queue.put(number, Item("text", line=number))
    await outlet.queue.drain()
    took = clock() - began
    await outlet.queue.close()
    assert len(outlet.results) == 5010
    assert 5.0 < took < 5.02


@pytest.mark.looptime
async def test_an_order_goes_to_an_idle_actor_or_waits_in_the_one_that_is_soonest_at_its_end() -> None:
    made = Made(seconds=1000.0)
    first, second, third, idle = (OneActor(made, number) for number in range(4))

    def order(rows: int) -> Order:
        return Order(pack_shard(Shard([Item("text")] * rows)), 5.0, 0.0, may_wait=rows > 1)

    for actor, rows in ((third, 1), (first, 9), (second, 9)):
        actor.send(order(rows))
        await asyncio.sleep(1)
    several, alone = order(9), order(1)
    assert receiver([second, first, third, idle], several) is idle
    assert receiver([second, first, third, idle], alone) is idle
    assert receiver([second, first, third], alone) is None
    assert receiver([second, first, third], several) is first
    first.send(several)
    assert receiver([second, first, third], several) is second
    assert receiver([first, third], several) is None, "behind a row that runs alone, or a third"
    assert [len(actor.lose()) for actor in (first, second, third, idle)] == [2, 1, 1, 0]


@pytest.mark.looptime
async def test_a_shard_that_waits_in_an_actor_that_is_lost_has_not_been_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(Node("a", 1), seconds=0.01, way=0.002)

    began: list[int] = []

    async def does(_: int, line: int) -> None:
        began.append(line)
        if line == 200:
            await asyncio.sleep(0.05)  # the answer before it has come, and a shard waits
            raise ActorLostError("it died", by_node=False)
        if began[-2:-1] == [200] and began.count(200) == 1:  # the shard that waited has its one more try
            raise ActorLostError("its node cannot be reached", by_node=True)

    made.does = does
    outlet = await Outlet(made, monkeypatch).put(400)
    assert (outlet.failed, len(outlet.results), made.waited > 2) == ({200: "post: worker died"}, 400, True)
    first, *others = [lines for _, lines in made.shards if 200 in lines]
    assert others == [[200]] * 2
    alone = {lines[0] for _, lines in made.shards if len(lines) == 1}
    assert {line for line in alone if 10 < line < 390} == set(first), "another shard was run row by row"


@pytest.mark.looptime
async def test_a_row_that_ends_its_actor_before_the_last_answer_has_left_fails_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Made(*TWO, seconds=0.01, way=0.002)

    async def does(_: int, line: int) -> None:
        if line == 200:
            raise ActorLostError("it died", by_node=False)

    made.does = does
    outlet = await Outlet(made, monkeypatch).put(400)
    assert (outlet.failed, len(outlet.results)) == ({200: "post: worker died"}, 400)
    tries = [len(lines) for _, lines in made.shards if 200 in lines]
    assert (tries[2:], tries[0] > 1, tries[1] > 1) == ([1, 1], True, True), "it was not put back once"


@pytest.mark.looptime
async def test_no_shard_waits_behind_one_whose_result_is_fetched_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(Node("a", 1), way=0.002)
    made.result = "x" * 10_000
    outlet = await Outlet(made, monkeypatch).put(2000)
    assert (outlet.failed, len(outlet.results)) == ({}, 2000)
    assert made.waited <= 2


@pytest.mark.looptime
async def test_a_shard_has_no_more_bytes_than_go_into_a_dozen_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(*TWO, seconds=0.0001)
    outlet = Outlet(made, monkeypatch)
    await outlet.queue.join()
    for number in range(200):
        await outlet.queue.put(number, Item("x" * 150_000, line=number))
    await outlet.queue.drain()
    await outlet.queue.close()
    assert max(len(lines) for _, lines in made.shards) == 6


@pytest.mark.looptime
async def test_a_row_that_kills_its_actor_and_one_that_hangs_fail_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(*TWO)

    async def does(_: int, line: int) -> None:
        if line == 777:
            raise ActorLostError("it died", by_node=False)
        if line == 900:
            await asyncio.sleep(3600)

    made.does = does
    outlet = await Outlet(made, monkeypatch).put(1000)
    assert outlet.failed == {777: "post: worker died", 900: "post: timed out"}
    assert len(outlet.results) == 1000


@pytest.mark.looptime
async def test_a_row_that_is_alone_fails_only_when_it_was_lost_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(*TWO, seconds=2.0)
    lost: list[int] = []

    async def does(_: int, line: int) -> None:
        if line == 3 and not lost:
            lost.append(line)
            raise ActorLostError("it was killed", by_node=False)

    made.does = does
    outlet = await Outlet(made, monkeypatch).put(20)
    assert (lost, outlet.failed, len(outlet.results)) == ([3], {}, 20)


@pytest.mark.looptime
async def test_an_actor_that_dies_while_it_is_idle_costs_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(*TWO, seconds=2.0)
    outlet = Outlet(made, monkeypatch)
    await outlet.queue.join()
    await asyncio.sleep(1)
    made.actors.clear()
    await outlet.put(4)
    assert (outlet.failed, len(outlet.results)) == ({}, 4)


@pytest.mark.looptime
async def test_a_node_that_is_gone_costs_its_rows_one_more_try(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(*TWO)

    async def does(number: int, line: int) -> None:
        if line > 1000 and made.actors[number] == "b":
            await made.lose_node("b")

    made.does = does
    outlet = await Outlet(made, monkeypatch).put(4000)
    assert (outlet.failed, len(outlet.results)) == ({}, 4000)
    assert sum(len(lines) == 1 for _, lines in made.shards) < 100, "its shard was run again row by row"


@pytest.mark.looptime
async def test_a_node_that_joins_later_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(Node("a", 1), seconds=0.01)

    async def does(_: int, line: int) -> None:
        if line == 500 and len(made.there) == 1:
            made.there.append(Node("later", 1))

    made.does = does
    await Outlet(made, monkeypatch).put(5000)
    assert {node for node, _ in made.shards} == {"a", "later"}


@pytest.mark.looptime
async def test_without_an_actor_for_ten_minutes_rows_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(Node("full", 4))
    made.full = {"full"}
    outlet = Outlet(made, monkeypatch)
    await outlet.queue.join()
    began = asyncio.get_running_loop().time()
    made.there.append(Node("a", 1))
    await asyncio.sleep(12)
    made.there.pop()
    for number in range(4):
        await outlet.queue.put(number, Item("text", line=number))
    await outlet.queue.drain()
    assert outlet.failed == {}
    made.does = lambda *_: made.lose_node("a")
    made.full = {"full", "a"}
    for number in range(4, 8):
        await outlet.queue.put(number, Item("text", line=number))
    await outlet.queue.drain()
    await outlet.queue.close()
    assert outlet.failed == dict.fromkeys(range(4, 8), "post: no workers")
    assert 600 < asyncio.get_running_loop().time() - began < 650


@pytest.mark.looptime
async def test_after_its_driver_has_ended_the_cluster_is_joined_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(*TWO)

    async def does(_: int, line: int) -> None:
        if line == 1000 and made.failing is None and made.joined == 1:
            made.failing = DriverLostError()
            made.actors.clear()
            asyncio.get_running_loop().call_later(8, setattr, made, "failing", None)
        if made.failing is not None:
            raise made.failing

    made.does = does
    outlet = await Outlet(made, monkeypatch).put(4000)
    assert (outlet.failed, len(outlet.results)) == ({}, 4000)
    assert made.joined > 1


@pytest.mark.looptime
async def test_what_the_first_actor_cannot_import_refuses_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(*TWO)
    made.refusal = Failure("post: RefusedError", "there is no module named torch")
    with pytest.raises(RefusedError, match="cannot use --post: there is no module named torch"):
        await Outlet(made, monkeypatch).queue.join()
    assert made.closed == 1


@pytest.mark.looptime
async def test_a_cluster_that_does_not_answer_refuses_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(*TWO)
    made.join = lambda _: asyncio.Event().wait()  # type: ignore[method-assign, assignment]
    with pytest.raises(RefusedError, match="nothing answered as Ray within 30 s"):
        await Outlet(made, monkeypatch).queue.join()
    assert made.closed == 1


@pytest.mark.looptime
async def test_a_stop_is_not_kept_waiting_by_a_cluster_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(*TWO)
    made.join = lambda _: asyncio.Event().wait()  # type: ignore[method-assign, assignment]
    outlet = Outlet(made, monkeypatch)
    joining = asyncio.create_task(outlet.queue.join())
    await asyncio.sleep(1)
    outlet.queue.end_soon()
    await joining
    assert asyncio.get_running_loop().time() < 2


@pytest.mark.looptime
async def test_a_row_that_came_back_late_has_timed_out_all_the_same() -> None:
    made = Made(Node("a", 1), seconds=5.5)
    own = Cluster("head:6379", lambda: (made, SETUP))
    await own.join()
    with pytest.raises(LostError, match="no result after 5 s"):
        await own.run(Shard([Item("text")]), 5.0)
    await own.close()


@pytest.fixture
def coroutine(tmp_path: Path) -> str:
    path = tmp_path / "waits.py"
    path.write_text("async def waits(reply):\n    return reply.line\n", encoding="utf-8")
    return f"{path}:waits"


@pytest.mark.looptime
async def test_rows_in_flight_on_an_actor_that_dies_are_run_again_elsewhere(
    monkeypatch: pytest.MonkeyPatch, coroutine: str
) -> None:
    made = Made(*TWO)

    async def does(_: int, line: int) -> None:
        if line == 300:
            raise ActorLostError("it died", by_node=False)

    made.does = does
    outlet = await Outlet(made, monkeypatch, coroutine).put(1000)
    assert (outlet.failed, len(outlet.results)) == ({300: "post: worker died"}, 1000)
    assert {node for node, _ in made.shards} == {"a", "b"}


@pytest.mark.looptime
async def test_rows_in_flight_on_a_node_that_is_gone_are_run_again_elsewhere(
    monkeypatch: pytest.MonkeyPatch, coroutine: str
) -> None:
    made = Made(*TWO)

    async def does(number: int, line: int) -> None:
        if line > 100 and made.actors[number] == "b":
            await made.lose_node("b")

    made.does = does
    outlet = await Outlet(made, monkeypatch, coroutine).put(1000)
    assert (outlet.failed, len(outlet.results)) == ({}, 1000)


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (None, [("a", 0), ("b", 0), ("a", 1), ("a", 2)]),
        (2, [("a", 0), ("b", 0)]),
        (9, [("a", 0), ("b", 0), ("a", 1), ("a", 2)]),
    ],
)
def test_actors_are_spread_over_the_nodes(most: int | None, expected: list[tuple[str, int]]) -> None:
    assert slots_of([Node("a", 3), Node("b", 1), Node("no-processors", 0)], most) == expected


MISMATCH = """Version mismatch: The cluster was started with:
    Ray: 2.60.0
    Python: 3.11.7
This process on node 10.0.0.2:1 was started with:
    Ray: 2.60.0
    Python: 3.11.2
"""


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError(MISMATCH), "has Ray 2.60.0 on Python 3.11.7, and batchrun runs Ray 2.60.0 on Python 3.11.2"),
        (TimeoutError(), "nothing answered as Ray"),
        (RuntimeError("RuntimeError: No node info found matching attributes: ''"), "nothing answered as Ray"),
        (RuntimeError("AuthenticationError: invalid token"), "requires a token"),
        (RuntimeError("ValueError: \x1b[36mno good\x1b[0m\nmore"), "cannot be joined: ValueError: "),
    ],
)
def test_why_a_cluster_cannot_be_joined_is_said_in_a_line(error: Exception, says: str) -> None:
    said = refusal_of("head:6379", error)
    assert says in said.message
    assert said.message.isprintable()
    assert said.hint


def test_nobody_at_the_address_is_refused_at_once() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(RefusedError, match=r"no Ray cluster at 127\.0\.0\.1:\d+: Connection refused"):
            check_address(f"127.0.0.1:{held.getsockname()[1]}")


@contextlib.contextmanager
def listening(says: bytes) -> Iterator[str]:
    """The address of something that says this to whoever comes first."""

    def answer(listener: socket.socket) -> None:
        with listener.accept()[0] as came:
            came.sendall(says)
            while came.recv(100):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as beside:
        beside.submit(answer, listener)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_listens_there_and_is_no_ray_is_refused_at_once(says: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "CONNECT", 0.2 if not says else PATIENCE)
    with (
        listening(says) as at,
        pytest.raises(RefusedError, match=r"no Ray cluster at 127.*: (timed out|the server there)"),
    ):
        check_address(at)


def test_what_speaks_as_a_head_does_is_taken_for_one() -> None:
    with listening(bytes([0, 0, 6, 4, 0, 0, 0, 0, 0]) + bytes(6)) as at:  # SETTINGS, as a server of gRPC begins
        check_address(at)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RefusedError, match='the extra "ray"'):
        check_address("127.0.0.1:1")


def test_auto_is_the_cluster_that_this_machine_is_a_node_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    current = tmp_path / "ray_current_cluster"
    monkeypatch.setattr(address, "_CURRENT", current)
    with pytest.raises(RefusedError, match="not a node of a Ray cluster"):
        found("auto")
    current.write_text("10.0.0.1:6379\n")
    assert found("auto") == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert (found("auto"), found("10.0.0.3:1")) == ("10.0.0.2:6379", "10.0.0.3:1")
    assert os.environ["RAY_ADDRESS"] == "10.0.0.2:6379"


@pytest.mark.parametrize(
    ("workers", "on_cluster", "where"),
    [
        (0, False, "in a thread"),
        (2, False, "in 2 worker processes"),
        (0, True, "waiting for a worker of the cluster"),
        (2, True, "in 2 worker processes"),
    ],
)
def test_the_log_says_where_rows_are(workers: int, on_cluster: bool, where: str) -> None:
    assert level_and_text(PostChanged(5, workers, 0.0, on_cluster))[1] == f"5 rows in post-processing {where}"
