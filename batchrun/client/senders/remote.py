"""A client whose exchanges are made by senders."""

from collections.abc import Callable
from types import CoroutineType, TracebackType
from typing import Any, Self

from batchrun.client.exchange import PREFLIGHT_SECONDS, Client
from batchrun.client.senders.hub import Hub
from batchrun.errors import HostError
from batchrun.models import Exchange, Request


class RemoteClient(Client):
    # `hub` outlives it
    def __init__(self, hub: Hub, *, elsewhere: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._hub = hub
        self._elsewhere = elsewhere
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
        """Senders close their connections when they end."""

    def space(self, spaced: Callable[[], bool]) -> None:
        self._spaced = spaced

    def send(self, request: Request, *, timeout: float) -> "CoroutineType[Any, Any, Exchange]":
        """Raises UnsentError where the request was not sent."""
        return self._hub.send(self._place, request, timeout, spaced=self._spaced())

    @property
    def place(self) -> int:
        return self._place

    async def preflight(self, *, seconds: float = PREFLIGHT_SECONDS) -> None:
        if not self._elsewhere:
            await super().preflight(seconds=seconds)
            return
        try:
            await self._hub.reach(self._place, seconds)
        except TimeoutError as error:
            raise HostError("No sender reported whether the address can be reached.", "See the log.") from error

    async def reachable(self, *, seconds: float) -> bool:
        # True without an answer of a sender
        if not self._elsewhere:
            return await super().reachable(seconds=seconds)
        try:
            await self._hub.reach(self._place, seconds)
        except TimeoutError:
            return True
        except HostError:
            return False
        return True

    @property
    def is_own_server(self) -> bool:
        return not self._elsewhere and super().is_own_server

    def renew(self) -> None:
        self._hub.renew(self._place)

    def end(self, *, before: float) -> int:
        return self._hub.end(self._place, before)
