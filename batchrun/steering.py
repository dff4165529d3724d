"""Steering a run from another process: a Unix socket beside the journal, for its owner alone.

`RUN.sock` has mode 0600 and exists while the run accepts connections, which is while it sends. One JSON object a line each
way: a request has a `command` of COMMANDS, for `limits` with any of LIMITS; the answer has `error` (null or a sentence)
and `status`.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import stat
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, cast

from batchrun.errors import RefusedError

log = logging.getLogger(__name__)

COMMANDS = ("status", "pause", "resume", "stop", "stop-now", "limits")
LIMITS = ("concurrency", "rpm", "tpm")
SUPPORTED = sys.platform != "win32" and hasattr(socket, "AF_UNIX")
_PATH_BYTES = 104
_LINE_BYTES = 65_536
_LINE_SECONDS = 10.0  # seconds to wait for a line
_DESCRIPTORS = Path("/proc/self/fd")

# performs a request and returns the new status; raises ValueError
Handler = Callable[[Mapping[str, Any]], dict[str, Any]]


def socket_of(journal: Path) -> Path:
    return journal.with_suffix(".sock")


def remove(journal: Path) -> None:
    """What a killed process left."""
    socket_of(journal).unlink(missing_ok=True)
    _unready(journal).unlink(missing_ok=True)


def _unready(journal: Path) -> Path:
    # the socket until it accepts connections; no longer than its name, as the length of an address is limited
    return journal.with_suffix(".bind")


@contextlib.contextmanager
def _address(path: Path) -> Generator[str]:
    """Valid inside. Raises OSError if the path is too long."""
    # `sun_path` has 108 bytes on Linux and 104 elsewhere, with a zero at the end (unix(7))
    for spelled in (str(path), os.path.relpath(path)):
        if len(os.fsencode(spelled)) < _PATH_BYTES:
            yield spelled
            return
    if not _DESCRIPTORS.is_dir():
        raise OSError(f"the path of the socket is longer than {_PATH_BYTES - 1} bytes")
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"{_DESCRIPTORS}/{directory}/{path.name}"
    finally:
        os.close(directory)


class NotSendingError(RefusedError):
    """No process accepts requests for the run."""


def send(journal: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the run's status; blocks up to ten seconds. Raises RefusedError, NotSendingError."""
    run = journal.stem
    if not SUPPORTED:
        raise RefusedError("runs cannot be steered on this system: it has no Unix sockets")
    try:
        with _address(socket_of(journal)) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_LINE_SECONDS)
            connection.connect(address)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline(_LINE_BYTES)
    except (FileNotFoundError, ConnectionError):
        raise NotSendingError(
            f"run {run} is not sending requests",
            f"see it with `batchrun show {run}`, or continue it with `batchrun resume {run}`",
        ) from None
    except OSError as error:
        raise RefusedError(f"run {run} cannot be steered: {error.strerror or error}") from error
    try:
        answer = cast("dict[str, Any]", json.loads(line))
    except ValueError:
        raise RefusedError(f"run {run} ended before it answered", f"see it with `batchrun show {run}`") from None
    if answer["error"] is not None:
        raise RefusedError(str(answer["error"]), "see `batchrun steer --help`")
    return cast("dict[str, Any]", answer["status"])


class Server:
    def __init__(self, journal: Path, handler: Handler) -> None:
        self._path = socket_of(journal)
        self._unready = _unready(journal)
        self._handler = handler
        self._held = contextlib.ExitStack()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._node: tuple[int, int] | None = None

    async def open(self) -> None:
        # the caller holds the run's lock, so the file of a killed process may be replaced
        if not SUPPORTED:
            return
        try:
            self._unready.unlink(missing_ok=True)
            address = self._held.enter_context(_address(self._unready))
            listening = self._held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            listening.bind(address)
            self._unready.chmod(stat.S_IRUSR | stat.S_IWUSR)  # before it listens: no connection is possible earlier
            found = self._unready.stat()
            self._node = found.st_dev, found.st_ino
            listening.setblocking(False)
            self._server = await asyncio.start_unix_server(self._connected, sock=listening, limit=_LINE_BYTES)
            self._unready.replace(self._path)
        except OSError as error:
            log.warning("the run cannot be steered from other processes: %s: %s", self._path, error)
            await self.close()

    async def close(self) -> None:
        """Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        node, self._node = self._node, None
        for path in (self._path, self._unready):
            with contextlib.suppress(OSError):
                found = path.stat()
                if node == (found.st_dev, found.st_ino):
                    path.unlink()
        self._held.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, ValueError, asyncio.CancelledError):  # gone, or a line without an end
                async with asyncio.timeout(_LINE_SECONDS):
                    while line := await reader.readline():
                        writer.write(json.dumps(self._answer(line)).encode() + b"\n")
                        await writer.drain()
        finally:
            self._connections.discard(task)
            writer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("a request is a JSON object")
            return {"error": None, "status": self._handler(cast("dict[str, Any]", request))}
        except (ValueError, RecursionError) as error:
            return {"error": f"not performed: {error}", "status": None}
