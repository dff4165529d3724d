"""The answer in a model's text: thinking, fences, JSON values."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.extraction import Text, blocks, candidates, last_fence, split
from batchrun.providers import table

MARKS = [(block["open"], block["close"]) for block in table("thinking")["block"]]
LONE = [block["close"] for block in table("thinking")["block"] if block.get("lone")]


@pytest.mark.parametrize(("opening", "closing"), MARKS)
def test_thinking_before_an_answer_is_told_apart(opening: str, closing: str):
    assert split(f"{opening}\nhm\n{closing}\n\nyes") == Text("hm", "yes")
    assert split(f"\n {opening}hm{closing}yes\n") == Text("hm", "yes\n")
    assert split(f"{opening}a{closing}\n{opening}b{closing}\nyes") == Text("a\n\nb", "yes")
    assert split(f"{opening}\n{closing}yes") == Text("", "yes")
    assert split(f"{opening}hm, {{}}") == Text("hm, {}", "", closed=False)


@pytest.mark.parametrize("closing", LONE)
def test_thinking_whose_beginning_stood_in_the_prompt_ends_at_a_lone_mark(closing: str):
    assert split(f"hm\n{closing}\n\nyes") == Text("hm", "yes")
    assert split(f"hm{closing}\nyes") == Text("hm", "yes")
    assert split(f"a\n{closing}\nb\n{closing}\nyes").answer == "yes"
    assert split(f"the mark {closing} ends it").answer == f"the mark {closing} ends it"


CHANNELS = [
    ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>yes<|return|>", "hm", "yes"),
    ("<|start|>assistant<|channel|>final<|message|>yes", None, "yes"),
    ("<|channel|>final <|constrain|>json<|message|>{}", None, "{}"),
    ("analysisWe need it.assistantfinalyes", "We need it.", "yes"),
    ("<|channel|>analysis<|message|>hm", "hm", ""),
    ("<think>hm</think><|channel|>final<|message|>yes", "hm", "yes"),
]


@pytest.mark.parametrize(("text", "thinking", "answer"), CHANNELS)
def test_channels_are_told_apart(text: str, thinking: str | None, answer: str):
    assert split(text)[:2] == (thinking, answer)


@pytest.mark.parametrize(
    "text",
    ["", "yes", " yes", "analysis of it", "a < b", "[1] yes", "I think>so", "<b>yes</b>", "say <think> now", "\n"],
)
def test_a_text_without_thinking_is_the_answer(text: str):
    assert split(text) == Text(None, text)


@given(st.text(alphabet='a<>|/[] {}"\\`\n') | st.text(max_size=40))
def test_no_text_is_too_strange(text: str):
    thinking, answer, closed = split(text)
    assert closed or thinking is not None
    assert answer in text
    for candidate in candidates(text):
        assert candidate == text or candidate in answer
    for loose in (False, True):
        found = blocks(text, loose=loose)
        assert [block.start for block in found] == sorted(block.start for block in found)
        assert all(before.end <= after.start for before, after in itertools.pairwise(found))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON.filter(lambda value: isinstance(value, list | dict)), st.sampled_from(["", "<think>{}</think>\n", "So: "]))
def test_any_value_is_found_where_words_or_thinking_stand_before_it(value: Any, before: str):
    text = json.dumps(value)
    assert text in list(candidates(before + text))
    assert text in list(candidates(f"{before}```json\n{text}\n```\nDone."))


def test_the_order_of_candidates():
    text = '<think>{"a": 0}</think>See {"a": 1}\n```\n{"a": 2}\n```\nand {"a": 3} or [4] or {b}.'
    answer = text.partition("</think>")[2]
    assert list(candidates(text)) == [text, answer, '{"a": 2}', "[4]", '{"a": 3}', '{"a": 2}', '{"a": 1}']


def test_a_value_inside_a_broken_one_is_no_candidate():
    assert list(candidates('{"items": [{"a": 1}, {"a": 2}, {"a"')) == ['{"items": [{"a": 1}, {"a": 2}, {"a"']
    assert [block.closed for block in blocks('{"a": "}"} {"b": [1}')] == [True, False]


def test_the_last_fence_is_the_last_one_that_is_opened():
    assert last_fence("```\na\n```\n~~~json\nb\n~~~\n") == "b"
    assert last_fence("```\na\n```\n```\nb") == "b"
    assert last_fence("no fence") is None


def test_a_long_text_of_brackets_is_read_in_one_pass():
    for text in ("[" * 300_000, "[1] " * 100_000, '{"a": "' * 50_000, "```\n" * 50_000, "</think>x " * 30_000):
        assert len(list(candidates(text))) >= 1
