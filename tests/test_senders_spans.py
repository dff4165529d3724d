"""Requests whose bodies stay in a file, which the sender reads."""

import asyncio
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest
from engine import Provider, ok
from test_senders import BEAT, Driver, Scene
from test_senders_run import Started
from wire import FaultServer, chat, whole

from batchrun.client.senders.frames import FULL, SLICE, Kind
from batchrun.client.senders.hub import Hub
from batchrun.client.senders.remote import RemoteClient
from batchrun.errors import UnreadableError
from batchrun.models import Endpoint, Exchange, Request, Span

BODIES = [orjson.dumps({"messages": [{"content": f"{number} {'é' * number}"}]}) for number in range(5)]


def spans(file: Path, bodies: list[bytes] = BODIES) -> list[Span]:
    """The bodies in a file, one behind the other."""
    file.write_bytes(b"".join(bodies))
    places = [sum(map(len, bodies[:number])) for number in range(len(bodies))]
    return [Span(str(file), at, len(body)) for at, body in zip(places, bodies, strict=True)]


def told(body: bytes | Span) -> Any:
    return [body.path, body.at, body.size] if isinstance(body, Span) else len(body)


def test_a_span_has_the_size_and_the_bytes_of_its_place_in_the_file(tmp_path: Path) -> None:
    found = spans(tmp_path / "texts")
    assert [bytes(span) for span in found] == BODIES
    assert [len(span) for span in found] == list(map(len, BODIES))
    request = Request(Endpoint.CHAT, found[3], None)
    assert (request.size, request.weight) == (len(BODIES[3]),) * 2


@pytest.mark.parametrize("file", ["missing", "short"])
async def test_a_span_that_is_not_all_there_is_refused_with_its_file(tmp_path: Path, file: str) -> None:
    (tmp_path / "short").write_bytes(b"{}")
    with pytest.raises(UnreadableError, match=f"cannot read a request from .*/{file}: ") as raised:
        bytes(Span(str(tmp_path / file), 1, 2))
    assert raised.value.hint == "restore the file, then resume the run"


@pytest.mark.looptime
async def test_a_sender_sends_the_bytes_of_the_file_beside_bodies_that_came_along(tmp_path: Path) -> None:
    driver = Driver(Provider())
    given: list[bytes | Span] = [*spans(tmp_path / "texts"), BODIES[2], BODIES[0]]
    leases = [[number, 0, 0, 60.0, 0.0, told(body)] for number, body in enumerate(reversed(given))]
    driver.says(Kind.LEASES, [driver.times(), 1, *leases], BODIES[0], BODIES[2])
    await asyncio.sleep(0.1)
    assert driver.provider.bodies == [orjson.loads(body) for body in (BODIES[0], BODIES[2], *reversed(BODIES))]
    assert driver.completed == [list(range(7))]


@pytest.mark.looptime
async def test_a_sender_sends_nothing_in_the_place_of_a_body_that_is_not_all_there(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(BODIES[1][:-1])
    driver = Driver(Provider())
    names = "missing", "short", "missing"
    leases = [[n, 0, 0, 60.0, 0.0, told(Span(str(tmp_path / names[n]), 0, len(BODIES[1])))] for n in range(3)]
    driver.says(Kind.LEASES, [driver.times(), 1, *leases])
    await asyncio.sleep(0.1)
    assert driver.provider.calls == []
    (frame,) = [frame for frame in driver.heard if frame.kind == Kind.COMPLETIONS]
    assert [(lease[0], lease[2], lease[3]) for lease in frame.head[1:]] == [(n, "unread", False) for n in range(3)]
    why, hint = frame.head[2][6]
    assert why == f"cannot read a request from {tmp_path}/short: it is shorter than the journal says"
    assert hint == "restore the file, then resume the run"


class Sizes:
    """A client that keeps of each request its size."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def send(self, request: Request, *, timeout: float) -> Exchange:  # noqa: ASYNC109  as the client's
        self.sizes.append(len(bytes(request.body)))
        return ok()("")


@pytest.mark.looptime
async def test_a_sender_has_a_body_only_while_it_sends_it(tmp_path: Path) -> None:
    given = spans(tmp_path / "texts", [b"x" * 500_000 for _ in range(40)])
    driver, client = Driver(Provider()), Sizes()
    driver.sender.clients[0] = client  # type: ignore[assignment]
    now = asyncio.get_running_loop().time()
    leases = [[n, 0, 0, 60.0, now + 0.01 * (n + 1), told(span)] for n, span in enumerate(given)]
    tracemalloc.start()
    try:
        driver.says(Kind.LEASES, [driver.times(), 1, *leases])
        await asyncio.sleep(1)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert client.sizes == [500_000] * 40
    assert most < 5_000_000


@pytest.mark.looptime
@pytest.mark.parametrize("reads_files", [True, False])
async def test_the_place_of_a_body_is_handed_over_only_to_senders_that_can_read_its_file(
    tmp_path: Path, reads_files: bool
) -> None:
    scene, found = Scene(1), spans(tmp_path / "texts")
    scene.hub = Hub(scene.start, 1, beat=BEAT, reads_files=reads_files)
    async with scene:
        tasks = [
            asyncio.create_task(scene.hub.send(0, Request(Endpoint.CHAT, body, None), 60.0))
            for body in (found[1], BODIES[2], found[3])
        ]
        await asyncio.sleep(0.1)
        (frame,) = [frame for frame in scene.wires[0].frames if frame.kind == Kind.LEASES]
        sent = [found[1], BODIES[2], found[3]] if reads_files else BODIES[1:4]
        assert [lease[5] for lease in frame.head[2:]] == list(map(told, sent))
        assert frame.bodies == b"".join(body for body in sent if isinstance(body, bytes))
        for task in tasks:
            task.cancel()


async def test_a_child_sends_the_bytes_of_the_file_and_says_what_it_cannot_read(tmp_path: Path) -> None:
    large = orjson.dumps({"messages": "y" * 3_000_000})
    found = spans(tmp_path / "texts", [*BODIES, large])
    async with (
        FaultServer(whole(chat())) as server,
        Hub(Started(), 1) as hub,
        RemoteClient(hub, base_url=server.base_url) as client,
    ):
        await hub.ready()
        for body in found:
            assert (await client.send(Request(Endpoint.CHAT, body, None), timeout=60)).status == 200
        beyond = Span(found[-1].path, found[-1].at + 1, found[-1].size)
        with pytest.raises(UnreadableError, match="texts: it is shorter than the journal says"):
            await client.send(Request(Endpoint.CHAT, beyond, None), timeout=60)
        with pytest.raises(UnreadableError, match="No such file"):
            await client.send(Request(Endpoint.CHAT, Span(f"{tmp_path}/gone", 0, 2), None), timeout=60)
        assert (await client.send(Request(Endpoint.CHAT, found[0], None), timeout=60)).status == 200
    assert [call.body for call in server.calls] == [*BODIES, large, BODIES[0]]


@pytest.mark.looptime
async def test_large_requests_and_their_answers_wait_for_no_frame_of_others(tmp_path: Path) -> None:
    span = Span(str(tmp_path / "texts"), 0, FULL)
    (tmp_path / "texts").write_bytes(b"x" * FULL)
    async with Scene(1) as scene:
        await asyncio.sleep(1)
        tasks = await scene.sends(1)
        for body, seconds, count in ((b"{}", SLICE / 4, 2), (b"{}", SLICE / 4, 2), (span, SLICE / 4, 4)):
            tasks.append(asyncio.create_task(scene.hub.send(0, Request(Endpoint.CHAT, body, None), 60.0)))
            await asyncio.sleep(seconds)
            assert len(scene.wires[0].leases) == count
        for task in tasks:
            task.cancel()
    driver = Driver(Provider())
    driver.sender.clients[0] = Sizes()  # type: ignore[assignment]
    driver.says(Kind.LEASES, [driver.times(), 1, [1, 0, 0, 60.0, 0.0, told(span)]])
    await asyncio.sleep(0)
    driver.says(Kind.LEASES, [driver.times(), 2, [2, 0, 0, 60.0, 0.0, told(span)]])
    await asyncio.sleep(0)
    assert driver.completed == [[1], [2]]
    driver.says(Kind.LEASES, [driver.times(), 3, [3, 0, 0, 60.0, 0.0, 2]], b"{}")
    await asyncio.sleep(SLICE / 4)
    assert driver.completed == [[1], [2]]
    await asyncio.sleep(SLICE)
    assert driver.completed == [[1], [2], [3]]
