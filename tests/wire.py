"""A provider that misbehaves on purpose: a server on loopback that answers byte by byte as a script says.

An answer is a coroutine function of a `Peer`; the functions here make the usual ones. Requests take the answers of
the script in turn, and the last answer stays. The server counts calls, and calls per prompt, as it reads them.

The certificates in `certificates/` are valid from 2020 to 2120 (`expired.pem` for the first day of 2020) and signed by
`ca.pem`, apart from `self_signed.pem`; nothing else trusts them, and the key of the authority is thrown away.
"""

import asyncio
import gzip
import json
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

CERTIFICATES = Path(__file__).parent / "certificates"
CA_FILE = str(CERTIFICATES / "ca.pem")


class Call(NamedTuple):
    """One request as it arrived; `headers` have lower-case names."""

    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def prompt(self) -> str:
        """The text of the last message, or the whole body where there are no messages."""
        try:
            return json.loads(self.body)["messages"][-1]["content"]
        except (ValueError, KeyError, TypeError, IndexError):
            return self.body.decode("utf-8", "replace")


class Peer(NamedTuple):
    """The server's end of one connection, while it answers `call` (None: before anything was read)."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    call: Call | None = None

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Break the connection with RST instead of FIN."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def finish(self) -> None:
        self.writer.close()


Answer = Callable[[Peer], Awaitable[None]]
Choose = Callable[[Call, int], Answer]
"""From a call, and how often its prompt has been asked with this one, to the answer."""


def chat(text: str | None = "hello", *, finish: str = "stop", **members: Any) -> bytes:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    body = {"id": "x", "object": "chat.completion", "model": "m", "usage": usage}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps({**body, "choices": [choice], **members}).encode()


def head(status: int = 200, headers: Sequence[tuple[str, str]] = (), *, version: str = "HTTP/1.1") -> bytes:
    lines = [f"{version} {status} X", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def raw(data: bytes, *, then: str = "stay") -> Answer:
    """Send exactly these bytes; then "stay" connected, "finish" (FIN) or "reset" (RST)."""

    async def answer(peer: Peer) -> None:
        await peer.send(data)
        if then == "finish":
            peer.finish()
        elif then == "reset":
            peer.reset()

    return answer


def whole(body: bytes | None = None, status: int = 200, *headers: tuple[str, str]) -> Answer:
    """A complete answer, by default a good chat completion."""
    body = chat() if body is None else body
    kinds = [] if any(name.lower() == "content-type" for name, _ in headers) else [("Content-Type", "application/json")]
    return raw(head(status, [*kinds, *headers, ("Content-Length", str(len(body)))]) + body)


def page(status: int = 200) -> Answer:
    body = b"<!doctype html><html><head><title>Bad &amp; ugly</title></head><body>x</body></html>"
    return whole(body, status, ("Content-Type", "text/html"))


def redirect(location: str, status: int = 307) -> Answer:
    return whole(b"", status, ("Location", location))


def gzip_bomb(unpacked: int) -> Answer:
    """Zeros that shrink to a thousandth of `unpacked` bytes."""
    return whole(gzip.compress(bytes(unpacked), 6), 200, ("Content-Encoding", "gzip"))


def large(size: int) -> Answer:
    async def answer(peer: Peer) -> None:
        await peer.send(head(200, [("Content-Length", str(size))]))
        piece = b" " * 65536
        for _ in range(size // len(piece)):
            await peer.send(piece)
        await peer.send(b" " * (size % len(piece)))

    return answer


def slow_drip(pause: float, body: bytes | None = None) -> Answer:
    """One byte of the body every `pause` seconds: no single read is ever slow."""
    content = chat() if body is None else body

    async def answer(peer: Peer) -> None:
        await peer.send(head(200, [("Content-Length", str(len(content)))]))
        for index in range(len(content)):
            await peer.send(content[index : index + 1])
            await asyncio.sleep(pause)

    return answer


async def hang(peer: Peer) -> None:
    """Say nothing until the other side gives up."""
    await peer.reader.read()


async def reset(peer: Peer) -> None:
    """RST before a byte of the answer."""
    peer.reset()


async def close(peer: Peer) -> None:
    """FIN before a byte of the answer."""
    peer.finish()


BAD_BODIES: dict[str, bytes] = {
    "HTML": b"<html><title>x</title></html>",
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "error": b'{"error": {"message": "overloaded", "type": "server_error", "code": null}}',
    "cut": chat()[:-20],
    "bad UTF-8": chat().replace(b"hello", b"h\xff\xfe"),
    "no choices": b'{"choices": []}',
    "null choices": b'{"choices": null}',
}
"""Bodies of a 200 that are no reply."""

LOST: dict[str, Answer] = {
    "RST before the headers": reset,
    "RST inside the headers": raw(b"HTTP/1.1 200 OK\r\nContent-Le", then="reset"),
    "RST after the headers": raw(head(200, [("Content-Length", "100")]), then="reset"),
    "FIN without an answer": close,
    "FIN inside the headers": raw(b"HTTP/1.1 200 OK\r\nContent-Le", then="finish"),
    "a body shorter than announced": raw(head(200, [("Content-Length", "1000")]) + chat()[:-1], then="finish"),
    "a chunk that is cut": raw(head(200, [("Transfer-Encoding", "chunked")]) + b"ff\r\n{", then="finish"),
    "chunks without an end": raw(head(200, [("Transfer-Encoding", "chunked")]) + b"2\r\n[]\r\n", then="finish"),
}
"""Answers that end before they are whole."""

GARBAGE: dict[str, Answer] = {
    "no HTTP": raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, then="finish"),
    "text": raw(b"220 smtp.example ESMTP\r\n", then="finish"),
    "a length that is no number": raw(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}", then="finish"),
    "a chunk size that is no number": raw(
        head(200, [("Transfer-Encoding", "chunked")]) + b"zz\r\n{}\r\n", then="finish"
    ),
    "gzip that is none": whole(b"not gzip at all", 200, ("Content-Encoding", "gzip")),
    "two lengths": raw(head(200, [("Content-Length", "2"), ("Transfer-Encoding", "chunked")]) + b"{}", then="finish"),
    "a header of 1 MB": raw(head(200, [("X-Big", "x" * 1024 * 1024), ("Content-Length", "2")]) + b"{}", then="finish"),
}
"""Answers that are not HTTP."""


class FaultServer:
    """Serves `script` on a free port of 127.0.0.1; use as an async context manager.

    `choose` takes the place of the script: the answer depends on the prompt. `on_connect` answers a connection before
    anything is read from it. `certificate` is the stem of a file in `certificates/`: the server then speaks TLS.
    `times` holds when each call came, in the loop's time.
    """

    def __init__(
        self,
        *script: Answer,
        choose: Choose | None = None,
        on_connect: Answer | None = None,
        certificate: str | None = None,
    ) -> None:
        self._script = script or (whole(),)
        self._choose = choose or self._next
        self._on_connect = on_connect
        self._tls = server_tls(certificate) if certificate else None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.calls: list[Call] = []
        self.times: list[float] = []
        self.prompts: Counter[str] = Counter()
        self.connections = 0

    def _next(self, call: Call, number: int) -> Answer:
        return self._script[min(len(self.calls) - 1, len(self._script) - 1)]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls, limit=64 * 1024 * 1024)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def base_url(self) -> str:
        scheme, host = ("https", "localhost") if self._tls else ("http", "127.0.0.1")
        return f"{scheme}://{host}:{self.port}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            if self._on_connect is not None:
                await self._on_connect(Peer(reader, writer))
            else:
                await self._talk(reader, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass  # the client hung up, or the test is over
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    def _count(self, call: Call) -> None:
        self.calls.append(call)
        self.times.append(asyncio.get_running_loop().time())
        self.prompts[call.prompt] += 1

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            call = await read_call(reader)
            if call.target == "/metrics":  # no call of a row: it is no server that says what waits
                await page(404)(Peer(reader, writer, call))
                continue
            self._count(call)
            await self._choose(call, self.prompts[call.prompt])(Peer(reader, writer, call))
        await writer.wait_closed()


class Proxy(FaultServer):
    """An HTTP proxy that leads every request to one port of this machine, whatever host it names.

    `calls` are the requests it was asked to carry; `password` is what it insists on.
    """

    def __init__(self, target_port: int, *, password: str | None = None) -> None:
        super().__init__()
        self._target_port = target_port
        self._password = password

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = await read_call(reader)
        self._count(call)
        if self._password is not None and call.headers.get("proxy-authorization") != self._password:
            await Peer(reader, writer).send(head(407, [("Content-Length", "0")]))
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            if call.target.startswith("http"):
                far_writer.write(head_of(call) + call.body)
            else:
                writer.write(head(200))
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            far_writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


def head_of(call: Call) -> bytes:
    path = "/" + call.target.split("/", 3)[3]
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in call.headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def read_call(reader: asyncio.StreamReader) -> Call:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
    pairs = (line.split(":", 1) for line in lines if line)
    headers = {name.lower(): value.strip() for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Call(first.split(" ")[1], headers, body)


def server_tls(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / f"{certificate}.pem")
    return context
