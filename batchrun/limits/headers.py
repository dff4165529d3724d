"""What the headers of a reply say about limits. Pure: text in, numbers out, nothing raises.

Sources: RFC 9110 section 10.2.3 (Retry-After), OpenAI "Rate limits in headers" (Go durations until the limit is
whole again), Anthropic "Rate limits, response headers" (RFC 3339 times), and what gateways were seen to send.
A value that makes no sense is no hint.
"""

import math
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

LONGEST_WAIT = 31 * 86_400.0
"""Seconds; an announced wait beyond it is taken for nonsense."""

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = r"([0-9]{1,18}(?:\.[0-9]{0,18})?)(ns|us|µs|μs|ms|s|m|h|d)"
_DURATION = re.compile(rf"(?:{_PART})+")
_PARTS = re.compile(_PART)
_NUMBER = re.compile(r"\+?[0-9]{1,18}(?:\.[0-9]{0,18})?")
_EPOCH_SECONDS = 1e9
_EPOCH_MILLISECONDS = 1e12


class BucketHint(NamedTuple):
    """One limit as the provider states it: the quota, what is left of it, seconds until it is whole again."""

    limit: float
    remaining: float | None
    reset: float | None


class Hints(NamedTuple):
    """Everything the headers of one reply say. `retry_after` is in seconds from the arrival of the reply."""

    retry_after: float | None = None
    requests: BucketHint | None = None
    tokens: BucketHint | None = None
    looks_like_429: bool = False


NO_HINTS = Hints()


def hints(headers: Mapping[str, str], status: int, *, now: float | None = None) -> Hints:
    """Read the headers (lower-case names) of a reply; `now` is the wall clock, used only without a Date header."""
    requests = _openai(headers, "requests", now) or _anthropic(headers, "requests", now)
    tokens = _openai(headers, "tokens", now) or _anthropic_tokens(headers, now)
    if 200 <= status < 300:
        return Hints(None, requests, tokens, False)
    throttled = status == 429 or (status >= 500 and "llm_provider-retry-after" in headers)
    return Hints(_announced(headers, throttled, now), requests, tokens, throttled)


def parse_number(text: str | None) -> float | None:
    """A plain decimal number ≥ 0, else None."""
    if text is None or not _NUMBER.fullmatch(text := text.strip()):
        return None
    return float(text)


def parse_duration(text: str | None) -> float | None:
    """Seconds of a Go duration (`6m0s`, `12ms`, `1.5s`) or of a plain number of seconds, else None."""
    if text is None:
        return None
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return _sane(float(text))
    if len(text) > 64 or not _DURATION.fullmatch(text):
        return None
    return _sane(sum(float(amount) * _UNITS[unit] for amount, unit in _PARTS.findall(text)))


def parse_reset(text: str | None, at: float) -> float | None:
    """Seconds from `at` (Unix time) of a duration, an RFC 3339 time or a Unix time in s or ms, else None."""
    if text is None:
        return None
    number = parse_number(text)
    if number is not None and number >= _EPOCH_SECONDS:
        moment = number / 1000 if number >= _EPOCH_MILLISECONDS else number
        return _sane(max(0.0, moment - at))
    seconds = parse_duration(text)
    if seconds is not None:
        return seconds
    moment = _rfc3339(text)
    return None if moment is None else _sane(max(0.0, moment - at))


def parse_retry_after(text: str | None, at: float) -> float | None:
    """Seconds from `at` (Unix time) of a Retry-After: seconds, a duration or an HTTP-date (RFC 9110), else None."""
    if text is None:
        return None
    seconds = parse_duration(text)
    if seconds is not None:
        return seconds
    moment = _http_date(text)
    return None if moment is None else _sane(max(0.0, moment - at))


def sent_at(headers: Mapping[str, str], now: float | None = None) -> float:
    """The provider's own time of the reply, Unix seconds: its Date header, else `now`, else this machine's clock."""
    moment = _http_date(headers["date"]) if "date" in headers else None
    if moment is not None:
        return moment
    return time.time() if now is None else now


def _announced(headers: Mapping[str, str], throttled: bool, now: float | None) -> float | None:
    milliseconds = parse_number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _sane(milliseconds / 1000)
    at = sent_at(headers, now)
    for name in ("retry-after", "llm_provider-retry-after", "x-retry-after"):
        seconds = parse_retry_after(headers.get(name), at)
        if seconds is not None:
            return seconds
    # One gateway names only the moment at which its window ends.
    return parse_reset(headers.get("x-ratelimit-reset"), at) if throttled else None


def _openai(headers: Mapping[str, str], what: str, now: float | None) -> BucketHint | None:
    limit = headers.get(f"x-ratelimit-limit-{what}")
    if limit is None:
        return None
    return _bucket(
        limit, headers.get(f"x-ratelimit-remaining-{what}"), headers.get(f"x-ratelimit-reset-{what}"), headers, now
    )


def _anthropic(headers: Mapping[str, str], what: str, now: float | None) -> BucketHint | None:
    prefix = f"anthropic-ratelimit-{what}-"
    limit = headers.get(prefix + "limit")
    if limit is None:
        return None
    return _bucket(limit, headers.get(prefix + "remaining"), headers.get(prefix + "reset"), headers, now)


def _anthropic_tokens(headers: Mapping[str, str], now: float | None) -> BucketHint | None:
    return _anthropic(headers, "tokens", now) or _anthropic(headers, "input-tokens", now)


def _bucket(
    limit: str, remaining: str | None, reset: str | None, headers: Mapping[str, str], now: float | None
) -> BucketHint | None:
    quota = parse_number(limit)
    if not quota:
        return None  # gateways without limits send 0 or -1
    left = parse_number(remaining)
    if left is not None and left > quota:
        left = None
    seconds = parse_duration(reset)
    if seconds is None or seconds >= _EPOCH_SECONDS:
        seconds = parse_reset(reset, sent_at(headers, now)) if reset is not None else None
    return BucketHint(quota, left, seconds)


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


def _unix(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
