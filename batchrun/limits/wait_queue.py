"""Who waits at a gate: first in, first out, and the next few may get ready before it is their turn."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from batchrun.limits.records import GateClosed, HandedBack, Permit
from batchrun.models import made

Demand = int | Callable[[], int]
"""How many tokens a request wants; a function is asked when the request is first in the line, since estimates improve."""


def tokens_of(demand: Demand) -> int:
    """The tokens that a request wants now."""
    return demand if isinstance(demand, int) else demand()


_SHORTEST, _SHORTEST_OF_UVLOOP = 1e-4, 1e-3
"""Seconds; a timer for less could fire before its time by the clock's own resolution, again and again: uvloop's is 1 ms."""


class Alarm:
    """One timer for all who wait: it calls `wake` at the earliest time that it was set to."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self._at = math.inf

    @property
    def is_set(self) -> bool:
        """Whether it will call."""
        return self._timer is not None

    def set(self, at: float, now: float) -> None:
        """Call at that time, or before."""
        if self._timer is not None:
            if self._at <= at:
                return
            self._timer.cancel()
        self._at, loop = at, asyncio.get_running_loop()
        shortest = _SHORTEST if isinstance(loop, asyncio.BaseEventLoop) else _SHORTEST_OF_UVLOOP
        self._timer = loop.call_later(max(shortest, at - now), self._call)

    def cancel(self) -> None:
        """Call no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _call(self) -> None:
        self._timer = None
        self._wake()


class Waiter(NamedTuple):
    """One who waits for `future`; `ready` is what there is to be done before, if anything."""

    future: asyncio.Future[Permit]
    demand: Demand
    ready: Callable[[], object] | None


class WaitQueue:
    """Those who wait. One event loop, no threads."""

    def __init__(self) -> None:
        self.waiters: deque[Waiter] = deque()
        """The first is whose turn is next."""
        self._ready = 0  # of the first
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def waiting(self) -> int:
        """How many wait who have not been cancelled."""
        return sum(not waiter.future.done() for waiter in self.waiters)

    def join(self, demand: Demand, ready: Callable[[], object] | None) -> asyncio.Future[Permit]:
        """Wait behind all others."""
        loop = self._loop or asyncio.get_running_loop()
        self._loop, future = loop, loop.create_future()
        self.waiters.append(made(Waiter, (future, demand, ready)))
        return future

    def join_first(self, tokens: int) -> asyncio.Future[Permit]:
        """Wait again, before all others: what there is to be done before is done."""
        future = asyncio.get_running_loop().create_future()
        self.waiters.appendleft(Waiter(future, tokens, None))
        self._ready += 1
        return future

    def next(self) -> None:
        """The first is served."""
        self.waiters.popleft()
        if self._ready:
            self._ready -= 1

    def get_ready(self, few: int) -> None:
        """Let the first `few` get ready, each once."""
        few = min(few, len(self.waiters))
        while self._ready < few:
            waiter = self.waiters[self._ready]
            self._ready += 1
            if waiter.ready is not None and not waiter.future.done():
                waiter.ready()

    def dissolve(self, why: type[GateClosed | HandedBack]) -> None:
        """All waiting requests get that exception."""
        for waiter in self.waiters:
            if not waiter.future.done():
                waiter.future.set_exception(why())
        self.waiters.clear()
        self._ready = 0
