"""A sender makes HTTP exchanges for a driver, and imports little, to be small."""

import asyncio
import gc
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, cast

from batchrun.client.event_loop import faster
from batchrun.client.exchange import Client
from batchrun.client.senders.frames import (
    BUG,
    ENDPOINTS,
    FULL,
    NO_NAMES,
    SLICE,
    UNREAD,
    Frame,
    Frames,
    Kind,
    boot_time,
    encoded,
)
from batchrun.client.senders.states import Offset
from batchrun.errors import HostError, UnreadableError
from batchrun.models import Fault, Request, Span

_EARLY = 0.0005  # Seconds by which a request may leave early: the precision of timers.
# Seconds (of `boot_time`) after its writing in which a batch may be sent; later, after a suspension, it is returned.
VALID = 2.0
_LARGE = 1_000_000  # bytes from which on a body is read in a thread, as others wait for a millisecond
_FAULTS = {fault: fault.value for fault in Fault} | {None: ""}


class Sender:
    def __init__(self, write: Callable[[bytes], object], pause: float = SLICE) -> None:
        self._to_driver = write
        self._loop = asyncio.get_running_loop()
        self._pause = pause
        self._clock, self._boot = Offset(), Offset()
        self._frames = Frames()
        self.clients: dict[int, Client] = {}
        self._exchanges: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._batch = 0
        self._completed = 0
        self._flushed = 0.0
        self._bytes = 0  # of the requests whose completions wait
        # names of headers, which are alike for one server, and their number in frames
        self._names: dict[tuple[str, ...], int] = {(): NO_NAMES}
        self._files: dict[str, int] = {}  # descriptors by path, until the process ends
        self._out: list[tuple[list[Any], bytes]] = []
        self._planned: deque[tuple[float, int, int, Request, float]] = deque()
        self._kept: deque[tuple[int, list[Any], bytes]] = deque()

    def received(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            self._perform(frame)

    def _perform(self, frame: Frame) -> None:
        head = frame.head
        match frame.kind:
            case Kind.LEASES:
                self._send(head, frame.bodies)
            case Kind.PING:
                times, cursor = head
                self._sync_clocks(times)
                while self._kept and self._kept[0][0] < cursor:
                    self._kept.popleft()
                self._write(Kind.PONG, None)
            case Kind.HOLD:
                planned, self._planned = self._planned, deque()
                self._write(Kind.UNSENT, [lease for _, lease, *_ in planned])
            case Kind.CANCEL:
                self._planned = deque(planned for planned in self._planned if planned[1] not in head)
                for lease in head:
                    if (task := self._exchanges.pop(lease, None)) is not None:
                        task.cancel()
            case Kind.OPEN:
                times, place, options = head
                self._sync_clocks(times)
                self._spawn(self._open(place, options))
            case Kind.REACH:
                self._spawn(self._reach(*head))
            case Kind.RENEW:
                self.clients[head].renew()
            case Kind.END:
                self.clients[head[0]].end(before=head[1] + self._clock.seconds)
            case _:
                raise ValueError(f"a frame of kind {frame.kind}")

    def _spawn(self, what: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reach(self, number: int, place: int, seconds: float) -> None:
        try:
            await self.clients[place].preflight(seconds=seconds)
        except HostError as error:
            self._write(Kind.REACHED, [number, error.message, error.hint])
        else:
            self._write(Kind.REACHED, [number, None, None])

    async def _open(self, place: int, options: Mapping[str, Any]) -> None:
        client = Client(
            base_url=options["base_url"],
            api_key=options["api_key"],
            headers=options["headers"],
            ca_file=options["ca_file"],
            allow_insecure_http=True,  # the plan has refused what the user did not allow
            environ=options["proxies"],
        )
        self.clients[place] = await client.__aenter__()
        self._write(Kind.OPENED, place)

    def _sync_clocks(self, times: list[float]) -> float:
        now, boot = times
        here, booted = self._loop.time(), boot_time()
        self._clock.update(here - now, here)
        self._boot.update(booted - boot, here)
        return booted - boot - self._boot.seconds

    def _send(self, head: list[Any], bodies: bytes) -> None:
        times, batch, *leases = head
        age = self._sync_clocks(times)
        if batch <= self._batch:
            again = {lease[0] for lease in leases}
            kept = [(fields, body) for _, fields, body in self._kept if fields[0] in again]
            self._write(Kind.COMPLETIONS, [0, *(fields for fields, _ in kept)], [body for _, body in kept])
            return
        self._batch = batch
        if age > VALID:
            self._write(Kind.UNSENT, [lease[0] for lease in leases])
            return
        now, at = self._loop.time(), 0
        for lease, place, endpoint, timeout, depart, body in leases:
            if type(body) is int:
                request = Request(ENDPOINTS[endpoint], bodies[at : at + body], None)
                at += body
            else:
                request = Request(ENDPOINTS[endpoint], Span(*body), None)
            if depart and (depart := depart + self._clock.seconds) > now:
                if not self._planned:
                    self._loop.call_at(depart, self._depart)
                self._planned.append((depart, lease, place, request, timeout))
            else:
                self._exchanges[lease] = self._loop.create_task(self._exchange(lease, place, request, timeout))

    def _depart(self) -> None:
        soon = self._loop.time() + _EARLY
        while self._planned and self._planned[0][0] <= soon:
            _, lease, place, request, timeout = self._planned.popleft()
            self._exchanges[lease] = self._loop.create_task(self._exchange(lease, place, request, timeout))
        if self._planned:
            self._loop.call_at(self._planned[0][0], self._depart)

    async def _content(self, body: Span) -> bytes:
        if (descriptor := self._files.get(body.path)) is None:
            descriptor = self._files[body.path] = body.open()
        return body.read(descriptor) if body.size <= _LARGE else await asyncio.to_thread(body.read, descriptor)

    async def _exchange(self, lease: int, place: int, request: Request, timeout: float) -> None:  # noqa: ASYNC109  as the client has it
        try:
            if type(request.body) is Span:
                request = request._replace(body=await self._content(request.body))
            exchange = await self.clients[place].send(request, timeout=timeout)
        except asyncio.CancelledError:
            return
        except UnreadableError as error:
            why = error.message, error.hint
            self._complete(lease, [0, UNREAD, False, 0.0, 0.0, why, NO_NAMES, (), 0], b"")
            return
        except Exception as error:  # noqa: BLE001  sent to the driver, which treats it as a bug of the row
            self._complete(lease, [0, BUG, True, 0.0, 0.0, f"{type(error).__name__}: {error}", NO_NAMES, (), 0], b"")
            return
        status, headers, body, left, ended, fault, detail, sent = exchange
        names = tuple(headers)
        if (known := self._names.get(names)) is None:
            known = self._names[names] = len(self._names)
            self._write(Kind.NAMES, [known, [str(name.lower()) for name in names]])
        offset = self._clock.seconds
        times = left - offset, ended - offset
        self._bytes += len(request.body)
        fields = [status, _FAULTS[fault], sent, *times, detail, known, list(headers.values()), len(body)]
        self._complete(lease, fields, body)

    def _complete(self, lease: int, fields: list[Any], body: bytes) -> None:
        if self._exchanges.pop(lease, None) is None:
            return
        if not self._out:
            self._loop.call_at(self._flushed + self._pause, self._flush)
        self._out.append(([lease, *fields], body))
        if self._bytes >= FULL:
            self._flush()

    def _flush(self) -> None:
        if not self._out:
            return
        self._flushed, self._bytes = self._loop.time(), 0
        out, self._out = self._out, []
        first = self._completed + 1
        self._completed += len(out)
        self._kept.extend((number, *one) for number, one in enumerate(out, first))
        self._write(Kind.COMPLETIONS, [first, *(fields for fields, _ in out)], [body for _, body in out])

    def _write(self, kind: Kind, head: Any, bodies: list[bytes] | tuple[()] = ()) -> None:
        self._to_driver(encoded(kind, head, bodies))


class _Connection(asyncio.Protocol):
    _sender: Sender

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._sender = Sender(cast("asyncio.WriteTransport", transport).write)

    def data_received(self, data: bytes) -> None:
        self._sender.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        os._exit(0)  # the driver is gone: no answer can be delivered any more


async def serve(driver: int) -> None:
    """Until the driver at that descriptor is gone."""
    ours = socket.socket(fileno=driver)
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(_Connection, sock=ours)
    await loop.create_future()


def main() -> None:
    gc.freeze()  # what was imported is never garbage
    gc.set_threshold(50_000, 20, 100)
    with asyncio.Runner(loop_factory=faster()) as runner:
        runner.run(serve(int(sys.argv[1])))
