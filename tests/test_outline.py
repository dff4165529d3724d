"""JSON without its long strings: the same object for all that is short, whatever the strings hold."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun import outline as module
from batchrun.outline import outline, outlined

TEXTS = st.text(st.sampled_from('ab"\\}{,:[] é'), max_size=40)
VALUES = st.recursive(
    TEXTS | st.integers(0, 10**6) | st.booleans() | st.none() | st.lists(st.integers(0, 9), max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('ab"\\', max_size=2), inner, max_size=4),
    max_leaves=12,
)


def fits(short: Any, whole: Any) -> bool:
    """Whether one is the other with strings cut short."""
    if isinstance(whole, dict):
        return isinstance(short, dict) and len(short) <= len(whole)
    if isinstance(whole, list):
        return isinstance(short, list) and len(short) == len(whole) and all(map(fits, short, whole))
    return short == whole or (isinstance(whole, str) and isinstance(short, str) and len(short) < len(whole))


@given(st.dictionaries(st.sampled_from(["model", "input", "n", "x"]), VALUES, max_size=4))
def test_what_is_short_is_the_same_and_only_strings_are_cut(body: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LONG", 6)
        patch.setattr(module, "_WORTH", 1)
        for text in (orjson.dumps(body).decode(), orjson.dumps(body, option=orjson.OPT_INDENT_2).decode()):
            found = outline(text)
            assert found.keys() == body.keys()
            assert all(fits(found[name], value) for name, value in body.items())
            assert outline(text.encode()) == found


def test_a_long_body_is_read_without_its_picture() -> None:
    parts = [{"type": "text", "text": 'say "a\\b"'}, {"type": "image_url", "image_url": {"url": "x" * 100_000}}]
    text = orjson.dumps({"messages": [{"role": "user", "content": parts}], "max_tokens": 7, "model": "m"}).decode()
    assert len(outlined(text)) < 300
    found = outline(text)
    assert (found["model"], found["max_tokens"]) == ("m", 7)
    assert found["messages"][0]["content"][0] == parts[0]


def test_a_long_array_is_no_string_and_is_read_whole() -> None:
    text = orjson.dumps({"input": list(range(9000)), "model": "m"}).decode()
    assert outline(text) == {"input": list(range(9000)), "model": "m"}
