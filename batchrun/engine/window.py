"""The rows that are at hand: fresh ones streamed from the journal, and those that wait for their retry.

Workers ask for the next row and put rows back with the time they are due; no worker sleeps for a row. Memory is
bounded by the rows fetched ahead and by the crew, whatever the length of the input.
"""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from zlib import crc32

from batchrun.engine.till import UNCHARGED, Charge, Hold
from batchrun.limits import Permit
from batchrun.models import Exchange, Pending, Request

AHEAD = 2000
"""Rows fetched from the journal at a time."""

Fetch = Callable[[int], Awaitable[tuple[list[Pending], int | None]]]
"""From a position: the next rows after it, and the position to go on from, None at the end."""


@dataclass(slots=True, eq=False)
class Job:
    """A row on its way, with what it has used up.

    `request` is set where it is not simply the rendered row. `permit` and `exchange` are those of the attempt under
    way, `hold` what it may cost at worst and `charge` what it was charged; `handed_on` is whether this attempt's verdict has been performed.
    """

    row: Pending
    number: int
    attempts: int
    deadlines: int
    asks: int
    request: Request | None = None
    permit: Permit | None = None
    exchange: Exchange | None = None
    hold: Hold | None = None
    charge: Charge = UNCHARGED
    handed_on: bool = False

    @classmethod
    def of(cls, row: Pending) -> "Job":
        """The job that goes on where the row's history ends."""
        history = row.history
        return cls(row, history.number, history.attempts, history.deadlines, history.asks)


class Window:
    """Hands out rows in input order, retries first when they are due. One loop, no threads."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._loop = asyncio.get_running_loop()
        self._fresh: deque[Pending] = deque()
        self._due: list[tuple[float, int, Job]] = []
        self._order = itertools.count()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._out = 0
        self._after: int | None = 0
        self._closed = False
        self._fetching: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def next(self) -> Job | None:
        """The next row to send; None when every row is finished or the window is closed.

        Raises StorageError where the journal cannot be read.
        """
        while not self._closed:
            job = self._take()
            if job is not None:
                self._out += 1
                return job
            if self._after is None and not self._out and not self._due:
                self.close()
                return None
            await self._wait()
        return None

    def put_back(self, job: Job, seconds: float) -> None:
        """The row goes out again after `seconds`."""
        self._out -= 1
        heapq.heappush(self._due, (self._loop.time() + seconds, next(self._order), job))
        self._arm()

    def finished(self) -> None:
        """A row that was handed out has its outcome."""
        self._out -= 1
        if not self._out and self._after is None and not self._due:
            self._wake(len(self._waiters))

    def close(self) -> None:
        """Hand out nothing more; whoever waits gets None."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._fetching is not None:
            self._fetching.cancel()
        self._wake(len(self._waiters))

    @property
    def next_due(self) -> float | None:
        """When the earliest retry is due, in the loop's time, where nothing but retries is left to hand out."""
        return self._due[0][0] if self._due and not self._fresh and self._after is None else None

    def _take(self) -> Job | None:
        if self._due and self._due[0][0] <= self._loop.time():
            return heapq.heappop(self._due)[2]
        if len(self._fresh) < AHEAD // 2:
            self._fetch_ahead()
        return Job.of(self._fresh.popleft()) if self._fresh else None

    def _fetch_ahead(self) -> None:
        if self._after is None or self._closed:
            return
        if self._fetching is None:
            self._fetching = self._loop.create_task(self._fetch_more(self._after))
        elif self._fetching.done():
            self._fetching.result()

    async def _fetch_more(self, after: int) -> None:
        try:
            rows, self._after = await self._fetch(after)
            self._fresh.extend(rows)
            self._fetching = None
        finally:
            self._wake(len(self._waiters))

    async def _wait(self) -> None:
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        self._arm()
        await waiter

    def _arm(self) -> None:
        """One timer for all who wait: it goes off when the earliest retry is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due and self._waiters:
            self._timer = self._loop.call_at(self._due[0][0], self._on_due)

    def _on_due(self) -> None:
        self._timer = None
        now = self._loop.time()
        self._wake(sum(1 for when, _, _ in self._due if when <= now))
        self._arm()

    def _wake(self, count: int) -> None:
        while count > 0 and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1


def in_sample(position: int, size: int, total: int) -> bool:
    """Whether a row (positions count from 1) belongs to the sample of `size` rows from all over `total`.

    The rows are cut into `size` stretches, and each gives one, at a place that no period of the input can meet.
    """
    if size >= total:
        return True
    stretch = (position - 1) * size // total
    first = -(-stretch * total // size)
    length = -(-(stretch + 1) * total // size) - first
    return position - 1 - first == crc32(stretch.to_bytes(8)) % length


def at_places(pending: Callable[[int, int, int], list[Pending]], places: Iterable[int]) -> list[Pending]:
    """The rows at these places of the input that have no outcome."""
    return [row for place in places for row in pending(place - 1, 1, place)]
