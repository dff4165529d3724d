"""What a terminal gets to see of foreign text."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.display import counted, printable, sizes


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("", ""),
        ("naïve 日本語 🙂", "naïve 日本語 🙂"),
        ("[link=x][/x]", "[link=x][/x]"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("\x1b[2Jgone", "␛[2Jgone"),
        ("\x1b]52;c;aGk=\x1b\\", "␛]52;c;aGk=␛\\"),
        ("over\rwrite\b", "over␍write␈"),
        ("two\nlines\ttab", "two␊lines␉tab"),
        ("\x00\x7f", "␀␡"),
        ("\x9b31m\x85", "\\x9b31m\\x85"),
        ("soft\xadhyphen", "soft\\xadhyphen"),
        ("\u202egnp.exe\u2066\u200f", "\\u202egnp.exe\\u2066\\u200f"),
        ("a\u200bb\u200dc\ufeffd\u2060", "a\\u200bb\\u200dc\\ufeffd\\u2060"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("\u3164", "\\u3164"),
        ("\u0600١", "\u0600١"),
    ],
)
def test_what_acts_or_hides_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_of_a_thousand_combining_marks_eight_are_left() -> None:
    assert printable("e" + "\u0301" * 1000 + "x") == "e" + "\u0301" * 8 + "x"
    assert printable("e" + "\u20dd" * 9) == "e" + "\u20dd" * 8


def test_marks_of_one_letter_each_all_stay() -> None:
    assert printable("e\u0301" * 100) == "e\u0301" * 100


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abcde…"),
        ("a" * 10**6, 3, "aa…"),
        ("\x9b\x9b", 5, "\\x9b…"),
        ("ab", 0, ""),
    ],
)
def test_a_long_text_is_cut_with_an_ellipsis(text: str, limit: int, shown: str) -> None:
    assert printable(text, limit) == shown


@given(st.text(st.characters(exclude_categories=())), st.none() | st.integers(0, 40))
def test_nothing_unseen_is_left_in_any_text(text: str, limit: int | None) -> None:
    shown = printable(text, limit)
    hidden = {char for char in shown if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert hidden <= set("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2")
    assert limit is None or len(shown) <= limit
    shown.encode()


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="\u115f\u1160\u3164\uffa0")))
def test_harmless_text_is_left_alone(text: str) -> None:
    assert printable(text) == text


def test_one_of_something_is_not_many() -> None:
    assert [counted(0), counted(1), counted(12_000)] == ["0 rows", "1 row", "12,000 rows"]
    assert counted(1, "request") == "1 request"


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ((0, 999), ["0 B", "999 B"]),
        ((1000, 48_250), ["1.0 kB", "48.2 kB"]),
        ((5_000_000, 5_100_000), ["5.0 MB", "5.1 MB"]),
        ((2_000_000_000,), ["2.0 GB"]),
        ((5_010_000, 5_000_000), ["5,010,000 bytes", "5,000,000 bytes"]),
        ((1000, 1000), ["1.0 kB", "1.0 kB"]),
    ],
)
def test_sizes_that_differ_are_never_shown_alike(numbers: tuple[int, ...], shown: list[str]) -> None:
    assert sizes(*numbers) == shown
