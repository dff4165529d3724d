"""What one exchange says, in the terms of verdicts: replies, replies without an answer, errors inside a 200."""

import json
from typing import Any

import pytest
from wire import chat

from batchrun.engine.judge import Judged, judge
from batchrun.models import Endpoint, Exchange, Fault, Flag, Request
from batchrun.replies import checker
from batchrun.retry import GiveUp, Health, Meanings, RetryIn, StopRun, Tries, Verdict, decide
from batchrun.retry.decision import Policy

ASK = Request(Endpoint.CHAT, b"{}", 20)
SECRET = "sk-secret-1"


def judged(body: bytes | Any, status: int = 200, *, schema: bool = False, request: Request = ASK) -> Judged:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    exchange = Exchange(status, {}, data, 0.0, 1.0, None, "", sent=True)
    return judge(
        request,
        exchange,
        checker({"type": "object"}) if schema else None,
        Meanings(),
        lambda text: text.replace(SECRET, "[key]"),
    )


def verdict(body: Any, *, later: bool = False) -> Verdict:
    health = Health(succeeded=later)
    answer = judged(body).answer
    health.observe(answer, 1, 0.0)
    return decide(answer, Tries(1, 0, 0), health, Policy(), 0.0)


@pytest.mark.parametrize("status", [200, 201, 202, 203, 206])
def test_a_reply_is_one_with_any_2xx(status: int) -> None:
    found = judged(chat("yes"), status)
    assert found.answer.accepted
    assert found.reply is not None
    assert found.reply.text == "yes"


@pytest.mark.parametrize("status", [202, 204])
def test_a_2xx_without_a_body_is_no_reply_and_may_pass(status: int) -> None:
    answer = judged(b"", status).answer
    assert answer.defect == "an empty body"
    assert isinstance(verdict(b"", later=True), RetryIn)


@pytest.mark.parametrize("schema", [True, False])
def test_a_reply_without_an_answer_says_what_was_paid(*, schema: bool) -> None:
    message = {"content": None, "reasoning_content": "hm"}
    usage = {"prompt_tokens": 12, "completion_tokens": 9000}
    found = judged({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}, schema=schema)
    assert found.answer.complaint == "9,000 tokens out, only reasoning_content"
    assert (found.answer.cause, found.answer.flags, found.answer.checked) == ("empty", {Flag.EMPTY}, schema)
    bare = judged({"choices": [{"message": {"content": ""}}]})
    assert bare.answer.complaint == "no tokens stated, no text"


def test_a_cut_that_only_the_tokens_tell_is_seen() -> None:
    output = [{"type": "message", "content": [{"type": "output_text", "text": "cut o"}]}]
    body = {"status": "completed", "output": output, "usage": {"input_tokens": 3, "output_tokens": 20}}
    found = judged(body, request=Request(Endpoint.RESPONSES, b"{}", 20))
    assert (found.answer.flags, found.answer.limited) == ({Flag.TRUNCATED}, True)
    assert not judged(body, request=Request(Endpoint.RESPONSES, b"{}", None)).answer.flags


def embedded(**error: Any) -> dict[str, Any]:
    return {
        "choices": [{"message": {"content": None}}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0},
        "error": error,
    }


WITHIN = [
    (embedded(message="slow down", code=429), 429, "slow down"),
    ({"error": {"message": "no credit", "code": "402"}}, 402, "no credit"),
    ({"error": {"message": "upstream", "code": 502}}, 502, "upstream"),
    ({"error": {"message": "upstream", "status": 503}}, 503, "upstream"),
    ({"object": "error", "code": 404, "message": "no model", "type": "NotFoundError"}, 404, "no model"),
    ({"code": 401, "msg": "bad key"}, 401, "bad key"),
    ({"status": 429, "title": "x", "detail": "too many"}, 429, "too many"),
    ([{"error": {"code": 429, "message": "exhausted", "status": "RESOURCE_EXHAUSTED"}}], 429, "exhausted"),
    (b'data: {"error": {"message": "died", "code": 500}}\n\ndata: [DONE]\n\n', 500, "died"),
    ({"choices": [{"error": {"message": "gone", "code": 502}, "finish_reason": "error"}]}, 502, "gone"),
    ({"error": "model is loading"}, 200, "model is loading"),
    ({"error": {"message": "odd", "code": 40303}}, 200, "odd"),
    ({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, 200, "rate limit"),
    ({"error": {"message": "Your credit balance is too low", "code": "x"}}, 200, "Your credit balance is too low"),
]


@pytest.mark.parametrize(("body", "status", "message"), WITHIN)
def test_an_error_inside_a_200_is_judged_as_its_code_says_and_quoted(body: Any, status: int, message: str) -> None:
    answer = judged(body).answer
    assert (answer.status, answer.message) == (status, message)
    assert not answer.accepted
    assert (answer.defect is None) == (status != 200)


def test_what_is_decided_about_an_error_inside_a_200() -> None:
    assert verdict(embedded(message="slow down", code=429)) == RetryIn(0.0, counts=False)
    assert isinstance(verdict(embedded(message="no credit", code=402), later=True), StopRun)
    stop = verdict({"object": "error", "code": 404, "message": "no model"})
    assert isinstance(stop, StopRun)
    assert "no model" in stop.message
    assert isinstance(verdict(embedded(message="too long", code=400), later=True), GiveUp)
    assert isinstance(verdict({"error": "your credit balance is too low"}, later=True), StopRun)
    assert isinstance(verdict({"error": "model is loading"}, later=True), RetryIn)


def test_an_error_inside_a_200_shows_no_secret() -> None:
    answer = judged({"error": {"message": f"Incorrect key {SECRET}", "code": 401}}).answer
    assert answer.message == "Incorrect key [key]"


@pytest.mark.parametrize(
    "body", [{"choices": None}, {"base_resp": {"status_code": 0}}, {}, {"id": "x", "status": "ok"}]
)
def test_a_body_without_an_error_is_no_error(body: Any) -> None:
    assert judged(body).answer.defect == "no choices"


def test_an_encoding_that_cannot_be_undone_is_named() -> None:
    exchange = Exchange(0, {}, b"", 0.0, 1.0, Fault.ENCODING, "Can not decode content-encoding: br", sent=True)
    answer = judge(ASK, exchange, None, Meanings(), str).answer
    assert (answer.cause, answer.unreadable, answer.down) == ("an encoding that cannot be undone", True, False)
    health = Health()
    health.observe(answer, 1, 0.0)
    stop = decide(answer, Tries(1, 0, 0), health, Policy(), 0.0)
    assert isinstance(stop, StopRun)
    assert "content-encoding: br" in stop.message
