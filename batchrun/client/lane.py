"""Prepared requests over aiohttp's connections, without a request object and a response object for each exchange.

Names, TLS, keep-alive and parsing stay aiohttp's. What is the same for every request to one address, which is all but
the length and the body, is written down once, which saves a good part of the CPU of an exchange. The classes used for
it are public, but their use is not documented: a lane is only taken with versions of aiohttp under which the tests of
the wire pass on it, and with any other the session posts by itself, to the same effect.
"""

import asyncio
import ssl
from typing import Any

import aiohttp
import orjson
from aiohttp.http_exceptions import ContentEncodingError, DecompressSizeError
from multidict import CIMultiDict
from yarl import URL

from batchrun.client.wire import Answer, TooLargeError

TRIED = ("3.14.",)
"""Versions of aiohttp that a lane was tried with."""

GIVEN_UP = 408
"""The server was tired of waiting (RFC 9110, section 15.5.9). It may have said so before the request came, and answer
that one next: such a connection is not used again."""

_SWITCHING = 101

PIECE = 256 * 1024
"""Bytes of a body that are written at once."""


class Lane:
    """Posts bodies to one address, not through a proxy. Raises what `ClientSession.post` raises."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: URL,
        *,
        tls: ssl.SSLContext | bool,
        max_reply_bytes: int,
        sizes: dict[str, int],
    ) -> None:
        assert session.connector is not None, "the session is open"
        self._connector = session.connector
        self._timeout = session.timeout
        self._request = aiohttp.ClientRequest(
            "POST",
            url,
            headers=session.headers,
            data=b"{}",
            loop=asyncio.get_running_loop(),
            ssl=tls,
            session=session,
        )
        self._head = _head(self._request)
        self._max = max_reply_bytes
        self._reading = {**sizes, "read_until_eof": True}

    async def post(self, body: bytes) -> Answer:
        """One exchange; the connection is kept only after a whole answer to a whole request."""
        try:
            connection = await self._connector.connect(self._request, [], self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {self._request.url}") from error
        try:
            answer = await self._exchange(connection, body)
        except BaseException:
            connection.close()
            raise
        transport = connection.transport
        if transport is None or transport.get_write_buffer_size() or answer.status == GIVEN_UP:
            connection.close()
        else:
            connection.release()
        return answer

    async def _exchange(self, connection: Any, body: bytes) -> Answer:
        protocol, transport = connection.protocol, connection.transport
        if transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
        protocol.set_response_params(**self._reading)
        writing = None
        if len(body) <= PIECE:
            transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        else:
            transport.write(b"%b%d\r\n\r\n" % (self._head, len(body)))
            writing = asyncio.get_running_loop().create_task(_write(protocol, transport, body))
        try:
            message, content = await protocol.read()
            while 100 <= message.code < 200 and message.code != _SWITCHING:
                message, content = await protocol.read()
            body = await read_whole(content, self._max)
        finally:
            if writing is not None and not writing.done():
                writing.cancel()  # the server answers before it has the whole request: nothing else can follow on it
                connection.close()
        if content.exception() is not None:
            connection.close()
        return Answer(message.code, message.headers, body)


async def _write(protocol: Any, transport: Any, body: bytes) -> None:
    """Write a large body a piece at a time, no faster than the connection takes it; one that is lost fails the reading."""
    with memoryview(body) as whole:
        for start in range(0, len(whole), PIECE):
            if transport.is_closing():
                return
            transport.write(whole[start : start + PIECE])
            try:
                await protocol._drain_helper()  # the public way, `StreamWriter.drain`, needs a request object
            except (aiohttp.ClientConnectionError, OSError):
                return


async def read_whole(content: aiohttp.StreamReader, most: int) -> bytes:
    """The whole body; raises TooLargeError when it grows over `most` bytes, and what aiohttp raises for one cut off.

    One that is cut off behind a JSON object or the last event of a stream lacks nothing but the end of its wrapping.
    """
    size = 0
    chunks: list[bytes] = []
    try:
        while not content.at_eof():
            chunk = content.read_nowait() if content.is_eof() else await content.readany()
            size += len(chunk)
            if size > most:
                raise TooLargeError(f"the reply is larger than {most // (1024 * 1024)} MB")
            chunks.append(chunk)
    except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError, OSError) as error:
        if isinstance(error.__cause__, ContentEncodingError | DecompressSizeError):
            raise
        chunks.append(content._read_nowait(-1))  # pyright: ignore[reportPrivateUsage] - what had come before the end
        if not _is_complete(body := b"".join(chunks)):
            raise
        return body
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _is_complete(body: bytes) -> bool:
    if body.rstrip().endswith(b"data: [DONE]"):
        return True
    try:
        return type(orjson.loads(body)) is dict
    except orjson.JSONDecodeError:
        return False


def _head(request: aiohttp.ClientRequest) -> bytes:
    """The request line and the headers as far as the value of Content-Length, which stands last."""
    headers = CIMultiDict(request.headers)
    del headers["content-length"]
    lines = [f"POST {request.url.raw_path_qs} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if any(character in line for line in lines for character in "\r\n\0"):
        raise ValueError("a header with a line break")
    return "\r\n".join([*lines, "Content-Length: "]).encode()
