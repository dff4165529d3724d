"""A sender that is an actor of a Ray cluster: what runs there. Its driver calls `exchange` again and again.

Both directions are streams of bytes whose pieces carry their offset, so a call that failed, and may have been carried out all
the same, is made again without harm: what is here already is not taken twice, and what may not have arrived is kept.
"""

import asyncio
import importlib
from typing import Any

from batchrun.cluster.messages import PIECE

_HOLD = 1.0
"""Seconds that a call waits for something to say."""


class SenderActor:
    """One sender. Its calls may overlap."""

    def __init__(self) -> None:
        self._sender: Any = None
        self._taken = 0
        self._kept = bytearray()
        self._base = self._given = 0
        self._said: asyncio.Future[None] | None = None

    async def load(self, pause: float) -> str | None:
        """Become a sender, which says nothing more often than every `pause` seconds; why it cannot, else None."""
        try:
            module: Any = importlib.import_module("batchrun.client.senders.sender")
        except Exception as error:  # noqa: BLE001  a package that is not there may fail in any way
            return f"{type(error).__name__}: {error}"
        self._sender = module.Sender(self._says, pause)
        return None

    async def exchange(self, first: int, heard: int, again: bool, *data: bytes) -> tuple[int, int, bytes]:
        """Take frames, whose bytes begin at offset `first`, and give those of the sender, at most `PIECE` bytes.

        The caller has `heard` bytes; `again` is whether it may lack some that were given. Returns how many bytes were taken,
        the offset of those that are given, and these. Comes back at once where there are some, when another call comes, or
        after a second.
        """
        for piece in data:
            if first <= self._taken < first + len(piece):
                new = piece[self._taken - first :]
                self._taken += len(new)
                self._sender.received(new)
            first += len(piece)
        if heard > self._base:
            del self._kept[: heard - self._base]
            self._base = heard
        if again:
            self._given = self._base
        if self._given == self._base + len(self._kept):
            await self._waits()
        start = max(self._given, self._base)
        given = bytes(memoryview(self._kept)[start - self._base :][:PIECE])
        self._given = start + len(given)
        return self._taken, start, given

    def _says(self, frame: bytes) -> None:
        self._kept += frame
        self._wake()

    def _wake(self) -> None:
        if self._said is not None and not self._said.done():
            self._said.set_result(None)

    async def _waits(self) -> None:
        """Wait for something to say; a call that waits already goes back."""
        self._wake()
        self._said = said = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_HOLD):
                await said
        except TimeoutError:
            pass
