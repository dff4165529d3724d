"""The hot path: an aiohttp session that posts prepared bytes to prepared addresses."""

import io
import ssl

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from batchrun.client.wire import MAX_REPLY_BYTES, Answer, Recipe, TooLargeError
from batchrun.models import Endpoint

CONNECT_SECONDS = 20.0
"""How long one address may take to accept a connection, TLS included."""

# Below the five seconds after which uvicorn and Node close an idle connection: a request that meets the closing
# is lost, and nobody knows whether it was paid for.
_KEEP_ALIVE_SECONDS = 4.0
_HEADER_BYTES = 256 * 1024
_READ_BUFFER_BYTES = 256 * 1024
_LARGE_BODY_BYTES = 1024 * 1024


class SessionWire:
    """Posts over one pool of connections; how many are open at once is the caller's to limit."""

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
        self._tls = tls
        self._proxy = proxy
        self._max = max_reply_bytes
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS, ssl=self._tls if self._tls is not None else True
            ),
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            trust_env=False,
            proxy=self._proxy,
            read_bufsize=_READ_BUFFER_BYTES,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, endpoint: Endpoint, body: bytes) -> Answer:
        return await self.carry(self._urls[endpoint], None, body)

    async def carry(self, url: URL, headers: CIMultiDict[str] | None, body: bytes) -> Answer:
        """Post `body` to any address over the same connections; `headers` win over those of every request."""
        assert self._session is not None, "the wire is open"
        # aiohttp writes bytes in one piece and warns from 1 MB on; a file object it writes piece by piece.
        data = body if len(body) < _LARGE_BODY_BYTES else io.BytesIO(body)
        async with self._session.post(url, data=data, headers=headers, allow_redirects=False) as response:
            return Answer(response.status, response.headers, await self._read(response))

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        content = response.content
        size = 0
        chunks: list[bytes] = []
        while not content.at_eof():
            chunk = await content.readany()
            size += len(chunk)
            if size > self._max:
                response.close()
                raise TooLargeError(f"the reply is larger than {self._max // (1024 * 1024)} MB")
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
