"""An aiohttp session that posts prepared bytes to prepared addresses."""

import asyncio
import io
import ssl
from collections.abc import Coroutine
from functools import partial
from typing import Any, Self
from weakref import WeakSet

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from batchrun.client import lane
from batchrun.client.lane import GIVEN_UP, KEEP_ALIVE_SECONDS, Lane, Protocol, read_whole
from batchrun.client.wire import MAX_REPLY_BYTES, UNSENT, Answer, Recipe, TooLargeError
from batchrun.models import Endpoint

# seconds for one address, TLS included
CONNECT_SECONDS = 20.0

_BYTES = 256 * 1024
_LARGE_BODY_BYTES = 1024 * 1024


class _Connector(aiohttp.TCPConnector):
    # hands out no idle connection with data on it, which would be taken for the next answer
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # pyright: ignore[reportUnknownMemberType] - aiohttp leaves a type open
        if aiohttp.__version__.startswith(lane.TRIED):
            self._factory = partial(Protocol, loop=self._loop)
        self._used: WeakSet[asyncio.BaseProtocol] = WeakSet()
        self._stale: WeakSet[asyncio.BaseProtocol] = WeakSet()

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109  as the base class has it
        while True:
            try:
                connection = await super().connect(req, traces, timeout)
            except asyncio.CancelledError as error:
                raise asyncio.CancelledError(UNSENT) from error
            protocol = connection.protocol
            if protocol is None or protocol not in self._used:
                break
            if not protocol.should_close and protocol not in self._stale:
                break
            connection.close()
        if protocol is not None:
            self._used.add(protocol)
        return connection

    def renew(self) -> None:
        self._stale |= self._used


class _Response(aiohttp.ClientResponse):
    # reuses no connection on which another answer may follow
    async def start(self, connection: Any) -> Self:
        protocol = connection.protocol
        await super().start(connection)
        if self.status == GIVEN_UP:
            protocol.force_close()
        return self


def headers_of(body: bytes) -> dict[str, str]:
    """RFC 7578, 4.1."""
    if not body.startswith(b"--"):
        return {}
    boundary = body[2 : body.index(b"\r\n")].decode()
    return {"content-type": f"multipart/form-data; boundary={boundary}"}


class SessionWire:
    """A `Lane` sends ordinary requests; the session those through a proxy."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        tls: ssl.SSLContext | None,
        proxy: URL | None,
        max_reply_bytes: int = MAX_REPLY_BYTES,
    ) -> None:
        self._urls = recipe.urls
        # aiohttp copies the session's headers at once, but merges those of a request one by one.
        self._headers = CIMultiDict(recipe.headers)
        self._ssl = tls if tls is not None else True
        self._proxy = proxy
        self._max = max_reply_bytes
        self._session: aiohttp.ClientSession | None = None
        self._connector: _Connector | None = None
        self._lanes: dict[Endpoint, Lane] = {}

    async def open(self) -> None:
        self._connector = connector = _Connector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ssl=self._ssl)
        self._session = session = aiohttp.ClientSession(
            connector=connector,
            response_class=_Response,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            trust_env=False,
            proxy=self._proxy,
            read_bufsize=_BYTES,
            max_line_size=_BYTES,
            max_field_size=_BYTES,
        )
        sizes = {"read_bufsize": _BYTES, "max_line_size": _BYTES, "max_field_size": _BYTES}
        if self._proxy is None and aiohttp.__version__.startswith(lane.TRIED):
            self._lanes = {
                endpoint: Lane(session, url, tls=self._ssl, max_reply_bytes=self._max, sizes=sizes)
                for endpoint, url in self._urls.items()
                if endpoint is not Endpoint.TRANSCRIPTIONS
            }

    async def close(self) -> None:
        for one in self._lanes.values():
            one.close()
        if self._session is not None:
            await self._session.close()

    def renew(self) -> None:
        for one in self._lanes.values():
            one.renew()
        if self._connector is not None:
            self._connector.renew()

    def post(self, endpoint: Endpoint, body: bytes) -> Coroutine[Any, Any, Answer]:
        if (one := self._lanes.get(endpoint)) is not None:
            return one.post(body)
        return self.carry(self._urls[endpoint], CIMultiDict(headers_of(body)), body)

    async def carry(self, url: URL, headers: CIMultiDict[str] | None, body: bytes) -> Answer:
        assert self._session is not None, "the wire is open"
        # aiohttp writes bytes in one piece and warns from 1 MB on; a file object it writes piece by piece.
        data = body if len(body) < _LARGE_BODY_BYTES else io.BytesIO(body)
        async with self._session.post(url, data=data, headers=headers, allow_redirects=False) as response:
            try:
                return response.status, response.headers, await read_whole(response.content, self._max)
            except TooLargeError:
                response.close()
                raise
