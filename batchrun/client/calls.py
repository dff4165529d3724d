"""Calls about files and batches, each tried once, and webhooks."""

import asyncio
import json
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from batchrun.client.lane import read_whole
from batchrun.client.session import CONNECT_SECONDS, SessionWire
from batchrun.client.trust import proxy_for, tls_context
from batchrun.client.wire import WIRE_ERRORS, Recipe, TooLargeError, explain
from batchrun.errors import RefusedError
from batchrun.models import Exchange, Fault

_PIECE = 256 * 1024
# bytes of a body that is not written to a file, at most
_MOST_BYTES = 64 * 1024 * 1024
# seconds for a call, and for one that carries a file
_SHORT, _LONG = 120.0, 1800.0


class _Call(NamedTuple):
    method: str
    path: str
    data: Any
    headers: Mapping[str, str]
    to: Path | None = None
    seconds: float = _SHORT


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    # failures of the wire are in the Exchange; another host is refused, as it would get the key
    base_url: URL
    headers: Callable[[], Awaitable[Mapping[str, str]]]
    tls: ssl.SSLContext | None
    proxy: URL | None
    mask: Callable[[str], str]
    clock: Callable[[], float]

    async def call(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> Exchange:
        sent = dict(headers or {})
        if body is None:
            return await self._tried(_Call(method, path, None, sent))
        data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        return await self._tried(_Call(method, path, data, {"content-type": "application/json", **sent}))

    async def upload(self, path: str, fields: Mapping[str, str], file: Path, name: str) -> Exchange:
        with file.open("rb") as stream:
            form = aiohttp.FormData(fields)
            form.add_field("file", stream, filename=name, content_type="application/jsonl")
            return await self._tried(_Call("POST", path, form, {}, None, _LONG))

    async def send_file(self, path: str, file: Path, headers: Mapping[str, str]) -> Exchange:
        with file.open("rb") as stream:
            sent = {"content-type": "application/json", **headers}
            return await self._tried(_Call("POST", path, stream, sent, None, _LONG))

    async def download(self, path: str, to: Path, *, headers: Mapping[str, str] | None = None) -> Exchange:
        """With status 200 the file is in `to` instead of the body."""
        return await self._tried(_Call("GET", path, None, dict(headers or {}), to, _LONG))

    async def _tried(self, call: _Call) -> Exchange:
        left = self.clock()
        try:
            async with asyncio.timeout(call.seconds):
                status, found, body = await self._exchange(call)
        except TimeoutError:
            fault, detail, sent = Fault.DEADLINE, f"no complete answer within {call.seconds:g} s", True
        except WIRE_ERRORS as error:
            fault, detail, sent = explain(error)
        else:
            return Exchange(status, found, body, left, self.clock(), None, "", True)
        return Exchange(0, CIMultiDict(), b"", left, self.clock(), fault, self.mask(detail), sent)

    async def _exchange(self, call: _Call) -> tuple[int, Mapping[str, str], bytes]:
        address = call.path if "://" in call.path else f"{str(self.base_url).rstrip('/')}/{call.path.lstrip('/')}"
        url = URL(address, encoded=True)
        if url.origin() != self.base_url.origin():
            raise aiohttp.InvalidURL(url, "it is on another host, which does not get the key")
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, ssl=self.tls if self.tls is not None else True),
                headers=CIMultiDict({**await self.headers(), **call.headers}),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                trust_env=False,
                proxy=self.proxy,
            ) as session,
            session.request(call.method, url, data=call.data, allow_redirects=False) as response,
        ):
            if call.to is None or response.status != 200:
                return response.status, response.headers, await read_whole(response.content, _MOST_BYTES)
            with os.fdopen(os.open(call.to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
                async for piece in response.content.iter_chunked(_PIECE):
                    await asyncio.to_thread(out.write, piece)
            return response.status, response.headers, b""


_MAX_ANSWER_BYTES = 1024 * 1024


async def deliver(address: str, body: bytes, *, ca_file: str | None) -> str | None:
    """Returns the error, without the address, which may be secret."""
    try:
        url = URL(address)
        tls, proxy = tls_context(ca_file), proxy_for(url, os.environ)
    except RefusedError as error:
        return error.message
    headers = CIMultiDict({"content-type": "application/json", "user-agent": "batchrun"})
    wire = SessionWire(Recipe({}, headers), tls=tls, proxy=proxy, max_reply_bytes=_MAX_ANSWER_BYTES)
    try:
        await wire.open()
        status, _, _ = await wire.carry(url, None, body)
    except TooLargeError:
        return None  # it was taken
    except (aiohttp.ClientError, OSError) as error:
        return type(error).__name__
    finally:
        await wire.close()
    return None if 200 <= status < 300 else f"status {status}"
