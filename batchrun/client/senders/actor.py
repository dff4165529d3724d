"""A sender as an actor of a Ray cluster, with a byte stream each way."""

import asyncio
import importlib
from typing import Any

from batchrun.cluster.messages import PIECE

_HOLD = 1.0  # seconds that a call waits for data


class SenderActor:
    def __init__(self) -> None:
        self._sender: Any = None
        self._taken = 0
        self._kept = bytearray()
        self._base = self._given = 0
        self._data_ready: asyncio.Future[None] | None = None

    async def load(self, pause: float) -> str | None:
        """Returns why the sender cannot start."""
        try:
            module: Any = importlib.import_module("batchrun.client.senders.sender")
        except Exception as error:  # noqa: BLE001  a package that is not there may fail in any way
            return f"{type(error).__name__}: {error}"
        self._sender = module.Sender(self._queue, pause)
        return None

    async def exchange(self, first: int, received: int, again: bool, *data: bytes) -> tuple[int, int, bytes]:
        """Take frames from offset `first`; return (bytes taken, offset of the data, data).

        Offsets make repeated calls safe: with `again` the caller may lack some of what it `received`. Waits for data for
        a second, or until another call.
        """
        for piece in data:
            if first <= self._taken < first + len(piece):
                new = piece[self._taken - first :]
                self._taken += len(new)
                self._sender.received(new)
            first += len(piece)
        if received > self._base:
            del self._kept[: received - self._base]
            self._base = received
        if again:
            self._given = self._base
        if self._given == self._base + len(self._kept):
            await self._wait_for_data()
        start = max(self._given, self._base)
        given = bytes(memoryview(self._kept)[start - self._base :][:PIECE])
        self._given = start + len(given)
        return self._taken, start, given

    def _queue(self, frame: bytes) -> None:
        self._kept += frame
        self._wake()

    def _wake(self) -> None:
        if self._data_ready is not None and not self._data_ready.done():
            self._data_ready.set_result(None)

    async def _wait_for_data(self) -> None:
        self._wake()
        self._data_ready = ready = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_HOLD):
                await ready
        except TimeoutError:
            pass
