"""Leases of a hub: one request each, alone or in pages."""

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol

from batchrun.client.senders.frames import ENDPOINTS
from batchrun.models import Body, Endpoint, Exchange

if TYPE_CHECKING:
    from batchrun.client.senders.hub import Sender

_NUMBERS: dict[Endpoint, int] = {endpoint: number for number, endpoint in enumerate(ENDPOINTS)}


class Lease:
    """Without a `future`, `Pages` gets the exchange."""

    __slots__ = ("body", "depart", "endpoint", "future", "left", "number", "place", "sender", "timeout")

    def __init__(
        self,
        place: int,
        endpoint: Endpoint,
        body: Body,
        timeout: float,
        future: "asyncio.Future[Exchange] | None" = None,
    ) -> None:
        self.place, self.timeout, self.future = place, timeout, future
        self.endpoint, self.body = _NUMBERS[endpoint], body
        self.number = 0
        self.left = self.depart = 0.0  # when given to `sender`, and when it is to be sent (0: at once)
        self.sender: Sender | None = None

    @property
    def awaited(self) -> bool:
        return self.future is None or not self.future.done()


class Completions:
    """Of one frame, from number `first`; `left` may not be in the journal yet."""

    __slots__ = ("first", "left")

    def __init__(self, first: int, left: int) -> None:
        self.first, self.left = first, left

    def stored(self, *_: object) -> None:
        self.left -= 1

    def stored_all(self, count: int) -> None:
        self.left -= count


class Came(NamedTuple):
    """A reply with status 200; its sender keeps it until `Completions.stored`."""

    lease: Lease
    left: float
    ended: float
    id_at: int
    names: list[str]
    values: list[str]
    body: bytes


class Pages(Protocol):
    def id_at(self, names: list[str]) -> int | None:
        """The place of the request's id (-1: none); None where others matter."""
        ...

    def came(self, replies: list[Came], frame: Completions) -> None: ...

    def returned(self, lease: Lease, exchange: Exchange) -> None: ...

    def failed(self, lease: Lease, error: Exception) -> None:
        """UnsentError or UnreadableError where it was not sent, RuntimeError for a bug."""
        ...
