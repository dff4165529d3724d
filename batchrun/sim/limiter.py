"""What the simulated provider admits, and what it says of its limits.

Two continuous buckets, as docs/sim.md states them. A refusal takes nothing from either bucket unless failed requests
count; the headers tell the limit a minute, what is held now, and the time until the bucket is whole again.
"""

import math
import time
from typing import NamedTuple

from batchrun.sim.bucket import Bucket
from batchrun.sim.settings import Settings
from batchrun.sim.times import go_duration, http_date


class Refused(NamedTuple):
    """A 429: the kind of limit, OpenAI's sentence about it, and the seconds to wait, None where no wait helps."""

    kind: str
    message: str
    wait: float | None


class Limiter:
    """The buckets of one provider. Times are monotonic seconds, given by the caller."""

    def __init__(self, settings: Settings, now: float) -> None:
        self._count_rejected = settings.count_rejected
        self.requests = _requests_bucket(settings, now)
        self.tokens = _tokens_bucket(settings, now)

    def admit(self, tokens: int, model: str, now: float) -> Refused | None:
        """Take one request and its tokens, or say why not."""
        refused = self._refusal(tokens, model, now)
        if self.requests and (refused is None or self._count_rejected):
            self.requests.take(1, now)
        if self.tokens and refused is None:
            self.tokens.take(tokens, now)
        return refused

    def headers(self, now: float) -> str:
        """The rate-limit header lines, each with its end."""
        told = _tell("requests", self.requests, now) if self.requests else ""
        return told + _tell("tokens", self.tokens, now) if self.tokens else told

    def keep(self, older: "Limiter") -> None:
        """Go on with the levels of the older limiter where the limit is still the same."""
        if _same(self.requests, older.requests):
            self.requests = older.requests
        if _same(self.tokens, older.tokens):
            self.tokens = older.tokens

    def _refusal(self, tokens: int, model: str, now: float) -> Refused | None:
        if self.tokens and tokens > self.tokens.limit:
            return Refused("tokens", too_large(model, self.tokens.limit, tokens), None)
        if self.requests and (wait := self.requests.wait(1, now)):
            return Refused("requests", _reached(model, self.requests, 1, now), wait)
        if self.tokens and (wait := self.tokens.wait(tokens, now)):
            return Refused("tokens", _reached(model, self.tokens, tokens, now), wait)
        return None


def retry_after(style: str, wait: float) -> str:
    """The header lines by which a 429 names its wait of so many seconds, in the style of `Settings.retry_after`."""
    millis, seconds = math.ceil(wait * 1000 - 1e-6), math.ceil(wait - 1e-9)
    match style:
        case "both":
            return f"retry-after: {seconds}\r\nretry-after-ms: {millis}\r\n"
        case "ms":
            return f"retry-after-ms: {millis}\r\n"
        case "seconds":
            return f"retry-after: {seconds}\r\n"
        case "date":
            return f"retry-after: {http_date(math.ceil(time.time() + wait))}\r\n"
        case "gateway":
            return f"llm_provider-retry-after: {seconds}\r\n"
        case _:
            return f"retry-after: {style[1:]}\r\n" if style.startswith("=") else ""


def too_large(model: str, limit: float, tokens: int) -> str:
    """OpenAI's sentence about a request that can never fit."""
    return (
        f"Request too large for {model} in organization org-simulated on tokens per min (TPM): Limit {limit:.0f}, "
        f"Requested {tokens}. The input or output tokens must be reduced in order to run successfully. "
        "Visit https://platform.openai.com/account/rate-limits to learn more."
    )


def _reached(model: str, bucket: Bucket, need: int, now: float) -> str:
    used = bucket.limit - max(0, math.floor(bucket.level(now)))
    return (
        f"Rate limit reached for {model} in organization org-simulated on {bucket.name}: Limit {bucket.limit:.0f}, "
        f"Used {used:.0f}, Requested {need}. Please try again in {go_duration(bucket.wait(need, now))}. "
        "Visit https://platform.openai.com/account/rate-limits to learn more."
    )


def _tell(what: str, bucket: Bucket, now: float) -> str:
    level = bucket.level(now)
    held = int(level + 1e-9) if level > 0 else 0
    return (
        f"x-ratelimit-limit-{what}: {bucket.limit:.0f}\r\n"
        f"x-ratelimit-remaining-{what}: {held}\r\n"
        f"x-ratelimit-reset-{what}: {go_duration(bucket.whole(now))}\r\n"
    )


def _requests_bucket(settings: Settings, now: float) -> Bucket | None:
    if settings.rpm is None:
        return None
    depth = settings.request_depth or max(2.0, 0.05 * settings.rpm / 60)
    return Bucket("requests per min (RPM)", settings.rpm, max(1.0, depth), now)


def _tokens_bucket(settings: Settings, now: float) -> Bucket | None:
    if settings.tpm is None:
        return None
    return Bucket("tokens per min (TPM)", settings.tpm, settings.token_depth or settings.tpm / 60, now)


def _same(one: Bucket | None, other: Bucket | None) -> bool:
    return bool(one and other and one.limit == other.limit and one.depth == other.depth)
