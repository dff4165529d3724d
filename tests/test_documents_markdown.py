"""Markdown and plain text; Markdown is read again by its parser with everything switched on."""

import re

import pytest
from documents import assert_unchanged, rewritten, segments, texts, variants
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from batchrun.documents import Document

MARKDOWN = """---
title: kept
---
# A title #

A paragraph that is
wrapped *softly*, with a [link][ref].

Set
===

```sh
rm -rf build
```

- one
  goes on
- two

  > quoted
  > twice

| a | b `x\\|y` |
|---|---:|
| 1 | two |

    indented code

<p align="center">an HTML block</p>

[ref]: https://example.org "kept"

1. first
"""
TEXT = """It was the best
of times.

  It was the worst.


Last"""
line = st.text(st.sampled_from("ab é*_`[]()!|<>#-.1 "), max_size=20).map(lambda text: f"ab{text}".strip())


def blocks(text: str) -> list[tuple[str, str]]:
    """Every block that is not text with its content, and the content of the texts."""
    body = text[text.index("---\n", 4) + 4 :] if text.startswith("---") else text
    return [
        (token.type, token.content, token.markup, token.info)
        for token in MarkdownIt("commonmark").enable("table").parse(body)
    ]


def marked(text: str) -> str:
    return f"ü{text} | x"


@pytest.mark.parametrize("data", variants(MARKDOWN))
def test_markdown_comes_back_with_its_texts_replaced_and_nothing_else(data: bytes):
    assert_unchanged("markdown", data)
    found = texts("markdown", data)
    assert found[:6] == [
        *("A title", "A paragraph that is\nwrapped *softly*, with a [link][ref].", "Set", "one\ngoes on"),
        *("two", "quoted\ntwice"),
    ]
    assert found[6:] == ["a", "b `x|y`", "1", "two", "first"]
    before, after = (
        blocks(each.decode("utf-8-sig").replace("\r\n", "\n")) for each in (data, rewritten("markdown", data, marked))
    )
    assert after == [(type, marked(text) if type == "inline" else text, *rest) for type, text, *rest in before]


def test_every_text_in_its_own_place_gives_the_same_file():
    for data in variants(MARKDOWN):
        assert rewritten("markdown", data, str) == data


@pytest.mark.parametrize("cell", ["a \\| b", "`a \\| b`", "a \\\\| b"])
def test_bars_in_a_cell_stay_in_it(cell: str):
    data = f"| {cell} | c |\n|---|---|\n".encode()
    assert rewritten("markdown", data, str) == data
    assert len(texts("markdown", data)) == 2
    assert texts("markdown", rewritten("markdown", data, lambda text: f"{text} | x")) == [
        f"{text} | x" for text in texts("markdown", data)
    ]


def test_more_lines_stand_behind_the_marks_of_the_ones_before():
    new = rewritten("markdown", b"- > a\n  > b\n", lambda _: "x\ny\nz")
    assert new == b"- > x\n  > y\n  > z\n"


def test_the_context_of_a_block_is_the_heading_above_it():
    assert [segment.context for segment in segments("markdown", b"a\n\n# H\n\nb\n\n## K\n\nc\n")] == [
        "",
        "",
        "H",
        "H",
        "K",
    ]


@pytest.mark.parametrize(
    ("source", "value", "fits"),
    [
        ("Monday\n", "1. Januar\n2. Februar", False),
        ("Monday\n", "Montag\nist da", True),
        ("Monday\n", "a\n\nb", False),
        ("Monday\n", "# a", False),
        ("# Monday\n", "a\nb", False),
        ("| Monday |\n|---|\n", "a\nb", False),
        ("| Monday |\n|---|\n", "a | b", True),
    ],
)
def test_a_text_that_would_be_other_blocks_does_not_fit(source: str, value: str, fits: bool):
    document = Document("markdown", source.encode())
    assert (document.misfit(next(document.entries()).segment, value) is None) == fits


@given(
    st.lists(st.tuples(line, line), min_size=1, max_size=6),
    st.sampled_from(["- ", "> ", "# ", "1. ", ""]),
    st.booleans(),
)
def test_generated_blocks_have_exactly_the_new_texts(pairs: list[tuple[str, str]], mark: str, crlf: bool):
    text = "\n\n".join(mark + old for old, _ in pairs)
    data = (text.replace("\n", "\r\n") if crlf else text).encode()
    assert_unchanged("markdown", data)
    assert rewritten("markdown", data, str) == data
    found = texts("markdown", data)
    new = iter(value for _, value in pairs)
    after = rewritten("markdown", data, lambda _: next(new)).decode()
    if len(found) == len(pairs):
        assert re.findall(r"[^\r\n]+", after) == [
            before.replace(old, value, 1) if mark else value
            for before, old, (_, value) in zip(re.findall(r"[^\r\n]+", text), found, pairs, strict=True)
        ]


@pytest.mark.parametrize("data", variants(TEXT))
def test_text_comes_back_by_paragraphs(data: bytes):
    assert_unchanged("text", data)
    assert texts("text", data) == ["It was the best\nof times.", "It was the worst.", "Last"]
    expected = re.sub(r"\S(?:.|\n\S)*\S", lambda found: f"[{found.group()}]", TEXT)
    end = "\n" if data.endswith(b"\n") else ""
    after = rewritten("text", data, lambda text: f"[{text}]").decode("utf-8-sig").replace("\r\n", "\n")
    assert after == expected + end


def test_long_lines_are_paragraphs_of_their_own():
    data = f"{'long ' * 50}\n{'longer ' * 50}\n".encode()
    assert len(texts("text", data)) == 2


@given(st.text(st.sampled_from("ab é.\n\t ж>-#|`"), max_size=60), st.booleans())
def test_any_text_is_unchanged(text: str, crlf: bool):
    data = (text.replace("\n", "\r\n") if crlf else text).encode()
    for format in ("text", "markdown"):
        assert_unchanged(format, data)
        assert rewritten(format, data, str) == data
