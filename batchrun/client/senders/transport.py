"""What carries frames between the hub and a sender: `children` and `actors` are two of them."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from batchrun.client.senders.frames import SLICE


class Transport(Protocol):
    """Carries frames to one sender, in order. What it hears goes to its `Hears`, whose `gone` is its last word."""

    def write(self, frame: bytes) -> None:
        """Send a frame; one to a sender that is gone is dropped."""
        ...

    def kill(self) -> None:
        """End the sender at once, whatever it does; `gone` follows."""
        ...

    async def close(self) -> None:
        """End it and wait until nothing of it is left."""
        ...


class Hears(Protocol):
    """Hears a transport."""

    def received(self, data: bytes) -> None:
        """Bytes have come."""
        ...

    def gone(self, why: str) -> None:
        """The sender is gone, and nothing more will come."""
        ...


Start = Callable[[Hears], Awaitable[Transport]]
"""Starts a sender. Raises OSError where it cannot."""


class Pace(NamedTuple):
    """What a transport needs, in seconds: between two frames of leases, since each costs as much as several rows; and from when
    a request with a distance to others may leave until it does, to be there in time."""

    slice: float = SLICE
    ahead: float = 0.01


PACE = Pace()
