"""The simulated provider on the wire: what clients get, faults as they arrive, and what it counted."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from batchrun.errors import RefusedError
from batchrun.sim import Server, Settings, parse_fault, parse_latency, running

pytestmark = pytest.mark.looptime  # both ends are on the test's loop: time passes when nothing is on its way

Got = tuple[int, dict[str, str], bytes]


def settings(*faults: str, **values: Any) -> Settings:
    return Settings(faults=tuple(parse_fault(fault) for fault in faults), **values)


def chat(text: str = "Hello.", **values: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": text}], **values}).encode()


def request(path: str, body: bytes, headers: str = "", method: str = "POST") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


async def read(reader: asyncio.StreamReader) -> Got:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers, body


async def raw(server: Server, data: bytes) -> bytes:
    """Everything that comes back until the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(data)
    try:
        return await reader.read()
    finally:
        writer.close()


async def call(
    server: Server,
    body: bytes | None = None,
    path: str = "/v1/chat/completions",
    headers: str = "",
    method: str = "POST",
) -> Got:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request(path, chat() if body is None else body, headers, method))
    try:
        return await read(reader)
    finally:
        writer.close()


async def problem(server: Server, **how: Any) -> tuple[int, dict[str, Any]]:
    status, _, body = await call(server, **how)
    return status, json.loads(body)["error"]


@pytest.fixture
async def plain() -> AsyncIterator[Server]:
    async with running(Settings()) as server:
        yield server


async def test_every_answer_says_that_it_is_simulated(plain: Server) -> None:
    status, headers, body = await call(plain)
    assert status == 200
    assert headers["x-batchrun-sim"] == "1"
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"] == "req_sim_1"
    assert headers["date"].endswith("GMT")
    assert json.loads(body)["choices"][0]["message"]["content"] == "[simulated] Hello."
    assert not any(name.startswith("x-ratelimit") for name in headers)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"model": "m", "input": "Hi."}),
        ("/v1/embeddings", {"model": "m", "input": "Hi."}),
        ("/v1/completions", {"model": "m", "prompt": "Hi."}),
    ],
)
async def test_the_other_endpoints_answer_too(plain: Server, path: str, body: dict[str, Any]) -> None:
    status, _, answer = await call(plain, json.dumps(body).encode(), path)
    assert status == 200
    assert json.loads(answer)["system_fingerprint"] == "batchrun-sim"


async def test_models_are_listed_and_any_name_is_one(plain: Server) -> None:
    _, _, body = await call(plain, b"", "/v1/models", method="GET")
    assert [model["owned_by"] for model in json.loads(body)["data"]] == ["batchrun-sim"] * 3
    _, _, body = await call(plain, b"", "/v1/models/gpt-x", method="GET")
    assert json.loads(body)["id"] == "gpt-x"


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("POST", "/v1/nothing", 404, "application/json"),
        ("GET", "/v1/chat/completions", 405, "application/json"),
        ("POST", "/chat/completions", 404, "text/html; charset=utf-8"),
    ],
)
async def test_a_wrong_address_is_said_to_be_one(plain: Server, method: str, path: str, status: int, kind: str) -> None:
    got, headers, _ = await call(plain, path=path, method=method)
    assert (got, headers["content-type"]) == (status, kind)
    assert plain.stats.calls == 0


async def test_a_connection_serves_one_call_after_the_other(plain: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", plain.port)
    writer.write(b"".join(request("/v1/chat/completions", chat(f"Row {row}.")) for row in range(3)))
    texts = [json.loads((await read(reader))[2])["choices"][0]["message"]["content"] for _ in range(3)]
    assert texts == [f"[simulated] Row {row}." for row in range(3)]
    writer.close()


async def test_a_body_may_come_in_chunks_and_in_pieces(plain: Server) -> None:
    body = chat("In chunks.")
    head = b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    data = head + b"%x;ext=1\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (10, body[:10], len(body) - 10, body[10:])
    reader, writer = await asyncio.open_connection("127.0.0.1", plain.port)
    for start in range(0, len(data), 7):
        writer.write(data[start : start + 7])
        await asyncio.sleep(0)
    status, _, answer = await read(reader)
    assert (status, b"In chunks." in answer) == (200, True)
    assert await reader.read() == b""
    writer.close()


async def test_a_client_that_asks_before_it_sends_is_told_to_go_on(plain: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", plain.port)
    whole = request("/v1/chat/completions", chat(), "Expect: 100-continue\r\n")
    writer.write(whole[: -len(chat())])
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(chat())
    assert (await read(reader))[0] == 200
    writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01 TLS\r\n\r\n",
        b"POST /v1 HTTP/2\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_not_http_is_a_400_and_the_end(plain: Server, data: bytes) -> None:
    assert (await raw(plain, data)).startswith(b"HTTP/1.1 400 ")


async def test_a_request_over_the_rate_is_refused_as_openai_does() -> None:
    async with running(Settings(rpm=600), clock=lambda: 0.0) as server:
        first, _, third = [await call(server) for _ in range(3)]
        assert (first[0], first[1]["x-ratelimit-remaining-requests"]) == (200, "599")
        status, headers, body = third
        assert status == 429
        assert (headers["retry-after-ms"], headers["retry-after"]) == ("100", "1")
        assert headers["x-ratelimit-limit-requests"] == "600"
        assert headers["x-ratelimit-remaining-requests"] == "598"
        assert headers["x-ratelimit-reset-requests"] == "200ms"
        error = json.loads(body)["error"]
        assert (error["type"], error["param"], error["code"]) == ("requests", None, "rate_limit_exceeded")
        assert "Limit 600, Used 600, Requested 1. Please try again in 100ms." in error["message"]
        assert server.stats.by_status == {"200": 2, "429": 1}


async def test_tokens_are_charged_as_the_reply_states_them() -> None:
    async with running(Settings(tpm=60_000), clock=lambda: 0.0) as server:
        _, headers, body = await call(server)
        left = 60_000 - json.loads(body)["usage"]["total_tokens"]
        assert headers["x-ratelimit-remaining-tokens"] == str(left)


async def test_tokens_can_be_charged_as_the_request_states_them() -> None:
    async with running(Settings(tpm=60_000, charge="stated"), clock=lambda: 0.0) as server:
        _, headers, _ = await call(server, chat(max_tokens=300, n=2))
        assert headers["x-ratelimit-remaining-tokens"] == "59400"
        assert (await problem(server, body=chat(max_tokens=60_001)))[1]["message"].startswith("Request too large")


async def test_headers_can_be_switched_off() -> None:
    async with running(Settings(rpm=60, headers=False, retry_after="none"), clock=lambda: 0.0) as server:
        headers = [(await call(server))[1] for _ in range(3)][-1]
        assert not any("ratelimit" in name or "retry" in name for name in headers)


async def test_a_client_that_waits_as_told_gets_the_stated_rate() -> None:
    now = 0.0
    async with running(Settings(rpm=6000), clock=lambda: now) as server:
        while server.stats.calls < 300:
            _, headers, _ = await call(server)
            now += int(headers.get("retry-after-ms", 0)) / 1000
        assert server.stats.answered == pytest.approx(now * 100 + 5, abs=2)
        assert server.stats.view()["most_admitted_in_1s"] <= 100 + 6


async def test_over_so_many_at_once_the_rest_is_refused() -> None:
    async with running(Settings(concurrency=2, latency=parse_latency("0.05"))) as server:
        got = await asyncio.gather(*(call(server, chat(f"{row}")) for row in range(5)))
        refused = [json.loads(body)["error"] for status, _, body in got if status == 429]
        assert len(refused) == 3
        assert refused[0]["type"] == "concurrency"
        assert "concurrent" in refused[0]["message"]


async def test_over_so_many_at_once_the_rest_waits_its_turn() -> None:
    async with running(Settings(concurrency=2, queue=True, latency=parse_latency("0.02"))) as server:
        loop = asyncio.get_running_loop()
        start = loop.time()
        got = await asyncio.gather(*(call(server, chat(f"{row}")) for row in range(6)))
        assert [status for status, _, _ in got] == [200] * 6
        assert loop.time() - start >= 0.06
        assert server.stats.peak == 6


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529])
async def test_an_injected_status_has_an_error_body(status: int) -> None:
    async with running(settings(f"{status}=1")) as server:
        got, error = await problem(server)
        assert got == status
        assert error["message"]
        assert server.stats.by_fault == {str(status): 1}
        assert server.stats.answered == 0


async def test_a_gateways_status_is_a_page() -> None:
    async with running(settings("522=1")) as server:
        status, headers, body = await call(server)
        assert (status, headers["content-type"], body[:6]) == (522, "text/html; charset=utf-8", b"<html>")


async def test_an_empty_account_is_not_a_rate_limit() -> None:
    async with running(settings("quota=1", rpm=600, retry_after="=1"), clock=lambda: 0.0) as server:
        status, headers, body = await call(server)
        error = json.loads(body)["error"]
        assert (status, error["type"], error["code"]) == (429, "insufficient_quota", "insufficient_quota")
        assert headers["retry-after"] == "1"
        assert headers["x-ratelimit-remaining-requests"] == "600"


async def test_an_error_can_come_in_a_200() -> None:
    async with running(settings("error=1")) as server:
        status, error = await problem(server)
        assert (status, error["type"]) == (200, "server_error")


async def test_a_dialect_has_its_own_refusals_and_faults() -> None:
    async with running(settings("quota=text:empty", dialect="gemini", rpm=1), clock=lambda: 0.0) as server:
        assert (await call(server))[0] == 200
        status, headers, body = await call(server)
        assert (status, "retry-after" in headers) == (429, False)
        assert json.loads(body)[0]["error"]["details"][2]["retryDelay"] == "60s"
        assert b"prepayment credits are depleted" in (await call(server, chat("empty")))[2]


async def test_a_refusal_may_tell_nothing_of_the_limits() -> None:
    async with running(Settings(dialect="cerebras", rpm=1), clock=lambda: 0.0) as server:
        answers = [await call(server) for _ in range(2)]
        assert [any("ratelimit" in name for name in headers) for _, headers, _ in answers] == [True, False]


async def test_a_dialect_may_limit_the_requests_at_once() -> None:
    async with running(Settings(dialect="vllm", concurrency=1, latency=parse_latency("0.05"))) as server:
        got = await asyncio.gather(*(call(server, chat(f"{row}")) for row in range(3)))
        assert sorted(status for status, _, _ in got) == [200, 503, 503]


async def test_flex_capacity_is_missing_for_flex_alone() -> None:
    for dialect, status in (("openai", 429), ("groq", 498)):
        async with running(settings("flex=1", dialect=dialect)) as server:
            assert (await call(server, chat(service_tier="flex")))[0] == status
            assert (await call(server, chat(service_tier="default")))[0] == 200
            assert server.stats.by_fault == {"flex": 1}


async def test_a_wrong_key_is_echoed_masked() -> None:
    async with running(settings("key=1")) as server:
        key = "sk-proj-abcdefghijklmnopqrstuvwxyz"
        status, error = await problem(server, headers=f"Authorization: Bearer {key}\r\n")
        assert (status, error["code"]) == (401, "invalid_api_key")
        assert "sk-proj-**" in error["message"]
        assert key not in error["message"]


async def test_a_key_can_be_asked_for() -> None:
    async with running(Settings(require_key=True)) as server:
        assert (await problem(server))[0] == 401
        assert (await problem(server, headers="Authorization: Bearer \r\n"))[0] == 401
        assert (await call(server, headers="Authorization: Bearer any\r\n"))[0] == 200


async def test_context_model_and_address_faults_have_openais_codes() -> None:
    async with running(settings("context=text:long", "model=text:none", "html404=text:lost")) as server:
        assert (await problem(server, body=chat("long")))[1]["code"] == "context_length_exceeded"
        assert (await problem(server, body=chat("none")))[1]["code"] == "model_not_found"
        status, headers, _ = await call(server, chat("lost"))
        assert (status, headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert (await call(server))[0] == 200


async def test_a_throttle_names_its_wait_as_asked_for() -> None:
    async with running(settings("throttle=1", retry_after="=2")) as server:
        status, headers, _ = await call(server)
        assert (status, headers["retry-after"]) == (429, "2")


async def test_a_reply_can_be_broken_for_its_first_attempts_alone() -> None:
    async with running(settings("broken=first", reply="translate")) as server:
        replies = [json.loads((await call(server, chat("Row {x}.")))[2]) for _ in range(2)]
        bad, good = (reply["choices"][0]["message"]["content"] for reply in replies)
        assert good == "[simulated] Rów {x}."
        assert bad != good
        assert (server.stats.answered, server.stats.by_fault) == (2, {"broken": 1})


async def test_a_reset_is_a_reset() -> None:
    async with running(settings("reset=1")) as server:
        with pytest.raises(ConnectionResetError):
            await call(server)


async def test_a_late_reset_comes_after_half_of_the_body() -> None:
    async with running(settings("reset-late=1")) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request("/v1/chat/completions", chat()))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_close_is_an_end_without_an_answer() -> None:
    async with running(settings("close=1")) as server:
        assert await raw(server, request("/v1/chat/completions", chat())) == b""


async def test_a_truncated_body_is_shorter_than_it_says() -> None:
    async with running(settings("truncate=1")) as server:
        got = await raw(server, request("/v1/chat/completions", chat()))
        head, _, body = got.partition(b"\r\n\r\n")
        assert 0 < len(body) < int(head.lower().split(b"content-length: ")[1].split()[0])
        assert server.stats.by_status == {"truncate": 1}


async def test_garbage_is_not_http() -> None:
    async with running(settings("garbage=1")) as server:
        got = await raw(server, request("/v1/chat/completions", chat()))
        assert got
        assert not got.startswith(b"HTTP/")


async def test_a_slow_body_comes_whole_in_the_end() -> None:
    async with running(settings("slow=1", drip=0.005)) as server:
        loop = asyncio.get_running_loop()
        start = loop.time()
        _, _, body = await call(server)
        assert json.loads(body)["object"] == "chat.completion"
        assert loop.time() - start >= 0.05
        assert server.stats.answered == 1


async def test_a_hang_is_silence() -> None:
    async with running(settings("hang=1")) as server:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call(server), 0.1)


async def test_a_fault_of_the_first_attempts_is_over_after_them() -> None:
    async with running(settings("503=first:2")) as server:
        assert [(await call(server))[0] for _ in range(3)] == [503, 503, 200]
        assert (await call(server, chat("Another.")))[0] == 503


async def test_a_call_refused_by_a_limit_is_not_an_attempt() -> None:
    now = 0.0
    async with running(settings("503=first", rpm=60, request_depth=1), clock=lambda: now) as server:
        assert [(await call(server, chat("Spent.")))[0], (await call(server))[0]] == [503, 429]
        now = 1.0
        assert (await call(server))[0] == 503
        now = 2.0
        assert (await call(server))[0] == 200


async def test_faults_drawn_are_the_same_in_every_run() -> None:
    async def run() -> list[int]:
        async with running(settings("503=0.3")) as server:
            return [(await call(server, chat(f"{row % 20}")))[0] for row in range(60)]

    first = await run()
    assert first == await run()
    assert set(first) == {200, 503}


async def test_while_it_is_down_nobody_listens() -> None:
    async with running(settings("down=0.05-0.15")) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        with pytest.raises(ConnectionRefusedError):
            await call(server)
        writer.close()
        await asyncio.sleep(0.12)
        assert (await call(server))[0] == 200


async def test_it_can_be_taken_down_for_a_while() -> None:
    async with running(Settings()) as server:
        assert (await call(server, b'{"seconds": 0.08}', "/_sim/down"))[0] == 200
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionRefusedError):
            await call(server)
        await asyncio.sleep(0.1)
        assert (await call(server))[0] == 200


async def test_settings_change_while_it_runs() -> None:
    async with running(settings("quota=1")) as server:
        assert (await call(server))[0] == 429
        status, _, body = await call(server, b'{"faults": [], "rpm": 60, "record": true}', "/_sim/settings")
        assert (status, json.loads(body)["rpm"]) == (200, 60)
        assert (await call(server))[0] == 200
        assert [entry["status"] for entry in json.loads((await call(server, b"", "/_sim/log", method="GET"))[2])] == [
            "200"
        ]


@pytest.mark.parametrize("body", [b'{"rpn": 1}', b'{"rpm": -1}', b"{", b"[]", b"null"])
async def test_a_setting_that_cannot_be_meant_is_refused_and_changes_nothing(plain: Server, body: bytes) -> None:
    assert (await call(plain, body, "/_sim/settings"))[0] == 400
    assert plain.provider.settings == Settings()


async def test_more_places_let_the_queue_in_at_once() -> None:
    async with running(Settings(concurrency=1, queue=True, latency=parse_latency("0.1"))) as server:
        calls = [asyncio.create_task(call(server, chat(f"{row}"))) for row in range(10)]
        await asyncio.sleep(0.02)
        server.change(concurrency=100)
        _, late = await asyncio.wait(calls, timeout=0.3)
        assert not late


async def test_stats_are_the_whole_account() -> None:
    async with running(settings("503=text:bad"), clock=lambda: 0.0) as server:
        for body in (chat("Twice."), chat("Twice."), chat("bad")):
            await call(server, body)
        told = json.loads((await call(server, b"", "/_sim/stats", method="GET"))[2])
        assert (told["calls"], told["answered"], told["by_status"]) == (3, 2, {"200": 2, "503": 1})
        assert (told["peak"], told["at_once"], told["most_calls_in_1s"]) == (1, 0, 3)
        assert sorted(told["prompts"].values()) == [1, 2]
        assert list(told["replies"].values()) == [2]
        assert (told["distinct_prompts"], told["most_calls_of_a_prompt"]) == (2, 2)
        assert (told["input_tokens"], told["output_tokens"]) == (4, 10)
        summary = json.loads((await call(server, b"", "/_sim/stats?summary", method="GET"))[2])
        assert "prompts" not in summary
        await call(server, b"", "/_sim/reset")
        assert server.stats.calls == 0


async def test_a_reply_whose_client_has_gone_is_not_counted_as_answered() -> None:
    async with running(Settings(latency=parse_latency("0.05"))) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request("/v1/chat/completions", chat()))
        await asyncio.sleep(0.02)
        writer.close()
        await asyncio.sleep(0.08)
        assert server.stats.by_status == {"gone": 1}
        assert (server.stats.answered, server.stats.at_once) == (0, 0)


async def test_a_prefix_can_be_read_once_the_reply_that_wrote_it_is_made() -> None:
    def body(row: str) -> bytes:
        block = {"type": "text", "text": "word " * 2400, "prompt_cache_breakpoint": {"mode": "explicit"}}
        messages = [{"role": "system", "content": [block]}, {"role": "user", "content": row}]
        return json.dumps({"model": "m", "messages": messages, "max_tokens": 5}).encode()

    async with running(Settings(cache="explicit", latency=parse_latency("0.05"))) as server:
        await asyncio.gather(*(call(server, body(row)) for row in "ab"))
        await call(server, body("c"))
        told = json.loads((await call(server, b"", "/_sim/stats", method="GET"))[2])
        assert (told["input_tokens"], told["cached_tokens"], told["cache_write_tokens"]) == (9003, 3000, 6000)
        assert told["charged_input_tokens"] == pytest.approx(9003 - 0.9 * 3000 + 0.25 * 6000)


async def test_latency_is_what_was_asked_for() -> None:
    async with running(Settings(latency=parse_latency("0.05+0.01/token"), record=True)) as server:
        await call(server, chat(max_tokens=4))
        (entry,) = server.stats.log or []
        assert entry["ended"] - entry["at"] == pytest.approx(0.09, abs=0.03)
        assert entry["text"] == "Hello."
        assert math.isclose(entry["number"], 1)


async def test_a_port_that_is_taken_is_refused_with_a_hint() -> None:
    async with running(Settings()) as server:
        with pytest.raises(RefusedError, match=f"port {server.port}") as refused:
            async with running(Settings(port=server.port)):
                pass
        assert refused.value.hint
