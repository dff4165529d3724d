"""Detects outages during a run, and ends requests that hang since before one.

A restarted server may leave old connections open and silent. If nothing arrives for long, a connection is tried each
second; if refused, the provider is down. Requests from before an outage that are overdue (`ReplyTimes`) are ended once
connections are accepted again: possibly billed, resent without using an attempt. Without an outage none is ended: the
model may be slow.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from batchrun.client import Client
from batchrun.events import WaitReason
from batchrun.limits import Gate
from batchrun.retry import DOUBTED_FOR, Health

EVERY = 1.0  # Seconds between two checks
_QUIET = 1.0  # Seconds without any answer after which a connection is tried
_LONGER = 2.0  # The same as a factor on the usual reply time
_CONNECT_SECONDS = 5.0


class Breaker(Protocol):
    """Called on an outage that no answer has shown."""

    def __call__(self) -> None: ...


class Outage:
    """`gone` is called when no connection is accepted."""

    def __init__(self, gate: Gate, client: Client, *, gone: Breaker) -> None:
        self._gate = gate
        self._client = client
        self._gone = gone
        self._began: float | None = None
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Use new connections: the provider is down."""
        self._began = self._loop.time()
        self._client.renew()

    def refused(self) -> None:
        """A connection was refused: requests in flight are older."""
        self._gate.set_aside()
        self.start()

    def renew(self) -> None:
        """Use new connections again: no request since was answered."""
        self._client.renew()

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            now, flights = self._loop.time(), self._gate.flights
            if self._gate.down:
                continue
            if self._began is None:
                usual = flights.times.usual
                quiet = usual is not None and flights.quiet_for(now) > max(_QUIET, _LONGER * usual)
                if quiet and not await self._reachable():
                    self._gone()
            elif flights.oldest > self._began:
                self._began = None
            elif now - flights.oldest > flights.times.overdue and await self._reachable():
                self._client.end(before=min(self._began, now - flights.times.overdue))

    async def _reachable(self) -> bool:
        return await self._client.reachable(seconds=_CONNECT_SECONDS)


@dataclass(frozen=True, slots=True)
class Probing:
    """Why one request is sent per `every` seconds."""

    every: float
    reason: WaitReason
    message: str


_DOWN = Probing(1.0, WaitReason.DOWN, "the provider is down: one request per second is tried")
_LOADING = Probing(1.0, WaitReason.LOADING, "the server is loading its model: one request per second is tried")
_DOUBT = Probing(
    1.0,
    WaitReason.DOUBT,
    f"{WaitReason.DOUBT}: six single requests, at growing intervals, within {DOUBTED_FOR:.0f} seconds",
)


def probing_of(health: Health) -> Probing | None:
    """In doubt of a quota the pauses double: the sixth try is past a limit per minute."""
    if health.doubt is not None:
        return Probing(_DOUBT.every * 2**health.doubt_tries, _DOUBT.reason, _DOUBT.message)
    if health.loading_since is not None:
        return _LOADING
    return _DOWN if health.breaker_open else None
