"""Requests in flight, how many were let through together, and reply times."""

import itertools
import math
from collections import deque

from batchrun.limits.headers import Hints
from batchrun.limits.records import PagePermit, Permit
from batchrun.limits.refusals import Facts, is_refusal

_REMEMBERED = 512  # replies
_WEIGHT = 1 / 16  # of one reply in the average
_STALE_LEAST = 10.0  # Seconds without replies after which none is expected
_STALE = 3.0  # The same as a factor on the time of a slow reply


class ReplyTimes:
    """Seconds; None without replies."""

    __slots__ = ("_average", "_last", "_recent")

    def __init__(self) -> None:
        self._average = math.nan
        self._last = -math.inf
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)

    def replied(self, took: float, now: float) -> None:
        self._average = took if not self._recent else self._average + _WEIGHT * (took - self._average)
        self._recent.append(took)
        self._last = now

    def average(self, now: float) -> float | None:
        """None if none has come for long."""
        return self._average if self._recent and now - self._last <= self.overdue else None

    @property
    def usual(self) -> float | None:
        return self._average if self._recent else None

    @property
    def slow(self) -> float | None:
        ordered = sorted(self._recent)
        return ordered[int(0.99 * (len(ordered) - 1))] if ordered else None

    @property
    def overdue(self) -> float:
        return max(_STALE_LEAST, _STALE * (self.slow or 0.0))


class InFlight:
    __slots__ = ("_flights", "_in_pages", "_replies", "last_ended", "refusals", "times")

    def __init__(self) -> None:
        self._flights: dict[Permit, None] = {}
        self._in_pages = 0  # requests in pages, but one of each
        self._replies = self.refusals = 0
        self.times = ReplyTimes()
        self.last_ended = -math.inf  # when the last of them ended

    def left(self, permit: Permit) -> None:
        self._flights[permit] = None
        flying = len(self._flights) + self._in_pages
        permit.flying, permit.replies, permit.refusals = flying, self._replies, self.refusals

    def ended(self, permit: Permit, now: float) -> None:
        """Or not sent."""
        if self._flights.pop(permit, permit) is None:
            self.last_ended = now
        elif isinstance(page := permit.flight, PagePermit):
            self.ended_in_page(page, 1, now)

    def left_together(self, page: PagePermit) -> None:
        self._in_pages += page.count - 1
        self.left(page)

    def ended_in_page(self, page: PagePermit, count: int, now: float) -> None:
        page.count -= count
        self.last_ended = now
        if not page.count:
            del self._flights[page]
            count -= 1
        self._in_pages -= count

    def replied(self, permit: Permit, now: float, count: int = 1) -> int:
        """Returns how many were let through together, at least."""
        self._replies += count
        self.times.replied(now - permit.left, now)
        together = permit.flying - (self.refusals - permit.refusals)
        return together if together > 1 else 1

    def set_aside(self, before: float) -> int:
        """Those sent `before` no longer count; returns their number."""
        aside = [flight for flight in self._flights if flight.left < before and not flight.aside]
        for flight in aside:
            flight.aside = True
        return sum(flight.count for flight in aside)

    def refused(self) -> None:
        self.refusals += 1

    def beside(self, permit: Permit) -> int:
        """How many were at the provider with it."""
        own = permit.flight
        earlier = itertools.takewhile(lambda flight: flight is not own, self._flights)
        return sum(flight.count for flight in earlier) + self._replies - permit.replies

    def standing(self, since: float) -> int:
        return sum(flight.count for flight in self._flights if flight.left <= since)

    @property
    def oldest(self) -> float:
        return min((flight.left for flight in self._flights), default=math.inf)

    def quiet_for(self, now: float) -> float:
        """Seconds since any answer, or the oldest departure."""
        return max(0.0, now - max(self.last_ended, self.oldest))

    def turned_away(self, permit: Permit, status: int, hints: Hints, overloaded: bool, now: float) -> bool:
        if permit.flight not in self._flights:
            return False
        seconds, took = self.times.average(now), now - permit.left
        facts = Facts(took, seconds, self.beside(permit))
        return is_refusal(status, hints, facts, overloaded=overloaded)
