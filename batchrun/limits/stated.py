"""What a stated limit means, inferred from how its figures move, and how much remains."""

# `remaining` counts less what was sent since, plus the refill. Without a known refill, one request is sent when `reset`
# is over.

import math
from enum import Enum
from typing import NamedTuple

from batchrun.events import WaitReason
from batchrun.limits.headers import Stated
from batchrun.limits.records import Quota

MARGIN = 0.995  # Share of a stated rate that is used, so that a provider's bucket emptied by jitter refills
_CHECK_AFTER = 30.0  # Seconds of spacing before the first check whether the limit binds
_NEAR = 0.75  # Share of the limit from which `remaining` is near it
_LOOK = 1.0  # Seconds until one request is sent where no time is known
_SOON = 0.05

LONG = 3600.0  # Seconds from which a limit is a budget and sets no rate
_JITTER = 0.1  # Seconds by which answers are late
_CLOSE = 1.5  # Upper over lower bound of a refill below which it is known
_CLOSE_USUAL = 4.0  # The same, if one usual window lies between
_BRIEF, _FORGETS = 0.5, 60.0  # Seconds over which a refill is measured, least and most
_MOVED = 4.0  # Requests by which `remaining` must have fallen: near the maximum no refill shows, and some never change
# That many windows, shorter than that many seconds or with less than the one before, are none.
_SHORTEST, _RENEWED = 1.0, 3

_USUAL = (60.0, 3600.0, 86_400.0, 1.0)  # Seconds; usual windows of quotas

Interval = tuple[float, float]


class Sent(NamedTuple):
    """Units of one limit."""

    before: float  # sent before the request
    since: float  # sent since
    unit: float  # average per request; inf: unknown
    left: float  # departure of the request


class Meaning(Enum):
    NAMED = "named"
    FULL = "full"
    END = "end of a window"
    REFILL = "measured refill"
    UNKNOWN = "not understood"


def refill_if_full(stated: Stated) -> Interval:
    """Units per second, if `reset` is the time until full."""
    assert stated.remaining is not None
    assert stated.reset is not None
    used = stated.limit - stated.remaining
    shortest, longest = max(0.0, stated.reset - stated.quantum), stated.reset + stated.quantum
    least = max(0.0, used - 1.0) / longest if longest else 0.0
    return least, (used or 1.0) / shortest if shortest else math.inf


def end_if_window(stated: Stated, at: float) -> Interval:
    assert stated.reset is not None
    return at + stated.reset - stated.quantum - _JITTER, at + stated.reset + stated.quantum + _JITTER


def overlap(one: Interval, other: Interval) -> Interval | None:
    both = max(one[0], other[0]), min(one[1], other[1])
    return both if both[0] <= both[1] else None


def known(interval: Interval | None) -> float | None:
    """The middle of a narrow interval."""
    if interval is None or interval[0] <= 0 or interval[1] > _CLOSE * interval[0]:
        return None
    return (interval[0] + interval[1]) / 2


class Inference:
    __slots__ = (
        "_anchor", "_end", "_full", "_highest", "_largest", "_measured", "_not_full", "_renewed", "_slope", "_smallest", "_windowless",
        "meaning", "rate", "stated",
    )  # fmt: skip

    def __init__(self, stated: Stated) -> None:
        self.stated = stated
        self._forget()

    def learn(self, stated: Stated, sent: Sent, at: float) -> None:
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
        if self.stated.window is None:
            self.stated = self.stated._replace(window=window)
            self.meaning, self.rate = Meaning.NAMED, self.stated.limit / window

    def restore(self, meaning: Meaning, rate: float | None) -> None:
        # Contradicting answers overrule an earlier session's result.
        self.meaning, self.rate = meaning, rate
        if rate is not None and meaning is Meaning.FULL:
            self._full, self._windowless = (rate / _CLOSE, rate * _CLOSE), True

    @property
    def window(self) -> float | None:
        """Seconds of it, or of a full refill."""
        if self.stated.window:
            return self.stated.window
        return self.stated.limit / self.rate if self.meaning is Meaning.FULL and self.rate else None

    @property
    def budget(self) -> bool:
        window = self.window
        return window is not None and window >= LONG

    @property
    def depth(self) -> float:
        """The limit, or less if `reset` shows it."""
        smallest = self._smallest
        if not self._not_full or self.meaning is not Meaning.FULL or smallest is None or self.rate is None:
            return self.stated.limit
        return (smallest.remaining or 0.0) + (smallest.reset or 0.0) * self.rate

    @property
    def inferred(self) -> bool:
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


class StatedLimit:
    """Levels are in the limit's unit."""

    __slots__ = (
        "_at",
        "_check_after",
        "_end",
        "_level",
        "_opens",
        "_refused_at",
        "_reset",
        "_spaced_since",
        "inference",
        "spaced",
    )

    def __init__(self, stated: Stated, now: float) -> None:
        self.inference = Inference(stated)
        self._at, self._level = now, math.inf
        self._opens, self._end, self._reset = now, now, _LOOK
        self.spaced = False
        self._spaced_since = now
        self._refused_at = 0.0
        self._check_after = _CHECK_AFTER

    def apply(self, stated: Stated, sent: Sent, now: float) -> bool:
        """Whether an answer explains earlier unexplained refusals."""
        known = self.inference.rate is not None
        self.inference.learn(stated, sent, now)
        if stated.remaining is not None:
            self._believe(stated, stated.remaining, sent, now)
        return self.spaced and not known and (self.inference.rate or math.inf) <= self._refused_at

    def _believe(self, stated: Stated, held: float, sent: Sent, now: float) -> None:
        rate = self.inference.rate or 0.0
        if self.inference.meaning is Meaning.FULL and held < 1.0 and stated.reset is not None:
            held = min(0.0, self.inference.depth - stated.reset * rate)
        # Some state what was left on arrival, some on departure: the lower of both where the refill is known.
        held += min(0.0, max(0.0, now - sent.left) * rate - sent.since) if rate else -sent.since / 2
        self._level, self._at = held, now
        self._end = now + (stated.reset or 0.0)
        self._reset = _LOOK if stated.reset is None else max(_SOON, stated.reset)
        self._opens = now + self._reset

    def refused(self, at: float, now: float) -> None:
        # In spite of room, at that many units per second.
        self._refused_at = at
        if not self.spaced:
            self.spaced, self._spaced_since = True, now

    def doubted(self, now: float) -> bool:
        """Whether spacing has just ended, as there was room throughout."""
        if not self.spaced or not self.inference.inferred or now - self._spaced_since < self._check_after:
            return False
        left = self.inference.stated.remaining
        if left is None or left < _NEAR * self.inference.stated.limit or self.inference.rate is None:
            self._spaced_since = now
            return False
        self.spaced = False
        self._check_after *= 2
        return True

    def pace(self, now: float) -> float:
        """Units per second; inf if the limit sets no rate."""
        inference = self.inference
        match inference.meaning:
            case _ if inference.budget:
                return math.inf
            case Meaning.NAMED:
                return MARGIN * (inference.rate or math.inf)
            case Meaning.END:
                seconds = self._end - now
                return max(1.0, self.level(now)) / seconds if seconds > _LOOK else math.inf
            case Meaning.FULL | Meaning.REFILL:
                return MARGIN * (inference.rate or math.inf) if self.spaced else math.inf
            case Meaning.UNKNOWN:
                return math.inf

    @property
    def basis(self) -> str:
        return "inferred" if self.inference.inferred else "stated"

    @property
    def quota(self) -> Quota | None:
        stated, window = self.inference.stated, self.inference.window
        if not self.inference.budget or stated.remaining is None or window is None:
            return None
        return Quota(stated.key, stated.kind, stated.limit, stated.remaining, round(window, 0))

    @property
    def reason(self) -> WaitReason:
        if self.inference.budget:
            return WaitReason.QUOTA
        return WaitReason.REQUESTS if self.inference.stated.kind == "requests" else WaitReason.TOKENS

    def level(self, now: float) -> float:
        if self._level < self.inference.stated.limit:
            elapsed = max(0.0, now - self._at)
            if self.inference.rate:
                self._level = min(self.inference.stated.limit, self._level + elapsed * self.inference.rate)
            elif self.inference.meaning is Meaning.END and now >= self._end:
                self._level = self.inference.stated.limit
            self._at = now
        return self._level

    def wait(self, amount: float, now: float) -> float:
        """Seconds until that much may be sent."""
        short = min(amount, self.inference.stated.limit) - self.level(now)
        if short <= 1e-9:
            return 0.0
        if self.inference.rate:
            return short / self.inference.rate
        return max(0.0, self._opens - now)

    def take(self, amount: float, now: float) -> None:
        if self._level < amount and not self.inference.rate:
            self._opens = now + self._reset
        self._level -= amount
