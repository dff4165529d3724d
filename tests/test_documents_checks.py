"""Checks of a translation against its source, as tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.documents import LANGUAGE, is_identifiable
from batchrun.documents.checks import CHECKS, failed, maximum

FINE = [
    ("placeholders", "Hello %s, %(name)s!", "%(name)s, hallo %s!"),
    ("placeholders", "100% of {count} {{ items }}", "100 % von {count} {{items}}"),
    ("placeholders", "100% of it, 50%!", "zu 100% davon, 50 %!"),
    ("placeholders", "%1$s of %2$d", "%2$d von %1$s"),
    (
        "placeholders",
        "{n, plural, one {# file} other {# files}}",
        "{n, plural, one {# plik} few {# pliki} other {# pliku}}",
    ),
    ("placeholders", "$t(key) ${x} #{y} %{z} %1 %n {0:.2f}", "{0:.2f} $t(key) ${x} #{y} %{z} %1 %n"),
    ("placeholders", "{\\an8}Up\\h there", "{\\an8}Da\\h oben"),
    ("placeholders", "nothing", "nichts"),
    ("markup", "<b>a</b> &amp; <br/>", "<br/><b>x</b> &amp;"),
    ("markup", "a < b and c > d", "a < b und c > d"),
    ("markup", "**a** `b`", "`b` **a**"),
    ("markup", "AT&T", "AT&T"),
    ("numbers", "1,234.5 and 7", "7 und 1.234,5"),
    ("numbers", "in 2024", "في ٢٠٢٤"),
    ("numbers", "%1$s and {0} &#39;", "{0} %1$s &#39;"),
    ("blanks", " a\n", " b\n"),
    ("lines", "a\nb", "c\nd"),
    ("not-empty", "a", "b"),
    ("not-empty", " ", ""),
    ("not-copied", "OK", "OK"),
    ("not-copied", "%(application_name)s", "%(application_name)s"),
    ("not-copied", "Good morning to you", "Guten Morgen"),
    ("length-ratio", "Good morning, how are you today?", "お元気ですか、おはよう"),
    ("length-ratio", "OK", "In Ordnung, das machen wir so"),
]
WRONG = [
    ("placeholders", "Hello %s", "Hallo", "%s of the source is missing"),
    ("placeholders", "Hello", "Hallo %s", "%s is not in the source"),
    ("placeholders", "%(name)s", "%(Name)s", "%(name)s"),
    ("placeholders", "{name}", "{Name}", "{name}"),
    ("placeholders", "%d of %d", "%d", "%d of the source is missing"),
    ("placeholders", "{n, plural, other {x}}", "{m, plural, other {x}}", "{n, plural}"),
    ("placeholders", "{n, plural, other {x}}", "{n, plural, other {x}", "braces"),
    ("placeholders", "$t(a.b)", "$t(c)", "$t(a.b)"),
    ("markup", "<b>a</b>", "<b>a", "</b>"),
    ("markup", "<b><i>a</i></b>", "<i><b>a</i></b>", "order"),
    ("markup", "<a href='x'>a</a>", "<a href='y'>a</a>", "href='x'"),
    ("markup", "a & b", "a &amp; b", "&amp;"),
    ("markup", "**a**", "**a", "not closed"),
    ("numbers", "1,234 rows", "1.235 Zeilen", "1234"),
    ("numbers", "12 of 13", "13", "12"),
    ("blanks", "a\n", "a", "ends with"),
    ("blanks", "a", " a", "begins with"),
    ("lines", "a\nb", "a b", "1 lines"),
    ("not-empty", "a", " \n", "empty"),
    ("not-copied", "Good morning to you", "Good morning to you ", "identical to the source"),
    ("length-ratio", "Good morning, how are you today?", "Hi", "times as long"),
    ("length-ratio", "Good morning, how are you today?", "ja " * 80, "times as long"),
]


@pytest.mark.parametrize(("name", "source", "target"), FINE)
def test_a_right_translation_passes(name: str, source: str, target: str):
    assert CHECKS[name](source, target) is None


@pytest.mark.parametrize(("name", "source", "target", "said"), WRONG)
def test_a_wrong_translation_is_named(name: str, source: str, target: str, said: str):
    complaint = CHECKS[name](source, target)
    assert complaint is not None
    assert said in complaint


def test_every_check_is_in_both_tables():
    assert {name for name, *_ in FINE} == {name for name, *_ in WRONG} == set(CHECKS)


@given(st.text(st.characters(codec="utf-8")))
def test_a_text_passes_against_itself(text: str):
    assert failed([name for name in CHECKS if name != "not-copied"], text, text) is None


def test_the_first_check_that_fails_is_named():
    assert failed(["lines", "placeholders"], "%s", "a\nb") == ("lines", "it has 2 lines, the source has 1")
    assert failed([], "%s", "") is None
    assert maximum(3, "abc") is None
    assert maximum(3, "abcd") == "it has 4 characters, and at most 3 are allowed"


IN_ENGLISH = "The quick brown fox jumps over the lazy dog while the whole village is looking at it."
IN_GERMAN = "Der schnelle braune Fuchs springt über den faulen Hund, während das ganze Dorf zusieht."
IN_POLISH = "Szybki brązowy lis przeskakuje nad leniwym psem, a cała wieś się temu przygląda."
IN_JAPANESE = "素早い茶色の狐がのろまな犬を飛び越える間、村中の人々がそれを見ていました。"


@pytest.mark.parametrize(
    ("code", "target", "said"),
    [
        ("de", IN_GERMAN, None),
        ("pl", IN_POLISH, None),
        ("ja", IN_JAPANESE, None),
        ("de_AT", IN_GERMAN, None),
        ("de", IN_ENGLISH, "it is in the language en, not in de"),
        ("pl", IN_GERMAN, "it is in the language de, not in pl"),
        ("de", IN_JAPANESE, "it is in the language ja, not in de"),
        ("de", "The quick brown fox", None),  # too short
        ("de", "https://example.com/the/quick/brown/fox/jumps/over/the/lazy/dog/and/more", None),
        ("de", "<the-quick-brown-fox-jumps-over-the-lazy-dog-and-more/> {the_quick_brown_fox_jumps}", None),
        (None, IN_ENGLISH, None),
    ],
)
def test_a_text_in_another_language_is_named_where_it_is_long_enough(code: str | None, target: str, said: str | None):
    found = failed([LANGUAGE], "", target, code)
    assert found == (None if said is None else (LANGUAGE, said))


def test_languages_that_are_mistaken_for_one_another_pass():
    norwegian = "Den raske brune reven hopper over den late hunden mens hele landsbyen ser på det."
    assert failed([LANGUAGE], "", norwegian, "nb") is None
    assert failed([LANGUAGE], "", norwegian, "da") is None
    assert is_identifiable("pt-BR")
    assert not is_identifiable("kw")
