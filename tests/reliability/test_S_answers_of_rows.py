"""Answers that concern one row: one run meets them all, among good rows, and each is looked at apart.

The prompt of a row names the answer that the server gives it, so that the server's count is per case.
"""

import gzip
import json
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, NamedTuple

import brotli
import pytest
import pytest_asyncio
from program import Program, Ran
from wire import (
    BAD_BODIES,
    GARBAGE,
    LOST,
    Answer,
    Call,
    FaultServer,
    chat,
    gzip_bomb,
    hang,
    head,
    page,
    raw,
    slow_drip,
    whole,
)

from batchrun.engine.lane import MOST_REFUSALS
from batchrun.limits.refusals import BUSY

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ATTEMPTS = 3
DEADLINE = 2.5
"""Seconds for answers that never end, in a run of their own: on a busy machine a good one takes as long."""


def error(status: int, message: str, **members: Any) -> Answer:
    return whole(json.dumps({"error": {"message": message, "type": "x", **members}}).encode(), status)


def usage(**tokens: Any) -> bytes:
    return chat(usage=tokens)


def message(finish: str = "stop", **members: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **members}, "finish_reason": finish}
    return chat(choices=[choice])


BAD_STATUSES = (500, 502, 503, 504, 408, 409, 529, 600)
PERMANENT: dict[str, Answer] = {
    "context": error(400, "too long", code="context_length_exceeded"),
    "filter": error(400, "filtered", code="content_filter"),
    "413": error(413, "too large"),
    "422": error(422, "unprocessable"),
    "418": error(418, "teapot"),
}
CLOUD: dict[str, Answer] = {f"page {status}": page(status) for status in (520, 521, 522, 523, 524)}
NOT_STORED = {f"body {name}": whole(body) for name, body in BAD_BODIES.items()} | CLOUD | {"299": whole(b"{}", 299)}
CONTROLS = whole(b"<html>\x1b]0;owned\x07\x9b31m\x00</html>")
BROKEN = {f"lost {name}": answer for name, answer in LOST.items()} | {
    f"garbage {name}": answer for name, answer in GARBAGE.items()
}
HELD = {"hang": hang, "drip": slow_drip(0.1), "drip for ever": slow_drip(0.4, b" " * 1000)}
KEPT: dict[str, bytes] = {
    "cut short": chat("half", finish="length"),
    "blocked": chat("half", finish="content_filter"),
    "refused": message(refusal="no"),
    "no usage": usage(),
    "null usage": chat(usage=None),
    "huge usage": usage(prompt_tokens=10**30, completion_tokens=1),
    "text usage": usage(prompt_tokens="7", completion_tokens="3"),
    "tools": message("tool_calls", tool_calls=[{"id": "c", "type": "function", "function": {"name": "f"}}]),
}
NOTHING: dict[str, bytes] = {
    "null": message(),
    "blank": message(content=" \n"),
    "thoughts alone": message(reasoning_content="hm"),
    "a thinking block alone": message(content="<think>hm</think>"),
    "null without a finish": chat(choices=[{"message": {"content": None}}]),
}
PIECES = "".join(f'data: {{"choices": [{{"delta": {{"content": "{piece}"}}}}]}}\n\n' for piece in ("hel", "lo"))
USED = 'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}\n\n'
CHUNKED = head(200, [("Transfer-Encoding", "chunked")])
WRAPPED: dict[str, Answer] = {
    "created": whole(status=201),
    "stream": whole(f"{PIECES}{USED}data: [DONE]\n\n".encode(), 200, ("Content-Type", "text/event-stream")),
    "one event": whole(b"data: " + chat() + b"\n\n"),
    "done behind it": whole(chat() + b"\n\ndata: [DONE]\n\n"),
    "comments before it": whole(b": PROCESSING\n\n: PROCESSING\n\n" + chat()),
    "br": whole(brotli.compress(chat()), 200, ("Content-Encoding", "br")),
    "zstd": whole(zstd.compress(chat()), 200, ("Content-Encoding", "zstd")),
    "packed in secret": whole(gzip.compress(chat())),
    "no last chunk": raw(CHUNKED + b"%x\r\n%s\r\n" % (len(chat()), chat()), then="finish"),
    "parts": whole(message(content=[{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "hello"}])),
    "thoughts before it": whole(message(content="<think>\nhm\n</think>\n\nhello")),
    "thoughts beside it": whole(message(content="hello", reasoning_content="hm")),
}
OLD = raw(head(200, [("Content-Type", "application/json")], version="HTTP/1.0") + chat("old"), then="finish")
WIDE = whole(chat("wide"), 200, ("X-Wide", "w" * 100_000))
EVERY: dict[str, Answer] = {
    **{str(status): error(status, "passing") for status in BAD_STATUSES},
    **PERMANENT,
    **NOT_STORED,
    "controls": CONTROLS,
    **BROKEN,
    **{name: whole(body) for name, body in KEPT.items()},
    **{name: whole(body) for name, body in NOTHING.items()},
    **WRAPPED,
    "odd end": whole(message("eureka", content="half")),
    "broken off": whole(message("network_error", content="half")),
    "object": whole(message(content={"a": 1})),
    "throttled in a 200": whole(b'{"error": {"code": 429, "message": "slow down"}}'),
    "old": OLD,
    "wide": WIDE,
    "bomb": gzip_bomb(200 * 1024 * 1024),
    "packed": whole(gzip.compress(chat("packed")), 200, ("Content-Encoding", "gzip")),
}


class Met(NamedTuple):
    """What one run over every answer left, by the name of the answer."""

    ran: Ran
    calls: dict[str, int]
    done: dict[str, Any]
    failed: dict[str, dict[str, Any]]
    program: Program


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def met(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Met]:
    """One run over every answer; every third row is a good one, so the provider is in order."""
    program = Program(Path(tmp_path_factory.mktemp("every")))
    names = list(EVERY)
    texts = [f"good {number}" for number in range(20)]
    for number, name in enumerate(names):
        texts += [name, f"good {20 + number}"]
    program.rows(texts)

    def choose(call: Call, asked: int) -> Answer:
        if call.prompt == "throttled in a 200" and asked > 1:
            return whole()
        return EVERY.get(call.prompt) or whole()

    async with FaultServer(choose=choose) as server:
        limits = ("--max-attempts", str(ATTEMPTS), "--give-up-after", "20s")
        ran = await program.run(*program.send(server.base_url, *limits))
        ids = {f"r{number}": text for number, text in enumerate(texts, 1)}
        done = {ids[name]: value for name, value in program.done().items()}
        failed = {ids[name]: reason for name, reason in program.failed().items()}
        yield Met(ran, dict(server.prompts), done, failed, program)


class Held(NamedTuple):
    """What a run over answers that never end left."""

    calls: dict[str, int]
    failed: dict[str, dict[str, Any]]
    seconds: list[float]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def held(tmp_path_factory: pytest.TempPathFactory) -> Held:
    """One run over every answer that never ends, with a deadline."""
    program = Program(Path(tmp_path_factory.mktemp("held")))
    program.rows(HELD)
    async with FaultServer(choose=lambda call, _: HELD[call.prompt]) as server:
        limits = ("--timeout", f"{DEADLINE}s", "--max-attempts", str(ATTEMPTS))
        await program.run(*program.send(server.base_url, *limits))
        failed = dict(zip(HELD, program.failed().values(), strict=True))
        ends = program.ask("SELECT seconds FROM attempts WHERE cause = 'deadline' ORDER BY seconds")
        return Held(dict(server.prompts), failed, [seconds for (seconds,) in ends])


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_S10_to_S20_every_row_is_accounted_for_and_the_rows_that_failed_set_the_exit_code(met: Met) -> None:
    assert met.ran.code == 3, met.ran.err
    assert len(met.done) + len(met.failed) == 20 + 2 * len(EVERY)
    assert set(met.done) >= {f"good {number}" for number in range(20 + len(EVERY))}
    assert f"= {20 + 2 * len(EVERY)} input rows" in met.ran.account
    assert "Traceback" not in met.ran.err
    assert all(reason["cause"] != "internal error" for reason in met.failed.values())
    assert {met.calls[name] for name in met.done if name.startswith("good")} == {1}


@pytest.mark.parametrize("name", PERMANENT)
async def test_S10_a_request_that_is_refused_for_itself_fails_for_good_after_one_call(met: Met, name: str) -> None:
    assert met.calls[name] == 1
    assert met.failed[name]["permanent"] is True


@pytest.mark.parametrize("status", BAD_STATUSES)
async def test_S11_what_may_pass_is_tried_to_the_limit_and_can_be_resumed(met: Met, status: int) -> None:
    turned_away = MOST_REFUSALS if status in BUSY else 0  # while others are answered, and sooner than they are
    assert ATTEMPTS <= met.calls[str(status)] <= ATTEMPTS + turned_away
    assert met.failed[str(status)]["permanent"] is False


@pytest.mark.parametrize("name", NOT_STORED)
async def test_S12_S13_S14_a_body_that_is_no_reply_is_never_done(met: Met, name: str) -> None:
    assert 2 <= met.calls[name] <= ATTEMPTS
    assert met.failed[name]["permanent"] is False


async def test_S12_the_body_that_was_no_reply_is_kept_and_shown_safely(met: Met) -> None:
    ((excerpt,), *_) = met.program.ask("SELECT excerpt FROM attempts WHERE excerpt LIKE '%owned%'")
    assert len(excerpt.encode()) <= 2048
    shown = await met.program.run("show", "last", "--failed")
    assert "\x1b" not in shown.out + met.ran.err
    assert "\x9b" not in shown.out + met.ran.err


@pytest.mark.parametrize("name", BROKEN)
async def test_S13_S20_a_broken_answer_is_tried_to_the_limit_and_may_have_been_paid(met: Met, name: str) -> None:
    assert 2 <= met.calls[name] <= ATTEMPTS
    assert met.failed[name]["permanent"] is False
    row = "SELECT seq FROM rows WHERE text LIKE ?"
    query = f"SELECT status, possibly_billed FROM attempts WHERE row = ({row})"
    ends = met.program.ask(query, f'%"text": "{name}"%')
    assert ends
    assert all(possibly_billed for status, possibly_billed in ends if status == 0)


async def test_S15_S16_a_refused_filtered_or_cut_reply_is_done_and_flagged(met: Met) -> None:
    assert (met.done["cut short"], met.done["blocked"], met.done["refused"]) == ("half", "half", "no")
    assert "(1 truncated, 1 refused, 1 filtered, 1 odd)" in met.ran.account


@pytest.mark.parametrize("name", NOTHING)
async def test_S14_a_reply_without_an_answer_is_asked_for_once_more_and_has_then_failed(met: Met, name: str) -> None:
    assert met.calls[name] == 2
    assert (met.failed[name]["cause"], met.failed[name]["permanent"]) == ("empty", True)
    assert "3 tokens out" in met.failed[name]["message"]


@pytest.mark.parametrize("name", WRAPPED)
async def test_S32_a_whole_reply_in_odd_wrapping_is_done_after_one_call(met: Met, name: str) -> None:
    assert (met.done[name], met.calls[name]) == ("hello", 1)


async def test_S11_S32_what_a_200_says_of_itself_decides(met: Met) -> None:
    assert (met.done["odd end"], met.done["object"]) == ("half", {"a": 1})
    assert (met.failed["broken off"]["cause"], met.failed["broken off"]["permanent"]) == ("the reply broke off", False)
    assert (met.done["throttled in a 200"], met.calls["throttled in a 200"]) == ("hello", 2)


async def test_S17_usage_that_cannot_be_believed_is_unknown_and_not_summed(met: Met) -> None:
    unknown = ("no usage", "null usage", "huge usage", "text usage")
    assert {met.done[name] for name in unknown} == {"hello"}
    ((tokens, without),) = met.program.ask(
        "SELECT sum(input_tokens), sum(input_tokens IS NULL) FROM outcomes WHERE state = 'done'"
    )
    assert without == len(unknown)
    assert tokens == 7 * (len(met.done) - len(unknown))


@pytest.mark.parametrize("name", HELD)
async def test_S19_the_deadline_is_for_the_whole_attempt_and_counts_twice_at_most(held: Held, name: str) -> None:
    assert held.calls[name] == 2
    assert held.failed[name]["cause"] == "deadline"
    seconds = held.seconds
    print(f"deadline {DEADLINE} s, attempts of {seconds[0]:.3f} to {seconds[-1]:.3f} s (promised: within 10 %)")
    assert seconds[0] <= DEADLINE * 1.5
    assert seconds[-1] <= DEADLINE * 4  # a busy machine is late; what drips would take ten times the deadline


async def test_S32_strange_but_whole_answers_are_read(met: Met) -> None:
    assert (met.done["old"], met.done["wide"], met.done["packed"]) == ("old", "wide", "packed")
    assert met.done["tools"][0]["id"] == "c"


async def test_X17_a_reply_that_unpacks_to_more_than_the_cap_fails_its_row_alone(met: Met) -> None:
    assert met.failed["bomb"]["cause"] == "reply too large"
