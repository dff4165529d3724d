"""What a refusal means, by the table `providers/answers.toml` and the user's own lines before it. Pure.

A line of the table states any of dialect, status, code, phrases and headers; all that it states must fit, and the first
line that fits says the meaning. A status alone says little: an empty account comes as 400, 402, 403, 412 and 429, and
the code `insufficient_quota` is an empty account in one dialect and a limit of tokens per minute in another.
"""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple, cast

from batchrun.providers import ANY, table

_KEYS = frozenset({"means", "dialect", "status", "code", "says", "header", "source"})
_PARTS = re.compile(r"(\*|#|\{asked\}|\{limit\}|\s+)")
_NUMBER = r"\d[\d,]{0,18}(?:\.\d{1,9})?"
_PIECES = {"*": ".{0,200}?", "#": _NUMBER, "{asked}": f"~?(?P<asked>{_NUMBER})", "{limit}": f"(?P<limit>{_NUMBER})"}


class Meaning(StrEnum):
    """What a refusal means; the values are the words of the table and the causes that failures are grouped by."""

    EMPTY = "account empty"
    UNCLEAR = "quota or rate limit"
    NOT_ON_PLAN = "model not on the plan"
    QUOTA = "quota of a day used up"
    RATE = "rate limit"
    NO_CAPACITY = "no capacity in the service tier"
    NO_TIER = "service tier not offered"
    ADDED = "not taken, and left out"
    CONCURRENCY = "too many at once"
    OVERLOADED = "overloaded"
    NEVER_FITS = "larger than the limit"
    KEY = "key refused"
    MODEL = "model not found"
    LOADING = "server is loading the model"
    PARAMETER = "parameter refused"
    TOO_LONG = "too long for the model"
    TOO_LARGE = "request too large"
    FILTERED = "content filter"
    MISFIT = "does not fit the schema"
    PASSES = "may pass"


STOPS = frozenset({Meaning.EMPTY, Meaning.NOT_ON_PLAN, Meaning.NO_TIER})
"""Meanings that stop the run whenever they come: no wait and no other row helps."""
WAITS = frozenset({Meaning.RATE, Meaning.CONCURRENCY, Meaning.QUOTA, Meaning.UNCLEAR})
"""Meanings that are a 429 under whatever status they come: the gate closes, and the row loses nothing."""
OF_WHAT_WAS_ADDED = frozenset({Meaning.NO_CAPACITY, Meaning.ADDED})
"""Meanings of refusals that are about the service tier, or about a member that a request got when it was sent: they cost
the row nothing, and say nothing of the rows or of the provider."""
OF_THE_ROW = frozenset({Meaning.TOO_LONG, Meaning.TOO_LARGE, Meaning.FILTERED, Meaning.NEVER_FITS})
"""Meanings whose cause is in the row itself, so that they say nothing about the run, however often they come."""


class Refusal(NamedTuple):
    """What an answer says, as far as its meaning depends on it; `headers` have lower-case names.

    `sent` is the body of the request: a phrase that only echoes it does not stop a run.
    """

    status: int
    type: str = ""
    code: str = ""
    message: str = ""
    headers: Mapping[str, str] = {}
    sent: bytes = b""


class Line(NamedTuple):
    """One line of the table, compiled. Empty or None stands for what the line does not state."""

    means: Meaning
    dialects: frozenset[str]
    statuses: frozenset[int]
    codes: frozenset[str]
    phrases: tuple[re.Pattern[str], ...]
    headers: tuple[tuple[str, re.Pattern[str]], ...]

    def fits(self, said: Refusal) -> bool:
        """Whether all that the line states fits."""
        if self.statuses and said.status not in self.statuses and -(said.status // 100) not in self.statuses:
            return False
        if self.codes and self.codes.isdisjoint((said.code.lower(), said.type.lower())):
            return False
        if any(pattern.fullmatch(said.headers.get(name, "").strip()) is None for name, pattern in self.headers):
            return False
        return not self.phrases or any(self._says(pattern, said) for pattern in self.phrases)

    def _says(self, pattern: re.Pattern[str], said: Refusal) -> bool:
        found = pattern.search(said.message)
        if found is None:
            return False
        if self.means in STOPS and said.sent and found[0].lower() in said.sent.decode("utf-8", "replace").lower():
            return False
        figures = found.groupdict()
        return not figures or _figure(figures["asked"]) > _figure(figures["limit"])


class Meanings:
    """The lines that hold for one dialect, the user's own first."""

    def __init__(self, dialect: str = ANY, own: Iterable[Mapping[str, Any]] = ()) -> None:
        """`own` are lines as the table has them. Raises ValueError for one that is none."""
        lines = [compiled(line) for line in (*own, *table("answers")["answers"])]
        self._lines = [line for line in lines if not line.dialects or dialect in line.dialects]

    def of(self, said: Refusal) -> Meaning | None:
        """What the refusal means; None where no line fits."""
        return next((line.means for line in self._lines if line.fits(said)), None)


@cache
def _hints() -> list[tuple[tuple[re.Pattern[str], ...], str]]:
    return [(tuple(map(_phrase, line["says"])), line["hint"]) for line in table("answers")["hints"]]


def option_for(said: str) -> str | None:
    """The option that changes what a refusal complains of, where it names a parameter that has one."""
    return next((hint for phrases, hint in _hints() if any(phrase.search(said) for phrase in phrases)), None)


def compiled(line: Mapping[str, Any]) -> Line:
    """One line of the table, ready for use. Raises ValueError, saying what is wrong with it."""
    if unknown := line.keys() - _KEYS:
        raise ValueError(f"unknown entry {min(unknown)!r}; known: {', '.join(sorted(_KEYS))}")
    if line.get("means") not in set(Meaning):
        raise ValueError(f"means must be one of {', '.join(Meaning)}, not {line.get('means')!r}")
    if not line.keys() & {"status", "code", "says", "header"}:
        raise ValueError("a line needs status, code, says or header")
    headers = line.get("header", {})
    if not isinstance(headers, Mapping):
        raise ValueError("header must be a table of phrases")
    named = cast("Mapping[str, object]", headers)
    return Line(
        Meaning(line["means"]),
        frozenset(word.lower() for word in _words(line, "dialect")),
        frozenset(map(_status, _listed(line.get("status", [])))),
        frozenset(word.lower() for word in _words(line, "code")),
        tuple(map(_phrase, _words(line, "says"))),
        tuple((name.lower(), _phrase(str(phrase))) for name, phrase in named.items()),
    )


def _listed(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else [value]


def _words(line: Mapping[str, Any], name: str) -> list[str]:
    words = _listed(line.get(name, []))
    if not all(isinstance(word, str) and word for word in words):
        raise ValueError(f"{name} must be text, or a list of texts")
    return [str(word) for word in words]


def _status(value: object) -> int:
    """A status, or minus its hundreds for all of them ("4xx")."""
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 999:
        return value
    if isinstance(value, str) and re.fullmatch(r"[1-9]xx", value):
        return -int(value[0])
    raise ValueError(f'status must be a number, a list of numbers, or such as "4xx", not {value!r}')


def _phrase(text: str) -> re.Pattern[str]:
    """A phrase as a pattern that cannot take long: every gap in it is bounded."""
    pieces = (_PIECES.get(part) or (r"\s+" if part.isspace() else re.escape(part)) for part in _PARTS.split(text))
    return re.compile("".join(pieces), re.IGNORECASE | re.DOTALL)


def _figure(text: str) -> float:
    return float(text.replace(",", ""))
