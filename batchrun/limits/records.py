"""What goes into the gate and comes out of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from batchrun.events import WaitReason
from batchrun.limits.headers import NO_HINTS, Hints


@dataclass(frozen=True, slots=True)
class Limits:
    """What the user allows. `rpm` and `tpm` are per minute.

    `cap` may grow up to `most` where the server says that nothing waits for it; None where it may not.
    """

    cap: int = 256
    fixed: bool = False
    rpm: float | None = None
    tpm: float | None = None
    most: int | None = None


class Throttle(StrEnum):
    """What a 429 says it is about."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"
    UNKNOWN = "unknown"


class Feedback(NamedTuple):
    """How an exchange ended, as far as limits are concerned.

    `status` is the HTTP status, 0 for none. `throttle` is set for a 429 and for whatever else is one in disguise.
    `tokens` is the total usage where it is known. `failed` marks a 5xx, a lost connection or a deadline. With
    `body_bytes`, `input_tokens` and `output_tokens` the gate's estimates improve.
    """

    status: int
    hints: Hints = NO_HINTS
    throttle: Throttle | None = None
    tokens: int | None = None
    failed: bool = False
    body_bytes: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None


class Permit:
    """Leave for one request to go, from `Gate.admit` until `Gate.settle` or `Gate.cancel`.

    `left` is the gate's clock, at admission and then at departure. Rates are requests per second when it left: `pace`
    was in force, `spaced` was used of it so soon after a 429, `rate` and `most` left, at least and at most. `full` is
    whether the window was what held requests back, `flying` how many had left and were in flight with this one, `replies` and
    `refusals` how many had come. `sent_before` and `tokens_before` are what had left before it, the former -1 until it
    leaves itself. `aside` is whether it counts no more: it left before an outage.
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
    """A limit for an hour or longer, as the provider states it; `window` is in seconds, `name` tells it from others."""

    name: str
    kind: str
    limit: float
    remaining: float
    window: float

    def __str__(self) -> str:
        per = _WINDOWS.get(self.window) or f"in {self.window / 3600:,.0f} hours"
        kind = self.kind if self.kind in ("requests", "tokens") else f"{self.kind} tokens"
        return f"of the provider's quota of {self.limit:,.0f} {kind} {per}, {self.remaining:,.0f} are left"


@dataclass(frozen=True, slots=True)
class GateView:
    """The gate at one moment. Rates are per minute, None where none is known; fills are 0..1 of what is left.

    `reason` is what blocks the next request, None when nothing does or no request waits; `until` is the gate's
    clock. `refused_since` is when the present unbroken row of 429s began, None after any other answer. `basis` is what
    the rate in force rests on: "stated", "inferred" from how stated figures move, or "learned" from 429s.
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


class HandedBack(Exception):  # noqa: N818  # a state that waiters are told of, not a fault
    """The request is not to wait at this gate any longer; another one may admit it."""


class GateClosed(Exception):  # noqa: N818  # a state that waiters are told of, not a fault
    """The gate was closed; nothing more is admitted."""


class NeverFits(Exception):  # noqa: N818  # a verdict about one request
    """The request is larger than the tokens-per-minute limit, so no wait would ever let it in."""

    def __init__(self, limit: float, tokens: int) -> None:
        super().__init__(f"about {tokens:,} tokens, but the limit is {limit:,.0f} tokens per minute")
        self.limit = limit
        self.tokens = tokens
