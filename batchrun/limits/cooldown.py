"""The cool-down after a 429, and the recovery of the rate."""

import math
import random

_FIRST_BACK_OFF = 0.25  # Seconds; jitter subtracts up to a half
_GROWTH = 1.5
_LONGEST_BACK_OFF = 60.0
_LATER = 0.2  # Jitter: share of an announced wait by which the gate opens later, so that runs do not return together
_LONG = 5.0  # Seconds from which an announced wait may be far too long
_EARLIER = 1 / 8  # Share of such a wait that is kept
_SHORTEST = 1.0  # Seconds of it that are kept at least
_REFUSAL_SECONDS = 0.05  # After which a request that was not refused counts as let through
_REFUSAL_FACTOR = 4.0  # The same as a factor on the time that a refusal took
_ALONE_AT_MOST = 1.0  # Seconds for which the first request after a cool-down is alone at most
_RECOVERY = 2.0  # Seconds in which the rate recovers


class CoolDown:
    """`left` is when a request was sent."""

    __slots__ = (
        "_announced", "_began", "_first", "_named", "_overstated", "_random", "_refused", "_reopens", "bursts", "refusal_seconds", "since", "until",
    )  # fmt: skip

    def __init__(self, source: random.Random) -> None:
        self._random = source
        self._began = self._refused = self._first = -math.inf
        self._announced = 0.0
        self._overstated = self._named = False
        self.until = self._reopens = -math.inf
        self.bursts = 0
        self.since: float | None = None
        self.refusal_seconds = _REFUSAL_SECONDS  # Seconds after which a request would have been refused

    def again(self, left: float) -> bool:
        """A 429 shows a too short cool-down."""
        return self.bursts > 0 and left > self._began

    def new(self, left: float) -> bool:
        return left > self._began

    def refused(self, left: float, announced: float | None, now: float) -> None:
        # The back-off grows with each burst that only 429s separate from the last.
        new, again = self.new(left), self.again(left)
        self.refusal_seconds = max(self.refusal_seconds, _REFUSAL_FACTOR * (now - left))
        if new:
            self._began, self._refused = now, left
            self.bursts += 1
        self.noticed(now)
        self._named = bool(announced)
        if announced:
            self._announced = announced
            if announced >= _LONG and self._overstated and not again:
                # The last long wait was far too long (a later request was let through): once, try earlier.
                announced = max(_SHORTEST, announced * _EARLIER)
            self.until = max(self.until, now + announced * (1 + _LATER * self._random.random()))
        elif new:
            self.until = max(self.until, now + self._back_off())
        self._reopens = self.until

    def next(self, last: float) -> float:
        # The first after an unannounced cool-down is alone.
        alone = min(self.refusal_seconds, _ALONE_AT_MOST)
        if last < self.until or self._named:
            return self.until
        return (last if self.bursts > 1 else self._first) + alone

    def granted(self, now: float) -> None:
        if self.bursts > 1 or self._first < self.until:
            self._first = now

    def noticed(self, now: float) -> None:
        """Note a 429 without closing the gate."""
        if self.since is None:
            self.since = now

    def answered(self, left: float) -> None:
        """By something other than a 429."""
        if self.bursts and self._refused < left <= self._began:
            self._overstated = self._announced >= _LONG
        self.bursts = 0
        self.since = None

    def share(self, now: float) -> float:
        """Of the rate, from a half to 1."""
        open_for = now - self._reopens
        if open_for >= _RECOVERY:
            return 1.0
        return 0.5 + 0.5 * max(0.0, open_for) / _RECOVERY

    def _back_off(self) -> float:
        longest = min(_LONGEST_BACK_OFF, _FIRST_BACK_OFF * _GROWTH ** min(self.bursts - 1, 20))
        return longest * (0.5 + 0.5 * self._random.random())
