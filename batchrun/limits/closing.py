"""The time after a 429: closed for everybody, then spaced at half the rate, which returns over some clean seconds."""

import math
import random

_FIRST_BACK_OFF = 0.25
_GROWTH = 1.5
_LONGEST_BACK_OFF = 60.0
"""Seconds; the jitter takes off up to a half."""
_LATER = 0.2
"""Share of an announced wait by which the gate opens later at most, so that runs do not all come back at once."""
_RECOVERY = 2.0
"""Seconds in which the rate comes back to the whole."""


class Closing:
    """Until when nothing leaves, and how far the rate has come back. Times are seconds of the gate's clock."""

    __slots__ = ("_began", "_random", "_reopens", "bursts", "since", "until")

    def __init__(self, source: random.Random) -> None:
        self._random = source
        self._began = -math.inf
        self.until = self._reopens = -math.inf
        self.bursts = 0
        self.since: float | None = None

    def again(self, left: float) -> bool:
        """Whether a 429 to a request that left then shows that the last closing was not enough."""
        return self.bursts > 0 and left > self._began

    def new(self, left: float) -> bool:
        """Whether a 429 to a request that left then is no part of the last burst."""
        return left > self._began

    def refused(self, left: float, announced: float | None, now: float) -> None:
        """A 429 to a request that left then.

        An announced wait is kept to the full and at most a fifth longer. Without one the back-off grows with each
        burst that nothing but 429s separates from the last.
        """
        new = self.new(left)
        if new:
            self._began = now
            self.bursts += 1
        self.noticed(now)
        if announced:
            self.until = max(self.until, now + announced * (1 + _LATER * self._random.random()))
        elif new:
            self.until = max(self.until, now + self._back_off())
        self._reopens = self.until

    def noticed(self, now: float) -> None:
        """A 429 has come; by itself, as one that is chance, it holds nobody back."""
        if self.since is None:
            self.since = now

    def answered(self) -> None:
        """Something other than a 429 came back."""
        self.bursts = 0
        self.since = None

    def share(self, now: float) -> float:
        """The share of the rate to use now: a half on reopening, then growing to the whole."""
        open_for = now - self._reopens
        if open_for >= _RECOVERY:
            return 1.0
        return 0.5 + 0.5 * max(0.0, open_for) / _RECOVERY

    def _back_off(self) -> float:
        longest = min(_LONGEST_BACK_OFF, _FIRST_BACK_OFF * _GROWTH ** min(self.bursts - 1, 20))
        return longest * (0.5 + 0.5 * self._random.random())
