"""A client whose exchanges are made by senders; everything else stays in this process."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from batchrun.client.exchange import Client
from batchrun.client.senders.hub import Hub
from batchrun.models import Exchange, Request


class RemoteClient(Client):
    """As `Client`, but that `send` has a sender of `hub` make the exchange. The hub outlives it."""

    def __init__(self, hub: Hub, **options: Any) -> None:
        super().__init__(**options)
        self._hub = hub
        self._ca_file: str | None = options.get("ca_file")
        self._place = -1
        self._spaced: Callable[[], bool] = lambda: False

    async def __aenter__(self) -> Self:
        self._place = self._hub.add(
            {
                "base_url": str(self._url),
                "api_key": self._api_key,
                "headers": self._headers,
                "ca_file": self._ca_file,
                "proxies": {} if self._proxy is None else {"all_proxy": str(self._proxy)},
            }
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """The senders close their connections when they end."""

    def space(self, spaced: Callable[[], bool]) -> None:
        """`spaced` tells whether requests leave at a distance from each other, which the senders then keep to."""
        self._spaced = spaced

    async def send(self, request: Request, *, timeout: float) -> Exchange:  # noqa: ASYNC109  the sender keeps it
        """As `Client.send`. Raises UnsentError where the request never left."""
        return await self._hub.send(self._place, request, timeout, spaced=self._spaced())

    def renew(self) -> None:
        """From now on use no connection that was in use before."""
        self._hub.renew(self._place)

    def end(self, *, before: float) -> int:
        """End every exchange that left before that moment, as `Fault.OUTAGE`; how many there are."""
        return self._hub.end(self._place, before)
