"""An outage in the middle of a run: how it is seen when nothing answers any more, what becomes of what was in flight, and how
often single requests leave meanwhile.

A server that is restarted may leave the connections to its old process open, with no process that answers. So when nothing
has come for much longer than replies take, a connection is opened once a second, and closed without a word: where that
is refused, the provider is down. What left before an outage waits for an answer as long as the deadline allows, but
when it is older than any reply has been (`ReplyTimes.overdue`) and the same address accepts new connections again, it is
ended: it may have been billed for, and its row is sent again at no cost in attempts. Where no outage was seen nothing is
ended: a slow model is no outage.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from batchrun.client import Client
from batchrun.events import WaitReason
from batchrun.limits import Gate
from batchrun.retry import DOUBTED_FOR, Health

EVERY = 1.0
"""Seconds between two looks."""
_QUIET = 1.0
_LONGER = 2.0
"""Seconds, and times what replies take, without any answer after which a connection is tried: often for nothing, but a
restart may be over in seconds."""
_CONNECT_SECONDS = 5.0


class Breaker(Protocol):
    """Hears of an outage that no answer has shown."""

    def __call__(self) -> None: ...


class Outage:
    """Looks for one while requests are in flight. `gone` is called when the provider accepts no connection."""

    def __init__(self, gate: Gate, client: Client, *, gone: Breaker) -> None:
        self._gate = gate
        self._client = client
        self._gone = gone
        self._began: float | None = None
        self._loop = asyncio.get_running_loop()

    def began(self) -> None:
        """The provider is down from now on: what leaves takes connections of its own."""
        self._began = self._loop.time()
        self._client.renew()

    def refused(self) -> None:
        """A connection was refused: what is in flight is from before, even if too few were refused for the breaker."""
        self._gate.set_aside()
        self.began()

    def goes_on(self) -> None:
        """Nothing that left since has been answered."""
        self._client.renew()

    async def watch(self) -> None:
        """Look for ever."""
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
    """Why only one request leaves `every` so many seconds."""

    every: float
    reason: WaitReason
    said: str


_DOWN = Probing(1.0, WaitReason.DOWN, "the provider is down: one try a second")
_LOADING = Probing(1.0, WaitReason.LOADING, "the server is loading its model: one try a second")
_DOUBT = Probing(
    1.0, WaitReason.DOUBT, f"{WaitReason.DOUBT}: six single tries, later and later, within {DOUBTED_FOR:.0f} seconds"
)


def probing_of(health: Health) -> Probing | None:
    """Why only single requests are to leave, None where that is not so.

    Where a quota may be used up the pauses double: a limit of a second is seen after one, and that of a minute is over
    after the sixth, when 63 have passed.
    """
    if health.doubt is not None:
        return Probing(_DOUBT.every * 2**health.doubt_tries, _DOUBT.reason, _DOUBT.said)
    if health.loading_since is not None:
        return _LOADING
    return _DOWN if health.breaker_open else None
