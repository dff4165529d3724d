"""Requests in flight, in the order in which they were sent, how many were let through together, and how long replies take:
what refusals and lost connections are told by.
"""

import itertools
import math
from collections import deque

from batchrun.limits.headers import Hints
from batchrun.limits.records import Permit
from batchrun.limits.refusals import Facts, is_refusal

_REMEMBERED = 512
"""Replies."""
_WEIGHT = 1 / 16
"""Of one reply in the average."""
_STALE_LEAST = 10.0
_STALE = 3.0
"""Seconds, and times what a slow reply takes, after which none having come means that none may come."""


class ReplyTimes:
    """What the latest replies took. Times are seconds of the gate's clock."""

    __slots__ = ("_average", "_last", "_recent")

    def __init__(self) -> None:
        self._average = math.nan
        self._last = -math.inf
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)

    def replied(self, took: float, now: float) -> None:
        """A reply came after so many seconds."""
        self._average = took if not self._recent else self._average + _WEIGHT * (took - self._average)
        self._recent.append(took)
        self._last = now

    def average(self, now: float) -> float | None:
        """What replies take of late; None where none has come for longer than a slow one takes."""
        return self._average if self._recent and now - self._last <= self.overdue else None

    @property
    def usual(self) -> float | None:
        """Seconds that replies took on average; None where there has been none."""
        return self._average if self._recent else None

    @property
    def slow(self) -> float | None:
        """Seconds that a slow reply takes, their 99th percentile; None where there is none."""
        ordered = sorted(self._recent)
        return ordered[int(0.99 * (len(ordered) - 1))] if ordered else None

    @property
    def overdue(self) -> float:
        """Seconds after which an attempt has taken much longer than replies do: 10, or 3 times a slow one."""
        return max(_STALE_LEAST, _STALE * (self.slow or 0.0))


class InFlight:
    """The requests in flight of one gate. Times are seconds of the gate's clock."""

    __slots__ = ("_flights", "_refusals", "_replies", "heard", "times")

    def __init__(self) -> None:
        self._flights: dict[Permit, None] = {}
        self._replies = self._refusals = 0
        self.times = ReplyTimes()
        self.heard = -math.inf
        """When the last of them ended."""

    def left(self, permit: Permit) -> None:
        """A request leaves now."""
        self._flights[permit] = None
        permit.flying, permit.replies, permit.refusals = len(self._flights), self._replies, self._refusals

    def ended(self, permit: Permit, now: float) -> None:
        """Its exchange is over, or it never left."""
        if self._flights.pop(permit, permit) is None:
            self.heard = now

    def replied(self, permit: Permit, now: float) -> int:
        """A request was answered; how many were let through together with it, at least, itself included."""
        self._replies += 1
        self.times.replied(now - permit.left, now)
        return max(1, permit.flying - (self._refusals - permit.refusals))

    def set_aside(self, before: float) -> int:
        """What left before then counts no more; how many there are."""
        aside = [flight for flight in self._flights if flight.left < before and not flight.aside]
        for flight in aside:
            flight.aside = True
        return len(aside)

    def refused(self) -> None:
        """A request was refused."""
        self._refusals += 1

    def beside(self, permit: Permit) -> int:
        """How many were with the provider when a request came that is refused now: those that left before it and are
        in flight, and those that were answered meanwhile.
        """
        earlier = itertools.takewhile(lambda flight: flight is not permit, self._flights)
        return sum(1 for _ in earlier) + self._replies - permit.replies

    def standing(self, since: float) -> int:
        """How many that left until then are in flight: were they refused, that would be known by now."""
        return sum(1 for flight in self._flights if flight.left <= since)

    @property
    def oldest(self) -> float:
        """When the first of those in flight left."""
        return min((flight.left for flight in self._flights), default=math.inf)

    def quiet_for(self, now: float) -> float:
        """Seconds since anything came, or since the first of those in flight left."""
        return max(0.0, now - max(self.heard, self.oldest))

    def turned_away(self, permit: Permit, status: int, said: Hints, overloaded: bool, now: float) -> bool:
        """Whether an answer that has just come is a refusal; `overloaded` is whether its body says that it is one."""
        if permit not in self._flights:
            return False
        seconds, took = self.times.average(now), now - permit.left
        facts = Facts(took, seconds, self.beside(permit))
        return is_refusal(status, said, facts, overloaded=overloaded)
