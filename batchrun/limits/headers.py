"""Limits from headers, and from the text of refusals. Pure."""

# Names and sentences are data with sources (`providers/limits.toml`). Nonsensical values are ignored.

import math
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, lru_cache
from typing import Any, NamedTuple

from batchrun import providers

LONGEST_WAIT = 31 * 86_400.0  # Seconds; a longer announced wait is ignored

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = r"([0-9]{1,18}(?:\.[0-9]{0,18})?)(ns|us|µs|μs|ms|s|m|h|d)"
_DURATION = re.compile(rf"(?:{_PART})+")
_PARTS = re.compile(_PART)
_WORDS = re.compile(r" ?(milliseconds?|seconds?|minutes?|min|hours?)$")
_NUMBER = re.compile(r"\+?[0-9]{1,18}(?:\.[0-9]{0,18})?")
_FRACTION = re.compile(r"\.([0-9]+)|ms")
_ITEM = re.compile(r'^\s*(?:"([^"]*)"|([^;=\s]+))')
_MEMBER = re.compile(r'([a-z]+)\s*=\s*"?([0-9.]+)')
_EPOCH_SECONDS = 1e9
_EPOCH_MILLISECONDS = 1e12
_DIGITS = 18
_TEXT = 4000  # Bytes read of a refusal's body


class Stated(NamedTuple):
    """Times in seconds."""

    key: str  # distinguishes a provider's limits
    kind: str  # "requests", "tokens" (input and output), "input" or "output"
    limit: float
    remaining: float | None = None
    reset: float | None = None  # from the answer
    window: float | None = None
    quantum: float = 0.0  # to which `reset` is rounded


class Hints(NamedTuple):
    retry_after: float | None = None  # seconds
    limits: tuple[Stated, ...] = ()
    looks_like_429: bool = False
    named: tuple[
        Stated, ...
    ] = ()  # by a refusal's text: often not binding, they only supply windows for those of headers


NO_HINTS = Hints()


def hints(headers: Mapping[str, str], status: int, body: bytes = b"", *, now: float | None = None) -> Hints:
    """`now` replaces a missing Date header."""
    named = _named(tuple(headers))
    if 200 <= status < 300:
        return Hints(None, _stated(named, headers, now)) if named else NO_HINTS
    throttled = status == 429 or (status >= 500 and "llm_provider-retry-after" in headers)
    limits = _stated(named, headers, now) if named else ()
    text = body[:_TEXT].decode("utf-8", "replace")
    waits = [*_waits(headers, now), *_waits_of(text, headers, now)]
    if throttled and not waits and (end := headers.get("x-ratelimit-reset")) is not None:
        # One gateway names only the time at which its window ends.
        waits = [parse_reset(end, sent_at(headers, now))]
    longest = _longest([wait for wait in waits if wait is not None])
    return Hints(longest, limits, throttled, _limits_of(text) if throttled else ())


def _longest(waits: list[float]) -> float | None:
    # Unless it is another one rounded up.
    longest = max(waits, default=None)
    return min((wait for wait in waits if wait and math.ceil(wait) == longest), default=longest)


def parse_number(text: str | None) -> float | None:
    if text is None or not _NUMBER.fullmatch(text := text.strip()):
        return None
    return float(text)


def parse_duration(text: str | None) -> float | None:
    """Go's format (`6m0s`), or seconds."""
    if text is None:
        return None
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return _sane(float(text))
    if len(text) > 64 or not _DURATION.fullmatch(text):
        return None
    return _sane(sum(float(amount) * _UNITS[unit] for amount, unit in _PARTS.findall(text)))


def parse_reset(text: str | None, at: float) -> float | None:
    """Seconds from `at` of a duration, RFC 3339 or Unix time."""
    if text is None:
        return None
    number = parse_number(text)
    if number is not None and number >= _EPOCH_SECONDS:
        date = number / 1000 if number >= _EPOCH_MILLISECONDS else number
        return _sane(max(0.0, date - at))
    seconds = parse_duration(text)
    if seconds is not None:
        return seconds
    date = _rfc3339(text)
    return None if date is None else _sane(max(0.0, date - at))


def parse_retry_after(text: str | None, at: float) -> float | None:
    """Seconds, a duration or an HTTP-date (RFC 9110)."""
    if text is None:
        return None
    seconds = parse_duration(text)
    if seconds is not None:
        return seconds
    date = _http_date(text)
    return None if date is None else _sane(max(0.0, date - at))


def sent_at(headers: Mapping[str, str], now: float | None = None) -> float:
    date = _http_date(headers["date"]) if "date" in headers else None
    if date is not None:
        return date
    return time.time() if now is None else now


class _Named(NamedTuple):
    key: str
    kind: str
    window: float | None
    fields: dict[str, str]


_TABLE: dict[str, Any] = providers.table("limits")
_FIELDS: dict[str, str] = _TABLE["fields"]
_KINDS: dict[str, str] = _TABLE["units"]
_WINDOWS: dict[str, float] = _TABLE["windows"]
_FAMILIES = [(re.compile(line["pattern"]), line) for line in _TABLE["headers"]]
_WAITS = [(line["name"], line["unit"]) for line in _TABLE["waits"]]


@cache
def _texts() -> list[re.Pattern[str]]:
    # compiled with the first refusal
    return [re.compile(line["pattern"]) for line in _TABLE["texts"]]


@lru_cache(256)
def _named(names: tuple[str, ...]) -> tuple[_Named, ...]:
    found: dict[str, _Named] = {}
    for name in names:
        for number, (pattern, line) in enumerate(_FAMILIES):
            if match := pattern.fullmatch(name.lower()):
                groups = match.groupdict()
                kind, window, others = _words(groups.get("of") or "", line.get("unit"))
                scope = "-".join(["llm_provider"] * name.lower().startswith("llm_") + others)
                key = f"{number}:{scope}:{kind}:{window or ''}"
                limit = found.setdefault(key, _Named(key, kind, window, {}))
                field = groups["field"] or ""
                limit.fields.setdefault(_FIELDS.get(field, field), name)
                break
    for named in found.values():  # a policy may have a family of its own
        policy = next((other.fields["policy"] for other in found.values() if "policy" in other.fields), None)
        if policy is not None:
            named.fields.setdefault("policy", policy)
    return tuple(named for named in found.values() if "limit" in named.fields or "ratelimit" in named.fields)


def _words(of: str, unit: str | None) -> tuple[str, float | None, list[str]]:
    kinds: list[str] = []
    window: float | None = None
    others: list[str] = []
    for word in of.split("-") if of else ():
        if word in _KINDS:
            kinds.append(_KINDS[word])
        elif word in _WINDOWS:
            window = float(_WINDOWS[word])
        elif word.isdecimal():
            window = float(word)
        else:
            others.append(word)
    kinds.sort(key=lambda kind: kind in ("requests", "tokens"))  # "input-tokens" are input
    return (kinds or [unit or "requests"])[0], window, others


def _stated(named: tuple[_Named, ...], headers: Mapping[str, str], now: float | None) -> tuple[Stated, ...]:
    found: list[Stated] = []
    for limit in named:
        fields = limit.fields
        if "ratelimit" in fields:
            found += _items(limit, headers[fields["ratelimit"]], headers.get(fields.get("policy", "")))
        elif "policy" in fields or "," in headers[fields["limit"]]:
            found += _listed(limit, {field: headers[name] for field, name in fields.items()})
        elif (stated := _one(limit, headers, now)) is not None:
            found.append(stated)
    return tuple(found)


def _one(limit: _Named, headers: Mapping[str, str], now: float | None) -> Stated | None:
    key, kind, window, fields = limit
    number = _quota(headers[fields["limit"]])
    if not number:
        return None  # gateways without limits send 0 or -1
    remaining = reset = None
    if (name := fields.get("remaining")) is not None:
        text = headers[name]
        remaining = float(text) if text.isascii() and text.isdigit() and len(text) < _DIGITS else parse_number(text)
        if remaining is not None and remaining > number:
            remaining = None
    if window is None and (name := fields.get("period")) is not None:
        window = _quota(headers[name])
    if (name := fields.get("reset")) is None:
        return Stated(key, kind, number, remaining, None, window)
    reset, quantum = _span(headers[name])
    if reset is None or reset >= _EPOCH_SECONDS:
        reset, quantum = parse_reset(headers[name], sent_at(headers, now)), 1.0 + quantum
    return Stated(key, kind, number, remaining, reset, window, quantum)


@lru_cache(64)
def _quota(text: str) -> float | None:
    return parse_number(text) or None


@lru_cache(1024)
def _span(text: str) -> tuple[float | None, float]:
    return parse_duration(text), _quantum(text)


def _quantum(reset: str) -> float:
    fraction = _FRACTION.search(reset)
    if fraction is None:
        return 1.0
    if fraction[1] is None:
        return 1e-3
    return 10.0 ** -len(fraction[1]) * (1e-3 if reset.rstrip().endswith("ms") else 1.0)


def _items(limit: _Named, text: str, policy: str | None) -> list[Stated]:
    # `"name";r=50;t=30, …` with policies, or `limit=300, remaining=297, reset=42`.
    members: dict[str, str] = dict(_MEMBER.findall(text))
    if "limit" in members:
        return _listed(limit, members | ({"policy": policy} if policy else {}))
    quotas = {_item_name(item): dict(_MEMBER.findall(item)) for item in (policy or "").split(",")}
    found: list[Stated] = []
    for item in text.split(","):
        values = dict(_MEMBER.findall(item))
        of = quotas.get(_item_name(item), {})
        quota, left = parse_number(of.get("q")), parse_number(values.get("r"))
        if quota:
            left = None if left is None or left > quota else left
            window, reset = parse_number(of.get("w")), parse_duration(values.get("t"))
            found.append(Stated(f"{limit.key}{_item_name(item)}", limit.kind, quota, left, reset, window, 1.0))
    return found


def _item_name(item: str) -> str:
    match = _ITEM.match(item)
    return (match[1] or match[2] or "") if match else ""


def _listed(limit: _Named, members: dict[str, str]) -> list[Stated]:
    # `10, 10;w=60`, or `1, 15000`.
    entries = [entry.strip() for entry in members["limit"].split(",")]
    policies = [entry for entry in entries if ";" in entry] + members.get("policy", "").split(",")
    windows = [(parse_number(entry.split(";")[0]), dict(_MEMBER.findall(entry)).get("w")) for entry in policies]
    windows = [(quota, window) for quota, window in windows if window]
    numbers = [parse_number(entry) for entry in entries if ";" not in entry]
    lefts, resets = members.get("remaining", "").split(","), members.get("reset", "").split(",")
    found: list[Stated] = []
    for place, quota in enumerate(numbers):
        if not quota:
            continue
        window = next((window for of, window in windows if of == quota), None)
        remaining = parse_number(lefts[place]) if place < len(lefts) else None
        seconds = parse_duration(resets[place]) if place < len(resets) else None
        key = f"{limit.key}{place}" if place else limit.key
        remaining = None if remaining is not None and remaining > quota else remaining
        named = limit.window or parse_number(window)
        found.append(Stated(key, limit.kind, quota, remaining, seconds, named, 1.0))
    return found


def _waits(headers: Mapping[str, str], now: float | None) -> list[float | None]:
    found: list[float | None] = []
    for name, unit in _WAITS:
        text = headers.get(name)
        if text is None:
            continue
        if unit == "ms":
            number = parse_number(text)
            found.append(None if number is None else _sane(number / 1000))
        else:
            found.append(parse_retry_after(text, sent_at(headers, now)))
    return found


def _waits_of(text: str, headers: Mapping[str, str], now: float | None) -> list[float | None]:
    found: list[float | None] = []
    for pattern in _texts():
        groups = pattern.groupindex
        if "wait" in groups and (match := pattern.search(text)):
            found.append(_worded(match["wait"]))
        elif "at" in groups and (match := pattern.search(text)):
            found.append(parse_reset(match["at"].replace(" UTC", "Z"), sent_at(headers, now)))
    return found


def _worded(text: str) -> float | None:
    # `2.5s`, `7m12s`, `20 seconds`
    short = {"mil": "ms", "sec": "s", "min": "m", "hou": "h"}
    return parse_duration(_WORDS.sub(lambda match: short[match[1][:3]], text).replace(" ", ""))


def _limits_of(text: str) -> tuple[Stated, ...]:
    found: list[Stated] = []
    for pattern in _texts():
        if "limit" in pattern.groupindex and (match := pattern.search(text)):
            of = match["of"].lower()
            kind, window = _KINDS[of], float(_WINDOWS[(match["per"] or of).lower()])
            quota = parse_number(match["limit"].replace(",", ""))
            if quota:
                found.append(Stated(f"text:{kind}:{window}", kind, quota, None, None, window))
    return tuple(found[:1])


def _sane(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) and 0 <= seconds <= LONGEST_WAIT else None


def _http_date(text: str) -> float | None:
    try:
        return _unix(parsedate_to_datetime(text))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _rfc3339(text: str) -> float | None:
    try:
        return _unix(datetime.fromisoformat(text.strip()))
    except (ValueError, OverflowError):
        return None


def _unix(date: datetime) -> float:
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
