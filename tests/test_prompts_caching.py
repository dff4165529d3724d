"""What a request gets for a prompt cache: members and marks that are spliced in, and nothing of its text is changed."""

from itertools import accumulate
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.models import Endpoint, Row
from batchrun.prompts import Caching, caching_of, key_member, marked, parse, renderer, with_members

MARK = '"m":1'
CHAT, RESPONSES = Endpoint.CHAT, Endpoint.RESPONSES

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
sources = st.lists(
    st.one_of(st.sampled_from(["{{ a }}", "{{ b }}", "{{ c }}"]), st.sampled_from(['x "y" \\', "\n", " ", "é", '","']))
)


def _read(body: bytes, endpoint: Endpoint) -> list[tuple[str, str]]:
    """Role and text of every message, blocks joined."""
    found: list[dict[str, Any]] = orjson.loads(body)["messages" if endpoint is CHAT else "input"]
    return [(each["role"], _text(each["content"])) for each in found]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


def _marks(body: bytes, endpoint: Endpoint) -> list[str]:
    """The texts up to each mark."""
    found: list[dict[str, Any]] = orjson.loads(body)["messages" if endpoint is CHAT else "input"]
    upto, marks = "", list[str]()
    for message in found:
        blocks = message["content"] if isinstance(message["content"], list) else [{"text": message["content"]}]
        for block in blocks:
            upto += block["text"]
            marks += [upto] if "m" in block else []
    return marks


def _prompt(system: str, user: str, endpoint: Endpoint = CHAT) -> Any:
    prompt = parse(f"---\nname: p\n---\nsystem:\n{system}\nuser:\n{user}", path="p.prompty")
    return renderer(prompt, endpoint=endpoint, model="m", params={"seed": 1}, variables={}, columns={})


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES])
@pytest.mark.parametrize(
    ("system", "user", "marks"),
    [
        ("Be brief.", "{{ a }}", ["Be brief."]),
        ("Be brief.", "Of this: {{ a }}!", ["Be brief.Of this: "]),
        ('Say "hi" in {{ a }} now.', "{{ b }}", ['Say "hi" in ', 'Say "hi" in A now.']),
        ("Fixed.", "{{ a }}\nQ: {{ b }}", ["Fixed.", "Fixed.A\nQ: "]),
        ("Fixed.", "D: {{ a }} Q: {{ b }} {{ c }}", ["Fixed.D: ", "Fixed.D: A Q: ", "Fixed.D: A Q: B "]),
        ("{{ a }}", "{{ b }}", ["A"]),
    ],
)
def test_a_mark_stands_before_each_variable(endpoint: Endpoint, system: str, user: str, marks: list[str]) -> None:
    found = _prompt(system, user, endpoint)
    row = Row(1, None, "", {"a": "A", "b": "B", "c": "C"})
    body = found.render(row).body
    ends = [len(found.fixed), *accumulate(map(len, found.beginnings(row)))]
    sent = marked(body, list(dict.fromkeys(ends)), MARK, endpoint)
    assert _marks(sent, endpoint) == marks
    assert _read(sent, endpoint) == _read(body, endpoint)
    assert orjson.loads(sent)["seed"] == 1


@given(system=sources, user=sources, a=texts, b=texts, c=texts)
def test_marks_change_no_text(system: list[str], user: list[str], a: str, b: str, c: str) -> None:
    found = _prompt("s" + "".join(system), "u" + "".join(user) + "{{ a }}")
    row = Row(1, None, "", {"a": a, "b": b, "c": c})
    body = found.render(row).body
    ends = [len(found.fixed), *accumulate(map(len, found.beginnings(row)))]
    sent = marked(body, list(dict.fromkeys(ends)), MARK, CHAT)
    assert _read(sent, CHAT) == _read(body, CHAT)
    assert _marks(sent, CHAT)


def test_a_prompt_that_begins_with_its_variable_has_nothing_to_mark() -> None:
    prompt = parse("{{ a }}", path="p.md")
    found = renderer(prompt, endpoint=CHAT, model="m", params={}, variables={}, columns={})
    body = found.render(Row(1, None, "", {"a": "A"})).body
    assert marked(body, [len(found.fixed)], MARK, CHAT) == body
    assert marked(body, [len(found.fixed)], MARK, Endpoint.EMBEDDINGS) == body


def test_members_go_to_the_end() -> None:
    assert orjson.loads(with_members(b'{"model":"m","messages":[]} \n', '"a":1,"b":{}')) == {
        "model": "m",
        "messages": [],
        "a": 1,
        "b": {},
    }
    assert key_member("k", b"one") == key_member("k", b"one") != key_member("k", b"two")


@pytest.mark.parametrize(
    ("dialect", "model", "endpoint", "params", "names"),
    [
        ("openai", "gpt-5.6-luna", CHAT, [], ("prompt_cache_key", "prompt_cache_breakpoint", "prompt_cache_options")),
        ("azure", "gpt-6-sol", RESPONSES, [], ("prompt_cache_key", "prompt_cache_breakpoint", "prompt_cache_options")),
        ("any", "gpt-6.1-terra", CHAT, [], ("prompt_cache_key", "prompt_cache_breakpoint", "prompt_cache_options")),
        ("openai", "gpt-5.4-mini", CHAT, [], ("prompt_cache_key",)),
        ("openai", "gpt-5.4-mini", Endpoint.COMPLETIONS, [], ()),
        ("openai", "gpt-6-sol", CHAT, ["prompt_cache_key"], ("prompt_cache_breakpoint", "prompt_cache_options")),
        ("openai", "gpt-6-sol", CHAT, ["prompt_cache_options"], ("prompt_cache_key",)),
        ("azure", "gpt-4o", CHAT, [], ()),
        ("any", "qwen3", CHAT, [], ()),
        ("openrouter", "anthropic/claude-sonnet-5", CHAT, [], ("cache_control",)),
        ("openrouter", "openai/gpt-5", CHAT, [], ()),
        ("dashscope", "qwen-plus", CHAT, [], ("cache_control",)),
        ("mistral", "mistral-large-latest", CHAT, [], ("prompt_cache_key",)),
        ("anthropic", "claude-sonnet-5", CHAT, [], ()),
    ],
)
def test_only_models_that_take_it_are_asked(
    dialect: str, model: str, endpoint: Endpoint, params: list[str], names: tuple[str, ...]
) -> None:
    assert caching_of(dialect, model, endpoint, params).names == names


@pytest.mark.parametrize(
    ("dialect", "model", "names"),
    [
        ("openai", "gpt-5.6-luna", ("prompt_cache_key", "prompt_cache_breakpoint", "prompt_cache_options")),
        ("anthropic", "claude-sonnet-5", ("cache_control",)),
        ("mistral", "mistral-large-latest", ("prompt_cache_key",)),
        ("dashscope", "qwen-plus", ()),
    ],
)
def test_batches_may_have_another_cache_than_live_requests(dialect: str, model: str, names: tuple[str, ...]) -> None:
    assert caching_of(dialect, model, CHAT, [], batch=True).names == names


def test_a_short_beginning_is_not_kept() -> None:
    assert not Caching(minimum=1024).is_kept(4095)
    assert Caching(minimum=1024).is_kept(4096)
