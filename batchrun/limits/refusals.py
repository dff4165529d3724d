"""Which answers are refusals, and the cause of unnamed ones."""

# A refusal turns a request away because a healthy server is busy. Every 429 is one; a status in
# `providers/refusals.toml` is one if a wait is announced, no requests remain, or it came far sooner than replies do.

import math
from enum import Enum
from typing import NamedTuple

from batchrun.limits.headers import Hints
from batchrun.limits.records import Permit
from batchrun.providers import table

SOONER = 0.5  # Share of the reply time within which an answer is far sooner
# other statuses than 429 with which busy servers refuse
BUSY = frozenset(int(line["status"]) for line in table("refusals")["busy"])
_BURSTS = 3  # Bursts at the same number that show a limit of concurrency
_SLACK = 0.1  # Share by which counts may differ: replies and refusals cross on their way


class Facts(NamedTuple):
    took: float  # seconds
    reply_seconds: float | None  # recent average; None: no reply
    beside: int  # requests sent before it that are still at the server


def is_refusal(status: int, hints: Hints, facts: Facts, *, overloaded: bool = False) -> bool:
    if status == 429 or hints.looks_like_429:
        return True
    if status not in BUSY and not overloaded:
        return False
    none_left = any(limit.remaining is not None and limit.remaining < 1 for limit in hints.limits)
    if hints.retry_after or none_left:
        return True
    if facts.reply_seconds is None:
        return facts.beside >= 1
    return facts.took < SOONER * facts.reply_seconds


class Cause(Enum):
    OPEN = "not known yet"
    RATE = "a rate"
    CONCURRENCY = "how many are in flight"


class Unnamed:
    """Counts beside refusals that do not name their cause."""

    __slots__ = ("_next", "_since", "_until", "bursts", "cause")

    def __init__(self) -> None:
        self.cause = Cause.OPEN
        self.bursts: list[int] = []  # the least number beside a refused one, a burst each
        self._next = self._since = self._until = -math.inf

    @property
    def suspected(self) -> int | None:
        return self.bursts[0] if self.bursts and self.cause is Cause.OPEN else None

    def refused(self, permit: Permit, beside: int, oldest: float, now: float) -> Cause:
        # A burst is new once a rate would have admitted two more than the slack since the last.
        if self.cause is Cause.RATE:
            return self.cause
        if self.cause is Cause.CONCURRENCY:
            if beside >= self.bursts[0] - _slack(self.bursts[0]):
                return self.cause
            self.cause, self.bursts = Cause.OPEN, []  # the limit is lower now, or it is something else
        if not self.bursts:
            self._since, self._until = now, math.inf
        if permit.left >= self._next or not self.bursts:
            self.bursts.append(beside)
            self._next = now + max(0.0, now - oldest) / max(1, beside) * (_slack(beside) + 2)
        else:
            self.bursts[-1] = min(self.bursts[-1], beside)
        low = min(self.bursts)
        high = max(self.bursts[:-1], default=low)
        if low < 1 or high - low > _slack(high):
            self._known(Cause.RATE, now)
        elif len(self.bursts) >= _BURSTS and self.bursts[-1] - low <= _slack(low):
            self._known(Cause.CONCURRENCY, now)
            self.bursts = [low]
        return self.cause

    def tested(self, permit: Permit) -> bool:
        """Whether it was sent during a test."""
        return self._since < permit.left <= self._until

    def let_through(self, together: int, now: float) -> None:
        """That many at once were not refused."""
        suspected = self.suspected
        if suspected is not None and together > suspected + _slack(suspected):
            self._known(Cause.RATE, now)

    def _known(self, cause: Cause, now: float) -> None:
        self.cause = cause
        self._until = now


def _slack(number: int) -> int:
    return int(_SLACK * number + 0.5)
