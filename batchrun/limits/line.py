"""Who waits at a gate: first in, first out, and the next few may get ready before it is their turn."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from batchrun.limits.records import GateClosed, Permit

Demand = int | Callable[[], int]
"""How many tokens a request wants; a function is asked when the request is first in the line, since estimates improve."""


def tokens_of(demand: Demand) -> int:
    """The tokens that a request wants now."""
    return demand if isinstance(demand, int) else demand()


class Waiter(NamedTuple):
    """One who waits for `future`; `ready` is what there is to be done before, if anything."""

    future: asyncio.Future[Permit]
    demand: Demand
    ready: Callable[[], object] | None


class Line:
    """Those who wait. One event loop, no threads."""

    def __init__(self) -> None:
        self._waiters: deque[Waiter] = deque()
        self._ready = 0  # of the first

    def __len__(self) -> int:
        return len(self._waiters)

    @property
    def first(self) -> Waiter:
        """Whose turn is next."""
        return self._waiters[0]

    @property
    def waiting(self) -> int:
        """How many wait who have not been cancelled."""
        return sum(not waiter.future.done() for waiter in self._waiters)

    def join(self, demand: Demand, ready: Callable[[], object] | None) -> asyncio.Future[Permit]:
        """Wait behind all others."""
        waiter = Waiter(asyncio.get_running_loop().create_future(), demand, ready)
        self._waiters.append(waiter)
        return waiter.future

    def join_first(self, tokens: int) -> asyncio.Future[Permit]:
        """Wait again, before all others: what there is to be done before is done."""
        waiter = Waiter(asyncio.get_running_loop().create_future(), tokens, None)
        self._waiters.appendleft(waiter)
        self._ready += 1
        return waiter.future

    def next(self) -> None:
        """The first is served."""
        self._waiters.popleft()
        self._ready = max(0, self._ready - 1)

    def get_ready(self, few: int) -> None:
        """Let the first `few` get ready, each once."""
        few = min(few, len(self._waiters))
        while self._ready < few:
            waiter = self._waiters[self._ready]
            self._ready += 1
            if waiter.ready is not None and not waiter.future.done():
                waiter.ready()

    def dissolve(self) -> None:
        """Everybody who waits gets GateClosed."""
        for waiter in self._waiters:
            if not waiter.future.done():
                waiter.future.set_exception(GateClosed())
        self._waiters.clear()
        self._ready = 0
