"""What the simulated provider says: deterministic, marked as simulated, cut to the limit, true to the schema."""

import base64
import json
import struct
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.models import Endpoint
from batchrun.sim import Settings
from batchrun.sim.defects import BODIES, VALUES, defective
from batchrun.sim.provider import masked
from batchrun.sim.replies import dump, example, make, unit_vector
from batchrun.sim.requests import Problem, Request, count, parse_request
from batchrun.sim.texts import MARK, leading


def asked(endpoint: Endpoint, **body: Any) -> Request:
    ask = parse_request(endpoint, json.dumps({"model": "m", **body}).encode())
    assert isinstance(ask, Request)
    return ask


def reply(endpoint: Endpoint, **body: Any) -> dict[str, Any]:
    return make(asked(endpoint, **body), "0" * 24, Settings()).value


def chat(content: Any, **body: Any) -> dict[str, Any]:
    return reply(Endpoint.CHAT, messages=[{"role": "user", "content": content}], **body)


def said(value: dict[str, Any]) -> str:
    return value["choices"][0]["message"]["content"]


def test_a_chat_reply_repeats_the_last_user_message_and_says_that_it_is_simulated() -> None:
    messages = [
        {"role": "system", "content": "Answer it."},
        {"role": "user", "content": "Old."},
        {"role": "assistant", "content": "Vieux."},
        {"role": "user", "content": [{"type": "text", "text": "New one."}, {"type": "text", "text": "And more."}]},
    ]
    value = reply(Endpoint.CHAT, messages=messages)
    assert said(value) == "[simulated] New one. And more."
    assert value["system_fingerprint"] == "batchrun-sim"
    assert value["model"] == "m"
    assert value["choices"][0]["finish_reason"] == "stop"
    assert value["usage"] == {
        "prompt_tokens": 3 + 1 + 2 + 5,
        "completion_tokens": 8,
        "total_tokens": 19,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def test_equal_requests_get_equal_replies() -> None:
    assert chat("The same.") == chat("The same.")


def test_a_long_message_is_answered_with_its_leading_sentences() -> None:
    text = said(chat("One sentence is here. " * 40))
    assert text == MARK + ("One sentence is here. " * 11).strip()


def test_a_reply_over_the_token_limit_is_cut_and_says_so() -> None:
    value = chat("A sentence that is longer than the limit.", max_tokens=5)
    assert said(value) == "[simulated] A senten"
    assert value["choices"][0]["finish_reason"] == "length"
    assert value["usage"]["completion_tokens"] == 5


def test_several_choices_are_all_paid_for() -> None:
    value = chat("Hello.", n=3)
    assert [choice["index"] for choice in value["choices"]] == [0, 1, 2]
    assert value["usage"]["completion_tokens"] == 3 * count("[simulated] Hello.")


def test_reasoning_and_cached_tokens_are_part_of_the_sums() -> None:
    ask = asked(Endpoint.CHAT, messages=[{"role": "user", "content": "x" * 400}])
    usage = make(ask, "", Settings(reasoning=10, cached=0.5)).value["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 50}
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 10}
    assert usage["completion_tokens"] == 64 + 10


def test_responses_have_their_own_shape_and_end() -> None:
    value = reply(Endpoint.RESPONSES, input="Hello there, world.", instructions="Be brief", max_output_tokens=4)
    assert value["object"] == "response"
    assert value["status"] == "incomplete"
    assert value["incomplete_details"] == {"reason": "max_output_tokens"}
    assert value["output"][0]["content"][0]["text"] == "[simulated] Hell"
    assert (value["usage"]["input_tokens"], value["usage"]["output_tokens"]) == (7, 4)
    whole = reply(Endpoint.RESPONSES, input=[{"role": "user", "content": [{"type": "input_text", "text": "Hi."}]}])
    assert whole["status"] == "completed"
    assert whole["output"][0]["content"][0]["text"] == "[simulated] Hi."


def test_completions_answer_every_prompt() -> None:
    value = reply(Endpoint.COMPLETIONS, prompt=["One.", "Two."], n=2)
    texts = [choice["text"] for choice in value["choices"]]
    assert texts == ["[simulated] One."] * 2 + ["[simulated] Two."] * 2


def test_embeddings_are_unit_vectors_that_depend_on_the_text_alone() -> None:
    value = reply(Endpoint.EMBEDDINGS, input=["one", "two", "one"], dimensions=32)
    one, two, again = (item["embedding"] for item in value["data"])
    assert len(one) == 32
    assert sum(each * each for each in one) == pytest.approx(1)
    assert one == again
    assert one != two
    assert value["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_embeddings_are_packed_on_demand() -> None:
    packed = reply(Endpoint.EMBEDDINGS, input="one", encoding_format="base64")["data"][0]["embedding"]
    assert struct.unpack("<16f", base64.b64decode(packed)) == pytest.approx(unit_vector("one", 16))


@pytest.mark.parametrize(
    ("endpoint", "body", "param"),
    [
        (Endpoint.CHAT, {"messages": [{"role": "user", "content": "x"}], "stream": True}, "stream"),
        (Endpoint.CHAT, {}, "messages"),
        (Endpoint.CHAT, {"messages": ["x"]}, None),
        (Endpoint.CHAT, {"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}, None),
        (Endpoint.CHAT, {"messages": [{"role": "user", "content": "x"}], "n": "many"}, None),
        (Endpoint.CHAT, {"messages": [{"role": "user", "content": "x"}], "model": 5}, None),
        (Endpoint.RESPONSES, {}, "input"),
        (Endpoint.COMPLETIONS, {"prompt": ""}, "prompt"),
        (Endpoint.EMBEDDINGS, {"input": []}, "input"),
        (Endpoint.EMBEDDINGS, {"input": "x", "dimensions": "many"}, "dimensions"),
    ],
)
def test_a_request_that_cannot_be_answered_is_a_400(endpoint: Endpoint, body: dict[str, Any], param: str) -> None:
    problem = parse_request(endpoint, json.dumps({"model": "m", **body}).encode())
    assert isinstance(problem, Problem)
    assert (problem.status, problem.param) == (400, param)


@given(body=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda each: st.lists(each) | st.dictionaries(
    st.sampled_from(["model", "messages", "input", "prompt", "role", "content", "text", "format", "response_format",
                     "type", "json_schema", "schema", "n", "max_tokens", "dimensions"]), each)),
    endpoint=st.sampled_from(list(Endpoint)))  # fmt: skip
def test_no_json_body_breaks_the_provider(body: Any, endpoint: Endpoint) -> None:
    ask = parse_request(endpoint, json.dumps(body).encode())
    assert isinstance(ask, Request | Problem)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b"{}"])
def test_bytes_that_are_no_request_are_a_400(body: bytes) -> None:
    assert isinstance(parse_request(Endpoint.CHAT, body), Problem)


def test_lone_surrogates_come_back_as_they_were() -> None:
    ask = parse_request(Endpoint.CHAT, rb'{"model":"m","messages":[{"role":"user","content":"a \ud800."}]}')
    assert isinstance(ask, Request)
    value = make(ask, "", Settings()).value
    assert said(json.loads(dump(value))) == "[simulated] a \ud800."


@given(text=st.text(st.characters(codec=None)), size=st.integers(0, 200))
def test_a_beginning_fits_and_is_the_beginning(text: str, size: int) -> None:
    beginning = leading(text, size)
    assert len(beginning.encode("utf-8", "surrogatepass")) <= size
    assert text.strip().startswith(beginning)


SCHEMAS: list[dict[str, Any]] = [
    {"type": "string"},
    {"type": "string", "minLength": 200, "maxLength": 300},
    {"type": "string", "maxLength": 3},
    {"type": "string", "enum": ["b", "a"]},
    {"const": {"a": 1}},
    {"type": "integer", "minimum": 5},
    {"type": "integer", "exclusiveMinimum": 5, "multipleOf": 4},
    {"type": "integer", "maximum": -7, "multipleOf": 2},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    {"type": "number", "minimum": 0.5, "maximum": 0.6},
    {"type": "number", "maximum": -1},
    {"type": ["null", "integer"]},
    {"type": "null"},
    {"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True},
    {"type": "array", "items": {"type": "string"}, "maxItems": 0},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False},
    {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}]},
    {"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}}, {"required": ["a", "b"]}]},
    {
        "type": "object",
        "properties": {
            "label": {"enum": ["positive", "negative"]},
            "score": {"type": "number", "minimum": 0, "maximum": 1},
            "where": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            "when": {"type": "string", "format": "date-time"},
        },
        "required": ["label", "score", "where", "when"],
        "additionalProperties": False,
    },
    {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
                "required": ["name", "next", "children"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_a_structured_reply_satisfies_its_schema(schema: dict[str, Any]) -> None:
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(example(schema, "[simulated] Some text."))


def test_structured_output_is_asked_for_in_two_ways() -> None:
    schema = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
    shape = {"type": "json_schema", "name": "words", "schema": schema}
    one = said(chat("Hello.", response_format={"type": "json_schema", "json_schema": shape}))
    two = reply(Endpoint.RESPONSES, input="Hello.", text={"format": shape})["output"][0]["content"][0]["text"]
    assert json.loads(one) == json.loads(two) == {"word": "[simulated] Hello."}
    assert json.loads(said(chat("Hello.", response_format={"type": "json_object"}))) == {"text": "[simulated] Hello."}


def transcribed() -> Any:
    fields = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    recording = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\nID3\r\n--x--\r\n'
    request = parse_request(Endpoint.TRANSCRIPTIONS, fields + recording)
    assert isinstance(request, Request)
    return make(request, "0" * 24, Settings()).value


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (b"{}", "parse"),
        (b"--x\r\nnothing\r\n--x--\r\n", "parse"),
        (
            b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--\r\n',
            "Missing required parameter: 'file'",
        ),
    ],
)
def test_what_is_no_form_with_a_recording_is_refused(fields: bytes, said: str) -> None:
    refused = parse_request(Endpoint.TRANSCRIPTIONS, fields)
    assert isinstance(refused, Problem)
    assert said in refused.message


@pytest.mark.parametrize("name", [*VALUES, *BODIES])
@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_every_fault_of_the_body_is_an_answer_for_every_endpoint(name: str, endpoint: Endpoint) -> None:
    body = {"messages": [{"role": "user", "content": "Hi."}], "input": "Hi.", "prompt": "Hi."}
    whole = dump(transcribed() if endpoint is Endpoint.TRANSCRIPTIONS else reply(endpoint, **body))
    answer = defective(name, json.loads(whole))
    assert answer.status == 200
    untouched = {
        Endpoint.EMBEDDINGS: {"refusal", "filter", "invalid", "badutf8"},
        Endpoint.TRANSCRIPTIONS: {"refusal", "filter"},
    }
    assert (answer.body == whole) is (name in untouched.get(endpoint, set()))


def test_faults_of_the_body_are_what_their_names_say() -> None:
    def twist(name: str) -> Any:
        return json.loads(defective(name, chat("Hi.")).body)

    assert twist("null") is None
    assert twist("list") == []
    assert twist("nochoices")["choices"] == []
    assert twist("nocontent")["choices"][0]["message"]["content"] is None
    assert "usage" not in twist("nousage")
    assert twist("refusal")["choices"][0]["message"]["refusal"]
    assert twist("filter")["choices"][0]["finish_reason"] == "content_filter"
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(said(twist("invalid")))
    with pytest.raises(json.JSONDecodeError):
        json.loads(defective("cut", chat("Hi.")).body)
    with pytest.raises(UnicodeDecodeError):
        defective("badutf8", chat("Hi.")).body.decode()


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("sk-proj-abcdefghijklmnopqrstuvwxyz", "sk-proj-" + "*" * 22 + "wxyz"),
        ("short-key9", "sh******y9"),
        ("secret", "******"),
        ("", ""),
    ],
)
def test_an_echoed_key_is_masked(key: str, shown: str) -> None:
    assert masked(key) == shown
