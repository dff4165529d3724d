"""A terminal that may be slow or closed: painting never blocks the loop.

Textual waits when the queue to its output thread is full, so a stopped terminal (Ctrl-S) would stop the run. `Output`
drops output above `BEHIND` unwritten bytes; the whole screen is painted once the terminal has caught up.
"""

import contextlib
import errno
import os
import select
import threading
from collections.abc import Callable
from typing import Protocol, TextIO, cast

from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.drivers.web_driver import WebDriver

BEHIND = 256 * 1024
CHECK_EVERY = 0.5  # seconds between checks of a quiet terminal
CLOSE_TIMEOUT = 2.0  # seconds


class Output:
    """`is_there` is called while there is nothing to write; `gone` and `caught_up` in the thread."""

    def __init__(
        self, descriptor: int, is_there: Callable[[], bool], *, gone: Callable[[], None], caught_up: Callable[[], None]
    ) -> None:
        self._descriptor = descriptor
        self._is_there = is_there
        self._gone = gone
        self._caught_up = caught_up
        self._change = threading.Condition()
        self._pieces: list[bytes] = []
        self._unwritten = 0
        self._dropped = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="terminal", daemon=True)
        self._thread.start()

    def write(self, data: bytes, *, needed: bool = False) -> None:
        """Dropped if too far behind, unless `needed`."""
        with self._change:
            if self._unwritten > BEHIND and not needed:
                self._dropped = True
                return
            self._pieces.append(data)
            self._unwritten += len(data)
            self._change.notify()

    def close(self) -> None:
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join(CLOSE_TIMEOUT)

    def _run(self) -> None:
        try:
            while data := self._next():
                self._put(data)
                if self._written(len(data)):
                    self._caught_up()
        except OSError:
            self._gone()

    def _next(self) -> bytes:
        with self._change:
            while not self._pieces and not self._closed:
                if not self._change.wait(CHECK_EVERY) and not self._is_there():
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
            data = b"".join(self._pieces)
            self._pieces.clear()
            return data

    def _put(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # another process may have made the terminal non-blocking
                select.select([], [self._descriptor], [], CHECK_EVERY)

    def _written(self, size: int) -> bool:
        with self._change:
            self._unwritten -= size
            if self._unwritten or not self._dropped:
                return False
            self._dropped = False
            return True


class Host(Protocol):
    def terminal_gone(self) -> None: ...


class _NonBlocking(Driver):
    exit_event: threading.Event

    def _open(self, descriptor: int, is_there: Callable[[], bool]) -> Output:
        return Output(descriptor, is_there, gone=self._gone, caught_up=lambda: self._call_on_loop(self._paint_all))

    def _gone(self) -> None:
        self.exit_event.set()  # reading at the end of a terminal returns at once, again and again
        self._call_on_loop(cast("Host", self._app).terminal_gone)

    def _paint_all(self) -> None:
        self._app.refresh(layout=True)

    def _call_on_loop(self, what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(what)


class Terminal(_NonBlocking, LinuxDriver):
    def start_application_mode(self) -> None:
        file = cast("TextIO", self._file)
        self._encoding = file.encoding
        self._output = self._open(file.fileno(), lambda: os.isatty(self.fileno))
        super().start_application_mode()

    def write(self, data: str) -> None:
        self._output.write(data.encode(self._encoding, "replace"))

    def close(self) -> None:
        self._output.close()
        super().close()

    def run_input_thread(self) -> None:
        with contextlib.suppress(OSError):
            super().run_input_thread()


class Browser(_NonBlocking, WebDriver):
    """Behind textual-serve the terminal is pipes; a closed tab is a closed terminal."""

    def start_application_mode(self) -> None:
        self._output = self._open(self.fileno, lambda: True)
        self._write = self._send  # pyright: ignore[reportAttributeAccessIssue]  Textual has an `os.write` there
        super().start_application_mode()

    def _send(self, packet: bytes) -> None:
        self._output.write(packet, needed=not packet.startswith(b"D"))

    def close(self) -> None:
        self._output.close()
        super().close()

    def on_meta(self, packet_type: str, payload: dict[str, object]) -> None:
        if packet_type == "quit":
            self._gone()
        else:
            super().on_meta(packet_type, payload)

    def run_input_thread(self) -> None:
        super().run_input_thread()
        if not self.exit_event.is_set():
            self._gone()
