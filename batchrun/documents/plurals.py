"""Plural forms by language: numbered in gettext, else named by CLDR categories."""

import gettext as library
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import Any, NamedTuple, cast

from batchrun.documents.segment import DocumentError

_SHOWN = 4
_TRIED = (*range(201), 1000, 1_000_000)
_CODE = re.compile(r"[A-Za-z]{2,3}(?:[-_@](?:[A-Za-z]{4}|latin))?(?:[-_](?:[A-Z]{2}|[0-9]{3}))?")
_PLAIN = re.compile(r"[\s,;()]+")


CATEGORIES = ("zero", "one", "two", "few", "many", "other")


class Forms(NamedTuple):
    uses: Mapping[str, str]  # by key
    header: str | None = None  # a catalog's statement


@cache
def languages() -> dict[str, dict[str, Any]]:
    """By code, spelled as in `pt_BR`."""
    return tomllib.loads(resources.files("batchrun.documents").joinpath("languages.toml").read_text(encoding="utf-8"))


def code_of(language: str | None) -> str | None:
    """By code or name (`German`, `Deutsch`)."""
    if language is None:
        return None
    given = language.strip()
    if _CODE.fullmatch(given) and known(given.replace("-", "_")) is not None:
        return given.replace("-", "_")
    return _names().get(_words(given)) or _names().get(_words(re.sub(r"\(.*?\)|,.*", " ", given)))


def known(code: str) -> dict[str, Any] | None:
    """For a code, else for its language alone."""
    table = languages()
    parts = re.split(r"[-_@]", code)
    named = "_".join([parts[0].lower(), *(part.title() if len(part) == 4 else part.upper() for part in parts[1:])])
    return table.get(named) or table.get(parts[0].lower())


@cache
def _names() -> dict[frozenset[str], str]:
    found: dict[frozenset[str], str] = {}
    for code, line in languages().items():
        for name in (line["name"], line["own"]):
            found.setdefault(_words(name), code)
    adjectives = {"pt_BR": "Brazilian Portuguese", "pt_PT": "European Portuguese", "zh_Hant": "Taiwanese Mandarin"}
    return found | {_words(name): code for code, name in adjectives.items()}


def _words(name: str) -> frozenset[str]:
    return frozenset(filter(None, _PLAIN.split(name.casefold())))


def stated(count: int, rule: str) -> Forms:
    """From a catalog's header. Raises DocumentError."""
    return Forms(_uses(count, rule.strip()))


def gettext(language: str | None) -> Forms:
    """Two forms if the language is unknown."""
    line = known(language) if language else None
    header = line["gettext"] if line else "nplurals=2; plural=(n != 1);"
    count, _, rule = header.removeprefix("nplurals=").partition("; plural=")
    return Forms(_uses(int(count), rule.rstrip(";")), header if line else None)


def cldr(language: str | None) -> Forms:
    """The categories of English if the language is unknown."""
    line = (known(language) if language else None) or languages()["en"]
    uses = cast("dict[str, str]", line["cldr"])
    return Forms({name: f"for {numbers}" for name, numbers in uses.items()})


@cache
def _uses(count: int, rule: str) -> dict[str, str]:
    # keys `form_0` … with their numbers, found by trying the rule
    compiled = cast("Callable[[str], Callable[[int], int]]", getattr(library, "c2py"))  # noqa: B009  typeshed lacks it
    try:
        index = compiled(rule)
        chosen = [(int(index(number)), number) for number in _TRIED]
    except (ValueError, RecursionError, ZeroDivisionError) as error:
        raise DocumentError(f"the rule for plural forms cannot be read: {error}") from None
    uses: dict[str, str] = {}
    for form in range(count):
        numbers = [str(number) for chose, number in chosen if chose == form]
        shown = ", ".join(numbers[:_SHOWN]) + (", …" if len(numbers) > _SHOWN else "")
        uses[f"form_{form}"] = f"for {shown}" if numbers else "for other numbers"
    return uses
