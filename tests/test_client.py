"""One exchange, on a lane, over the session and over the SDK: the same promises for all wires."""

import asyncio
import gzip
import socket
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
from waiting import PATIENCE, a_while
from wire import (
    GARBAGE,
    LOST,
    FaultServer,
    Peer,
    chat,
    close,
    gzip_bomb,
    hang,
    head,
    large,
    raw,
    redirect,
    reset,
    slow_drip,
    whole,
)

from batchrun.client import Client, lane
from batchrun.client.exchange import LATE
from batchrun.client.wire import Answer
from batchrun.models import Endpoint, Fault, Request

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KEY = "sk-canary-0123456789"
BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hi \xc3\xa9"}], "x": 1.10}'
ASK = Request(Endpoint.CHAT, BODY, None)

Connect = Callable[..., Client]


def asking(prompt: str) -> Request:
    body = b'{"model": "m", "messages": [{"role": "user", "content": "%b"}]}' % prompt.encode()
    return Request(Endpoint.CHAT, body, None)


async def token() -> str:
    return KEY


@pytest.fixture(params=["lane", "session", "sdk"])
def connect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Makes a client for a server, over each of the wires."""
    if request.param != "lane":
        monkeypatch.setattr(lane, "TRIED", ())

    def make(server: FaultServer | str, **options: object) -> Client:
        base_url = server if isinstance(server, str) else server.base_url
        access = {"api_key": KEY} if request.param != "sdk" else {"token": token}
        return Client(**{"base_url": base_url, **access, "environ": {}, **options})

    return make


async def test_an_answer_comes_back_whole(connect: Connect):
    async with FaultServer(whole(chat("salut"), 200, ("X-RateLimit-Remaining-Requests", "41"))) as server:
        before = time.monotonic()
        async with connect(server) as client:
            exchange = await client.send(ASK, timeout=PATIENCE)
        after = time.monotonic()
    assert (exchange.status, exchange.fault, exchange.detail, exchange.sent) == (200, None, "", True)
    assert exchange.body == chat("salut")
    assert exchange.headers["x-ratelimit-remaining-requests"] == "41"
    assert before <= exchange.left <= exchange.ended <= after


async def test_the_server_sees_the_very_bytes_and_the_key(connect: Connect):
    async with FaultServer() as server, connect(server, headers={"X-Team": "blue"}) as client:
        await client.send(ASK, timeout=PATIENCE)
    call = server.calls[0]
    assert call.target == "/v1/chat/completions"
    assert call.body == BODY
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.headers["content-type"] == "application/json"
    assert call.headers["x-team"] == "blue"


async def test_nothing_about_this_machine_is_sent(connect: Connect, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    async with FaultServer() as server, connect(server) as client:
        await client.send(ASK, timeout=PATIENCE)
    names = set(server.calls[0].headers)
    assert not [name for name in names if name.startswith("x-stainless")]
    assert "openai-organization" not in names


async def test_each_endpoint_has_its_address(connect: Connect):
    async with FaultServer() as server, connect(server) as client:
        for endpoint in Endpoint:
            await client.send(Request(endpoint, b"{}", None), timeout=PATIENCE)
    assert [call.target for call in server.calls] == list(Endpoint)


async def test_a_form_says_by_what_its_parts_are_divided(connect: Connect):
    form = b'--x1\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x1--\r\n'
    async with FaultServer() as server, connect(server) as client:
        assert (await client.send(Request(Endpoint.TRANSCRIPTIONS, form, None), timeout=PATIENCE)).status == 200
        assert (await client.send(ASK, timeout=PATIENCE)).status == 200
    assert [call.headers["content-type"] for call in server.calls] == [
        "multipart/form-data; boundary=x1",
        "application/json",
    ]
    assert server.calls[0].body == form


async def test_the_address_of_the_environment_is_not_used(connect: Connect, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with FaultServer() as server, connect(server) as client:
        assert (await client.send(ASK, timeout=PATIENCE)).status == 200


STATUSES = [201, 299, 301, 400, 401, 404, 408, 418, 422, 429, 500, 502, 503, 529, 600, 999]


async def test_every_status_is_an_answer_and_is_asked_for_once(connect: Connect):
    script = [whole(b'{"detail": "x"}', status) for status in STATUSES]
    async with FaultServer(*script) as server, connect(server) as client:
        exchanges = [await client.send(ASK, timeout=PATIENCE) for _ in STATUSES]
    assert [(exchange.status, exchange.fault) for exchange in exchanges] == [(status, None) for status in STATUSES]
    assert {exchange.body for exchange in exchanges} == {b'{"detail": "x"}'}
    assert len(server.calls) == len(STATUSES)


async def test_a_redirect_is_not_followed(connect: Connect):
    statuses = [301, 302, 303, 307, 308]
    async with FaultServer() as elsewhere:
        script = [redirect(elsewhere.base_url, status) for status in statuses]
        async with FaultServer(*script) as server, connect(server) as client:
            exchanges = [await client.send(ASK, timeout=PATIENCE) for _ in statuses]
    assert [exchange.status for exchange in exchanges] == statuses
    assert {exchange.headers["location"] for exchange in exchanges} == {elsewhere.base_url}
    assert elsewhere.connections == 0


@pytest.mark.parametrize("name", LOST)
async def test_a_lost_answer_is_a_fault_that_may_be_paid(connect: Connect, name: str):
    async with FaultServer(LOST[name]) as server, connect(server) as client:
        exchange = await client.send(ASK, timeout=PATIENCE)
    assert (exchange.status, exchange.fault, exchange.sent, exchange.body) == (0, Fault.RESET, True, b"")
    assert exchange.detail
    assert len(server.calls) == 1


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_is_a_fault_and_no_crash(connect: Connect, name: str):
    async with FaultServer(GARBAGE[name]) as server, connect(server) as client:
        exchange = await client.send(ASK, timeout=PATIENCE)
    fault = Fault.ENCODING if name.startswith("gzip") else Fault.PROTOCOL
    assert (exchange.status, exchange.fault, exchange.sent) == (0, fault, True)
    assert 0 < len(exchange.detail) <= 500
    assert "\n" not in exchange.detail
    assert len(server.calls) == 1


ODD_ENCODINGS = {
    "br that a header names": whole(brotli.compress(chat()), 200, ("Content-Encoding", "br")),
    "zstd that a header names": whole(zstd.compress(chat()), 200, ("Content-Encoding", "zstd")),
    "deflate that a header names": whole(zlib.compress(chat()), 200, ("Content-Encoding", "deflate")),
    "gzip that no header names": whole(gzip.compress(chat())),
    "zstd that no header names": whole(zstd.compress(chat())),
}


@pytest.mark.parametrize("name", ODD_ENCODINGS)
async def test_what_is_compressed_unasked_is_read(connect: Connect, name: str):
    async with FaultServer(ODD_ENCODINGS[name]) as server, connect(server) as client:
        exchange = await client.send(ASK, timeout=PATIENCE)
    assert (exchange.status, exchange.body) == (200, chat())
    assert "br" not in server.calls[0].headers.get("accept-encoding", "identity")


@pytest.mark.parametrize(
    "broken", [gzip.compress(chat())[:-30], b"\x1f\x8bno gzip", b"\x28\xb5\x2f\xfdno zstd", b"(text)"]
)
async def test_what_only_looks_compressed_stays_as_it_is(connect: Connect, broken: bytes):
    async with FaultServer(whole(broken)) as server, connect(server) as client:
        assert (await client.send(ASK, timeout=PATIENCE)).body == broken


async def test_a_body_that_unpacks_to_more_than_the_cap_stays_packed(connect: Connect):
    packed = gzip.compress(bytes(80 * 1024 * 1024), 6)
    async with FaultServer(whole(packed)) as server, connect(server) as client:
        assert (await client.send(ASK, timeout=PATIENCE)).body == packed


CHUNKED = head(200, [("Transfer-Encoding", "chunked")])
STREAM = b'data: {"choices": []}\n\ndata: [DONE]\n\n'
UNFINISHED = {
    "the last chunk is missing": raw(CHUNKED + b"%x\r\n%s\r\n" % (len(chat()), chat()), then="finish"),
    "the end of a chunk is missing": raw(CHUNKED + b"%x\r\n%s" % (len(chat()), chat()), then="finish"),
    "less than was announced": raw(head(200, [("Content-Length", "1000")]) + chat(), then="finish"),
    "a reset behind it": raw(head(200, [("Content-Length", "1000")]) + chat() + b"\n", then="reset"),
    "a stream without its last chunk": raw(CHUNKED + b"%x\r\n%s\r\n" % (len(STREAM), STREAM), then="finish"),
}


@pytest.mark.parametrize("name", UNFINISHED)
async def test_a_whole_body_is_an_answer_though_its_wrapping_breaks_off(connect: Connect, name: str):
    async with FaultServer(UNFINISHED[name], whole(chat("next"))) as server, connect(server) as client:
        exchange = await client.send(ASK, timeout=PATIENCE)
        after = await client.send(ASK, timeout=PATIENCE)
    assert (exchange.status, exchange.fault) == (200, None)
    assert exchange.body.rstrip() in (chat(), STREAM.rstrip())
    assert after.body == chat("next")
    assert server.connections == 2


async def test_an_answer_in_http_1_0_is_read_to_its_end(connect: Connect):
    async with FaultServer(raw(head(version="HTTP/1.0") + chat(), then="finish")) as server, connect(server) as client:
        exchange = await client.send(ASK, timeout=PATIENCE)
    assert (exchange.status, exchange.body) == (200, chat())


async def test_a_header_of_100_kb_is_read(connect: Connect):
    async with FaultServer(whole(chat(), 200, ("X-Big", "x" * 100_000))) as server, connect(server) as client:
        exchange = await client.send(ASK, timeout=PATIENCE)
    assert (exchange.status, len(exchange.headers["x-big"])) == (200, 100_000)


@pytest.mark.parametrize("answer", [hang, slow_drip(0.02, b" " * 10_000), raw(head(200, [("Content-Length", "9")]))])
async def test_the_deadline_is_for_the_whole_exchange(connect: Connect, answer: Callable[..., object]):
    async with FaultServer(whole(), answer) as server, connect(server) as client:
        await client.send(ASK, timeout=PATIENCE)  # the connection is there
        exchange = await client.send(ASK, timeout=0.3)
    assert (exchange.fault, exchange.sent, exchange.detail) == (Fault.DEADLINE, True, "no complete answer within 0.3 s")
    assert 0.3 <= exchange.ended - exchange.left < 100  # the answer that drips would take over 200


async def test_a_server_that_accepts_and_never_reads_meets_the_deadline(connect: Connect):
    async with FaultServer(on_connect=lambda peer: asyncio.sleep(30)) as server, connect(server) as client:
        assert (await client.send(ASK, timeout=0.5)).fault is Fault.DEADLINE


async def test_a_deadline_before_there_is_a_connection_has_sent_nothing(connect: Connect):
    silent = FaultServer(on_connect=lambda peer: asyncio.sleep(30))
    async with silent, connect(silent.base_url.replace("http:", "https:")) as client:
        exchange = await client.send(ASK, timeout=0.2)
    assert (exchange.fault, exchange.sent, exchange.detail) == (Fault.CONNECT, False, "no connection within 0.2 s")


class Silence:
    """A wire on which nothing ever comes back."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def renew(self) -> None: ...

    async def post(self, endpoint: Endpoint, body: bytes) -> Answer:
        return await asyncio.get_running_loop().create_future()


async def test_an_answer_that_came_while_the_process_stood_still_is_read_after_its_deadline() -> None:
    here, there = socket.socketpair()
    came: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    class Waiting(Silence):
        async def post(self, endpoint: Endpoint, body: bytes) -> Answer:
            return await came

    client = Client(base_url="http://127.0.0.1:1", environ={})
    client._wire = Waiting()
    with here, there:
        loop = asyncio.get_running_loop()
        loop.add_reader(here, lambda: loop.remove_reader(here) and came.set_result((200, {}, b"{}")))
        task = asyncio.create_task(client.send(ASK, timeout=2.0))
        await asyncio.sleep(0)
        there.send(b"x")
        threading.Event().wait(2.0 + 2 * LATE)  # the process stands still
        assert (await task).status == 200


async def test_after_a_deadline_the_task_is_not_cancelled(connect: Connect):
    async with FaultServer(whole(), hang, whole()) as server, connect(server) as client:
        await client.send(ASK, timeout=PATIENCE)  # the connection is there
        first = await client.send(ASK, timeout=0.1)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        second = await client.send(ASK, timeout=PATIENCE)
    assert (first.fault, second.status) == (Fault.DEADLINE, 200)


async def test_cancellation_passes_through_and_hangs_up(connect: Connect):
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def wait(peer: Peer) -> None:
        asked.set()
        await hang(peer)
        hung_up.set()

    async with FaultServer(wait) as server, connect(server) as client:
        task = asyncio.create_task(client.send(ASK, timeout=PATIENCE))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await hung_up.wait()


@pytest.mark.looptime
async def test_cancellation_in_the_instant_of_the_deadline_passes_through():
    client = Client(base_url="http://127.0.0.1:1", environ={})
    client._wire = Silence()
    task = asyncio.create_task(client.send(ASK, timeout=1.0))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(1.0, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_reply_may_be_as_large_as_the_cap(connect: Connect):
    async with FaultServer(large(1_000_000)) as server, connect(server, max_reply_bytes=1_000_000) as client:
        exchange = await client.send(ASK, timeout=PATIENCE)
    assert (exchange.fault, len(exchange.body)) == (None, 1_000_000)


async def test_a_reply_over_the_cap_is_given_up(connect: Connect):
    async with FaultServer(large(3_000_000)) as server, connect(server, max_reply_bytes=2_000_000) as client:
        exchange = await client.send(ASK, timeout=PATIENCE)
    assert (exchange.status, exchange.fault, exchange.sent) == (0, Fault.TOO_LARGE, True)


async def test_a_packed_reply_is_unpacked(connect: Connect):
    async with FaultServer(gzip_bomb(10_000)) as server, connect(server) as client:
        assert (await client.send(ASK, timeout=PATIENCE)).body == bytes(10_000)


async def test_a_bomb_does_not_go_off(connect: Connect):
    async with FaultServer(gzip_bomb(100_000_000)) as server, connect(server, max_reply_bytes=2_000_000) as client:
        tracemalloc.start()
        exchange = await client.send(ASK, timeout=PATIENCE)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert exchange.fault is Fault.TOO_LARGE
    assert peak < 10_000_000


async def test_a_large_request_goes_out(connect: Connect):
    body = b'{"text": "' + b"x" * 3_000_000 + b'"}'
    async with FaultServer() as server, connect(server) as client:
        assert (await client.send(Request(Endpoint.CHAT, body, None), timeout=PATIENCE)).status == 200
    assert server.calls[0].body == body


@pytest.mark.parametrize("then", ["stay", "finish", "reset"])
async def test_a_server_may_refuse_a_large_request_before_it_has_read_it(connect: Connect, then: str):
    async def refuse(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await raw(head(413, [("Content-Length", "2")]) + b"{}", then="finish" if then == "finish" else "stay")(peer)
        await asyncio.Event().wait()

    request = Request(Endpoint.CHAT, b"x" * 30_000_000, None)
    async with FaultServer(on_connect=reset if then == "reset" else refuse) as server, connect(server) as client:
        exchange = await client.send(request, timeout=PATIENCE)
        again = await client.send(request, timeout=PATIENCE)
    assert [one.status for one in (exchange, again)] == [0, 0] if then == "reset" else [413, 413]
    assert exchange.fault is (Fault.RESET if then == "reset" else None)
    assert server.connections == 2


async def test_connections_are_kept(connect: Connect):
    async with FaultServer() as server, connect(server) as client:
        for _ in range(5):
            await client.send(ASK, timeout=PATIENCE)
    assert (len(server.calls), server.connections) == (5, 1)


async def test_after_an_outage_no_connection_from_before_is_used_again(connect: Connect):
    async with FaultServer() as server, connect(server) as client:
        await client.send(ASK, timeout=PATIENCE)
        client.renew()
        for _ in range(3):
            await client.send(ASK, timeout=PATIENCE)
    assert (len(server.calls), server.connections) == (4, 2)


async def test_what_left_before_an_outage_can_be_ended_and_nothing_else(connect: Connect):
    asked = asyncio.Queue[None]()

    async def wait(peer: Peer) -> None:
        asked.put_nowait(None)
        await hang(peer)

    async with FaultServer(wait, wait, whole()) as server, connect(server) as client:
        old = asyncio.create_task(client.send(ASK, timeout=PATIENCE))
        await asked.get()
        moment = time.monotonic()
        newer = asyncio.create_task(client.send(ASK, timeout=PATIENCE))
        await asked.get()
        assert client.end(before=moment) == 1
        ended = await old
        assert old.cancelling() == 0
        assert client.end(before=moment) == 0
        assert not newer.done()
        newer.cancel()
        assert (await client.send(ASK, timeout=PATIENCE)).status == 200
    assert (ended.fault, ended.sent, ended.status) == (Fault.OUTAGE, True, 0)


async def test_whether_the_host_accepts_connections(connect: Connect, unused_port: int):
    async with FaultServer() as server:
        assert await connect(server).reachable(seconds=PATIENCE)
    assert not server.calls
    assert not await connect(f"http://127.0.0.1:{unused_port}/v1").reachable(seconds=PATIENCE)


async def test_more_requests_than_aiohttp_would_allow_are_in_flight_at_once(connect: Connect):
    everybody = asyncio.Barrier(101)

    async def together(peer: Peer) -> None:
        await everybody.wait()
        await whole()(peer)

    async with FaultServer(together) as server, connect(server) as client:
        exchanges = await asyncio.gather(*(client.send(ASK, timeout=PATIENCE) for _ in range(101)))
    assert {exchange.status for exchange in exchanges} == {200}


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used(connect: Connect):
    once = raw(head(200, [("Content-Length", "2")]) + b"{}", then="finish")
    async with FaultServer(once) as server, connect(server) as client:
        first = await client.send(ASK, timeout=PATIENCE)
        await a_while(0.05)
        second = await client.send(ASK, timeout=PATIENCE)
    assert (first.status, second.status, server.connections) == (200, 200, 2)


async def test_a_connection_that_was_idle_too_long_is_closed_and_not_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lane, "KEEP_ALIVE_SECONDS", 0.0)
    closed = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await whole()(peer)
        assert await peer.reader.read() == b""
        closed.set()

    async with FaultServer(answer) as server, Client(base_url=server.base_url, api_key=KEY, environ={}) as client:
        await client.send(ASK, timeout=PATIENCE)
        await closed.wait()
        await client.send(ASK, timeout=PATIENCE)
    assert server.connections == 2


async def test_a_connection_lost_while_idle_is_a_fault_of_one_request(connect: Connect):
    async with FaultServer(whole(), close, whole()) as server, connect(server) as client:
        exchanges = [await client.send(ASK, timeout=PATIENCE) for _ in range(3)]
    assert [exchange.fault for exchange in exchanges] == [None, Fault.RESET, None]
    assert len(server.calls) == 3


@pytest.mark.parametrize("status", [200, 408])
async def test_what_arrives_on_an_idle_connection_is_no_answer(connect: Connect, status: int):
    answered = asyncio.Event()

    async def answer_and_go_on(peer: Peer) -> None:
        assert peer.call is not None
        await whole(chat(f"to {peer.call.prompt}"))(peer)
        if peer.call.prompt == "1":
            await answered.wait()
            await whole(chat("to nobody"), status)(peer)

    async with FaultServer(answer_and_go_on) as server, connect(server) as client:
        for number in range(1, 5):
            exchange = await client.send(asking(f"{number}"), timeout=PATIENCE)
            assert exchange.body == chat(f"to {number}")
            answered.set()
            await a_while(0.05)
    assert server.connections == 2


async def test_a_408_that_crossed_the_request_leaves_no_answer_to_the_next_one(connect: Connect):
    async def late(peer: Peer) -> None:
        assert peer.call is not None
        if peer.call.prompt == "1":
            await whole(b"", 408)(peer)
            await asyncio.sleep(0.02)
        await whole(chat(f"to {peer.call.prompt}"))(peer)

    async with FaultServer(late) as server, connect(server) as client:
        first = await client.send(asking("1"), timeout=PATIENCE)
        second = await client.send(asking("2"), timeout=PATIENCE)
    assert (first.status, second.body) == (408, chat("to 2"))


async def test_a_refused_connection_was_not_sent(connect: Connect, unused_port: int):
    async with connect(f"http://127.0.0.1:{unused_port}/v1") as client:
        exchange = await client.send(ASK, timeout=PATIENCE)
    assert (exchange.status, exchange.fault, exchange.sent) == (0, Fault.REFUSED, False)


async def test_cookies_are_not_kept(connect: Connect):
    async with FaultServer(whole(chat(), 200, ("Set-Cookie", "a=b; Path=/"))) as server, connect(server) as client:
        await client.send(ASK, timeout=PATIENCE)
        await client.send(ASK, timeout=PATIENCE)
    assert "cookie" not in server.calls[1].headers


async def test_details_never_show_the_key(connect: Connect):
    broken = raw(f"HTTP/1.1 {KEY} X\r\n\r\n".encode(), then="finish")
    async with FaultServer(broken) as server, connect(server) as client:
        exchange = await client.send(ASK, timeout=PATIENCE)
        assert KEY not in exchange.detail
        assert KEY not in client.mask(f'{{"message": "Incorrect API key provided: {KEY}"}}')
    assert exchange.fault is Fault.PROTOCOL


async def test_a_token_is_renewed_on_the_way():
    fresh = iter(["token-first-1", "token-second-2"])

    async def next_token() -> str:
        return next(fresh)

    async with FaultServer() as server, Client(base_url=server.base_url, token=next_token, environ={}) as client:
        await client.send(ASK, timeout=PATIENCE)
        await client.send(ASK, timeout=PATIENCE)
        assert client.mask("was token-second-2") == "was [key]"
    sent = [call.headers["authorization"] for call in server.calls]
    assert sent == ["Bearer token-first-1", "Bearer token-second-2"]


async def test_a_server_without_keys_gets_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    async with FaultServer() as server, Client(base_url=server.base_url, environ={}) as client:
        await client.send(ASK, timeout=PATIENCE)
    assert "authorization" not in server.calls[0].headers
    assert KEY not in str(server.calls[0].headers)


async def test_the_clock_is_the_callers():
    ticks = iter([10.0, 12.5])
    async with (
        FaultServer() as server,
        Client(base_url=server.base_url, environ={}, clock=lambda: next(ticks)) as client,
    ):
        exchange = await client.send(ASK, timeout=PATIENCE)
    assert (exchange.left, exchange.ended) == (10.0, 12.5)
