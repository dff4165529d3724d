"""HTTP/1.1 on one connection (RFC 9112): whole calls in, answers or broken answers out."""

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

from batchrun.sim.formats import http_date

_LARGEST_HEAD = 256 * 1024
_LARGEST_BODY = 256 * 1024 * 1024
_RESET = struct.pack("ii", 1, 0)


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: str = ""  # whole lines
    kind: str = "application/json"
    states: bool = True  # whether rate-limit headers are added


class Call(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class _Head(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    # bytes of the body, -1 for chunks
    size: int


class MalformedError(ValueError):
    pass


class Connection(asyncio.Protocol):
    """`answer` has to send, reset or close."""

    def __init__(self, answer: "Callable[[Connection, Call], None]", live: "set[Connection]") -> None:
        self._answer = answer
        self._live = live
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._busy = False
        self._keep = True
        self._transport: asyncio.Transport | None = None

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._live.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._live.discard(self)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._busy:
            self._advance()

    def send(self, answer: Answer) -> None:
        if self._transport is None:
            return
        self._transport.write(whole(answer))
        self._done()

    def send_part(self, answer: Answer) -> None:
        self._write(_half(answer))
        self.close()

    def send_part_and_reset(self, answer: Answer) -> None:
        self._write(_half(answer))
        asyncio.get_running_loop().call_later(0.02, self.reset)

    def send_slowly(self, answer: Answer, pause: float, pieces: int = 20) -> None:
        everything = whole(answer)
        start = len(everything) - len(answer.body)
        self._write(everything[:start])
        self._drip(everything[start:], max(1, -(-len(answer.body) // pieces)), pause)

    def garbage(self) -> None:
        self._write(b"\x16\x03\x01\x00\xa5 this is not HTTP \x00\xff\r\n\r\n")
        self.close()

    def close(self) -> None:
        """With FIN."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """With RST."""
        if self._transport is None:
            return
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _drip(self, rest: bytes, size: int, pause: float) -> None:
        if self._transport is None:
            return
        self._transport.write(rest[:size])
        if len(rest) > size:
            asyncio.get_running_loop().call_later(pause, self._drip, rest[size:], size, pause)
        else:
            self._done()

    def _done(self) -> None:
        self._busy = False
        if not self._keep:
            self.close()
        elif self._buffer:
            asyncio.get_running_loop().call_soon(self._next_call)

    def _next_call(self) -> None:
        if not self._busy and self._transport is not None:
            self._advance()

    def _advance(self) -> None:
        try:
            call = self._take()
        except MalformedError:
            self._keep = False
            self.send(Answer(400, b"Bad Request\n", kind="text/plain"))
            return
        if call is not None:
            self._busy = True
            self._answer(self, call)

    def _take(self) -> Call | None:
        if self._head is None:
            self._head = take_head(self._buffer)
            if self._head is None:
                return None
            self._keep = self._head.headers.get("connection", "").lower() != "close"
            if self._head.headers.get("expect", "").lower() == "100-continue" and not self._buffer:
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = self._head
        body = take_chunks(self._buffer) if head.size < 0 else take_sized(self._buffer, head.size)
        if body is None:
            return None
        self._head = None
        return Call(head.method, head.path, head.headers, body)


def take_head(buffer: bytearray) -> _Head | None:
    """Raises MalformedError."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > _LARGEST_HEAD:
            raise MalformedError("head too large")
        return None
    first, *lines = buffer[:end].decode("latin-1").split("\r\n")
    del buffer[: end + 4]
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    method, path, version = _request_line(first)
    if version == "HTTP/1.0":
        headers.setdefault("connection", "close")
    return _Head(method, path, headers, _size(headers))


def take_sized(buffer: bytearray, size: int) -> bytes | None:
    if len(buffer) < size:
        return None
    if len(buffer) == size:
        body = bytes(buffer)
        buffer.clear()
        return body
    body = bytes(buffer[:size])
    del buffer[:size]
    return body


def take_chunks(buffer: bytearray) -> bytes | None:
    """Raises MalformedError."""
    chunks: list[bytes] = []
    at = 0
    while (line := buffer.find(b"\r\n", at)) >= 0:
        size = _number(buffer[at:line].partition(b";")[0].decode("latin-1"), 16)
        if size == 0:
            end = buffer.find(b"\r\n\r\n", line)
            if end < 0:
                return None
            del buffer[: end + 4]
            return b"".join(chunks)
        start, at = line + 2, line + 2 + size + 2
        if len(buffer) < at:
            return None
        chunks.append(bytes(buffer[start : start + size]))
    return None


def whole(answer: Answer) -> bytes:
    status = _LINES.get(answer.status) or f"HTTP/1.1 {answer.status} Unknown\r\n"
    head = (
        f"{status}Date: {_date()}\r\nServer: batchrun-sim\r\nx-batchrun-sim: 1\r\n"
        f"Content-Type: {answer.kind}\r\nContent-Length: {len(answer.body)}\r\n{answer.headers}\r\n"
    )
    return head.encode("latin-1", "replace") + answer.body


def _half(answer: Answer) -> bytes:
    everything = whole(answer)
    return everything[: len(everything) - (len(answer.body) + 1) // 2]


def _request_line(line: str) -> tuple[str, str, str]:
    match line.split(" "):
        case [method, path, ("HTTP/1.1" | "HTTP/1.0") as version] if method and path.startswith("/"):
            return method, path, version
        case _:
            raise MalformedError(line[:100])


def _size(headers: dict[str, str]) -> int:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return -1
    size = _number(headers.get("content-length", "0"), 10)
    if size > _LARGEST_BODY:
        raise MalformedError("body too large")
    return size


def _number(text: str, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        raise MalformedError(text[:100]) from None
    if number < 0:
        raise MalformedError(text[:100])
    return number


_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_last_date: tuple[int, str] = (0, "")


def _date() -> str:
    global _last_date  # noqa: PLW0603  # formatting the date anew costs 3 µs an answer
    now = int(time.time())
    if _last_date[0] != now:
        _last_date = (now, http_date(now))
    return _last_date[1]
