"""YAML, .strings, .properties and string catalogs, read again by PyYAML, translate-toolkit and the standard library."""

import json
import re
from typing import Any

import pytest
import yaml
from documents import assert_unchanged, rewritten, segments, texts, variants
from hypothesis import example, given
from hypothesis import strategies as st
from translate.storage import properties

from batchrun.documents import DocumentError, Status

YAML = """# locale
en:
  hello: "Hello %{name}" # kept
  bye: &bye Bye
  it: 'it''s'
  again: *bye
  colon: a plain text
  tagged: !!str tagged
  own: !ruby/symbol left
  n: 12
  switch: true
  none:
  block: |
    two
    lines

  folded: >-
    folded
    text
  multi: a plain
    text of two lines
  list: [one, "two"]
  items:
    one: "%{count} item"
    other: "%{count} items"
"""
STRINGS = """/* A greeting */
"hello" = "Hello \\"%@\\"\\nyou";

// for the menu
menu.open = "Open";
/* No comment provided by engineer. */
"caf\\U00e9" = "line
break";
"""
PROPERTIES = """# A greeting
hello=Hello {0}
! other
menu.open : Open\\u00e9
long = one \\
       two
key\\ with\\:colon   value
empty=
last=x"""
CATALOG = """{
  "sourceLanguage" : "en",
  "strings" : {
    "" : {

    },
    "Bare" : {

    },
    "Hello" : {
      "comment" : "A greeting",
      "localizations" : {
        "fr" : {
          "stringUnit" : {
            "state" : "translated",
            "value" : "Bonjour"
          }
        }
      }
    },
    "Review" : {
      "localizations" : {
        "pl" : {
          "stringUnit" : {
            "state" : "needs_review",
            "value" : "Stare"
          }
        }
      }
    },
    "files" : {
      "localizations" : {
        "en" : {
          "variations" : {
            "plural" : {
              "one" : {
                "stringUnit" : {
                  "state" : "translated",
                  "value" : "%d file"
                }
              },
              "other" : {
                "stringUnit" : {
                  "state" : "translated",
                  "value" : "%d files"
                }
              }
            }
          }
        }
      }
    },
    "Keep" : {
      "shouldTranslate" : false
    }
  },
  "version" : "1.0"
}
"""
wild = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
tame = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12).filter(str.strip)


def load(data: bytes) -> Any:
    text = re.sub(r"!ruby/symbol", "", data.decode("utf-8-sig"))
    return yaml.safe_load(text.replace("\r\n", "\n"))


@pytest.mark.parametrize("data", variants(YAML))
def test_a_yaml_file_comes_back_with_its_texts_replaced_and_nothing_else(data: bytes):
    assert_unchanged("yaml", data)
    assert [segment.id for segment in segments("yaml", data)][:3] == ["/en/hello", "/en/bye", "/en/it"]
    before, after = load(data)["en"], load(rewritten("yaml", data, str.upper))["en"]
    for name in ("n", "switch", "none", "own"):
        assert after[name] == before[name]
    for name in ("hello", "bye", "it", "again", "colon", "tagged", "block", "folded", "multi"):
        assert after[name] == before[name].upper()
    assert after["list"] == ["ONE", "TWO"]
    assert after["items"] == {"one": "one %{COUNT} ITEMS", "other": "other %{COUNT} ITEMS"}
    new = rewritten("yaml", data, str.upper)
    assert b'"HELLO %{NAME}" # kept' in new
    assert b"'IT''S'" in new
    assert b"colon: A PLAIN TEXT" in new
    assert b"&bye BYE" in new


def test_plural_forms_in_yaml_become_those_of_the_target():
    assert list(load(rewritten("yaml", YAML.encode(), str, language="pl"))["en"]["items"]) == [
        "one",
        "few",
        "many",
        "other",
    ]


@pytest.mark.parametrize(
    "value", ["yes", "12", "a: b", "- a", "#a", "a #b", " a", "a\nb", "{a}", "~", "null", "'", '"', "a:", "2020-01-01"]
)
def test_a_text_that_a_plain_scalar_cannot_hold_is_quoted(value: str):
    for source in ("a: plain\nb: 1\n", "a: 'x'\nb: 1\n", "a: |\n  x\nb: 1\n", "a: >-\n  x\nb: 1\n", "{a: x, b: 1}\n"):
        end = "\n" if "|" in source else ""
        assert load(rewritten("yaml", source.encode(), lambda _: value)) == {"a": value + end, "b": 1}


@given(
    st.dictionaries(st.from_regex("[a-z]{1,4}", fullmatch=True), st.tuples(wild, wild), min_size=1),
    st.sampled_from(["'", '"', "|", ">", None]),
)
@example({"one": ("0", "0"), "other": ("0", "0")}, None)
@example({"a": (" 0", "0")}, "|")
@example({"a": ("\n 0\n1", "0\n1")}, "|")
@example({"b": ("0\x85", "\x1b"), "a": ("0", "0")}, "|")
@example({"b": ("0\u2028", "0"), "a": ("0", "0")}, "|")
def test_generated_yaml_has_exactly_the_new_texts(pairs: dict[str, tuple[str, str]], style: str | None):
    data = yaml.safe_dump(
        {name: old for name, (old, _) in pairs.items()}, default_style=style, allow_unicode=True, sort_keys=False
    ).encode()
    assert_unchanged("yaml", data)
    values = iter([new for _, new in pairs.values()])
    after = yaml.safe_load(rewritten("yaml", data, lambda _: next(values)).decode())
    old = yaml.safe_load(data.decode())
    ends = "\n\u2028\u2029"
    assert {name: text.rstrip(ends) for name, text in after.items()} == {
        name: pairs[name][1].rstrip(ends) for name in old
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_strings_files_come_back_with_their_values_replaced(encoding: str):
    for variant in variants(STRINGS):
        data = variant if encoding == "utf-8" else ("\ufeff" + variant.decode("utf-8-sig")).encode(encoding)
        assert_unchanged("strings", data)
        found = segments("strings", data)
        assert [(segment.id, segment.text, segment.note) for segment in found] == [
            *(
                ("hello", 'Hello "%@"\nyou', "A greeting"),
                ("menu.open", "Open", "for the menu"),
                ("café", "line\nbreak", ""),
            ),
        ]
        new = rewritten("strings", data, lambda text: f"«{text}»")
        assert texts("strings", new) == [f"«{segment.text}»" for segment in found]
        text = new.decode(encoding) if encoding != "utf-8" else new.decode("utf-8-sig")
        unit = properties.stringsutf8file.parsestring(text.encode()).units[0] if encoding == "utf-8" else None
        assert unit is None or str(unit.source) == '«Hello "%@"\nyou»'


def test_blanks_and_comments_may_stand_between_all_tokens_of_a_strings_file():
    data = b'/* Menu */ "open" /* key */ = // value\n "Open" ;\n"a;b" = "x = y;" /* = "no"; */ ; // end\n'
    assert_unchanged("strings", data)
    assert [(segment.id, segment.text, segment.note) for segment in segments("strings", data)] == [
        ("open", "Open", "Menu"),
        ("a;b", "x = y;", ""),
    ]
    new = b'/* Menu */ "open" /* key */ = // value\n "OPEN" ;\n"a;b" = "X = Y;" /* = "no"; */ ; // end\n'
    assert rewritten("strings", data, str.upper) == new


@given(st.lists(st.tuples(tame, wild), min_size=1, max_size=5, unique_by=lambda pair: pair[0]))
def test_generated_strings_files_have_exactly_the_new_texts(pairs: list[tuple[str, str]]):
    data = "".join(f'/* c */\n{json.dumps(key, ensure_ascii=False)} = "x";\n' for key, _ in pairs).encode()
    values = iter(value for _, value in pairs)
    new = rewritten("strings", data, lambda _: next(values))
    assert [(segment.id, segment.text) for segment in segments("strings", new)] == pairs


@pytest.mark.parametrize("data", variants(PROPERTIES))
def test_properties_come_back_with_their_values_replaced(data: bytes):
    assert_unchanged("properties", data)
    found = [(segment.id, segment.text, segment.note) for segment in segments("properties", data)]
    assert found == [
        *(("hello", "Hello {0}", "A greeting"), ("menu.open", "Opené", "other"), ("long", "one two", "")),
        *(("key with:colon", "value", ""), ("last", "x", "")),
    ]
    new = rewritten("properties", data, lambda text: f"é{text}\n ")
    store = properties.javautf8file.parsestring(new.decode("utf-8-sig").replace("\r\n", "\n").encode())
    assert {unit.name: str(unit.source) for unit in store.units if unit.name in ("hello", "last")} == {
        "hello": "éHello {0}\n ",
        "last": "éx\n ",
    }
    assert texts("properties", new) == [f"é{text}\n " for _, text, _ in found]


def test_properties_stay_in_their_encoding():
    assert rewritten("properties", b"a=x\n", lambda _: "é😀") == b"a=\\u00e9\\ud83d\\ude00\n"
    assert rewritten("properties", "a=ü\n".encode(), lambda _: "é") == "a=é\n".encode()
    assert rewritten("properties", "a=ü\n".encode("latin-1"), lambda _: "é") == "a=é\n".encode("latin-1")
    assert texts("properties", b"a=\\ud83d\\ude00\n") == ["😀"]


@given(st.lists(wild, min_size=1, max_size=5), st.booleans())
def test_generated_properties_have_exactly_the_new_texts(values: list[str], ascii: bool):
    data = "".join(f"key{n} = {'x' if ascii else 'ü'}\n" for n, _ in enumerate(values)).encode()
    new = iter(values)
    assert texts("properties", rewritten("properties", data, lambda _: next(new))) == values


@pytest.mark.parametrize("data", variants(CATALOG))
def test_a_string_catalog_gets_the_language_that_it_lacks(data: bytes):
    assert_unchanged("xcstrings", data, "pl")
    found = segments("xcstrings", data, "pl", existing="all")
    assert [(segment.id, segment.text, segment.status, segment.note) for segment in found] == [
        *(("Bare", "Bare", Status.EMPTY, ""), ("Hello", "Hello", Status.EMPTY, "A greeting")),
        *(("Review", "Review", Status.FUZZY, ""), ("files", "%d files", Status.EMPTY, "")),
    ]
    new = json.loads(rewritten("xcstrings", data, str.upper, "pl", existing="fuzzy").decode("utf-8-sig"))
    old = json.loads(data.decode("utf-8-sig"))
    translated = {
        name: entry["localizations"].pop("pl") for name, entry in new["strings"].items() if "localizations" in entry
    }
    assert {name: entry["stringUnit"] for name, entry in translated.items() if "stringUnit" in entry} == {
        name: {"state": "translated", "value": name.upper()} for name in ("Bare", "Hello", "Review")
    }
    forms = translated["files"]["variations"]["plural"]
    assert {name: form["stringUnit"]["value"] for name, form in forms.items()} == {
        name: f"{name} %D FILES" for name in ("one", "few", "many", "other")
    }
    del old["strings"]["Review"]["localizations"]["pl"]
    new["strings"]["Bare"] = {}
    assert new == old


def test_a_string_catalog_keeps_the_spelling_of_xcode():
    new = rewritten("xcstrings", CATALOG.encode(), str.upper, "pl").decode()
    values = json.loads(new)
    assert (
        new
        == json.dumps(values, ensure_ascii=False, indent=2, separators=(",", " : ")).replace("{}", "{\n\n    }") + "\n"
    )


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("yaml", "a: [b"),
        ("yaml", "a: b\n  c: d\n"),
        ("strings", '"a" = b'),
        ("xcstrings", "[]"),
        ("xcstrings", '{"strings": {'),
    ],
)
def test_what_is_not_of_the_format_is_refused(format: str, text: str):
    with pytest.raises(DocumentError):
        texts(format, text.encode(), "pl")


def test_a_string_catalog_needs_a_language():
    with pytest.raises(DocumentError, match="state the target language"):
        texts("xcstrings", CATALOG.encode())
