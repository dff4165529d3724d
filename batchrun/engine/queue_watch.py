"""Looks at what a server of one's own says of its queue, while requests go there.

Hosted providers offer no such figures, so only servers on this machine or in this network are asked by themselves
(`Client.is_own_server`); `--queue-gauges on` asks any. Asked without the key. What is not offered is not asked for again.
"""

import asyncio

from batchrun.client import Client
from batchrun.limits import Gate, Queue, read_queue

EVERY = 1.0
"""Seconds between two looks."""
_SECONDS = 5.0
_MISSES = 3
"""Looks without figures after which what the server said last counts no more, and at the start after which it is left."""


class QueueWatch:
    """Tells the gate of one lane what its server says. `server` is its name, empty until it has answered."""

    def __init__(self, gate: Gate, client: Client) -> None:
        self._gate = gate
        self._calls = client.open_calls()
        self.server = ""

    async def watch(self) -> None:
        """Look until it is known that there is nothing to see; not in the first second, in which short runs are over."""
        misses = 0
        while self.server or misses < _MISSES:
            await asyncio.sleep(EVERY)
            queue, offered = await self._look()
            if queue is not None:
                self.server, misses = queue.server, 0
                self._gate.hear_queue(queue)
            else:
                if not (offered or self.server):
                    return
                misses += 1
                if misses == _MISSES:
                    self._gate.hear_queue(None)

    async def _look(self) -> tuple[Queue | None, bool]:
        """The queue, and whether it may be offered: a server that is down or loads may say it later."""
        try:
            async with asyncio.timeout(_SECONDS):
                exchange = await self._calls.call("GET", "metrics")
        except TimeoutError:
            return None, True
        if exchange.status == 200:
            queue = read_queue(exchange.body.decode("utf-8", "replace"))
            return queue, False
        return None, exchange.status in (0, 502, 503, 504)
