"""Polls the queue gauges of a server of one's own, without the key. Hosted providers have none."""

import asyncio

from batchrun.client import Client
from batchrun.limits import Gate, Queue, read_queue

EVERY = 1.0  # Seconds between two polls
_SECONDS = 5.0
_MISSES = 3  # Polls without figures after which the last ones expire, and after which polling a server without any ends


class QueueWatch:
    """`server` is empty until it has answered."""

    def __init__(self, gate: Gate, client: Client) -> None:
        self._gate = gate
        self._calls = client.open_calls()
        self.server = ""

    async def watch(self) -> None:
        """Poll until no gauges are offered, after a first second."""
        misses = 0
        while self.server or misses < _MISSES:
            await asyncio.sleep(EVERY)
            queue, offered = await self._look()
            if queue is not None:
                self.server, misses = queue.server, 0
                self._gate.apply_queue(queue)
            else:
                if not (offered or self.server):
                    return
                misses += 1
                if misses == _MISSES:
                    self._gate.apply_queue(None)

    async def _look(self) -> tuple[Queue | None, bool]:
        """The queue, and whether one may be offered later."""
        try:
            async with asyncio.timeout(_SECONDS):
                exchange = await self._calls.call("GET", "metrics")
        except TimeoutError:
            return None, True
        if exchange.status == 200:
            queue = read_queue(exchange.body.decode("utf-8", "replace"))
            return queue, False
        return None, exchange.status in (0, 502, 503, 504)
