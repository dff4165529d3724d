"""Senders as child processes, with a socket pair each, which closes when the driver ends.

Ctrl-C does not reach them (own session). The key is sent over the socket, never by environment or arguments.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, cast

from batchrun.client.senders.frames import Receiver

PROGRAM = ("-m", "batchrun.client.senders")  # what a child runs; its argument is the descriptor of its socket
_SECONDS = 2.0  # until a child that does not end is killed


class Child(asyncio.Protocol):
    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes], receiver: Receiver) -> None:
        self.pid = process.pid
        self._process = process
        self._errors = errors
        self._receiver = receiver
        self._transport: asyncio.WriteTransport | None = None

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._receiver.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._process.kill()
        code = self._process.wait()  # at most a few milliseconds: it is dead
        self._receiver.gone(self._exit_text(code))
        self._errors.close()

    def write(self, frame: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def kill(self) -> None:
        # also where it is suspended (SIGSTOP)
        self._process.kill()

    async def close(self) -> None:
        # closing the socket ends it
        if self._transport is not None:
            self._transport.abort()
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        try:
            self._process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _exit_text(self, code: int) -> str:
        self._errors.seek(0)
        last = self._errors.read()[-2000:].decode(errors="replace").strip().rpartition("\n")[2]
        name = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
        return f"process {self.pid}: {name}{f', {last}' if last else ''}"


class Children:
    """`environ` must hold no secret."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        home = str(Path(__file__).parents[3])
        paths = [home, environ.get("PYTHONPATH", "")]
        self._environ = {**environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}

    async def start(self, receiver: Receiver) -> Child:
        """Raises OSError."""
        ours, theirs = socket.socketpair()
        errors = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the child
        try:
            process = subprocess.Popen(  # noqa: S603, ASYNC220  the words are ours, and it is started in a millisecond
                [sys.executable, "-P", *PROGRAM, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=self._environ,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError:
            ours.close()
            errors.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        _, child = await asyncio.get_running_loop().create_unix_connection(
            lambda: Child(process, errors, receiver), sock=ours
        )
        return child
