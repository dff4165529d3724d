"""What providers take of a request: the same request, spelled as they accept it when it is sent."""

import json
from typing import Any

import pytest

from batchrun import prompts
from batchrun.digests import BLAKE2B
from batchrun.models import Endpoint, Request, Row
from batchrun.prompts import Prompt, check_takes, request_digest, spelling_of
from batchrun.providers import table

SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string"}},
    "required": ["mood"],
    "additionalProperties": False,
}
MOOD = """---
name: mood
model: {id: m, options: {maxOutputTokens: 100, seed: 3}}
outputs: {type: object, properties: {mood: {type: string}}, required: [mood], additionalProperties: false}
---
system:
You judge.
user:
Judge: {{ text }}
"""
TAKES: dict[str, dict[str, Any]] = table("requests")


def prompt_of(text: str) -> Prompt:
    return prompts.parse(text, path="mood.prompty")


def rendered(prompt: Prompt, params: dict[str, Any]) -> Request:
    parts: dict[str, Any] = {"endpoint": Endpoint.CHAT, "model": "m", "variables": {}, "columns": {}}
    made = prompts.renderer(prompt, params=params, **parts)
    return made.render(Row(1, "1", '{"id":1,"text":"kind"}', {"id": 1, "text": "kind"}))


def sent(text: str, dialect: str, takes: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    """The body that leaves for a provider of this dialect."""
    prompt = prompt_of(text)
    spelling = spelling_of({**TAKES["any"], **TAKES.get(dialect, {}), **(takes or {})}, prompt, params)
    request = rendered(prompt, params)
    return json.loads((request if spelling is None else spelling.apply(request)).body)


@pytest.mark.parametrize("dialect", TAKES)
def test_every_entry_is_in_order_and_names_its_source(dialect: str) -> None:
    assert len(TAKES[dialect]["source"]) > 10
    check_takes({name: value for name, value in TAKES[dialect].items() if name != "source"})


def test_deepseek_gets_json_object_the_schema_in_the_system_message_and_max_tokens() -> None:
    body = sent(MOOD, "deepseek")
    assert body["response_format"] == {"type": "json_object"}
    assert "JSON" in body["messages"][0]["content"]
    assert body["messages"][0]["content"].startswith("You judge.\n\n")
    assert json.loads(body["messages"][0]["content"].splitlines()[-1]) == SCHEMA
    assert body["messages"][1] == {"role": "user", "content": "Judge: kind"}
    assert (body["max_tokens"], "max_completion_tokens" in body) == (100, False)


def test_mistral_gets_the_schema_as_it_is_max_tokens_and_random_seed() -> None:
    body = sent(MOOD, "mistral")
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert (body["max_tokens"], body["random_seed"]) == (100, 3)
    assert not {"max_completion_tokens", "seed"} & body.keys()


def test_openai_gets_what_the_prompt_has_always_made() -> None:
    prompt = prompt_of(MOOD)
    assert spelling_of({**TAKES["any"], **TAKES["openai"]}, prompt, {}) is None


def test_without_a_system_message_the_schema_gets_one_of_its_own() -> None:
    body = sent(MOOD.replace("system:\nYou judge.\n", ""), "any", {"schema": "message"})
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert "response_format" not in body


def test_what_the_user_has_typed_is_sent_as_it_is() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
    body = sent(MOOD, "deepseek", {"without": ["seed"]}, response_format=form, max_completion_tokens=7, seed=4)
    assert (body["response_format"], body["seed"]) == (form, 4)
    assert len(body["messages"]) == 2
    assert body["max_completion_tokens"] == 7


def test_roles_and_members_that_are_not_taken() -> None:
    text = MOOD.replace("system:", "developer:").replace("seed: 3", "temperature: 0")
    body = sent(text, "mistral", {"without": ["temperature"]})
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert "temperature" not in body


def test_a_limit_that_the_prompt_spells_as_a_provider_does_stays() -> None:
    assert "max_completion_tokens" in sent(MOOD.replace("maxOutputTokens", "max_completion_tokens"), "any")


def test_the_hash_of_a_row_is_that_of_builds_that_respelled_nothing() -> None:
    """Made by 0.1.0: a finished run of it sends nothing again, whatever is respelled on the way."""
    assert request_digest(rendered(prompt_of(MOOD), {}), BLAKE2B) == "d43d42f53d1b8184aec42ec6e3687c42"


@pytest.mark.parametrize(
    "takes", [{"schema": "xml"}, {"limit": "tokens"}, {"roles": ["a"]}, {"without": "seed"}, {"other": 1}]
)
def test_an_entry_that_is_none_is_refused(takes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="known are"):
        check_takes(takes)
