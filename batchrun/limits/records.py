"""The records that enter and leave the gate."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from batchrun.events import WaitReason
from batchrun.limits.headers import NO_HINTS, Hints
from batchrun.models import Usage


@dataclass(frozen=True, slots=True)
class Limits:
    cap: int = 256  # in flight
    fixed: bool = False
    rpm: float | None = None  # requests per minute
    tpm: float | None = None  # tokens per minute
    most: int | None = None  # to which `cap` may grow while the server reports an empty queue


class Throttle(StrEnum):
    """The limit that a 429 names."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"
    UNKNOWN = "unknown"


class Feedback(NamedTuple):
    hints: Hints = NO_HINTS
    throttle: Throttle | None = None  # of a 429
    failed: bool = False  # 5xx, lost connection or deadline
    usage: Usage | None = None  # of a request of `body_bytes`
    body_bytes: int = 0  # 0: unknown


class Permit:
    """From `Gate.admit` until `Gate.settle` or `Gate.cancel`."""

    count = 1
    __slots__ = (
        "aside", "flying", "full", "leaving", "left", "open", "pace", "refusals", "replies", "sent_before", "spaced", "tokens",
        "tokens_before",
    )  # fmt: skip
    flying: int  # in flight at its departure, with it
    leaving: float  # requests per second at departure
    replies: int  # until its departure, as the next two
    refusals: int
    tokens_before: float

    def __init__(self, tokens: int, pace: float, spaced: float, full: bool, now: float) -> None:
        self.tokens = tokens
        self.pace = pace  # requests per second in force at admission
        self.spaced = spaced  # the part used after a 429
        self.full = full  # concurrency held requests back
        self.left = now  # admission, then departure
        self.sent_before = -1  # requests; -1: not sent
        self.open = True
        self.aside = False  # sent before an outage

    @property
    def most(self) -> float:
        """Requests per second."""
        return self.spaced if self.spaced < math.inf else self.leaving

    @property
    def flight(self) -> "Permit":
        """Itself, or the page that it was taken out of."""
        return self


class PagePermit(Permit):
    """`count` requests that have not ended."""

    __slots__ = ("count",)

    def __init__(self, count: int, rate: float, full: bool, now: float) -> None:
        super().__init__(0, rate, rate, full, now)
        self.count = count

    def taken_out(self) -> Permit:
        """In flight with the page."""
        one = _OneOfPage(0, self.pace, self.spaced, self.full, self.left)
        one.page, one.leaving, one.flying, one.aside = self, self.leaving, self.flying, self.aside
        one.replies, one.refusals = self.replies, self.refusals
        one.sent_before, one.tokens_before = self.sent_before, self.tokens_before
        return one


class _OneOfPage(Permit):
    __slots__ = ("page",)
    page: PagePermit

    @property
    def flight(self) -> Permit:
        return self.page


_WINDOWS = {1.0: "a second", 60.0: "a minute", 3600.0: "an hour", 86_400.0: "a day", 2_592_000.0: "a month"}


class Quota(NamedTuple):
    """Per hour or longer; `window` in seconds."""

    name: str
    kind: str
    limit: float
    remaining: float
    window: float

    def __str__(self) -> str:
        per = _WINDOWS.get(self.window) or f"in {self.window / 3600:,.0f} hours"
        kind = self.kind if self.kind in ("requests", "tokens") else f"{self.kind} tokens"
        return f"{self.remaining:,.0f} of the provider's quota of {self.limit:,.0f} {kind} {per} are left"


class GateView(NamedTuple):
    """Rates per minute, None if unknown; fills 0..1."""

    in_flight: int
    allowed: int
    cap: int
    rpm: float | None
    tpm: float | None
    requests_fill: float | None
    tokens_fill: float | None
    reason: WaitReason | None  # this and `until`: of the next request's wait
    until: float | None
    refused_since: float | None  # start of the series of 429s
    waiting: int
    basis: str = ""  # of the rate: "stated", "inferred" or "learned"
    quotas: tuple[Quota, ...] = ()


class HandedBack(Exception):  # noqa: N818  # a state that waiters are notified of, not a fault
    """Another gate may admit the request."""


class GateClosed(Exception):  # noqa: N818  # a state that waiters are notified of, not a fault
    """No more requests are admitted."""


class NeverFits(Exception):  # noqa: N818  # a verdict about one request
    """Larger than the tokens-per-minute limit."""

    def __init__(self, limit: float, tokens: int) -> None:
        super().__init__(f"about {tokens:,} tokens, but the limit is {limit:,.0f} tokens per minute")
        self.limit = limit
        self.tokens = tokens
