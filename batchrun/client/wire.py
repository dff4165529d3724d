"""The seam to the provider: one request out, one whole answer back."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, NamedTuple, Protocol

from yarl import URL

from batchrun.models import Endpoint

MAX_REPLY_BYTES = 64 * 1024 * 1024
"""The largest reply that is read, counted after decompression."""

UNSENT = "there was no connection yet"
"""What a cancellation says that came before anything could leave."""

Token = Callable[[], Awaitable[str]]
"""Gives a token that is valid now; asked before every request, so it keeps the token while it can."""


Answer = tuple[int, Mapping[str, str], bytes]
"""A whole HTTP answer: its status, headers that are looked up without regard to case, and the body, decompressed."""


class Recipe(NamedTuple):
    """What is the same for every request: an address per endpoint, and the headers."""

    urls: Mapping[Endpoint, URL]
    headers: Mapping[str, str]


NO_RECIPE = Recipe({}, {})


class TooLargeError(Exception):
    """The reply grew past `MAX_REPLY_BYTES`; the connection is closed."""


class UnsentError(Exception):
    """A request that was handed to a sender and never left it."""


class Wire(Protocol):
    """Carries a request body to an endpoint; knows nothing of rows, retries or deadlines.

    `open` and `close` frame its life on one running loop. `post` returns every answer there is, whatever its
    status, follows no redirect and tries once; it raises the errors that `faults.explain` knows. A caller that
    wants a deadline cancels it. After `renew` no connection is used again that was in use before.
    """

    async def open(self) -> None: ...

    def post(self, endpoint: Endpoint, body: bytes) -> Coroutine[Any, Any, Answer]: ...

    def renew(self) -> None: ...

    async def close(self) -> None: ...
