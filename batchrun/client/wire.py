"""The interface of the connection to the provider."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, NamedTuple, Protocol

from yarl import URL

from batchrun.models import Endpoint

MAX_REPLY_BYTES = 64 * 1024 * 1024
"""The largest reply that is read, decompressed."""

UNSENT = "there was no connection yet"
"""The message of a cancellation before anything was sent."""

Token = Callable[[], Awaitable[str]]
"""Gives a valid token; called before every request."""


Answer = tuple[int, Mapping[str, str], bytes]
"""Status, case-insensitive headers, decompressed body."""


class Recipe(NamedTuple):
    """What all requests share: an address per endpoint, and the headers."""

    urls: Mapping[Endpoint, URL]
    headers: Mapping[str, str]


NO_RECIPE = Recipe({}, {})


class TooLargeError(Exception):
    """The reply grew past `MAX_REPLY_BYTES`; the connection is closed."""


class UnsentError(Exception):
    """A request that never left its sender."""


class Wire(Protocol):
    """Sends a request body to an endpoint.

    `open` and `close` run on one loop. `post` tries once, follows no redirect, returns every answer, and raises errors that
    `faults.explain` classifies; cancel it for a deadline. After `renew` no open connection is reused.
    """

    async def open(self) -> None: ...

    def post(self, endpoint: Endpoint, body: bytes) -> Coroutine[Any, Any, Answer]: ...

    def renew(self) -> None: ...

    async def close(self) -> None: ...
