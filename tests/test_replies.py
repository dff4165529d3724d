"""What the bodies of 200s say: replies, and why the others are none."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import BAD_BODIES, chat

from batchrun.models import Defect, Endpoint, Flag, Reply, Usage
from batchrun.providers import table
from batchrun.replies import read, thinking_of, valid, value_of

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
    long = '{"a": 1.10, "b": "' + "a long one with NIN\\n" * 1000 + '"}'
    for body in ('{"a": 1.10, "b": "NaN \\ud83d\\ude00"}', '"\\u00e9"', "no JSON: NaN", long, long.replace("NIN", "-")):
        assert valid(body) == body


@pytest.mark.parametrize("sign", ["NaN", "-Infinity", '"\\ud800"', '"\\uD83D"'])
def test_a_long_body_is_searched_for_what_is_no_json_as_well(sign: str):
    body = '{"text": "' + "long" * 10_000 + f'", "odd": {sign}}}'
    assert valid(body) != body
    assert orjson.loads(valid(body))["text"] == "long" * 10_000


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
        (message(content=""), "", "", {Flag.EMPTY}),
        (message(content=" \n"), "", "", {Flag.EMPTY}),
        (message(content=None), "", "", {Flag.EMPTY}),
        (message("tool_calls", content=None, tool_calls=[]), "", "", {Flag.EMPTY}),
        (message(content=[]), "", "", {Flag.EMPTY}),
        (message(content=None, refusal=""), "", "", {Flag.EMPTY}),
        (message("eureka", content=""), "", "", {Flag.EMPTY, Flag.ODD}),
        (message("eureka", content="yes"), "yes", "yes", {Flag.ODD}),
        (message(content="<think>hm</think>\n\nyes"), "yes", "yes", set()),
        (message(content="<think>hm</think>\n"), "", "", {Flag.EMPTY}),
        (message("length", content="<think>hm"), "", "", {Flag.TRUNCATED}),
        (message("length", content="hm\n</think>\nso f"), "so f", "so f", {Flag.TRUNCATED}),
        (message(content={"a": 1}), {"a": 1}, '{"a":1}', set()),
        (message(content=[{"a": 1}, {"a": 2}]), [{"a": 1}, {"a": 2}], '[{"a":1},{"a":2}]', set()),
        (message(content=["a", "b"]), "ab", "ab", set()),
        (message(content=[{"type": "thinking", "thinking": "hm"}]), "", "", {Flag.EMPTY}),
        (message("tool_calls", content="<think>hm</think>", tool_calls=CALLS), CALLS, "", set()),
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
        (b'data: {"choices": []}\n\n', "no choices"),
        (b'data: {"choices": [{"delta": {"content": "h"}}]}\n\n', "a stream of events without its end"),
        (b"data: 1\n\ndata: [DONE]\n\n", "a stream of events that is no reply"),
        (message("network_error", content="half of"), "the reply broke off: network_error"),
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
    assert replied(CHAT, {"choices": [choices[1], choices[1]]}).flags == {Flag.EMPTY}


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
        (output(), "", "completed", {Flag.EMPTY}),
        (output(REASONING), "", "completed", {Flag.EMPTY}),
        (output(says()), "", "completed", {Flag.EMPTY}),
        (output(status=["a"]), "", None, {Flag.EMPTY}),  # type: ignore[arg-type]
    ],
)
def test_what_a_response_says(body: dict[str, Any], value: Any, finish: str | None, flags: set[Flag]):
    reply = replied(RESPONSES, body)
    assert (reply.value, reply.finish, reply.flags, reply.model) == (value, finish, flags, "m")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "no output"),
        (output(status="failed"), "no answer yet: status failed"),
        (output(status="queued"), "no answer yet: status queued"),
        ({**output(), "error": {"code": "server_error", "message": "x"}}, "an error in place of an answer: x"),
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


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": []},
        {"data": None},
        vectors([]),
        vectors(None),
        vectors([1.0], None),
        vectors("a mock"),
        vectors([[1.0]]),
        vectors(["1"]),
        vectors([True]),
    ],
)
def test_embeddings_that_are_none(body: dict[str, Any]):
    assert isinstance(read(EMBEDDINGS, json.dumps(body)), Defect)


def test_completions():
    body = {"choices": [{"text": "a", "finish_reason": "length"}], "model": "m"}
    assert replied(COMPLETIONS, body) == Reply("a", "a", "length", frozenset({Flag.TRUNCATED}), None, "m")
    assert replied(COMPLETIONS, {"choices": [{"text": None, "finish_reason": "stop"}]}).flags == {Flag.EMPTY}


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
    broken = Defect("the reply broke off: abort", Usage(7, 3, 0, 0))
    assert read(CHAT, chat("half", finish="abort")) == broken


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


MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "refusal": st.sampled_from([None, "", "no", 3]),
        "tool_calls": st.sampled_from([None, [], CALLS, "x"]),
        "function_call": st.sampled_from([None, {}, {"name": "f", "arguments": "{}"}]),
        "reasoning": st.sampled_from([None, "because"]),
    },
)
TEXTS = st.text(max_size=8) | st.lists(
    st.sampled_from(["<think>", "</think>", "a", ">", " ", "\n", "\u3000", "\xa0", "[", "analysis", "assistantfinal"])
).map("".join)
FINISHES = st.sampled_from(["stop", "length", "content_filter", "abort", "STOP", "unheard of", "", None, 3, ["stop"]])


@given(TEXTS, MEMBERS, FINISHES, st.booleans())
def test_a_text_is_read_like_the_same_text_in_parts(text: str, members: dict[str, Any], finish: Any, failed: bool):
    """A text alone in one choice, which nearly every reply is, is read in a shorter way."""
    parts = [{"type": "text", "text": text}]
    bodies = [
        {"choices": [{"message": {"content": content, **members}, "finish_reason": finish}], "error": failed or None}
        for content in (text, parts)
    ]
    plain, general = (read(CHAT, json.dumps(body)) for body in bodies)
    assert plain == general
    assert value_of(CHAT, json.dumps(bodies[0])) == value_of(CHAT, json.dumps(bodies[1]))


def test_a_text_of_any_blanks_is_empty():
    assert replied(CHAT, message(content="\u3000\xa0")).flags == {Flag.EMPTY}


@given(st.sampled_from(Endpoint), st.binary(max_size=60))
def test_no_bytes_are_too_strange(endpoint: Endpoint, body: bytes):
    assert isinstance(read(endpoint, body), Defect)


@given(st.integers(0, len(chat()) - 1))
def test_a_reply_cut_anywhere_is_no_reply(length: int):
    assert isinstance(read(CHAT, chat()[:length]), Defect)


@pytest.mark.parametrize(
    ("body", "flags"),
    [
        (output(says(text("a"))), {Flag.TRUNCATED}),
        (message(None, content="a"), {Flag.TRUNCATED}),
        (message("stop", content="a"), set[Flag]()),
        (message("tool_calls", content=None, tool_calls=CALLS), set[Flag]()),
    ],
)
def test_tokens_at_the_limit_tell_of_a_cut_where_the_status_does_not(body: Any, flags: set[Flag]):
    data = body if isinstance(body, dict) else json.loads(body)
    endpoint = RESPONSES if "output" in data else CHAT
    for made, expected in ((20, flags), (24, flags), (19, set[Flag]())):
        counted = json.dumps({**data, "usage": {"input_tokens": 5, "output_tokens": made}})
        reply = read(endpoint, counted, 20)
        assert isinstance(reply, Reply)
        assert reply.flags == expected
        assert read(endpoint, counted, None) == reply._replace(flags=frozenset())


def test_a_whole_vector_in_base64_is_one_and_any_other_text_is_none():
    assert replied(EMBEDDINGS, vectors("AACAPwAAgD8=")).value == "AACAPwAAgD8="
    for text in ("AACAPw", "AACA", "Hello world", "a sentence as a mock", "==="):
        assert defect(EMBEDDINGS, vectors(text)) == "an embedding that is no list of numbers"


THOUGHT = [
    (message(content="yes", reasoning_content="hm"), "hm", "reasoning_content"),
    (message(content="yes", reasoning="hm"), "hm", "reasoning"),
    (message(content="yes", thinking=" hm\n"), "hm", "thinking"),
    (message(content="yes", reasoning_details=[{"type": "reasoning.text", "text": "hm"}]), "hm", "reasoning_details"),
    (message(content="<think>\nhm\n</think>\nyes"), "hm", "a thinking block"),
    (json.dumps(output(REASONING, says(text("yes")))).encode(), "hm", "reasoning"),
    (
        json.dumps(output({"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}, says(text("yes")))).encode(),
        "hm",
        "reasoning",
    ),
    (message(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "yes"}]), "hm", None),
]  # fmt: skip


@pytest.mark.parametrize(("body", "thinking", "where"), THOUGHT)
def test_thinking_is_no_part_of_the_answer_and_can_be_kept(body: bytes, thinking: str, where: str | None):
    endpoint = RESPONSES if b'"output"' in body else CHAT
    assert value_of(endpoint, body) == "yes"
    assert value_of(endpoint, body, keep_thinking=True) == f"<think>\n{thinking}\n</think>\n\nyes"
    assert thinking_of(body) == thinking
    empty = replied(endpoint, body.replace(b"yes", b""))
    assert (empty.flags, empty.value) == ({Flag.EMPTY}, "")
    assert where is None or empty.thinking == where


def test_an_answer_without_thinking_is_kept_as_it_is():
    assert value_of(CHAT, chat("yes"), keep_thinking=True) == "yes"
    assert thinking_of(chat("yes")) is None
    assert thinking_of("no JSON") is None
    calls = message("tool_calls", content=None, reasoning="hm", tool_calls=CALLS)
    assert value_of(CHAT, calls, keep_thinking=True) == CALLS


FINISHES = {
    "MAX_TOKENS": {Flag.TRUNCATED},
    "model_length": {Flag.TRUNCATED},
    "Length": {Flag.TRUNCATED},
    "SAFETY": {Flag.FILTERED},
    "content_filter: PROHIBITED_CONTENT": {Flag.FILTERED},
    "content-filter": {Flag.FILTERED},
    "refusal": {Flag.REFUSED},
    "eos": set[Flag](),
    "END_TURN": set[Flag](),
    "stop_sequence": set[Flag](),
    "": set[Flag](),
    "eureka": {Flag.ODD},
}


@pytest.mark.parametrize(("finish", "flags"), FINISHES.items())
def test_finish_reasons_are_known_in_the_words_of_many_and_others_are_flagged(finish: str, flags: set[Flag]):
    assert replied(CHAT, message(finish, content="yes")).flags == flags
    assert replied(COMPLETIONS, {"choices": [{"text": "yes", "finish_reason": finish}]}).flags == flags


@pytest.mark.parametrize("finish", ["error", "network_error", "abort", "insufficient_system_resource", "load", "ERROR"])
def test_a_reply_that_broke_off_is_no_reply(finish: str):
    assert defect(CHAT, message(finish, content="half of")) == f"the reply broke off: {finish}"
    assert isinstance(read(COMPLETIONS, json.dumps({"choices": [{"text": "ha", "finish_reason": finish}]})), Defect)


def test_a_completion_that_a_filter_left_empty_is_not_taken_for_a_chat():
    body = {"choices": [{"text": "so f", "finish_reason": "content_filter"}]}
    assert replied(COMPLETIONS, body).text == "so f"
    assert defect(CHAT, body) == "a choice without a message"
    assert replied(CHAT, {"choices": [{"finish_reason": "content_filter"}]}).flags == {Flag.FILTERED}


def test_every_finish_reason_of_the_table_has_one_meaning_and_a_source():
    found = table("finish")
    words = [word for meaning in found.values() for word in meaning]
    assert len(words) == len(set(words))
    assert set(found) == {"whole", "cut", "filtered", "refused", "broken"}
    assert all(source and word == word.lower() for meaning in found.values() for word, source in meaning.items())


def chunks(*events: Any, end: str = "data: [DONE]\n\n", between: str = "\n\n") -> str:
    return "".join(f"data: {json.dumps(event)}{between}" for event in events) + end


def delta(index: int = 0, finish: str | None = None, **said: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": said, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


PIECES = [delta(role="assistant"), delta(content="Hel"), delta(content="lo"), delta(finish="stop")]
COUNTED = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
WHOLE = chat("Hello").decode()
WRAPPED = {
    "deltas": chunks(*PIECES, COUNTED),
    "deltas with carriage returns": chunks(*PIECES, COUNTED).replace("\n", "\r\n"),
    "deltas a line each": chunks(*PIECES, COUNTED, between="\n"),
    "deltas with event names and ids": chunks(*PIECES, COUNTED).replace("data: {", "event: chunk\nid: 7\ndata: {"),
    "deltas without [DONE]": chunks(*PIECES, COUNTED, end=""),
    "deltas without a finish": chunks(*PIECES[:3], COUNTED),
    "one event": f"data: {WHOLE}\n\n",
    "one event and [DONE]": chunks(json.loads(WHOLE)),
    "one event in two data lines": f"data: {WHOLE[:1]}\ndata: {WHOLE[1:]}\n\n",
    "data without a blank": f"data:{WHOLE}\n\ndata:[DONE]\n\n",
    "[DONE] behind it": f"{WHOLE}\n\ndata: [DONE]\n\n",
    "a bare [DONE] behind it": f"{WHOLE}[DONE]",
    "comments before it": f": PROCESSING\n\n: PROCESSING\n\n{WHOLE}",
    "comments before a stream": f": PROCESSING\n\n{chunks(*PIECES, COUNTED)}",
    "blanks before it": f"  \n\r\n {WHOLE}",
    "written on many lines": f": wait\n{json.dumps(json.loads(WHOLE), indent=2)}\n",
    "zero bytes behind it": f"{WHOLE}\0\0",
}


@pytest.mark.parametrize("body", WRAPPED.values(), ids=WRAPPED)
def test_a_whole_reply_in_odd_wrapping_is_a_reply(body: str):
    for one in (body, body.encode()):
        reply = replied(CHAT, one)
        assert (reply.text, reply.usage, reply.flags) == ("Hello", Usage(7, 3, 0, 0), set())
    assert value_of(CHAT, body) == "Hello"
    assert value_of(CHAT, orjson.dumps(orjson.loads(valid(body)))) == "Hello"


@pytest.mark.parametrize(
    "body",
    [
        chunks(*PIECES[:3], end=""),
        chunks(*PIECES, COUNTED)[:40],
        chunks(end=""),
        ": wait\n\n",
        f"{WHOLE}\n{WHOLE}",
        f"{WHOLE}\ndata: {WHOLE}\n\n",
        f"{WHOLE}<!-- page -->",
        chunks(delta(content="a"), delta(1, content="b"), delta(finish="stop"), end=""),
    ],
)
def test_half_a_stream_and_two_replies_are_none(body: str):
    defect(CHAT, body)


def test_the_pieces_of_thinking_calls_and_several_choices_are_put_together():
    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"a":1}'}}
    calls = chunks(delta(tool_calls=[call]), delta(tool_calls=[more]), delta(finish="tool_calls"))
    assert replied(CHAT, calls).value == CALLS
    assert thinking_of(chunks(delta(reasoning_content="h"), delta(reasoning_content="m"), *PIECES)) == "hm"
    several = chunks(delta(1, content="b"), delta(0, content="a"), delta(0, "stop"), delta(1, "length"))
    assert (replied(CHAT, several).value, replied(CHAT, several).flags) == (["a", "b"], {Flag.TRUNCATED})
    texts = chunks(*({"choices": [{"index": 0, "text": piece, "finish_reason": None}]} for piece in ("He", "llo")))
    assert replied(COMPLETIONS, texts).value == "Hello"


def test_a_response_that_streams_is_its_last_event():
    whole = output(says(text("Hello")))
    events = [{"type": "response.created"}, {"type": "response.output_text.delta", "delta": "Hello"}]
    done = {"type": "response.completed", "response": whole}
    assert replied(RESPONSES, chunks(*events, done, end="")).value == "Hello"
    bare = {"type": "response.completed", "response": {**whole, "output": []}}
    assert replied(RESPONSES, chunks(*events, bare, end="")).value == "Hello"
    defect(RESPONSES, chunks(*events, end=""))


@pytest.mark.parametrize(
    ("body", "unreadable"),
    [
        (b"\x1b\x02\x80binary", True),
        (b"everything is fine", True),
        (chunks({"a": 1}, {"b": 2}), True),
        (b"", False),
        (b"<html>", False),
        (chat()[:-9], False),
        (chunks(*PIECES[:2], end=""), False),
        (b"{}", False),
    ],
)
def test_what_nobody_can_read_is_marked(body: bytes | str, unreadable: bool):
    found = read(CHAT, body)
    assert isinstance(found, Defect)
    assert found.unreadable is unreadable
