"""Continuous buckets: how much may leave now, and when the next may. Pure arithmetic on times given by the caller.

A bucket as deep as a minute's quota lets twice the quota out in its first minute; these are shallow, so that what
leaves is *spaced*. The little depth there is makes up for moments in which nothing could leave.
"""

import math
from collections import deque

from batchrun.limits.stated import MARGIN

MINUTE = 60.0
_LATE = 0.02
"""Seconds for which nothing left, by a late timer, a stalled loop or a slow commit, that are made up for: less than
half of what a provider's bucket is taken to hold, max(2, 50 ms of its rate)."""
_CLUMP = 0.005
"""Seconds of the rate by which requests may leave earlier than their turn; a timer for less is not worth its cost."""
_LONGEST_AHEAD = 0.1
"""Seconds by which admission runs ahead of departure at most."""
_NOW = 1e-6
"""Seconds that are no wait: sums of refills are not exact."""
_TOKEN_DEPTH = 0.1
"""Depth of the tokens bucket in seconds of its rate; a request larger than that waits for a full bucket and leaves
it in debt, which a provider's bucket of any greater depth allows as well."""
_REFUND_DEPTH = 0.5
"""Seconds of its rate to which refunds may fill the tokens bucket."""


class Spacing:
    """One request at a time at `rate` a second (inf: unlimited), charged when it leaves.

    Between admission and departure lies the journal's commit. Admission runs ahead of departure by the time that
    commits have lately taken, so that they cost no rate; requests that a slow one then lets out all at once are held
    back until it is their turn. What a stall cost is made up for, up to the depth and within `stated`, a second's
    bound that the provider or the user has named (inf: none).
    """

    __slots__ = ("_ahead", "_at", "_clump", "_last_second", "depth", "held", "level", "pending", "rate", "stated")

    def __init__(self, now: float) -> None:
        self.rate = self.stated = math.inf
        self.depth = 1.25
        self.level = 1.0
        self.pending = 0
        """Admitted, not yet left."""
        self.held = 0
        """Of these, how many only wait for their turn to leave."""
        self._at = now
        self._ahead = self._clump = 0.0
        self._last_second: deque[float] = deque()

    def set_rate(self, rate: float, now: float) -> None:
        """Change the rate from now on."""
        if rate == self.rate:
            return
        self.refill(now)
        self.rate = rate
        known = 0.0 if rate == math.inf else rate
        self.depth = 1.0 + max(0.25, known * _LATE)
        self._clump = known * _CLUMP
        self.level = min(self.level, self.depth)

    def refill(self, now: float) -> None:
        """Bring the level up to now. A clock that steps back adds nothing; one that leaps adds one depth at most."""
        elapsed = now - self._at
        self._at = now
        if elapsed > 0:
            self.level = self.depth if self.rate == math.inf else min(self.depth, self.level + elapsed * self.rate)

    def wait(self) -> float:
        """Seconds from the last `refill` until one more may be admitted; 0 for now."""
        return self._until(self.level + self._ahead * self.rate - self.pending)

    def take(self) -> None:
        """One is admitted."""
        self.pending += 1

    def give_back(self) -> None:
        """One that was admitted will not leave."""
        self.pending -= 1

    def ready(self, admitted: float, now: float) -> float:
        """One that was admitted then could leave now; seconds until its turn, after those that are held already."""
        if self.rate == math.inf:
            return 0.0
        self._ahead += (min(now - admitted, _LONGEST_AHEAD) - self._ahead) / max(4.0, self.rate)
        self.refill(now)
        return max(self._until(self.level + self._clump - self.held), self._until_fewer(now))

    def left(self, now: float) -> None:
        """A request leaves now."""
        self.pending -= 1
        if self.rate != math.inf:
            self.refill(now)
            self.level -= 1.0
        if self.stated != math.inf:
            self._last_second.append(now)

    def believe(self, credit: float) -> None:
        """The provider holds only this much for us."""
        self.level = min(self.level, credit)

    def _until(self, level: float) -> float:
        if self.rate == math.inf:
            return 0.0
        short = 1.0 - level
        return short / self.rate if short > self.rate * _NOW else 0.0

    def _until_fewer(self, now: float) -> float:
        """Seconds until one more leaves no more than is stated within any second."""
        if self.stated == math.inf:
            return 0.0
        gone = self._last_second
        while gone and gone[0] <= now - 1.0:
            gone.popleft()
        too_many = len(gone) + self.held + 1 - math.ceil(self.stated / MARGIN - _NOW)
        return gone[min(too_many, len(gone)) - 1] + 1.0 - now if too_many > 0 else 0.0


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
