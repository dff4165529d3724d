"""What a refusal means, by `providers/answers.toml` and the user's own lines before it. Pure."""

# The first line that fits wins. A status alone says little: an empty account comes as 400, 402, 403, 412 and 429.

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cache, cached_property
from typing import Any, NamedTuple, cast

from batchrun.models import Body
from batchrun.providers import ANY, table

_KEYS = frozenset({"means", "dialect", "status", "code", "says", "header", "source"})
_PARTS = re.compile(r"(\*|#|\{asked\}|\{limit\}|\s+)")
_NUMBER = r"\d[\d,]{0,18}(?:\.\d{1,9})?"
_PIECES = {"*": ".{0,200}?", "#": _NUMBER, "{asked}": f"~?(?P<asked>{_NUMBER})", "{limit}": f"(?P<limit>{_NUMBER})"}


class Meaning(StrEnum):
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


STOPS = frozenset({Meaning.EMPTY, Meaning.NOT_ON_PLAN, Meaning.NO_TIER})  # Meanings that always stop the run
# Count as a 429 under any status.
WAITS = frozenset({Meaning.RATE, Meaning.CONCURRENCY, Meaning.QUOTA, Meaning.UNCLEAR})
# Refusals of the service tier or an added member, not of row or provider.
OF_ADDITIONS = frozenset({Meaning.NO_CAPACITY, Meaning.ADDED})
# The cause is in the row, never in the run.
OF_THE_ROW = frozenset({Meaning.TOO_LONG, Meaning.TOO_LARGE, Meaning.FILTERED, Meaning.NEVER_FITS})


class Refusal(NamedTuple):
    status: int
    type: str = ""
    code: str = ""
    message: str = ""
    headers: Mapping[str, str] = {}  # lower-case names
    sent: Body = b""  # the body; a phrase that only echoes it does not stop a run


class Line(NamedTuple):
    """Empty or None: not stated."""

    means: Meaning
    dialects: frozenset[str]
    statuses: frozenset[int]
    codes: frozenset[str]
    phrases: tuple[re.Pattern[str], ...]
    headers: tuple[tuple[str, re.Pattern[str]], ...]

    def fits(self, refusal: Refusal) -> bool:
        if self.statuses and refusal.status not in self.statuses and -(refusal.status // 100) not in self.statuses:
            return False
        if self.codes and self.codes.isdisjoint((refusal.code.lower(), refusal.type.lower())):
            return False
        if any(pattern.fullmatch(refusal.headers.get(name, "").strip()) is None for name, pattern in self.headers):
            return False
        return not self.phrases or any(self._matches(pattern, refusal) for pattern in self.phrases)

    def _matches(self, pattern: re.Pattern[str], refusal: Refusal) -> bool:
        found = pattern.search(refusal.message)
        if found is None:
            return False
        if (
            self.means in STOPS
            and refusal.sent
            and found[0].lower() in bytes(refusal.sent).decode("utf-8", "replace").lower()
        ):
            return False
        figures = found.groupdict()
        return not figures or _figure(figures["asked"]) > _figure(figures["limit"])


class Meanings:
    """The user's own lines first."""

    def __init__(self, dialect: str = ANY, own: Iterable[Mapping[str, Any]] = ()) -> None:
        self._dialect = dialect
        self._own = [compiled(line) for line in own]

    @cached_property
    def _lines(self) -> list[Line]:
        # A run without a refusal needs none of the 150 patterns.
        lines = (*self._own, *map(compiled, table("answers")["answers"]))
        return [line for line in lines if not line.dialects or self._dialect in line.dialects]

    def of(self, refusal: Refusal) -> Meaning | None:
        return next((line.means for line in self._lines if line.fits(refusal)), None)


@cache
def _hints() -> list[tuple[tuple[re.Pattern[str], ...], str]]:
    return [(tuple(map(_phrase, line["says"])), line["hint"]) for line in table("answers")["hints"]]


def option_for(text: str) -> str | None:
    return next((hint for phrases, hint in _hints() if any(phrase.search(text) for phrase in phrases)), None)


def compiled(line: Mapping[str, Any]) -> Line:
    """Raises ValueError with what is wrong."""
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
    # A status, or minus its hundreds for all of them ("4xx").
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 999:
        return value
    if isinstance(value, str) and re.fullmatch(r"[1-9]xx", value):
        return -int(value[0])
    raise ValueError(f'status must be a number, a list of numbers, or such as "4xx", not {value!r}')


def _phrase(text: str) -> re.Pattern[str]:
    # All gaps are bounded, so that a search cannot take long.
    pieces = (_PIECES.get(part) or (r"\s+" if part.isspace() else re.escape(part)) for part in _PARTS.split(text))
    return re.compile("".join(pieces), re.IGNORECASE | re.DOTALL)


def _figure(text: str) -> float:
    return float(text.replace(",", ""))
