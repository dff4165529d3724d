"""First in, first out; the next few may prepare before their turn."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from batchrun.limits.records import GateClosed, HandedBack, Permit
from batchrun.models import made

Demand = int | Callable[[], int]  # Tokens that a request wants; a function is called late, since estimates improve


def tokens_of(demand: Demand) -> int:
    return demand if isinstance(demand, int) else demand()


# Seconds; shorter timers could fire early by the clock's resolution (uvloop: 1 ms).
_SHORTEST, _SHORTEST_OF_UVLOOP = 1e-4, 1e-3


class Alarm:
    """One timer: calls `wake` at the earliest time set."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.timer: asyncio.TimerHandle | None = None  # None: not set
        self._at = math.inf

    def set(self, at: float, now: float) -> None:
        if self.timer is not None:
            if self._at <= at:
                return
            self.timer.cancel()
        self._at, loop = at, asyncio.get_running_loop()
        shortest = _SHORTEST if isinstance(loop, asyncio.BaseEventLoop) else _SHORTEST_OF_UVLOOP
        self.timer = loop.call_later(max(shortest, at - now), self._call)

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _call(self) -> None:
        self.timer = None
        self._wake()


class Waiter(NamedTuple):
    """`ready` prepares it; `first`: before all others."""

    future: asyncio.Future[Permit]
    demand: Demand
    ready: Callable[[], object] | None
    first: bool


class WaitQueue:
    """One event loop, no threads."""

    def __init__(self) -> None:
        self.waiters: deque[Waiter] = deque()
        self._ready = 0  # of the first
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def waiting(self) -> int:
        """Without cancelled requests."""
        return sum(not waiter.future.done() for waiter in self.waiters)

    def join(self, demand: Demand, ready: Callable[[], object] | None) -> asyncio.Future[Permit]:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        future = self._loop.create_future()
        self.waiters.append(made(Waiter, (future, demand, ready, False)))
        return future

    def join_first(self, tokens: int) -> asyncio.Future[Permit]:
        """Before all others and already prepared."""
        future = asyncio.get_running_loop().create_future()
        self.waiters.appendleft(Waiter(future, tokens, None, True))
        self._ready += 1
        return future

    def next(self) -> None:
        self.waiters.popleft()
        if self._ready:
            self._ready -= 1

    def get_ready(self, few: int) -> None:
        """Let the first `few` prepare, each once."""
        for waiter in islice(self.waiters, self._ready, few):
            self._ready += 1
            if waiter.ready is not None and not waiter.future.done():
                waiter.ready()

    def dissolve(self, why: type[GateClosed | HandedBack]) -> None:
        for waiter in self.waiters:
            if not waiter.future.done():
                waiter.future.set_exception(why())
        self.waiters.clear()
        self._ready = 0
