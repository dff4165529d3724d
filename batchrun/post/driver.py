"""The process with Ray's driver (`ray_main`), as batchrun sees it: operations that are awaited."""

import asyncio
import contextlib
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from batchrun.errors import RefusedError
from batchrun.post import bundle, plain
from batchrun.post.process import into_log
from batchrun.post.reply import Failure
from batchrun.post.worker import Setup

LEAVE = 4.0
"""Seconds that the process gets to take leave of the cluster."""
_OWN = {
    "PYTHONDONTWRITEBYTECODE": "1",  # its code is a copy of a moment
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` Ray would send the current directory along, with replies in it
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Variables of the process."""


def driver_environ(harmless: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the process: without secrets, but for what Ray itself is told by (RAY_AUTH_TOKEN)."""
    return {**harmless, **{name: value for name, value in environ.items() if name.startswith("RAY_")}, **_OWN}


class Node(NamedTuple):
    """A machine of the cluster, and its whole processors."""

    id: str
    processors: int


class ActorLostError(Exception):
    """An actor did not answer; `by_node` where its node is gone or out of reach, which no row is to blame for."""

    def __init__(self, message: str, *, by_node: bool) -> None:
        super().__init__(message)
        self.by_node = by_node


class DriverLostError(ActorLostError):
    """The driver itself has ended, and all its actors with it."""

    def __init__(self) -> None:
        super().__init__("the process with Ray's driver has ended", by_node=True)


class Driver(Protocol):
    """A member of a cluster. Actors have numbers, which the caller gives and never uses again. Where it has ended, whatever
    is awaited raises DriverLostError."""

    async def join(self, address: str) -> None:
        """Join the cluster. Raises OSError, or RuntimeError with what Ray says."""
        ...

    async def nodes(self) -> list[Node]:
        """The nodes that are there."""
        ...

    async def create(self, number: int, node: str, setup: Setup) -> Failure | None:
        """Have an actor on a node; returns when it has imported the functions, or what prevents that. Where the node is
        full it waits. Raises ActorLostError."""
        ...

    async def run(self, number: int, shard: bytes) -> bytes:
        """A packed Shard through an actor; the packed Done. Raises ActorLostError."""
        ...

    def kill(self, number: int) -> None:
        """End an actor, whatever it is doing."""
        ...

    async def close(self) -> None:
        """Leave the cluster; its actors end."""
        ...


class DriverProcess:
    """A Driver in a process of its own. Where that ends, all that is awaited raises DriverLostError."""

    def __init__(self, folder: Path, environ: Mapping[str, str], loop: asyncio.AbstractEventLoop) -> None:
        """`folder` is what actors work in, and holds batchrun as well; it is removed in the end. The environment must be
        without secrets."""
        self._folder = folder
        self._environ = environ
        self._loop = loop
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._orders: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False

    async def join(self, address: str) -> None:
        """Start the process and have it join."""
        await asyncio.to_thread(self._start)
        await self._call("join", address, str(self._folder))

    def _start(self) -> None:
        process = self._process = subprocess.Popen(
            [sys.executable, "-m", "batchrun.post.ray_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environ,
            cwd=self._folder,
            start_new_session=True,  # Ctrl-C is for batchrun
        )
        for name, work, pipe in (
            ("orders", self._write, process.stdin),
            ("answers", self._read, process.stdout),
            ("output", _log, process.stderr),
        ):
            threading.Thread(target=work, args=(pipe,), name=f"ray {name}", daemon=True).start()

    def _write(self, pipe: BinaryIO) -> None:
        with contextlib.suppress(OSError), pipe:  # it has ended, which the reader of its answers notices
            while (order := self._orders.get()) is not None:
                plain.write(pipe, order)

    def _read(self, pipe: BinaryIO) -> None:
        with contextlib.suppress(RuntimeError), pipe:  # the loop is closed: nobody waits any more
            try:
                while True:
                    self._loop.call_soon_threadsafe(self._take, *plain.read(pipe))
            except (EOFError, OSError):
                self._loop.call_soon_threadsafe(self._end)

    def _take(self, number: int, error: str | None, value: Any) -> None:
        answer = self._answers.pop(number)
        if answer.done():
            return
        if error is None:
            answer.set_result(value)
        elif error in ("node", "died"):
            answer.set_exception(ActorLostError(value, by_node=error == "node"))
        else:
            answer.set_exception(RuntimeError(f"{error}: {value}"))

    def _end(self) -> None:
        self._ended = True
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(DriverLostError())
        self._answers.clear()

    async def _call(self, operation: str, *arguments: Any) -> Any:
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._number += 1
        if self._ended:
            raise DriverLostError
        self._answers[self._number] = answer
        self._orders.put((self._number, operation, arguments))
        return await answer

    async def nodes(self) -> list[Node]:
        """As the protocol has it."""
        return [Node(*node) for node in await self._call("nodes")]

    async def create(self, number: int, node: str, setup: Setup) -> Failure | None:
        """As the protocol has it."""
        failure = await self._call("create", number, node, setup)
        return None if failure is None else Failure(*failure)

    async def run(self, number: int, shard: bytes) -> bytes:
        """As the protocol has it."""
        return await self._call("run", number, shard)

    def kill(self, number: int) -> None:
        """As the protocol has it; nobody waits for it."""
        self._number += 1
        self._answers[self._number] = self._loop.create_future()
        self._orders.put((self._number, "kill", (number,)))

    async def close(self) -> None:
        """Leave, within `LEAVE` seconds."""
        self._orders.put(None)
        await asyncio.to_thread(self._stopped, self._process)

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


def prepared(
    specs: Sequence[str],
    hidden: Sequence[str],
    setup: Setup,
    environ: Mapping[str, str],
    loop: asyncio.AbstractEventLoop,
) -> tuple[DriverProcess, Setup]:
    """A driver with a folder that holds these functions, and what its actors are set up with. Raises RefusedError as
    `bundle.fill`, and for a folder that cannot be written."""
    folder = Path(tempfile.mkdtemp(prefix="batchrun-ray-"))
    try:
        return DriverProcess(folder, environ, loop), setup._replace(specs=bundle.fill(folder, specs, hidden))
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise RefusedError(f"what lies beside the function cannot be copied: {error}") from error
        raise
