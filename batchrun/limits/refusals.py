"""Which answers are refusals, and what refusals that do not say it are about.

A *refusal* is an answer by which a server that is well turns a request away because it has enough to do: it costs the
row nothing, and the rate or the window gives way. A 429 always is one. A status of `providers/refusals.toml` is one
where something else tells it from a failure: a wait that is announced, no requests left, or that it came far sooner
than replies do while other requests were let through.

A server with N slots refuses exactly while N requests are with it; a limit of the rate refuses at whatever number it
meets. So where refusals do not name their cause, the number of requests that were let through beside a refused one
tells: the same number in three bursts, with pauses of different lengths between them and never more than that
number answered, is a limit of concurrency.
"""

import math
from enum import Enum
from typing import NamedTuple

from batchrun.limits.headers import Hints
from batchrun.limits.records import Permit
from batchrun.providers import table

SOONER = 0.5
"""Share of the time that replies take, within which an answer came far sooner than they do."""
BUSY = frozenset(int(line["status"]) for line in table("refusals")["busy"])
"""Statuses other than 429 that a busy server refuses with."""
_BURSTS = 3
"""Bursts of refusals at the same number that show a limit of concurrency."""
_SLACK = 0.1
"""Share of that number by which the counts may differ: replies and refusals pass each other on the way."""


class Facts(NamedTuple):
    """What else tells a refusal from a failure.

    The answer took `took` seconds, replies take `reply_seconds` of late, None where there has been none lately, and
    `beside` requests that left before it are still with the server.
    """

    took: float
    reply_seconds: float | None
    beside: int


def is_refusal(status: int, said: Hints, facts: Facts, *, overloaded: bool = False) -> bool:
    """Whether an answer turns its request away. `overloaded` is whether its body says that the server is busy."""
    if status == 429 or said.looks_like_429:
        return True
    if status not in BUSY and not overloaded:
        return False
    none_left = any(limit.remaining is not None and limit.remaining < 1 for limit in said.limits)
    if said.retry_after or none_left:
        return True
    if facts.reply_seconds is None:
        return facts.beside >= 1
    return facts.took < SOONER * facts.reply_seconds


class Cause(Enum):
    """What refusals that do not say it are about."""

    OPEN = "not known yet"
    RATE = "a rate"
    CONCURRENCY = "how many are in flight"


class Unnamed:
    """The counts beside refusals that do not name their cause, and what they show. Times are the gate's."""

    __slots__ = ("_next", "_since", "_until", "bursts", "cause")

    def __init__(self) -> None:
        self.cause = Cause.OPEN
        self.bursts: list[int] = []  # the least number beside a refused one, a burst each
        self._next = self._since = self._until = -math.inf

    @property
    def suspected(self) -> int | None:
        """The number that may be the limit, None where nothing is suspected."""
        return self.bursts[0] if self.bursts and self.cause is Cause.OPEN else None

    def refused(self, permit: Permit, beside: int, oldest: float, now: float) -> Cause:
        """A request was refused beside so many, the first of which left at `oldest`.

        It begins another burst where a rate that has let those through would have let through two more than the counts
        may differ by since the last burst began.
        """
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
        """Whether a request left while a suspected number was overstepped to find out."""
        return self._since < permit.left <= self._until

    def let_through(self, together: int, now: float) -> None:
        """So many at once were not refused."""
        suspected = self.suspected
        if suspected is not None and together > suspected + _slack(suspected):
            self._known(Cause.RATE, now)

    def _known(self, cause: Cause, now: float) -> None:
        self.cause = cause
        self._until = now


def _slack(number: int) -> int:
    return int(_SLACK * number + 0.5)
