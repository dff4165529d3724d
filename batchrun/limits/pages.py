"""A gate that admits requests in pages, where only the number in flight limits them."""

from collections.abc import Callable
from typing import Any

from batchrun.events import WaitReason
from batchrun.limits.gate import Gate
from batchrun.limits.records import PagePermit


class PageGate(Gate):
    """A page costs as much as one request; single requests come first."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.room: Callable[[], object] = lambda: None  # called where single requests leave room
        self._more = False  # whether a page was larger than the slots that were free

    @property
    def open_for_pages(self) -> bool:
        """Whether only the number in flight limits requests."""
        now, rates = self._clock(), self._rates
        if rates.due(now):
            self._tune(now)
        held = self._paused or self._first_only or self._half_open_every is not None
        cools = self._cooldown.since is not None or now < self._cooldown.until or bool(self._unnamed.bursts)
        return rates.free and not (self._closed or held or cools)

    @property
    def size(self) -> int:
        return int(self._window.size)

    def admit_page(self, most: int) -> PagePermit | None:
        """At most `most`, sent now; None without slots, or where others wait."""
        free = int(self._window.size) - self._in_flight
        self._more = most > free
        count = min(most, free)
        if count <= 0 or self._queue.waiters:
            return None
        now, rates = self._clock(), self._rates
        self._in_flight += count
        rates.spacing.admitted += count
        self._last, self._reason = now, None
        full = self._more and self._in_flight >= 0.8 * self._window.size
        permit = PagePermit(count, rates.spacing.rate, full, now)
        if self._in_flight == count:
            self._window.first_left(now)
        rates.left(permit, now)
        self.flights.left_together(permit)
        return permit

    def settle_page(self, permit: PagePermit, count: int, seconds: float, usage: tuple[int, int, int]) -> None:
        """`seconds` and `usage` (bytes, input and output tokens) are averages."""
        now = self._clock()
        if not permit.aside:
            self._in_flight -= count
        self.flights.ended_in_page(permit, count, now)
        rates, (size, given, made) = self._rates, usage
        rates.settle(permit, count * (given + made), seconds)
        self._estimate.learn(size, given, made)
        rates.answered(permit, count)
        if not permit.aside:
            together = self.flights.replied(permit, now, count)
            if not self._plain:
                self._answered_later(permit, together, now)
            held = WaitReason.CONCURRENCY if self._more else None
            waited = self._reason if self._queue.waiters else held
            self._window.answered(permit, together, now, waited, self._in_flight + count - 1, count=count)
        self._pump(now)

    def _pump(self, now: float) -> None:
        super()._pump(now)
        if not self._queue.waiters:
            self.room()
