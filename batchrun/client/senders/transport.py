"""The interface of what carries frames between the hub and a sender."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from batchrun.client.senders.frames import SLICE


class Transport(Protocol):
    """Carries frames to one sender, in order; `Receiver.gone` is called last."""

    def write(self, frame: bytes) -> None:
        """Send a frame; dropped where the sender is gone."""
        ...

    def kill(self) -> None:
        """End the sender at once; `gone` follows."""
        ...

    async def close(self) -> None:
        """End it and wait for that."""
        ...


class Receiver(Protocol):
    def received(self, data: bytes) -> None: ...

    def gone(self, why: str) -> None: ...


Start = Callable[[Receiver], Awaitable[Transport]]
"""Starts a sender. Raises OSError where it cannot."""


class Pacing(NamedTuple):
    """Seconds: between two frames of leases; and for which a spaced request is sent ahead."""

    slice: float = SLICE
    ahead: float = 0.01


PACING = Pacing()
