"""Infers what a stated limit means from how its figures move. Pure.

`limit`, `remaining` and `reset` do not state the refill; a named window does. Otherwise answers are tested against
these hypotheses, as intervals that include all rounding:

* FULL: `reset` is the time until the limit is full. Then (limit - remaining) / reset is the refill, equal in all
answers; or, if the provider holds less than it states, the fall of `remaining` over the growth of `reset`.
* END: `reset` is the time until the window ends, on which all answers of a window agree.
* REFILL: else, `remaining` falls by less than was sent; the difference is the refill.

A contradicted hypothesis is out until the limit changes. While none or several are left, only `remaining` counts.
"""

import math
from enum import Enum
from typing import NamedTuple

from batchrun.limits.headers import Stated

LONG = 3600.0  # Seconds from which a limit is a budget and sets no rate
_JITTER = 0.1  # Seconds by which answers are late
_CLOSE = 1.5  # Upper over lower bound of a refill below which it is known
_CLOSE_USUAL = 4.0  # The same, if one usual window lies between
_BRIEF, _FORGETS = 0.5, 60.0  # Seconds over which a refill is measured, least and most
_MOVED = 4.0  # Requests by which `remaining` must have fallen: near the maximum no refill shows, and some never change
_SHORTEST, _RENEWED = 1.0, 3
"""That many windows, shorter than that many seconds or with less than the one before, are none."""

_USUAL = (60.0, 3600.0, 86_400.0, 1.0)  # Seconds; usual windows of quotas

Interval = tuple[float, float]


class Sent(NamedTuple):
    """Units of one limit sent before a request and `since`; average `unit` per request (inf: unknown); its
    departure."""

    before: float
    since: float
    unit: float
    left: float


class Meaning(Enum):
    """What is known of a limit."""

    NAMED = "named"
    FULL = "full"
    END = "end of a window"
    REFILL = "measured refill"
    UNKNOWN = "not understood"


def refill_if_full(stated: Stated) -> Interval:
    """Refill in units per second, if `reset` is the time until full."""
    assert stated.remaining is not None
    assert stated.reset is not None
    used = stated.limit - stated.remaining
    shortest, longest = max(0.0, stated.reset - stated.quantum), stated.reset + stated.quantum
    least = max(0.0, used - 1.0) / longest if longest else 0.0
    return least, (used or 1.0) / shortest if shortest else math.inf


def end_if_window(stated: Stated, at: float) -> Interval:
    """When the window ends, if `reset` is the time until its end."""
    assert stated.reset is not None
    return at + stated.reset - stated.quantum - _JITTER, at + stated.reset + stated.quantum + _JITTER


def overlap(one: Interval, other: Interval) -> Interval | None:
    """The intersection of two intervals."""
    both = max(one[0], other[0]), min(one[1], other[1])
    return both if both[0] <= both[1] else None


def known(interval: Interval | None) -> float | None:
    """The middle of a narrow interval, else None."""
    if interval is None or interval[0] <= 0 or interval[1] > _CLOSE * interval[0]:
        return None
    return (interval[0] + interval[1]) / 2


class Inference:
    """One limit of one provider, inferred from all its answers."""

    __slots__ = (
        "_anchor", "_end", "_full", "_highest", "_largest", "_measured", "_not_full", "_renewed", "_slope", "_smallest", "_windowless",
        "meaning", "rate", "stated",
    )  # fmt: skip

    def __init__(self, stated: Stated) -> None:
        self.stated = stated
        self._forget()

    def learn(self, stated: Stated, sent: Sent, at: float) -> None:
        """An answer that arrived `at` to a request sent as `sent` describes."""
        if stated.window is None and stated.limit == self.stated.limit:
            stated = stated._replace(window=self.stated.window)
        if stated.limit != self.stated.limit or stated.window != self.stated.window:
            self._forget()
        before, self.stated = self.stated, stated
        if stated.window:
            self.meaning, self.rate = Meaning.NAMED, stated.limit / stated.window
            return
        if stated.remaining is None:
            return
        if stated.reset is not None:
            self._hold_against_full(stated)
            self._hold_against_end(before, stated, at)
        self._measure(stated.remaining, sent)
        self._decide()

    def name(self, window: float) -> None:
        """A refusal names the window in seconds."""
        if self.stated.window is None:
            self.stated = self.stated._replace(window=window)
            self.meaning, self.rate = Meaning.NAMED, self.stated.limit / window

    def restore(self, meaning: Meaning, rate: float | None) -> None:
        """Start with an earlier session's result; contradicting answers overrule it."""
        self.meaning, self.rate = meaning, rate
        if rate is not None and meaning is Meaning.FULL:
            self._full, self._windowless = (rate / _CLOSE, rate * _CLOSE), True

    @property
    def window(self) -> float | None:
        """Seconds of the window, or of a full refill; None if unknown."""
        if self.stated.window:
            return self.stated.window
        return self.stated.limit / self.rate if self.meaning is Meaning.FULL and self.rate else None

    @property
    def budget(self) -> bool:
        """Whether the window is an hour or longer."""
        window = self.window
        return window is not None and window >= LONG

    @property
    def depth(self) -> float:
        """What the bucket holds: the limit, or less if `reset` shows it."""
        smallest = self._smallest
        if not self._not_full or self.meaning is not Meaning.FULL or smallest is None or self.rate is None:
            return self.stated.limit
        return (smallest.remaining or 0.0) + (smallest.reset or 0.0) * self.rate

    @property
    def inferred(self) -> bool:
        """Whether no name stated the refill."""
        return self.meaning is not Meaning.NAMED

    def _forget(self) -> None:
        self.meaning = Meaning.UNKNOWN
        self.rate: float | None = None
        self._full: Interval = (0.0, math.inf)
        self._end: Interval | None = None
        self._not_full = self._windowless = False
        self._smallest: Stated | None = None
        self._largest: Stated | None = None
        self._slope: Interval | None = None
        self._anchor: tuple[float, Sent] | None = None
        self._highest = -math.inf
        self._renewed = 0
        self._measured: Interval | None = None

    def _hold_against_full(self, stated: Stated) -> None:
        both = overlap(self._full, refill_if_full(stated))
        if both is None:
            if not self._not_full:
                self._end, self._windowless, self._renewed = (
                    None,
                    False,
                    0,
                )  # what was taken for FULL may have been late
            self._not_full = True
        else:
            self._full = both
        assert stated.reset is not None
        if self._smallest is None or stated.reset < (self._smallest.reset or 0.0):
            self._smallest = stated
        if self._largest is None or stated.reset > (self._largest.reset or 0.0):
            self._largest = stated
        self._slope = _slope(self._smallest, self._largest)

    def _hold_against_end(self, before: Stated, stated: Stated, at: float) -> None:
        end = end_if_window(stated, at)
        if self._end is None:
            self._end = end
            return
        gained = (stated.remaining or 0.0) - (before.remaining or 0.0)
        both = overlap(self._end, end)
        if both is not None:
            self._end = both
            self._windowless |= gained > max(3.0, 0.05 * stated.limit)  # answers pass each other, but not by so much
            return
        over = at >= self._end[0]  # the window before has ended
        self._renewed += gained < 0.0 or (stated.reset or 0.0) < _SHORTEST
        self._windowless |= not (over and end[0] > self._end[0]) or self._renewed >= _RENEWED
        self._end = end

    def _measure(self, remaining: float, sent: Sent) -> None:
        self._highest = max(self._highest, remaining)
        debt = remaining < 1.0 < sent.unit
        if debt or remaining > self._highest - _MOVED * sent.unit:
            self._anchor = None  # what refills a limit that is whole, or debt of tokens that is paid, does not show
            return
        if self._anchor is None or sent.left - self._anchor[1].left > _FORGETS:
            self._anchor = remaining, sent
            return
        remaining_then, then = self._anchor
        elapsed, gained = sent.left - then.left, remaining - remaining_then + sent.before - then.before
        if elapsed >= _BRIEF:
            unsure = max(1.0, sent.unit) + abs(sent.since - then.since)  # of some, `remaining` counts what left since
            self._measured = max(0.0, gained - unsure) / elapsed, max(0.0, gained + unsure) / elapsed

    def _decide(self) -> None:
        full = self._refill_if_full()
        if full is not None and (self._windowless or self._not_full):
            self.meaning, self.rate = Meaning.FULL, full
        elif self._not_full and not self._windowless and self._end is not None:
            self.meaning, self.rate = Meaning.END, None
        elif (measured := known(self._measured)) is not None:
            self.meaning, self.rate = Meaning.REFILL, measured
        elif self.meaning is not Meaning.REFILL:
            self.meaning, self.rate = Meaning.UNKNOWN, None

    def _refill_if_full(self) -> float | None:
        # Preferably of a usual window: quotas are per minute or day.
        interval = self._slope if self._not_full else self._full
        if interval is None or interval[0] <= 0 or interval[1] > _CLOSE_USUAL * interval[0]:
            return None
        usual = (self.stated.limit / window for window in _USUAL)
        return next((rate for rate in usual if interval[0] <= rate <= interval[1]), known(interval))


def _slope(smallest: Stated, largest: Stated) -> Interval | None:
    assert smallest.remaining is not None
    assert smallest.reset is not None
    assert largest.remaining is not None
    assert largest.reset is not None
    fall, growth = smallest.remaining - largest.remaining, largest.reset - smallest.reset
    unsure = smallest.quantum + largest.quantum
    if growth <= unsure or fall <= 1.0:
        return None
    return (fall - 1.0) / (growth + unsure), (fall + 1.0) / (growth - unsure)
