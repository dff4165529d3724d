"""The time after a 429: closed for all requests, then spaced at half the rate, which returns over some clean seconds."""

import math
import random

_FIRST_BACK_OFF = 0.25
_GROWTH = 1.5
_LONGEST_BACK_OFF = 60.0
"""Seconds; the jitter takes off up to a half."""
_LATER = 0.2
"""Share of an announced wait by which the gate opens later at most, so that runs do not all come back at once."""
_LONG = 5.0
_EARLIER = 1 / 8
_SHORTEST = 1.0
"""Seconds of an announced wait that may be far too long, and of how much of it, and at least how many, is waited then."""
_PATIENCE = 0.05
"""Seconds, and times what a refusal takes, after which a request that was not refused has been let through."""
_PATIENT = 4.0
_ALONE_AT_MOST = 1.0
"""Seconds for which the first after a closing goes alone at most."""
_RECOVERY = 2.0
"""Seconds in which the rate comes back to the whole."""


class CoolDown:
    """Until when nothing leaves, and how far the rate has come back. Times are seconds of the gate's clock."""

    __slots__ = (
        "_announced", "_began", "_first", "_named", "_overstated", "_random", "_refused", "_reopens", "bursts", "patience", "since", "until",
    )  # fmt: skip

    def __init__(self, source: random.Random) -> None:
        self._random = source
        self._began = self._refused = self._first = -math.inf
        self._announced = 0.0
        self._overstated = self._named = False
        self.until = self._reopens = -math.inf
        self.bursts = 0
        self.since: float | None = None
        self.patience = _PATIENCE
        """Seconds after which a request has been let through for sure: it would have been refused by then."""

    def again(self, left: float) -> bool:
        """Whether a 429 to a request that left then shows that the last closing was not enough."""
        return self.bursts > 0 and left > self._began

    def new(self, left: float) -> bool:
        """Whether a 429 to a request that left then is no part of the last burst."""
        return left > self._began

    def refused(self, left: float, announced: float | None, now: float) -> None:
        """A 429 to a request that left then.

        An announced wait is kept to the full and at most a fifth longer; but where a long one was once far too long,
        since a request that had left after the refused one was let through, the next is tried earlier, once. Without
        one the back-off grows with each burst that nothing but 429s separates from the last.
        """
        new, again = self.new(left), self.again(left)
        self.patience = max(self.patience, _PATIENT * (now - left))
        if new:
            self._began, self._refused = now, left
            self.bursts += 1
        self.noticed(now)
        self._named = bool(announced)
        if announced:
            self._announced = announced
            if announced >= _LONG and self._overstated and not again:
                announced = max(_SHORTEST, announced * _EARLIER)
            self.until = max(self.until, now + announced * (1 + _LATER * self._random.random()))
        elif new:
            self.until = max(self.until, now + self._back_off())
        self._reopens = self.until

    def next(self, last: float) -> float:
        """When the next may leave where the last one was granted then. Writes no state.

        The first after a closing of no announced length goes alone until it has been let through, and so does each
        after a second burst.
        """
        alone = min(self.patience, _ALONE_AT_MOST)
        if last < self.until or self._named:
            return self.until
        return (last if self.bursts > 1 else self._first) + alone

    def granted(self, now: float) -> None:
        """A request may leave now."""
        if self.bursts > 1 or self._first < self.until:
            self._first = now

    def noticed(self, now: float) -> None:
        """A 429 has come; a random one by itself closes nothing."""
        if self.since is None:
            self.since = now

    def answered(self, left: float) -> None:
        """Something other than a 429 came back to a request that left then."""
        if self.bursts and self._refused < left <= self._began:
            self._overstated = self._announced >= _LONG
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
