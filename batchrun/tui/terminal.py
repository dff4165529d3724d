"""A terminal that may be slow or closed: painting never blocks the loop or the run.

Textual hands what it paints to a thread through a short queue, and waits where that is full. Behind a terminal that
stands still (Ctrl-S, a stalled connection) the run would wait with it, behind one that is gone for ever. So an
`Output` of our own takes everything at once:

* while more than `BEHIND` bytes are unwritten, what is painted is dropped; as soon as the terminal has caught up, the
  whole screen is painted again;
* a terminal that cannot be written to, or is none any more, is gone: the app is told, and nothing is kept for it.

A browser is such a terminal too: textual-serve stands between, with a pipe to the app and one from it.
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
"""Bytes that may wait for the terminal: a few full pictures of a large one."""
LOOK_EVERY = 0.5
"""Seconds between two looks whether a quiet terminal is still there."""
LAST_WORDS = 2.0
"""Seconds that a terminal has to take what is left for it."""


class Output:
    """Writes to a terminal in a thread; `write` returns at once.

    `is_there` is asked while there is nothing to write. `gone` and `caught_up` are called in the thread.
    """

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
        """Have this written; dropped where the terminal is too far behind and it is not `needed`."""
        with self._change:
            if self._unwritten > BEHIND and not needed:
                self._dropped = True
                return
            self._pieces.append(data)
            self._unwritten += len(data)
            self._change.notify()

    def close(self) -> None:
        """Wait until everything is written, but not for a terminal that takes nothing."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join(LAST_WORDS)

    def _run(self) -> None:
        """The thread."""
        try:
            while data := self._next():
                self._put(data)
                if self._written(len(data)):
                    self._caught_up()
        except OSError:
            self._gone()

    def _next(self) -> bytes:
        """All that waits; nothing at the end. Raises OSError where the terminal has gone away meanwhile."""
        with self._change:
            while not self._pieces and not self._closed:
                if not self._change.wait(LOOK_EVERY) and not self._is_there():
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
            data = b"".join(self._pieces)
            self._pieces.clear()
            return data

    def _put(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # whoever shares the terminal has asked for that
                select.select([], [self._descriptor], [], LOOK_EVERY)

    def _written(self, size: int) -> bool:
        """Whether the terminal has caught up, and lacks something."""
        with self._change:
            self._unwritten -= size
            if self._unwritten or not self._dropped:
                return False
            self._dropped = False
            return True


class Host(Protocol):
    """The app, as its terminal knows it."""

    def terminal_gone(self) -> None:
        """The terminal was closed, perhaps without a signal."""
        ...


class _Patient(Driver):
    """What both kinds of terminal share: an output that never waits, and the word that they are gone."""

    exit_event: threading.Event

    def _open(self, descriptor: int, is_there: Callable[[], bool]) -> Output:
        return Output(descriptor, is_there, gone=self._gone, caught_up=lambda: self._tell(self._paint_all))

    def _gone(self) -> None:
        self.exit_event.set()  # reading at the end of a terminal returns at once, again and again
        self._tell(cast("Host", self._app).terminal_gone)

    def _paint_all(self) -> None:
        self._app.refresh(layout=True)

    def _tell(self, what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(what)


class Terminal(_Patient, LinuxDriver):
    """Textual's terminal of POSIX systems."""

    def start_application_mode(self) -> None:
        """Take the terminal over, at the start and after a pager."""
        file = cast("TextIO", self._file)
        self._encoding = file.encoding
        self._output = self._open(file.fileno(), lambda: os.isatty(self.fileno))
        super().start_application_mode()

    def write(self, data: str) -> None:
        """Returns at once."""
        self._output.write(data.encode(self._encoding, "replace"))

    def close(self) -> None:
        """Give the terminal back."""
        self._output.close()
        super().close()

    def run_input_thread(self) -> None:
        """A terminal that cannot be read is gone, which the output finds out; it is no defect."""
        with contextlib.suppress(OSError):
            super().run_input_thread()


class Browser(_Patient, WebDriver):
    """Textual's side of textual-serve; a closed tab is a closed terminal."""

    def start_application_mode(self) -> None:
        """Begin to talk."""
        self._output = self._open(self.fileno, lambda: True)
        self._write = self._send  # pyright: ignore[reportAttributeAccessIssue]  Textual has an `os.write` there
        super().start_application_mode()

    def _send(self, packet: bytes) -> None:
        self._output.write(packet, needed=not packet.startswith(b"D"))

    def close(self) -> None:
        """Say the last."""
        self._output.close()
        super().close()

    def on_meta(self, packet_type: str, payload: dict[str, object]) -> None:
        """A closed tab lets the run drain before the app ends."""
        if packet_type == "quit":
            self._gone()
        else:
            super().on_meta(packet_type, payload)

    def run_input_thread(self) -> None:
        """Ends when the server is gone."""
        super().run_input_thread()
        if not self.exit_event.is_set():
            self._gone()
