"""Ray's driver process (`ray_main`) as awaitable operations."""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from batchrun.child_processes import into_log
from batchrun.cluster import messages

LEAVE = 4.0  # seconds for the process to leave the cluster
_OWN = {
    "PYTHONDONTWRITEBYTECODE": "1",  # its code is a temporary copy
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` Ray would send the current directory along, with replies in it
    "RAY_USAGE_STATS_ENABLED": "0",
}


def driver_environ(harmless: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """With Ray's own variables (RAY_AUTH_TOKEN)."""
    return {**harmless, **{name: value for name, value in environ.items() if name.startswith("RAY_")}, **_OWN}


class Node(NamedTuple):
    id: str
    processors: int  # whole ones


class ActorLostError(Exception):
    """`by_node`: no row caused it; `unavailable`: it and its call may go on."""

    def __init__(self, message: str, *, by_node: bool, unavailable: bool = False) -> None:
        super().__init__(message)
        self.by_node = by_node
        self.unavailable = unavailable


class DriverLostError(ActorLostError):
    def __init__(self) -> None:
        super().__init__("the process with Ray's driver has ended", by_node=True)


class DriverProcess:
    """Actors are numbered by the caller. After its end calls raise DriverLostError."""

    def __init__(self, folder: Path, environ: Mapping[str, str], loop: asyncio.AbstractEventLoop) -> None:
        # `folder` is removed at the end; `environ` must hold no secret
        self._folder = folder
        self._environ = environ
        self._loop = loop
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._orders: asyncio.WriteTransport | None = None
        self._reading: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.ended = False

    async def join(self, address: str) -> None:
        """Raises OSError, or RuntimeError with Ray's message."""
        process = self._process = await asyncio.to_thread(self._start)
        threading.Thread(target=_log, args=(process.stderr,), name="ray output", daemon=True).start()
        self._orders, _ = await self._loop.connect_write_pipe(asyncio.Protocol, process.stdin)
        answers = asyncio.StreamReader()
        await self._loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(answers), process.stdout)
        self._reading = self._loop.create_task(self._read(answers))
        await self._call("join", address, str(self._folder))

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "batchrun.cluster.ray_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environ,
            cwd=self._folder,
            start_new_session=True,  # Ctrl-C is for batchrun
        )

    async def _read(self, answers: asyncio.StreamReader) -> None:
        try:
            while True:
                self._take(*await messages.received(answers))
        except (EOFError, OSError):
            self._end()

    def _take(self, number: int, error: str | None, value: Any) -> None:
        answer = self._answers.pop(number, None)
        if answer is None or answer.done():
            return
        if error is None:
            answer.set_result(value)
        elif error in ("unavailable", "node", "died"):
            unavailable = error == "unavailable"
            answer.set_exception(ActorLostError(value, by_node=error != "died", unavailable=unavailable))
        else:
            answer.set_exception(RuntimeError(f"{error}: {value}"))

    def _end(self) -> None:
        self.ended = True
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(DriverLostError())
        self._answers.clear()

    async def _call(self, operation: str, *arguments: Any) -> Any:
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._number += 1
        if self.ended:
            raise DriverLostError
        self._answers[self._number] = answer
        self._order(operation, arguments)
        return await answer

    def _order(self, operation: str, arguments: tuple[Any, ...]) -> None:
        if self._orders is not None and not self._orders.is_closing():  # else it has ended, and answers raise that
            self._orders.write(messages.packed((self._number, operation, arguments)))

    async def nodes(self) -> list[Node]:
        return [Node(*node) for node in await self._call("nodes")]

    async def make(self, number: int, node: str, kind: str, processors: int, arguments: tuple[Any, ...]) -> Any:
        """Start an actor of the class `MODULE:NAME` when its node has room; returns its `load(*arguments)`. Raises
        ActorLostError.
        """
        return await self._call("make", number, node, kind, processors, arguments)

    async def call(self, number: int, method: str, *arguments: Any) -> Any:
        """Raises ActorLostError."""
        return await self._call("call", number, method, *arguments)

    async def carry(self, number: int, data: bytes) -> bytes:
        """`run` for bytes of any length. Raises ActorLostError."""
        return await self._call("run", number, data)

    def kill(self, number: int) -> None:
        """Does not wait."""
        self._number += 1
        self._order("kill", (number,))

    async def close(self) -> None:
        if self._orders is not None:
            self._orders.close()
        await asyncio.to_thread(self._stopped, self._process)
        if self._reading is not None:
            await self._reading

    def _stopped(self, process: "subprocess.Popen[bytes] | None") -> None:
        if process is not None:
            try:
                process.wait(LEAVE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _log(pipe: BinaryIO) -> None:
    with pipe:
        into_log(os.dup(pipe.fileno()))
