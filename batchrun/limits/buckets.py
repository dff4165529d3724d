"""Continuous buckets: how much may leave now, and when the next may. Pure arithmetic on times given by the caller.

A bucket as deep as a minute's quota lets twice the quota out in its first minute; these are shallow, so that what
leaves is *spaced*. The little depth there is makes up for timers that wake a millisecond late.
"""

import math

from batchrun.limits.headers import BucketHint

MINUTE = 60.0
_MARGIN = 0.995
"""Share of a stated rate that is used, so that a bucket of the provider that ran empty by jitter fills again."""
_LATE = 0.004
"""Seconds of lateness of a timer that are made up for."""
_JITTER = 0.005
"""Seconds between admission and departure (the journal's commit) that are not yet a clump."""
_NOW = 1e-6
"""Seconds that are no wait: sums of refills are not exact."""
_TOKEN_DEPTH = 0.1
"""Depth of the tokens bucket in seconds of its rate; a request larger than that waits for a full bucket and leaves
it in debt, which a provider's bucket of any greater depth allows as well."""
_REFUND_DEPTH = 0.5
"""Seconds of its rate to which refunds may fill the tokens bucket."""
_LONGEST_MINUTE = 61.0


class Spacing:
    """One request at a time at `rate` a second (inf: unlimited).

    Charged when a request is admitted; a second account by actual departures stops admissions after a clump that a
    stalled journal let out at once.
    """

    __slots__ = ("_at", "_gone", "_gone_at", "_gone_depth", "depth", "level", "rate")

    def __init__(self, now: float) -> None:
        self.rate = math.inf
        self.depth = 1.25
        self.level = 1.0
        self._at = now
        self._gone = self._gone_depth = 1.0
        self._gone_at = now

    def set_rate(self, rate: float, now: float) -> None:
        """Change the rate from now on."""
        if rate == self.rate:
            return
        self.refill(now)
        self.rate = rate
        slack = 0.0 if rate == math.inf else rate * _LATE
        self.depth = 1.0 + max(0.25, slack)
        self._gone_depth = self.depth + (0.0 if rate == math.inf else rate * _JITTER)
        self.level = min(self.level, self.depth)

    def refill(self, now: float) -> None:
        """Bring the level up to now. A clock that steps back adds nothing; one that leaps adds one depth at most."""
        elapsed = now - self._at
        self._at = now
        if elapsed > 0:
            self.level = self.depth if self.rate == math.inf else min(self.depth, self.level + elapsed * self.rate)

    def wait(self) -> float:
        """Seconds from the last `refill` until one more may be admitted; 0 for now."""
        if self.rate == math.inf:
            return 0.0
        short = max(1.0 - self.level, -self._gone_level(self._at))
        return short / self.rate if short > self.rate * _NOW else 0.0

    def take(self) -> None:
        """Charge one admission."""
        if self.rate != math.inf:
            self.level -= 1.0

    def give_back(self) -> None:
        """Undo a charge: the request never left."""
        self.level = min(self.depth, self.level + 1.0)

    def left(self, now: float) -> None:
        """A request leaves now."""
        if self.rate != math.inf:
            self._gone = self._gone_level(now) - 1.0
            self._gone_at = now

    def believe(self, credit: float) -> None:
        """The provider holds only this much for us."""
        self.level = min(self.level, credit)

    def _gone_level(self, now: float) -> float:
        return min(self._gone_depth, self._gone + max(0.0, now - self._gone_at) * self.rate)


class TokenBucket:
    """Tokens at `rate` a second (inf: unlimited), reserved at admission and settled with what was really used."""

    __slots__ = ("_at", "depth", "level", "rate")

    def __init__(self, now: float) -> None:
        self.rate = math.inf
        self.depth = self.level = 0.0
        self._at = now

    def set_rate(self, rate: float, now: float) -> None:
        """Change the rate from now on."""
        if rate == self.rate:
            return
        self.refill(now)
        first, self.rate = self.rate == math.inf, rate
        self.depth = 0.0 if rate == math.inf else rate * _TOKEN_DEPTH
        self.level = self.depth if first else min(self.level, self.depth)

    def refill(self, now: float) -> None:
        """Bring the level up to now, at most to one depth."""
        elapsed = now - self._at
        self._at = now
        if elapsed > 0 and self.level < self.depth:
            self.level = min(self.depth, self.level + elapsed * self.rate)

    def wait(self, tokens: float) -> float:
        """Seconds from the last `refill` until so many tokens may be admitted; 0 for now."""
        if self.rate == math.inf:
            return 0.0
        short = min(tokens, self.depth) - self.level
        return short / self.rate if short > self.rate * _NOW else 0.0

    def take(self, tokens: float) -> None:
        """Reserve, into debt if it must be."""
        if self.rate != math.inf:
            self.level -= tokens

    def give(self, tokens: float) -> None:
        """Refund (or, below 0, charge) the difference between what was reserved and what was used."""
        if self.rate != math.inf:
            self.level = (
                max(self.level, min(self.level + tokens, self.rate * _REFUND_DEPTH))
                if tokens > 0
                else (self.level + tokens)
            )

    def believe(self, credit: float) -> None:
        """The provider holds only this much for us."""
        self.level = min(self.level, credit)


class HeaderRate:
    """What the headers of many replies say of one limit.

    A limit is one a minute unless the headers themselves show another rate. Where `remaining` and `reset` belong to
    one continuous bucket, the change of the one over the change of the other is the rate of refill, whatever the
    depth of that bucket; a fixed window shows no such line, and neither does a bucket that is always empty.
    """

    __slots__ = (
        "_count",
        "_covariance",
        "_depth",
        "_held",
        "_held_variance",
        "_reset",
        "_reset_variance",
        "limit",
        "remaining",
    )

    def __init__(self) -> None:
        self.limit: float | None = None
        self.remaining: float | None = None
        self._forget()

    def learn(self, hint: BucketHint) -> None:
        """Take in the headers of one reply."""
        if hint.limit != self.limit:
            self.limit = hint.limit
            self._forget()
        self.remaining = hint.remaining
        if hint.remaining and hint.reset is not None:
            self._depth = hint.remaining + hint.reset * self.rate()
        if hint.remaining is not None and hint.reset is not None:
            self._fit(hint.remaining, hint.reset)

    def rate(self) -> float:
        """Units per second to keep to; inf where nothing is stated."""
        if self.limit is None:
            return math.inf
        per_minute = self.limit / MINUTE
        slope = self._slope()
        if slope is None or abs(slope - per_minute) < 0.25 * per_minute:
            return per_minute
        if slope > per_minute:
            return slope
        # A quota of an hour or a day is not spaced while there is plenty of it.
        plenty = per_minute if self.remaining is None else self.remaining / MINUTE
        return max(slope, plenty) if self._reset > _LONGEST_MINUTE else per_minute

    def held(self, hint: BucketHint) -> float:
        """What the provider's bucket holds; below 0 is debt, which only the time until it is whole again shows."""
        if hint.remaining is None:
            return math.inf
        if hint.remaining or hint.reset is None or self._depth is None:
            return hint.remaining
        return min(0.0, self._depth - hint.reset * self.rate())

    def _forget(self) -> None:
        self._depth: float | None = None
        self._count = 0
        self._held = self._reset = 0.0
        self._held_variance = self._reset_variance = self._covariance = 0.0

    def _fit(self, held: float, reset: float) -> None:
        self._count += 1
        weight = max(0.05, 1 / self._count)
        held_step, reset_step = held - self._held, reset - self._reset
        self._held += weight * held_step
        self._reset += weight * reset_step
        keep = 1 - weight
        self._held_variance = keep * (self._held_variance + weight * held_step * held_step)
        self._reset_variance = keep * (self._reset_variance + weight * reset_step * reset_step)
        self._covariance = keep * (self._covariance + weight * held_step * reset_step)

    def _slope(self) -> float | None:
        spread = self._held_variance * self._reset_variance
        if self._count < 8 or spread <= 0 or self._held_variance < 0.25:
            return None
        if self._covariance >= 0 or self._covariance * self._covariance < 0.9 * spread:
            return None
        return -self._covariance / self._reset_variance


def usable(rate: float) -> float:
    """The share of a stated rate that is used."""
    return rate * _MARGIN
