"""Prepared requests over aiohttp's connections, without a request and a response object for each.

This use of aiohttp is undocumented, so versions that are not in `TRIED` post by the session.
"""

import asyncio
import ssl
from collections import deque
from time import monotonic
from typing import Any

import aiohttp
import orjson
from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import EMPTY_BODY_STATUS_CODES
from aiohttp.http_exceptions import ContentEncodingError, DecompressSizeError
from aiohttp.streams import EMPTY_PAYLOAD
from multidict import CIMultiDict
from yarl import URL

from batchrun.client.wire import Answer, TooLargeError

# versions of aiohttp
TRIED = ("3.14.",)

# Request Timeout (RFC 9110, 15.5.9): may have crossed the request, whose answer follows
GIVEN_UP = 408

_SWITCHING = 101

# Below the five seconds after which uvicorn and Node close an idle connection: a request that meets the closing
# is lost, and may have been billed.
KEEP_ALIVE_SECONDS = 4.0

PIECE = 256 * 1024
# bytes that are copied behind the head, cheaper than two writes
SMALL = 16 * 1024


class Protocol(ResponseHandler):
    # parses without what only web sockets and read time-outs need
    def data_received(self, data: bytes) -> None:
        # anything unusual is left to aiohttp
        parser: Any = self._parser
        if parser is None or self._upgraded or self._read_timeout or self._payload_parser is not None:
            super().data_received(data)
            return
        try:
            messages, self._upgraded, tail = parser.feed_data(data)
        except BaseException as error:  # noqa: BLE001  aiohttp knows what each of them means
            self._parser = _Failing(error)
            super().data_received(data)
            self._parser = parser
            return
        for message, payload in messages:
            self._should_close |= message.should_close
            self._payload = payload
            self.feed_data((message, EMPTY_PAYLOAD if message.code in EMPTY_BODY_STATUS_CODES else payload), 0)
        if tail:
            super().data_received(tail)

    def is_free(self) -> bool:
        transport = self.transport
        if transport is None or transport.is_closing() or self._exception is not None:
            return False
        return not (self._buffer or self._should_close or self._tail or self._upgraded)


class _Failing:
    def __init__(self, error: BaseException) -> None:
        self._error = error

    def feed_data(self, _: bytes) -> Any:
        raise self._error


class Lane:
    """Posts to one address. Raises what `ClientSession.post` raises."""

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
        self._reading: dict[str, Any] = {**sizes, "read_until_eof": True}
        self._idle: deque[tuple[Any, float]] = deque()  # connections, and since when: the first is idle longest
        self._renewed = 0
        self._sweeping: asyncio.TimerHandle | None = None

    async def post(self, body: bytes) -> Answer:
        connection, renewed = self._take() or await self._connected(), self._renewed
        protocol, writing = connection.protocol, None
        transport = protocol.transport
        try:
            if transport is None or transport.is_closing():
                raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
            if len(body) <= SMALL:
                transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
            elif len(body) <= PIECE:
                transport.writelines((b"%b%d\r\n\r\n" % (self._head, len(body)), body))
            else:
                transport.write(b"%b%d\r\n\r\n" % (self._head, len(body)))
                writing = asyncio.get_running_loop().create_task(_write(protocol, transport, body))
            message, content = await protocol.read()
            while 100 <= message.code < 200 and message.code != _SWITCHING:
                message, content = await protocol.read()
            done, whole_body = True, whole(content, self._max)
            if whole_body is None:
                whole_body = await read_whole(content, self._max)
                done = content.exception() is None
        except BaseException:
            if writing is not None:
                writing.cancel()
            connection.close()
            raise
        done = done and not (message.should_close or message.upgrade or message.code == GIVEN_UP)
        if writing is not None and not writing.done():
            writing.cancel()  # the server answers before it has the whole request: nothing else can follow on it
            done = False
        # reused only after a whole answer to a whole request
        if (
            done
            and renewed == self._renewed
            and protocol.transport is not None
            and not transport.get_write_buffer_size()
        ):
            self._idle.append((connection, monotonic()))
            if self._sweeping is None:
                self._sweeping = asyncio.get_running_loop().call_later(KEEP_ALIVE_SECONDS, self._sweep)
        else:
            connection.close()
        return message.code, message.headers, whole_body

    async def _connected(self) -> Any:
        try:
            connection = await self._connector.connect(self._request, [], self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {self._request.url}") from error
        if connection.protocol is not None:
            connection.protocol.set_response_params(**self._reading)
        return connection

    def renew(self) -> None:
        self._renewed += 1
        while self._idle:
            self._idle.popleft()[0].close()

    def close(self) -> None:
        self.renew()
        if self._sweeping is not None:
            self._sweeping.cancel()

    def _take(self) -> Any:
        # a connection on which data has arrived is closed: it would be taken for the next answer
        now = monotonic()
        while self._idle:
            connection, since = self._idle.popleft()
            protocol = connection.protocol
            if now - since <= KEEP_ALIVE_SECONDS and protocol.is_free():
                return connection
            connection.close()
        return None

    def _sweep(self) -> None:
        self._sweeping, now = None, monotonic()
        while self._idle and now - self._idle[0][1] >= KEEP_ALIVE_SECONDS:
            self._idle.popleft()[0].close()
        if self._idle:
            due = self._idle[0][1] + KEEP_ALIVE_SECONDS - now
            self._sweeping = asyncio.get_running_loop().call_later(due, self._sweep)


async def _write(protocol: Any, transport: Any, body: bytes) -> None:
    # a lost connection fails the reading
    with memoryview(body) as whole:
        for start in range(0, len(whole), PIECE):
            if transport.is_closing():
                return
            transport.write(whole[start : start + PIECE])
            try:
                await protocol._drain_helper()  # the public way, `StreamWriter.drain`, needs a request object
            except (aiohttp.ClientConnectionError, OSError):
                return


def whole(content: Any, most: int) -> bytes | None:
    """The body if all has arrived. Raises TooLargeError."""
    if content is EMPTY_PAYLOAD or not content._eof or content._exception is not None:
        return None
    chunks: deque[bytes] = content._buffer  # what has come
    if not chunks:
        return None
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    chunks.clear()
    if len(body) > most:
        raise TooLargeError(f"the reply is larger than {most // (1024 * 1024)} MB")
    return body


async def read_whole(content: aiohttp.StreamReader, most: int) -> bytes:
    """Cut off after a JSON object or a stream's last event, a body is complete.

    Raises TooLargeError, and aiohttp's errors.
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
    headers = CIMultiDict(request.headers)
    del headers["content-length"]
    lines = [f"POST {request.url.raw_path_qs} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if any(character in line for line in lines for character in "\r\n\0"):
        raise ValueError("a header with a line break")
    return "\r\n".join([*lines, "Content-Length: "]).encode()
