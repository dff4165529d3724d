"""The terminal, which may be slow or go away: nothing that is painted holds the loop, and so no run.

Textual hands what it paints to a thread through a short queue, and waits where that is full. Behind a terminal that
stands still (Ctrl-S, a stalled connection) the run would wait with it, behind one that is gone for ever. So an
`Output` of our own takes everything at once:

* while more than `BEHIND` bytes are unwritten, what is painted is dropped; as soon as the terminal has caught up, the
  whole screen is painted again;
* a terminal that cannot be written to, or is none any more, is gone: the app is told, and nothing is kept for it.
"""

import contextlib
import errno
import os
import select
import threading
from collections.abc import Callable
from typing import Protocol, TextIO, cast

from textual.drivers.linux_driver import LinuxDriver

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

    def write(self, data: bytes) -> None:
        """Have this written, or dropped where the terminal is too far behind."""
        with self._change:
            if self._unwritten > BEHIND:
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


class Terminal(LinuxDriver):
    """Textual's terminal of POSIX systems, with an output that never waits."""

    def start_application_mode(self) -> None:
        """Take the terminal over, at the start and after a pager."""
        file = cast("TextIO", self._file)
        self._encoding = file.encoding
        self._output = Output(
            file.fileno(), self._is_there, gone=self._gone, caught_up=lambda: self._tell(self._paint_all)
        )
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

    def _is_there(self) -> bool:
        return os.isatty(self.fileno)

    def _gone(self) -> None:
        self.exit_event.set()  # reading at the end of a terminal returns at once, again and again
        self._tell(cast("Host", self._app).terminal_gone)

    def _paint_all(self) -> None:
        self._app.refresh(layout=True)

    def _tell(self, what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(what)
