"""The records that enter and leave the gate."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from batchrun.events import WaitReason
from batchrun.limits.headers import NO_HINTS, Hints


@dataclass(frozen=True, slots=True)
class Limits:
    """The user's limits; `rpm` and `tpm` per minute.

    `cap` may grow to `most` while the server reports an empty queue.
    """

    cap: int = 256
    fixed: bool = False
    rpm: float | None = None
    tpm: float | None = None
    most: int | None = None


class Throttle(StrEnum):
    """The limit that a 429 names."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"
    UNKNOWN = "unknown"


class Feedback(NamedTuple):
    """How an exchange ended. `status` is 0 without an answer; `throttle` marks a 429; `tokens` is the usage; `failed`:
    5xx, lost connection or deadline."""

    status: int
    hints: Hints = NO_HINTS
    throttle: Throttle | None = None
    tokens: int | None = None
    failed: bool = False
    body_bytes: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None


class Permit:
    """One request from `Gate.admit` until `Gate.settle` or `Gate.cancel`.

    `left`: admission, then departure. Requests per second at departure: `pace` in force, `spaced` the part used after a
    429, `rate` and `most` sent. `full`: concurrency held requests back. `flying` with it; `replies`, `refusals`,
    `sent_before` (-1: not sent), `tokens_before`. `aside`: sent before an outage.
    """

    __slots__ = (
        "aside", "flying", "full", "left", "most", "open", "pace", "rate", "refusals", "replies", "sent_before", "spaced", "tokens",
        "tokens_before",
    )  # fmt: skip

    def __init__(self, tokens: int, pace: float, spaced: float, full: bool, now: float) -> None:
        self.tokens = tokens
        self.pace = pace
        self.spaced = self.rate = self.most = spaced
        self.full = full
        self.flying = 1
        self.replies = self.refusals = 0
        self.left = now
        self.sent_before = -1
        self.tokens_before = 0.0
        self.open = True
        self.aside = False


_WINDOWS = {1.0: "a second", 60.0: "a minute", 3600.0: "an hour", 86_400.0: "a day", 2_592_000.0: "a month"}


class Quota(NamedTuple):
    """A stated limit per hour or longer; `window` in seconds."""

    name: str
    kind: str
    limit: float
    remaining: float
    window: float

    def __str__(self) -> str:
        per = _WINDOWS.get(self.window) or f"in {self.window / 3600:,.0f} hours"
        kind = self.kind if self.kind in ("requests", "tokens") else f"{self.kind} tokens"
        return f"{self.remaining:,.0f} of the provider's quota of {self.limit:,.0f} {kind} {per} are left"


@dataclass(frozen=True, slots=True)
class GateView:
    """The gate's state. Rates per minute, None if unknown; fills 0..1.

    `reason` and `until` of the next request's wait; `refused_since` the series of 429s began; `basis` of the rate:
    "stated", "inferred" or "learned".
    """

    in_flight: int
    allowed: int
    cap: int
    rpm: float | None
    tpm: float | None
    requests_fill: float | None
    tokens_fill: float | None
    reason: WaitReason | None
    until: float | None
    refused_since: float | None
    waiting: int
    basis: str = ""
    quotas: tuple[Quota, ...] = ()


class HandedBack(Exception):  # noqa: N818  # a state that waiters are notified of, not a fault
    """The request must not wait at this gate; another one may admit it."""


class GateClosed(Exception):  # noqa: N818  # a state that waiters are notified of, not a fault
    """The gate was closed; nothing more is admitted."""


class NeverFits(Exception):  # noqa: N818  # a verdict about one request
    """The request is larger than the tokens-per-minute limit."""

    def __init__(self, limit: float, tokens: int) -> None:
        super().__init__(f"about {tokens:,} tokens, but the limit is {limit:,.0f} tokens per minute")
        self.limit = limit
        self.tokens = tokens
