"""The simulated provider on a loopback port, with its control endpoints under /_sim."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from batchrun.errors import RefusedError
from batchrun.sim.faults import Fault
from batchrun.sim.http import Answer, Call, Connection
from batchrun.sim.provider import Provider, error
from batchrun.sim.replies import dump
from batchrun.sim.settings import Settings
from batchrun.sim.stats import Stats

_LOOPBACK = "127.0.0.1"
_BACKLOG = 4096


class Server:
    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self.provider = Provider(settings, clock)
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._socket = _bound(settings.port)
        self.port: int = self._socket.getsockname()[1]
        self._timers: list[asyncio.TimerHandle] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._up = False
        self._turn = asyncio.Lock()

    @property
    def base_url(self) -> str:
        return f"http://{_LOOPBACK}:{self.port}/v1"

    @property
    def stats(self) -> Stats:
        return self.provider.stats

    def change(self, **values: Any) -> None:
        """Raises RefusedError."""
        settings = self.provider.settings.changed(values)
        self.provider.change(settings)
        self._come_up()
        self._plan_outages(settings.faults)

    async def start(self) -> None:
        self._up = True
        await self._listen()
        self._plan_outages(self.provider.settings.faults)

    async def stop(self) -> None:
        self._cancel_outages()
        for task in self._tasks:
            task.cancel()
        for connection in list(self._connections):
            connection.reset()
        if self._listener is not None:
            self._listener.close()
        self._socket.close()
        await asyncio.sleep(0)

    def down(self, seconds: float) -> None:
        self._go_down()
        self._timers.append(asyncio.get_running_loop().call_later(seconds, self._come_up))

    def _plan_outages(self, faults: tuple[Fault, ...]) -> None:
        self._cancel_outages()
        loop = asyncio.get_running_loop()
        elapsed = self.provider.elapsed()
        for fault in faults:
            if fault.name == "down" and fault.start is not None and fault.end > elapsed:
                self._timers.append(loop.call_later(max(0.0, fault.start - elapsed), self._go_down))
                if fault.end != float("inf"):
                    self._timers.append(loop.call_later(fault.end - elapsed, self._come_up))

    def _cancel_outages(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _go_down(self) -> None:
        self._up = False
        for connection in list(self._connections):
            connection.reset()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            # A bound socket that does not listen refuses connections and keeps the port from others.
            self._socket = _bound(self.port)

    def _come_up(self) -> None:
        if not self._up:
            self._up = True
            task = asyncio.get_running_loop().create_task(self._listen())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _listen(self) -> None:
        async with self._turn:
            if self._listener is None:
                loop = asyncio.get_running_loop()
                connection = partial(Connection, self._answer, self._connections)
                self._listener = await loop.create_server(connection, sock=self._socket, backlog=_BACKLOG)
            if not self._up:
                # An outage has begun meanwhile.
                self._go_down()

    def _answer(self, connection: Connection, call: Call) -> None:
        if not call.path.startswith("/_sim/"):
            self.provider.handle(connection, call)
            return
        try:
            values = self._control(f"{call.method} {call.path}", call.body)
        except (RefusedError, ValueError, TypeError, KeyError) as refused:
            connection.send(error(400, str(refused)))
        else:
            connection.send(Answer(200, dump(values)))

    def _control(self, request: str, body: bytes) -> Any:
        match request:
            case "GET /_sim/stats" | "GET /_sim/stats?summary":
                values = self.stats.view(prompts=not request.endswith("summary")) | self.provider.batches.view()
                return values | {"completions_paid": values["answered"] + values["batch_completions"]}
            case "GET /_sim/log":
                return self.stats.log or []
            case "POST /_sim/reset":
                self.provider.stats = Stats(record=self.provider.settings.record)
            case "POST /_sim/down":
                # The answer to this call has to get away before its connection is reset.
                asyncio.get_running_loop().call_later(0.02, self.down, float(json.loads(body)["seconds"]))
            case "POST /_sim/settings":
                self.change(**json.loads(body))
            case "GET /_sim/settings":
                pass
            case _:
                raise ValueError(f"No such control: {request}")
        return self.provider.settings.to_json()


@asynccontextmanager
async def running(settings: Settings, *, clock: Callable[[], float] | None = None) -> AsyncGenerator[Server, None]:
    """Raises RefusedError."""
    server = Server(settings, clock or asyncio.get_running_loop().time)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def serve(settings: Settings, *, ready: Callable[[str], None]) -> None:
    """`ready` gets the base URL. Raises RefusedError."""
    async with running(settings) as server:
        ready(server.base_url)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((_LOOPBACK, port))
    except OSError as error:
        sock.close()
        raise RefusedError(
            f"The simulated provider cannot listen on port {port}: {error.strerror}",
            "omit the port to use a free one",
        ) from error
    return sock
