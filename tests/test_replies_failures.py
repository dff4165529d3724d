"""What error bodies say, in every dialect; and what is wrong with a reply's JSON."""

import json
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import PromptError
from batchrun.replies import Complaint, ErrorInfo, checker, error_of

JSON_HEADERS = {"content-type": "application/json"}
OPENAI = {
    "error": {
        "message": "You exceeded your current quota",
        "type": "insufficient_quota",
        "param": None,
        "code": "insufficient_quota",
    }
}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (OPENAI, ("insufficient_quota", "insufficient_quota", "You exceeded your current quota")),
        (
            {"error": {"code": "DeploymentNotFound", "message": "The API deployment"}},
            ("", "DeploymentNotFound", "The API deployment"),
        ),
        (
            {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}},
            ("authentication_error", "", "invalid x-api-key"),
        ),
        (
            [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}],
            ("INVALID_ARGUMENT", "400", "API key not valid."),
        ),
        ({"error": {"message": "Insufficient credits", "code": 402}}, ("", "402", "Insufficient credits")),
        ({"error": {"message": "x", "type": None, "param": None, "code": "429"}}, ("", "429", "x")),
        ({"error": "model 'x' not found"}, ("", "", "model 'x' not found")),
        ({"error": "slow down", "code": 429, "type": "limit"}, ("limit", "429", "slow down")),
        (
            {"object": "error", "message": "bad", "type": "BadRequestError", "code": 400},
            ("BadRequestError", "400", "bad"),
        ),
        ({"detail": "Not Found"}, ("", "", "Not Found")),
        (
            {"detail": [{"loc": ["body", "messages", 0], "msg": "field required", "type": "missing"}]},
            ("", "", "body.messages.0: field required"),
        ),
        ({"detail": [{"msg": "a"}, {"msg": "b"}]}, ("", "", "a; b")),
        ({"detail": {"error": "x"}}, ("", "", '{"error":"x"}')),
        ({"errors": [{"message": "m", "code": 7003}]}, ("", "7003", "m")),
        ({"message": "Too many requests"}, ("", "", "Too many requests")),
        ({"error": {"message": {"deep": 1}}}, ("", "", '{"deep":1}')),
        ({"error": {}}, ("", "", "HTTP 418 I'm a Teapot")),
        ({"error": {"code": True, "message": "m"}}, ("", "", "m")),
        ({}, ("", "", "HTTP 418 I'm a Teapot")),
        ([], ("", "", "[]")),
    ],
)
def test_json_errors(body: Any, expected: tuple[str, str, str]):
    assert error_of(418, JSON_HEADERS, json.dumps(body).encode())[:3] == expected


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        ("text/html", b"<html><head><title> 502 Bad\n Gateway &amp; so </title>", "502 Bad Gateway & so"),
        ("text/html; charset=utf-8", b"<h1 class='x'>Oops</h1>", "Oops"),
        ("", b"<!DOCTYPE html><body>", "an HTML page without a title"),
        ("text/plain", b"no healthy upstream", "no healthy upstream"),
        ("application/json", b'{"error": {"message": "cut', '{"error": {"message": "cut'),
        ("", b"h\xff", "h\ufffd"),
        ("", b"", "HTTP 503 Service Unavailable"),
    ],
)
def test_other_errors(content_type: str, body: bytes, message: str):
    assert error_of(503, {"content-type": content_type}, body) == ErrorInfo("", "", message)


def test_an_unknown_status_has_no_words():
    assert error_of(600, {}, b"").message == "HTTP 600"


def test_a_long_message_is_cut():
    assert len(error_of(500, {}, json.dumps({"error": {"message": "x" * 9999}})).message) == 2048
    assert len(error_of(500, {}, b"y" * 5_000_000).message) == 2048


NAMES = st.sampled_from(["error", "errors", "message", "type", "code", "status", "detail", "msg", "loc"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)


@given(st.integers(-5, 1000), JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=80))
def test_no_error_body_is_too_strange(status: int, body: bytes):
    info = error_of(status, {}, body)
    assert info.message
    assert all(isinstance(part, str) and len(part) <= 2048 for part in info)
    "".join(info).encode()  # no lone surrogates, which no database takes


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Ann"}',
        ' {"name": "Ann"}\n',
        '```json\n{"name": "Ann"}\n```',
        '```\n{"name": "Ann"}```\n',
        '\n```JSON \r\n{"name": "Ann"}\r\n```',
        'Sure!\n```json\n{"name": "Ann"}\n```',
        '```json\n{"name": "Bo"}\n```\n```json\n{"name": "Ann"}\n```',
        'First {"name": "Bo"}, then {"name": "Ann"}; not {"nam": "Cy"}.',
        '<think>\nPerhaps {"name": "Bo"}?\n</think>\n\n{"name": "Ann"}',
        'Perhaps {"name": "Bo"}?\n</think>\n{"name": "Ann"}',
        '<|channel|>final <|constrain|>json<|message|>{"name": "Ann"}',
        'As [1] says: {"name": "Ann"} (see {x}).',
        '<think>\nhm\n</think>\nHere:\n```\n{"name": "Ann"}\n```\nand code:\n```py\nx = {}\n```',
    ],
)
def test_a_reply_that_fits(text: str):
    assert checker(PERSON).check(text) == {"name": "Ann"}


@pytest.mark.parametrize(
    "text", ['{"name": "\\ud83d!"}', '\ufeff{"name": "\\ud83d!"}', '```\n{"name": "\\ud83d!"}\n```']
)
def test_half_of_a_pair_in_a_reply_is_no_reason_to_ask_again(text: str):
    assert checker(PERSON).check(text) == {"name": "\ufffd!"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"name": 7}', ['at $.name: 7 is not of type "string"']),
        ('{"name": "x", "tags": ["a", "c"]}', ["at $.tags[1]:", '"c"']),
        ('{"nam": "x"}', ["at $:", '"name" is a required property', "'nam' was unexpected"]),
        ("[]", ["at $:", '"object"']),
        ("", ["not JSON"]),
        ("Here you are:", ["not JSON", "line 1, column 1"]),
        ("Here you are: {}", ["at $:", '"name" is a required property']),
        ('<think>{"name": "Ann"}</think>\nNo.', ["not JSON"]),
        ('{"tags": [{"name": "Ann"}', ["not JSON"]),
        ('{"name": NaN}', ["not JSON"]),
        ("[" * 5000, ["not JSON"]),
    ],
)
def test_a_reply_that_does_not_fit_is_told_where(text: str, words: list[str]):
    complaint = checker(PERSON).check(text)
    assert isinstance(complaint, Complaint)
    assert [word for word in words if word not in complaint.message] == []


def test_a_complaint_is_short():
    schema = {"type": "array", "items": {"type": "integer"}}
    complaint = checker(schema).check(json.dumps(["x" * 10_000] * 100))
    assert isinstance(complaint, Complaint)
    assert len(complaint.message) < 700
    assert complaint.message.endswith("and more")


def test_values_that_are_false_fit_too():
    assert checker({"type": "boolean"}).check("false") is False
    assert checker({"type": ["null"]}).check("null") is None


def test_the_draft_is_2020_12_unless_named():
    pairs = {"prefixItems": [{"type": "string"}], "items": False}
    assert isinstance(checker(pairs).check('["a", 1]'), Complaint)
    old = {"$schema": "http://json-schema.org/draft-07/schema#", "prefixItems": [{"type": "string"}]}
    assert checker(old).check("[1]") == [1]


def test_references_inside_the_schema_are_followed():
    schema = {"$defs": {"n": {"type": "integer"}}, "type": "array", "items": {"$ref": "#/$defs/n"}}
    assert checker(schema).check("[1]") == [1]
    assert isinstance(checker(schema).check('["a"]'), Complaint)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nope"},
        {"pattern": "(a+"},
        {"$ref": "http://127.0.0.1:9/x"},
        {"properties": {"a": {"$ref": "https://json.schemastore.org/package.json"}}},
        {"$ref": "file:///etc/passwd"},
        {"$schema": "http://127.0.0.1:9/meta", "type": "object"},
        {"$id": "http://127.0.0.1:9/", "$ref": "other.json"},
    ],
)
def test_a_schema_that_is_none_or_points_elsewhere_is_refused(schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    def forbidden(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", forbidden)
    with pytest.raises(PromptError, match="output schema"):
        checker(schema)


def test_a_reference_is_not_fetched_by_any_means():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        with pytest.raises(PromptError, match="not followed"):
            checker({"$ref": f"http://127.0.0.1:{server.getsockname()[1]}/x"})
        with pytest.raises(BlockingIOError):
            server.accept()
