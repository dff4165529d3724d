"""Senders that are actors of a cluster, without one: what becomes of calls that fail, where senders are placed, and who may say
so. `test_ray.py` has the real one."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from batchrun.client.senders.actor import SenderActor
from batchrun.client.senders.actors import UNREACHABLE, Actors, ActorTransport
from batchrun.client.senders.states import Offset
from batchrun.cluster import messages
from batchrun.cluster.driver import ActorLostError, Node
from batchrun.cluster.messages import PIECE
from batchrun.errors import RefusedError
from batchrun.plan.settings import Settings, settings_of
from batchrun.plan.signed_settings import senders_of_new_run, senders_on_resume


class Echo:
    """A sender that says what it hears."""

    def __init__(self, actor: SenderActor) -> None:
        self.heard = b""
        self._actor = actor

    def received(self, data: bytes) -> None:
        self.heard += data
        self._actor._queue(data)  # pyright: ignore[reportPrivateUsage]  as its sender does


class Made:
    """A driver with one actor. `fails` may be what a call raises, before it is carried out or after."""

    def __init__(self, fails: Callable[[], str] = lambda: "") -> None:
        self.actor = SenderActor()
        self.echo = self.actor._sender = Echo(self.actor)  # pyright: ignore[reportPrivateUsage]  in the place of a real one
        self.fails = fails
        self.killed: list[int] = []
        self.calls = 0
        self.largest = 0

    async def call(self, _: int, method: str, *arguments: Any) -> Any:
        self.calls += 1
        self.largest = max(self.largest, *map(len, arguments[3:]), 0)
        fails = self.fails()
        await asyncio.sleep(0.002)
        if fails == "before":
            raise ActorLostError("unavailable", by_node=True, unavailable=True)
        result = await getattr(self.actor, method)(*arguments)
        if fails == "after":
            raise ActorLostError("unavailable", by_node=True, unavailable=True)
        if fails == "died":
            raise ActorLostError("it is dead", by_node=False)
        return result

    def kill(self, number: int) -> None:
        self.killed.append(number)


class Heard:
    """What a transport hears."""

    def __init__(self) -> None:
        self.data = b""
        self.why: list[str] = []

    def received(self, data: bytes) -> None:
        self.data += data

    def gone(self, why: str) -> None:
        self.why.append(why)


def transport(made: Made, heard: Heard) -> ActorTransport:
    return ActorTransport(made, 1, heard, lambda _: None)  # type: ignore[arg-type]


@pytest.mark.looptime
@pytest.mark.parametrize("seed", range(8))
async def test_frames_arrive_once_and_in_order_whichever_calls_fail(seed: int) -> None:
    chance = random.Random(seed)
    made, heard = Made(lambda: chance.choice((*[""] * 8, "before", "after"))), Heard()
    one = transport(made, heard)
    sent = b""
    for number in range(60):
        frame = f"frame {number}, ".encode() * chance.choice((1, 3, 20_000))
        sent += frame
        one.write(frame)
        await asyncio.sleep(chance.choice((0.0, 0.01, 0.1)))
    while len(heard.data) < len(sent) and not heard.why:  # noqa: ASYNC110  the clock is fake
        await asyncio.sleep(0.5)
    await one.close()
    assert not heard.why
    assert made.echo.heard == sent
    assert heard.data == sent
    assert made.largest <= PIECE


async def test_messages_of_rays_driver_are_read_whole_until_the_end() -> None:
    stream = asyncio.StreamReader()
    said = [(1, None, b"x" * 70_000), (2, "died", "why"), (3, None, [("node", 2)])]
    data = b"".join(map(messages.packed, said))
    for start in range(0, len(data), 999):
        stream.feed_data(data[start : start + 999])
    stream.feed_eof()
    assert [await messages.received(stream) for _ in said] == [*said[:2], (3, None, (("node", 2),))]
    with pytest.raises(EOFError):
        await messages.received(stream)


@pytest.mark.looptime
async def test_without_anything_to_say_there_is_a_call_a_second() -> None:
    made = Made()
    one = transport(made, Heard())
    await asyncio.sleep(60)
    await one.close()
    assert 50 <= made.calls <= 70


@pytest.mark.looptime
@pytest.mark.parametrize(("fails", "why"), [("died", "it is dead"), ("before", "its node cannot be reached")])
async def test_an_actor_that_is_dead_or_out_of_reach_is_gone(fails: str, why: str) -> None:
    made, heard = Made(lambda: fails), Heard()
    one = transport(made, heard)
    one.write(b"frame")
    await asyncio.sleep(UNREACHABLE + 1.0)
    assert heard.why == [why]
    assert not made.echo.heard or fails == "died"
    await one.close()


class Nodes(Made):
    """A cluster with these nodes."""

    ended = False

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.there = names
        self.on: list[str] = []

    async def nodes(self) -> list[Node]:
        return [Node(name, 1) for name in self.there]

    async def make(self, _: int, node: str, *arguments: Any) -> str | None:
        self.on.append(node)
        return "ModuleNotFoundError: No module named 'aiohttp'" if node == "bare" else None


@pytest.mark.looptime
async def test_senders_are_spread_over_the_nodes_and_one_that_cannot_start_says_why() -> None:
    actors, made = Actors("head:1", 4, {}), Nodes("a", "b")
    actors._driver = made  # type: ignore[assignment]
    placed = [await actors.start(Heard()) for _ in range(4)]
    assert sorted(made.on) == ["a", "a", "b", "b"]
    await placed[made.on.index("b")].close()
    made.there = ("a", "b", "bare")
    with pytest.raises(OSError, match="No module named 'aiohttp'"):
        await actors.start(Heard())
    assert made.on[-1] == "bare"
    for one in placed:
        await one.close()


async def test_where_nobody_is_the_run_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        async with Actors("127.0.0.1:1", 2, {}):
            pass


def test_two_clocks_differ_by_the_smallest_delay_seen_lately() -> None:
    offset = Offset()
    for now, delay in ((0, 5.3), (1, 5.1), (2, 5.2)):
        offset.update(delay, now)
    assert offset.seconds == 5.1
    offset.update(5.4, 62)
    assert offset.seconds == 5.1, "what was seen a minute ago still counts"
    offset.update(5.4, 123)
    assert offset.seconds == 5.4, "clocks drift"


@pytest.fixture
def _state(alone: None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.mark.usefixtures("_state")
@pytest.mark.parametrize(("said", "kept"), [("3", 3), ("node", "node"), ("NODE", "node"), (2, 2)])
def test_senders_are_a_number_or_one_on_each_node(said: Any, kept: int | str) -> None:
    made = senders_of_new_run(settings_of({"senders": said, "ray": "10.0.0.1:6379"}))
    assert (made["senders"], made["senders_ray"]) == (kept, "10.0.0.1:6379")
    assert senders_of_new_run(settings_of({"senders": said}))["senders_ray"] == "auto"


@pytest.mark.parametrize("said", ["0", "-1", "nodes", "two", ""])
def test_other_words_are_refused(said: str) -> None:
    with pytest.raises(ValueError, match="must be a whole number, or node"):
        settings_of({"senders": said})


def test_children_and_actors_are_not_mixed() -> None:
    with pytest.raises(RefusedError, match="--senders and --processes"):
        senders_of_new_run(Settings(senders=2, processes=2))


@pytest.mark.usefixtures("_state")
def test_a_journal_from_elsewhere_sends_no_request_from_its_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from test_plan_post_settings import plan  # noqa: PLC0415  a plan as it is journaled

    before = plan()
    named = senders_of_new_run(Settings(senders="node", ray="10.0.0.1:6379"))
    here = replace(before, **named)
    assert senders_on_resume(here, Settings(), ()) == {}
    assert senders_on_resume(here, Settings(processes=1), ("processes",))["senders"] is None
    assert senders_on_resume(here, Settings(ray="10.0.0.2:6379"), ("ray",))["senders_ray"] == "10.0.0.2:6379"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    with pytest.raises(RefusedError, match="was not chosen on this machine"):
        senders_on_resume(here, Settings(), ())
    typed = Settings(senders="node", ray="10.0.0.1:6379")
    assert senders_on_resume(here, typed, ("senders", "ray"))["senders_ray"] == "10.0.0.1:6379"
