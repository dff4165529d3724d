"""What a limit means, inferred from how its figures move together. Pure arithmetic on what answers state.

`limit`, `remaining` and `reset` do not say how fast a limit refills. A window that is named does (a suffix, a policy,
"per minute" in the text of a refusal). Else each answer is held against these hypotheses, as intervals that include the
rounding of every figure:

* FULL: `reset` is the time until the limit is whole again. Then (limit - remaining) / reset is the refill, in one answer,
  and all answers agree on it. A provider may hold less than it states: then the fall of `remaining` over the growth of
  `reset` is the refill, between the answers of the smallest and of the largest `reset`.
* END: `reset` is the time until the end of a window. Then all answers of one window agree on its end, whatever is sent,
  and `remaining` may be sent until then.
* REFILL: nothing is said of `reset`, or nothing that fits; but `remaining` does not fall by what was sent. What it should
  have fallen further is the refill.

A hypothesis that answers contradict is out until the limit changes. One that is left alone is believed; while two are
left, and where none is, the limit is not understood: it holds nothing back, but for `remaining` itself.

What is sent is counted in the unit of the limit. Times are seconds of the gate's clock.
"""

import math
from enum import Enum
from typing import NamedTuple

from batchrun.limits.headers import Stated

LONG = 3600.0
"""Seconds; a limit for so long a time is a budget, no pace."""
_JITTER = 0.1
"""Seconds by which answers come late."""
_CLOSE = 1.5
"""The upper bound of a refill over its lower bound, under which it is known."""
_CLOSE_USUAL = 4.0
"""The same, where one usual window lies between them."""
_BRIEF, _FORGETS = 0.5, 60.0
"""Seconds over which a refill is measured, at least and at most."""
_MOVED = 4.0
"""Requests by which `remaining` has to have fallen: near the whole it shows no refill, and some state what never changes."""
_SHORTEST, _RENEWED = 1.0, 3
"""So many windows shorter than so many seconds, or that begin with less than the one before had left, are none."""

_USUAL = (60.0, 3600.0, 86_400.0, 1.0)
"""Seconds for which quotas usually are."""

Interval = tuple[float, float]


class Sent(NamedTuple):
    """What had left when a request left, in the units of one limit, and `since`, and what a request takes on the average.

    `unit` is inf where that is not known. `left` is when the request left.
    """

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


def refill_if_full(said: Stated) -> Interval:
    """The units a second by which the limit refills if `reset` is the time until it is whole again."""
    assert said.remaining is not None
    assert said.reset is not None
    used = said.limit - said.remaining
    shortest, longest = max(0.0, said.reset - said.quantum), said.reset + said.quantum
    least = max(0.0, used - 1.0) / longest if longest else 0.0
    return least, (used or 1.0) / shortest if shortest else math.inf


def end_if_window(said: Stated, at: float) -> Interval:
    """When the window ends if `reset` of an answer that came then is the time until its end."""
    assert said.reset is not None
    return at + said.reset - said.quantum - _JITTER, at + said.reset + said.quantum + _JITTER


def overlap(one: Interval, other: Interval) -> Interval | None:
    """What two intervals have in common."""
    both = max(one[0], other[0]), min(one[1], other[1])
    return both if both[0] <= both[1] else None


def known(interval: Interval | None) -> float | None:
    """The middle of an interval that is narrow enough, else None."""
    if interval is None or interval[0] <= 0 or interval[1] > _CLOSE * interval[0]:
        return None
    return (interval[0] + interval[1]) / 2


class Inference:
    """One limit of one provider, from all that its answers state."""

    __slots__ = (
        "_anchor", "_end", "_full", "_highest", "_largest", "_measured", "_not_full", "_renewed", "_slope", "_smallest", "_windowless",
        "meaning", "rate", "said",
    )  # fmt: skip

    def __init__(self, said: Stated) -> None:
        self.said = said
        self._forget()

    def learn(self, said: Stated, sent: Sent, at: float) -> None:
        """An answer that came `at` to a request that left as `sent` says."""
        if said.window is None and said.limit == self.said.limit:
            said = said._replace(window=self.said.window)
        if said.limit != self.said.limit or said.window != self.said.window:
            self._forget()
        before, self.said = self.said, said
        if said.window:
            self.meaning, self.rate = Meaning.NAMED, said.limit / said.window
            return
        if said.remaining is None:
            return
        if said.reset is not None:
            self._hold_against_full(said)
            self._hold_against_end(before, said, at)
        self._measure(said.remaining, sent)
        self._decide()

    def name(self, window: float) -> None:
        """A refusal names the time in seconds for which the limit is."""
        if self.said.window is None:
            self.said = self.said._replace(window=window)
            self.meaning, self.rate = Meaning.NAMED, self.said.limit / window

    def go_on(self, meaning: Meaning, rate: float | None) -> None:
        """Begin with what an earlier session knew; what contradicts it is believed."""
        self.meaning, self.rate = meaning, rate
        if rate is not None and meaning is Meaning.FULL:
            self._full, self._windowless = (rate / _CLOSE, rate * _CLOSE), True

    @property
    def window(self) -> float | None:
        """Seconds for which the limit is: named, or the time in which it refills from nothing; None where not known."""
        if self.said.window:
            return self.said.window
        return self.said.limit / self.rate if self.meaning is Meaning.FULL and self.rate else None

    @property
    def budget(self) -> bool:
        """Whether the limit is for an hour or longer."""
        window = self.window
        return window is not None and window >= LONG

    @property
    def depth(self) -> float:
        """What the provider holds when it is whole: the limit, or less where `reset` shows that."""
        smallest = self._smallest
        if not self._not_full or self.meaning is not Meaning.FULL or smallest is None or self.rate is None:
            return self.said.limit
        return (smallest.remaining or 0.0) + (smallest.reset or 0.0) * self.rate

    @property
    def inferred(self) -> bool:
        """Whether no name said how fast it refills."""
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

    def _hold_against_full(self, said: Stated) -> None:
        both = overlap(self._full, refill_if_full(said))
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
        assert said.reset is not None
        if self._smallest is None or said.reset < (self._smallest.reset or 0.0):
            self._smallest = said
        if self._largest is None or said.reset > (self._largest.reset or 0.0):
            self._largest = said
        self._slope = _slope(self._smallest, self._largest)

    def _hold_against_end(self, before: Stated, said: Stated, at: float) -> None:
        end = end_if_window(said, at)
        if self._end is None:
            self._end = end
            return
        gained = (said.remaining or 0.0) - (before.remaining or 0.0)
        both = overlap(self._end, end)
        if both is not None:
            self._end = both
            self._windowless |= gained > max(3.0, 0.05 * said.limit)  # answers pass each other, but not by so much
            return
        over = at >= self._end[0]  # the window before has ended
        self._renewed += gained < 0.0 or (said.reset or 0.0) < _SHORTEST
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
        """The refill that agrees with all answers; of a usual window, where that does: quotas are of a minute or a day."""
        interval = self._slope if self._not_full else self._full
        if interval is None or interval[0] <= 0 or interval[1] > _CLOSE_USUAL * interval[0]:
            return None
        usual = (self.said.limit / window for window in _USUAL)
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
