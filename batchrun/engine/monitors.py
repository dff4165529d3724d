"""Monitors of a lane: outages, the queue of a server of one's own, silently truncated prompts.

A restarted server may leave old connections open and silent. If nothing arrives for long, a connection is tried each
second; if refused, the provider is down. Once connections are accepted again, overdue requests from before are ended:
possibly billed, resent without using an attempt. Without an outage none is ended.
"""

import asyncio
from typing import NamedTuple, Protocol

from batchrun.client import Client
from batchrun.events import WaitReason
from batchrun.limits import Gate, Queue, read_queue
from batchrun.models import Request
from batchrun.retry import DOUBTED_FOR, Health

EVERY = 1.0  # Seconds between two checks for an outage
_QUIET = 1.0  # Seconds without any answer after which a connection is tried
_LONGER = 2.0  # The same as a factor on the usual reply time
_CONNECT_SECONDS = 5.0


class Breaker(Protocol):
    def __call__(self) -> None: ...


class Outage:
    def __init__(self, gate: Gate, client: Client, *, gone: Breaker) -> None:
        self._gate = gate
        self._client = client
        self._gone = gone
        self._began: float | None = None
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        self._began = self._loop.time()
        self._client.renew()

    def refused(self) -> None:
        """Requests in flight are older than the refusal."""
        self._gate.set_aside()
        self.start()

    def renew(self) -> None:
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


class Probing(NamedTuple):
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


POLL_EVERY = 1.0  # Seconds between two polls of queue gauges
_POLL_SECONDS = 5.0
_MISSES = 3  # Polls without figures after which the last ones expire, and after which polling a server without any ends


class QueueWatch:
    """Polls without the key."""

    def __init__(self, gate: Gate, client: Client) -> None:
        self._gate = gate
        self._calls = client.open_calls()
        self.server = ""  # Empty until it has answered

    async def watch(self) -> None:
        misses = 0
        while self.server or misses < _MISSES:
            await asyncio.sleep(POLL_EVERY)
            queue, offered = await self._poll()
            if queue is not None:
                self.server, misses = queue.server, 0
                self._gate.apply_queue(queue)
            else:
                if not (offered or self.server):
                    return
                misses += 1
                if misses == _MISSES:
                    self._gate.apply_queue(None)

    async def _poll(self) -> tuple[Queue | None, bool]:
        """The queue, and whether one may be offered later."""
        try:
            async with asyncio.timeout(_POLL_SECONDS):
                exchange = await self._calls.call("GET", "metrics")
        except TimeoutError:
            return None, True
        if exchange.status == 200:
            queue = read_queue(exchange.body.decode("utf-8", "replace"))
            return queue, False
        return None, exchange.status in (0, 502, 503, 504)


ROWS = 3  # Requests of the same count, with lengths apart by the factor `APART`, that are no coincidence
APART = 1.25
FEWEST = 256  # Input tokens below which equal counts are common
BYTES_A_TOKEN = 6.0  # Bytes per counted token above which a request was truncated; texts have 2 to 5
_MOST = 1000


class Cuts:
    """Small context windows (Ollama's default) keep a prompt's end, so that requests of different length have the same
    input tokens.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, int, int]] = {}
        self._reported = False

    def look(self, request: Request, input_tokens: int) -> str | None:
        """Returns a notice, once; requests with images are skipped."""
        if self._reported or input_tokens < FEWEST or request.has_files:
            return None
        return self.look_at(len(request.body), input_tokens)

    def look_at(self, size: int, input_tokens: int) -> str | None:
        if self._reported:
            return None
        rows, least, most = self._seen.get(input_tokens, (0, size, size))
        rows, least, most = rows + 1, min(least, size), max(most, size)
        if len(self._seen) >= _MOST:
            self._seen.clear()
        self._seen[input_tokens] = rows, least, most
        if rows < ROWS or most < APART * least or most < BYTES_A_TOKEN * input_tokens:
            return None
        self._reported = True
        return (
            f"{rows} requests of {least:,} to {most:,} bytes counted {input_tokens:,} input tokens each: the server seems to "
            "truncate longer prompts silently; give it a larger context window, or shorter rows"
        )
