"""Locale files in JSON, read again by the standard library."""

import json
from typing import Any

import pytest
from documents import assert_unchanged, rewritten, segments, texts, variants
from hypothesis import given
from hypothesis import strategies as st

from batchrun.documents import DocumentError

TREE = """{
  "menu": { "open": "Open", "a/b~c": "Close \\"it\\"\\n" },
  "n": 12, "on": true, "nothing": null, "empty": "",
  "items": ["one", {"title":"two"}, "one"],
  "hello" : "Hello {{name}}"
}
"""
I18NEXT = """{
  "item_one": "{{count}} item",
  "item_other": "{{count}} items",
  "place_ordinal_one": "{{count}}st",
  "place_ordinal_other": "{{count}}th",
  "bye": "Bye"
}
"""
ARB = """{
  "@@locale": "en",
  "hello": "Hello {name}",
  "@hello": {"description": "A greeting", "placeholders": {"name": {"type": "String", "example": "Ann"}}},
  "items": "{count, plural, =1{item} other{items}}"
}
"""
trees = st.recursive(
    st.text(st.characters(codec="utf-8"), max_size=8)
    | st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def changed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: changed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [changed(each) for each in value]
    return f"«{value}»\n" if isinstance(value, str) and value.strip() else value


@pytest.mark.parametrize("data", variants(TREE))
def test_a_tree_comes_back_with_its_strings_replaced_and_nothing_else(data: bytes):
    assert_unchanged("json", data)
    assert [segment.id.partition("~")[0] for segment in segments("json", data)][:2] == ["/menu/open", "/menu/a"]
    assert texts("json", data) == ["Open", 'Close "it"\n', "one", "two", "one", "Hello {{name}}"]
    new = rewritten("json", data, lambda text: f"«{text}»\n")
    assert json.loads(new.decode("utf-8-sig")) == changed(json.loads(data.decode("utf-8-sig")))
    assert b'"n": 12, "on": true' in new


@given(st.dictionaries(st.text(max_size=5), trees, min_size=1, max_size=4), st.booleans(), st.sampled_from([None, 2]))
def test_generated_trees_have_exactly_the_new_strings(tree: dict[str, Any], ascii: bool, indent: int | None):
    data = json.dumps(tree, ensure_ascii=ascii, indent=indent).encode()
    assert_unchanged("json", data)
    assert json.loads(rewritten("json", data, lambda text: f"«{text}»\n")) == changed(tree)


def test_escapes_stay_the_way_of_the_file():
    assert rewritten("json", b'{"a": "\\u00e9"}', str) == b'{"a": "\\u00e9"}'
    assert rewritten("json", '{"a": "\\u00e9", "b": "é"}'.encode(), str) == '{"a": "é", "b": "é"}'.encode()


def test_plural_forms_of_i18next_become_those_of_the_target():
    assert_unchanged("json", I18NEXT.encode(), "pl")
    new = rewritten("json", I18NEXT.encode(), str.upper, language="pl")
    assert json.loads(new) == {
        **{f"item_{name}": f"{name} {{{{COUNT}}}} ITEMS" for name in ("one", "few", "many", "other")},
        "place_ordinal_one": "{{COUNT}}ST",
        "place_ordinal_other": "{{COUNT}}TH",
        "bye": "BYE",
    }
    assert new.decode().splitlines()[2].startswith('  "item_few": ')
    assert "item_one" not in json.loads(rewritten("json", I18NEXT.encode(), str, language="ja"))


def test_the_form_of_i18next_for_nothing_is_kept_in_every_language():
    data = b'{"item_zero": "no items", "item_one": "{{count}} item", "item_other": "{{count}} items"}'
    (segment,) = segments("json", data, "de")
    assert dict(segment.plural.sources)["zero"] == "no items"
    assert segment.plural.forms["zero"] == "for 0"
    assert list(json.loads(rewritten("json", data, str, language="de"))) == ["item_zero", "item_one", "item_other"]


def test_arb_texts_have_the_notes_of_their_developers():
    assert_unchanged("arb", ARB.encode())
    assert [(segment.id, segment.note) for segment in segments("arb", ARB.encode())] == [
        ("/hello", "A greeting"),
        ("/items", ""),
    ]
    new = json.loads(rewritten("arb", ARB.encode(), str.upper))
    assert new["@hello"] == json.loads(ARB)["@hello"]
    assert new["@@locale"] == "en"


def test_arb_keys_that_end_like_plural_forms_are_messages_of_their_own():
    data = b'{"day_one": "Day 1", "@day_one": {"description": "a"}, "day_two": "Day 2", "day_other": "Others"}'
    assert [(segment.id, segment.note) for segment in segments("arb", data, "pl")] == [
        *(("/day_one", "a"), ("/day_two", ""), ("/day_other", "")),
    ]


def test_an_element_of_an_array_is_known_by_its_text():
    ids = [segment.id for segment in segments("json", TREE.encode())]
    again = [segment.id for segment in segments("json", TREE.replace('["one"', '["zero", "one"').encode())]
    assert [id for id in again if id not in ids] == [id for id in again if id not in ids][:1]


@pytest.mark.parametrize(
    "text", ["{", '{"a": "b"', '{"a": "b"]', '{"a" "b"}', "{} x", "", '{"a": "b}', '{"a":, "b"}', '"a"']
)
def test_what_is_no_json_is_refused(text: str):
    with pytest.raises(DocumentError, match="not JSON"):
        texts("json", text.encode())
