"""Shallow buckets: one as deep as a minute's quota would allow twice the quota at first. Pure."""

import math
from collections import deque

from batchrun.limits.stated import MARGIN

MINUTE = 60.0
_LATE = 0.02
# Seconds without departures (a late timer, a stalled loop, a slow commit) that are made up for: under half of what a
# provider's bucket is assumed to hold, max(2, 50 ms of its rate).
_CLUMP = 0.005  # Seconds of the rate by which a request may be early; shorter timers cost more than they gain
_LONGEST_AHEAD = 0.1  # Seconds by which admission runs ahead of departure at most
_NOW = 1e-6  # Seconds that count as no wait: sums of refills are inexact
_TOKEN_DEPTH = 0.1  # Seconds of the rate; larger requests wait for a full bucket and leave it in debt
_REFUND_DEPTH = 0.5  # Seconds of the rate to which refunds may fill the bucket


class Spacing:
    """Requests at `rate` per second (inf: unlimited), charged on departure."""

    # Lost time is made up for up to the depth, within `stated` per second.

    __slots__ = (
        "_ahead",
        "_at",
        "_clump",
        "_last_second",
        "admitted",
        "depth",
        "held",
        "level",
        "rate",
        "sent",
        "stated",
    )

    def __init__(self, now: float) -> None:
        self.rate = self.stated = math.inf
        self.depth = 1.25
        self.level = 1.0
        self.admitted = self.sent = 0
        self.held = 0  # admitted, and waiting only for their turn
        self._at = now
        self._ahead = self._clump = 0.0
        self._last_second: deque[float] = deque()

    def set_rate(self, rate: float, now: float) -> None:
        if rate == self.rate:
            return
        self.refill(now)
        self.rate = rate
        known = 0.0 if rate == math.inf else rate
        self.depth = 1.0 + max(0.25, known * _LATE)
        self._clump = known * _CLUMP
        self.level = min(self.level, self.depth)

    def refill(self, now: float) -> None:
        # A clock that leaps adds at most one depth.
        elapsed = now - self._at
        self._at = now
        if elapsed > 0:
            self.level = self.depth if self.rate == math.inf else min(self.depth, self.level + elapsed * self.rate)

    @property
    def pending(self) -> int:
        return self.admitted - self.sent

    def wait(self) -> float:
        """Seconds from the last `refill`."""
        return self._until(self.level + self._ahead * self.rate - self.pending)

    def take(self) -> None:
        self.admitted += 1

    def release(self) -> None:
        self.admitted -= 1

    def ready(self, admitted: float, now: float) -> float:
        """Seconds until one admitted then may be sent."""
        if self.rate == math.inf:
            return 0.0
        self._ahead += (min(now - admitted, _LONGEST_AHEAD) - self._ahead) / max(4.0, self.rate)
        self.refill(now)
        return max(self._until(self.level + self._clump - self.held), self._until_fewer(now))

    def left(self, now: float, count: int = 1) -> None:
        self.sent += count
        if self.rate != math.inf:
            self.refill(now)
            self.level -= count
            if self.stated != math.inf:
                self._last_second.extend([now] * count)

    def _until(self, level: float) -> float:
        if self.rate == math.inf:
            return 0.0
        short = 1.0 - level
        return short / self.rate if short > self.rate * _NOW else 0.0

    def _until_fewer(self, now: float) -> float:
        if self.stated == math.inf:
            return 0.0
        gone = self._last_second
        while gone and gone[0] <= now - 1.0:
            gone.popleft()
        too_many = len(gone) + self.held + 1 - math.ceil(self.stated / MARGIN - _NOW)
        return gone[min(too_many, len(gone)) - 1] + 1.0 - now if too_many > 0 else 0.0


class TokenBucket:
    """Tokens at `rate` per second, reserved at admission."""

    __slots__ = ("_at", "depth", "level", "rate")

    def __init__(self, now: float) -> None:
        self.rate = math.inf
        self.depth = self.level = 0.0
        self._at = now

    def set_rate(self, rate: float, now: float) -> None:
        if rate == self.rate:
            return
        self.refill(now)
        first, self.rate = self.rate == math.inf, rate
        self.depth = 0.0 if rate == math.inf else rate * _TOKEN_DEPTH
        self.level = self.depth if first else min(self.level, self.depth)

    def refill(self, now: float) -> None:
        elapsed = now - self._at
        self._at = now
        if elapsed > 0 and self.level < self.depth:
            self.level = min(self.depth, self.level + elapsed * self.rate)

    def wait(self, tokens: float) -> float:
        if self.rate == math.inf:
            return 0.0
        short = min(tokens, self.depth) - self.level
        return short / self.rate if short > self.rate * _NOW else 0.0

    def take(self, tokens: float) -> None:
        # If necessary into debt.
        if self.rate != math.inf:
            self.level -= tokens

    def give(self, tokens: float) -> None:
        # The difference between reservation and usage, maybe below 0.
        if self.rate != math.inf:
            self.level = (
                max(self.level, min(self.level + tokens, self.rate * _REFUND_DEPTH))
                if tokens > 0
                else (self.level + tokens)
            )

    def believe(self, credit: float) -> None:
        """The provider's bucket holds only this much."""
        self.level = min(self.level, credit)
