"""What the bodies of 200s say: replies, and why the others are none."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import BAD_BODIES, chat

from batchrun.models import Defect, Endpoint, Flag, Reply, Usage
from batchrun.replies import read, valid, value_of

CHAT, RESPONSES, EMBEDDINGS, COMPLETIONS = Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.EMBEDDINGS, Endpoint.COMPLETIONS
CALLS = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]


def message(finish: str | None = "stop", **members: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **members}, "finish_reason": finish}
    return json.dumps({"model": "m", "choices": [choice], "usage": None}).encode()


def replied(endpoint: Endpoint, body: bytes | str | dict[str, Any]) -> Reply:
    reply = read(endpoint, json.dumps(body) if isinstance(body, dict) else body)
    assert isinstance(reply, Reply), reply
    return reply


def defect(endpoint: Endpoint, body: bytes | str | dict[str, Any]) -> str:
    found = read(endpoint, json.dumps(body) if isinstance(body, dict) else body)
    assert isinstance(found, Defect), found
    return found.reason


def raw(text: str, *, before: str = "", usage: str = '{"prompt_tokens": 7, "completion_tokens": 3}') -> str:
    """A chat reply as a server spells it, without a parser that would correct it."""
    choice = f'{{"message": {{"content": "{text}"}}, "finish_reason": "stop", "logprobs": {{"logprob": -Infinity}}}}'
    return f'{before}{{"model": "m", "choices": [{choice}], "usage": {usage}}}'


@pytest.mark.parametrize(
    ("body", "text", "usage"),
    [
        (raw("ok"), "ok", Usage(7, 3, 0, 0)),
        (raw("ok", before="\ufeff").replace("-Infinity", "0"), "ok", Usage(7, 3, 0, 0)),
        (raw("a\\ud800b").replace("-Infinity", "0"), "a\ufffdb", Usage(7, 3, 0, 0)),
        (raw("\\udc00\\ud83d\\ude00 \\\\ud800"), "\ufffd\U0001f600 \\ud800", Usage(7, 3, 0, 0)),
        (raw("ok", usage='{"prompt_tokens": NaN, "completion_tokens": 3}'), "ok", None),
        (raw("NaN", usage="Infinity"), "NaN", None),
    ],
)
def test_what_can_be_read_safely_is_a_reply_though_it_is_not_quite_json(body: str, text: str, usage: Usage | None):
    for one in (body, body.encode()):
        reply = replied(CHAT, one)
        assert (reply.text, reply.value, reply.usage) == (text, text, usage)
        assert value_of(CHAT, one) == text
    assert value_of(CHAT, valid(body)) == text
    assert orjson.loads(valid(body).encode())


def test_what_is_valid_stays_as_it_is():
    for body in ('{"a": 1.10, "b": "NaN \\ud83d\\ude00"}', '"\\u00e9"', "no JSON: NaN"):
        assert valid(body) == body


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (EMBEDDINGS, '{"data": [{"embedding": [0.1, NaN]}]}'),
        (CHAT, raw("ok").replace('"content": "ok"', '"content": null, "tool_calls": [{"arguments": {"a": NaN}}]')),
    ],
)
def test_an_answer_with_a_number_that_is_none_is_no_reply(endpoint: Endpoint, body: str):
    assert "a number that JSON does not have" in defect(endpoint, body)
    assert value_of(endpoint, body) is None


@pytest.mark.parametrize("body", [raw("ok")[:-1], raw("ok").replace(": 7", ": 1e999"), "[" * 100_000, b"\xef\xbb\xbf"])
def test_a_body_that_is_broken_stays_no_reply(body: bytes | str):
    defect(CHAT, body)


def test_a_chat_reply():
    expected = Reply("salut", "salut", "stop", frozenset(), Usage(7, 3, 0, 0), "m")
    assert read(CHAT, chat("salut")) == expected
    assert read(CHAT, chat("salut").decode()) == expected


@pytest.mark.parametrize(
    ("body", "value", "text", "flags"),
    [
        (message(content=""), "", "", set()),
        (message(content=" \n"), " \n", " \n", set()),
        (message(content="h\u2028\ud83d\ude00é\x00"), "h\u2028\U0001f600é\x00", "h\u2028\U0001f600é\x00", set()),
        (message("length", content="cut o"), "cut o", "cut o", {Flag.TRUNCATED}),
        (message("length", content=None), "", "", {Flag.TRUNCATED}),
        (message("content_filter", content=None), "", "", {Flag.FILTERED}),
        (message("content_filter", content="so f"), "so f", "so f", {Flag.FILTERED}),
        (message(content=None, refusal="I cannot."), "I cannot.", "I cannot.", {Flag.REFUSED}),
        (message(content="", refusal="I cannot."), "I cannot.", "I cannot.", {Flag.REFUSED}),
        (message(content="yes", refusal=None), "yes", "yes", set()),
        (message("tool_calls", content=None, tool_calls=CALLS), CALLS, None, set()),
        (message("tool_calls", content="see", tool_calls=CALLS), CALLS, "see", set()),
        (message("length", content=None, tool_calls=CALLS), CALLS, None, {Flag.TRUNCATED}),
        (message(content="yes", tool_calls=[]), "yes", "yes", set()),
        (
            message(content=None, function_call={"name": "f", "arguments": ""}),
            [{"name": "f", "arguments": ""}],
            None,
            set(),
        ),
        (message(None, content="yes"), "yes", "yes", set()),
        (message(content=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), "ab", "ab", set()),
        (message(content=[{"type": "refusal", "refusal": "no"}]), "no", "no", {Flag.REFUSED}),
        (message(content=[{"type": "thinking", "text": "hm"}, {"type": "text", "text": "b"}]), "b", "b", set()),
    ],
)
def test_what_one_choice_says(body: bytes, value: Any, text: str | None, flags: set[Flag]):
    reply = replied(CHAT, body)
    assert (reply.value, reply.text, reply.flags) == (value, text, flags)


@pytest.mark.parametrize("name", BAD_BODIES)
@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_a_body_that_is_no_reply_is_none_at_any_endpoint(endpoint: Endpoint, name: str):
    assert isinstance(read(endpoint, BAD_BODIES[name]), Defect)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "an empty body"),
        (b" \r\n", "an empty body"),
        (b"null", "not an object but null"),
        (b"[]", "not an object but a JSON list"),
        (b'"hi"', "not an object but a JSON str"),
        (b"\n<!doctype html>", "HTML, not JSON"),
        (b'{"choices": [', "not JSON: unexpected end of data"),
        (chat()[:-9], "not JSON: unexpected end of data"),
        (b"\xff\xfe{}", "not JSON: str is not valid UTF-8: surrogates not allowed"),
        (b'data: {"choices": []}\n\n', "a stream of events: the request asks for `stream`"),
        ({"error": {"message": "overloaded", "code": 529}}, "an error in place of an answer: overloaded"),
        ({"error": "model is loading"}, "an error in place of an answer: model is loading"),
        ({"error": {"code": 1}, "choices": []}, 'an error in place of an answer: {"code":1}'),
        ({}, "no choices"),
        ({"choices": None}, "no choices"),
        ({"choices": []}, "no choices"),
        ({"choices": "x"}, "no choices"),
        ({"choices": [7]}, "a choice that is no object"),
        ({"choices": [{}]}, "a choice without a message"),
        ({"choices": [{"message": None}]}, "a choice without a message"),
        (message(content=None), "empty answer"),
        (message("tool_calls", content=None, tool_calls=[]), "empty answer"),
        (message(content=[]), "empty answer"),
        (message(content=7), "empty answer"),
        (message(content=None, refusal=""), "empty answer"),
    ],
)
def test_why_a_chat_body_is_no_reply(body: bytes | dict[str, Any], reason: str):
    assert defect(CHAT, body) == reason


def test_an_answer_that_broke_off_with_an_error_is_no_reply():
    choice = {"finish_reason": "error", "message": {"content": "half of"}, "error": {"message": "upstream died"}}
    assert defect(CHAT, {"choices": [choice]}) == "an error in place of an answer: upstream died"


def test_an_empty_error_member_is_no_error():
    assert replied(CHAT, {**json.loads(chat("yes")), "error": None}).value == "yes"
    assert replied(CHAT, {**json.loads(chat("yes")), "error": {}}).value == "yes"


def test_several_choices_are_a_list():
    texts = ["a", None, "c"]
    finishes = ["stop", "stop", "length"]
    choices = [
        {"message": {"content": text}, "finish_reason": finish} for text, finish in zip(texts, finishes, strict=True)
    ]
    reply = replied(CHAT, {"choices": choices})
    assert (reply.value, reply.text, reply.finish, reply.flags) == (texts, "a", "stop", {Flag.TRUNCATED})
    assert defect(CHAT, {"choices": [choices[1], choices[1]]}) == "empty answer"


def output(*items: dict[str, Any], status: str = "completed", **members: Any) -> dict[str, Any]:
    return {"object": "response", "status": status, "error": None, "model": "m", "output": list(items), **members}


def says(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(parts)}


def text(words: str) -> dict[str, Any]:
    return {"type": "output_text", "text": words, "annotations": []}


REASONING = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
CALL = {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"}


def cut(reason: str) -> dict[str, Any]:
    return {"status": "incomplete", "incomplete_details": {"reason": reason}}


@pytest.mark.parametrize(
    ("body", "value", "finish", "flags"),
    [
        (output(REASONING, says(text("a"), text("b"))), "ab", "completed", set()),
        (output(says(text("a")), says(text("b"))), "ab", "completed", set()),
        (output(says({"type": "refusal", "refusal": "no"})), "no", "completed", {Flag.REFUSED}),
        (output(CALL), [CALL], "completed", set()),
        (output(says(text("a")), CALL), [CALL], "completed", set()),
        (output(says(text("a")), **cut("max_output_tokens")), "a", "max_output_tokens", {Flag.TRUNCATED}),
        (output(REASONING, **cut("max_output_tokens")), "", "max_output_tokens", {Flag.TRUNCATED}),
        (output(**cut("content_filter")), "", "content_filter", {Flag.FILTERED}),
    ],
)
def test_what_a_response_says(body: dict[str, Any], value: Any, finish: str, flags: set[Flag]):
    reply = replied(RESPONSES, body)
    assert (reply.value, reply.finish, reply.flags, reply.model) == (value, finish, flags, "m")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "no output"),
        (output(), "empty answer"),
        (output(REASONING), "empty answer"),
        (output(says()), "empty answer"),
        (output(status="failed"), "no answer yet: status failed"),
        (output(status="queued"), "no answer yet: status queued"),
        ({**output(), "error": {"code": "server_error", "message": "x"}}, "an error in place of an answer: x"),
        (output(status=["a"]), "empty answer"),  # type: ignore[arg-type]
    ],
)
def test_why_a_response_is_no_reply(body: dict[str, Any], reason: str):
    assert defect(RESPONSES, body) == reason


def vectors(*found: Any) -> dict[str, Any]:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(found)]
    return {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 5, "total_tokens": 5}}


def test_embeddings():
    one = replied(EMBEDDINGS, vectors([0.1, -2.5e-7]))
    assert one == Reply([0.1, -2.5e-7], None, None, frozenset(), Usage(5, 0, 0, 0), "m")
    assert replied(EMBEDDINGS, vectors("AACAPw==")).value == "AACAPw=="
    assert replied(EMBEDDINGS, vectors([1.0], [2.0])).value == [[1.0], [2.0]]


def test_embeddings_come_in_the_order_of_their_inputs():
    shuffled = vectors([1.0], [2.0], [3.0])
    shuffled["data"].reverse()
    assert replied(EMBEDDINGS, shuffled).value == [[1.0], [2.0], [3.0]]


@pytest.mark.parametrize("body", [{}, {"data": []}, {"data": None}, vectors([]), vectors(None), vectors([1.0], None)])
def test_embeddings_that_are_none(body: dict[str, Any]):
    assert isinstance(read(EMBEDDINGS, json.dumps(body)), Defect)


def test_completions():
    body = {"choices": [{"text": "a", "finish_reason": "length"}], "model": "m"}
    assert replied(COMPLETIONS, body) == Reply("a", "a", "length", frozenset({Flag.TRUNCATED}), None, "m")
    assert defect(COMPLETIONS, {"choices": [{"text": None, "finish_reason": "stop"}]}) == "empty answer"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 4}, Usage(9, 4, 0, 0)),
        ({"input_tokens": 9, "output_tokens": 4}, Usage(9, 4, 0, 0)),
        ({"prompt_tokens": 9, "total_tokens": 9}, Usage(9, 0, 0, 0)),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 8},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(9, 4, 8, 3),
        ),
        (
            {
                "input_tokens": 9,
                "output_tokens": 4,
                "input_tokens_details": {"cached_tokens": 8},
                "output_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(9, 4, 8, 3),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": None}, Usage(9, 4, 0, 0)),
        (
            {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 10}},
            Usage(9, 4, 0, 0),
        ),
        ({"prompt_tokens": 10**12, "completion_tokens": 0}, Usage(10**12, 0, 0, 0)),
        ({"prompt_tokens": 10**12 + 1, "completion_tokens": 0}, None),
        ({"prompt_tokens": 10**30, "completion_tokens": 0}, None),
        ({"prompt_tokens": "9", "completion_tokens": 4}, None),
        ({"prompt_tokens": 9.0, "completion_tokens": 4}, None),
        ({"prompt_tokens": True, "completion_tokens": 4}, None),
        ({"prompt_tokens": -1, "completion_tokens": 4}, None),
        ({"prompt_tokens": 9, "completion_tokens": None}, None),
        ({"prompt_tokens": 9}, Usage(9, 0, 0, 0)),
        ({"prompt_tokens": 9, "total_tokens": 12}, None),
        ({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 113}, Usage(9, 104, 0, 0)),
        (
            {
                "prompt_tokens": 21,
                "completion_tokens": 0,
                "total_tokens": 81,
                "completion_tokens_details": {"reasoning_tokens": 60},
            },
            Usage(21, 60, 0, 60),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 3}, Usage(9, 4, 0, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 10**30}, Usage(9, 4, 0, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": "113"}, Usage(9, 4, 0, 0)),
        ({}, None),
        ([], None),
        ("9", None),
    ],
)
def test_usage_is_known_only_if_it_can_be_believed(usage: Any, expected: Usage | None):
    body = json.dumps({**json.loads(chat()), "usage": usage})
    assert replied(CHAT, body).usage == expected


def test_a_defect_tells_what_it_cost():
    assert read(CHAT, chat(None)) == Defect("empty answer", Usage(7, 3, 0, 0))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        [
            "choices", "message", "content", "finish_reason", "tool_calls", "refusal", "text", "type", "status", "output",
            "incomplete_details", "reason", "data", "embedding", "index", "usage", "prompt_tokens", "error", "model",
        ]
    ), inner, max_size=6),
    max_leaves=12,
)  # fmt: skip


@given(st.sampled_from(Endpoint), JSON)
def test_no_json_is_too_strange(endpoint: Endpoint, body: Any):
    found = read(endpoint, json.dumps(body))
    assert isinstance(found, Reply | Defect)
    if isinstance(found, Reply):
        assert found.value is not None
    assert value_of(endpoint, json.dumps(body)) == (found.value if isinstance(found, Reply) else None)


@given(st.sampled_from(Endpoint), st.binary(max_size=60))
def test_no_bytes_are_too_strange(endpoint: Endpoint, body: bytes):
    assert isinstance(read(endpoint, body), Defect)


@given(st.integers(0, len(chat()) - 1))
def test_a_reply_cut_anywhere_is_no_reply(length: int):
    assert isinstance(read(CHAT, chat()[:length]), Defect)
