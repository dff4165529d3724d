"""A pipe or a terminal as an output: written to as fast as it is read, and no longer than somebody wants to wait.

A thread that writes into a pipe without a reader cannot be called back. So there is a look for room before every
write, and none is larger than a pipe takes at once where there is room (POSIX, `write`: PIPE_BUF). The descriptor stays
a blocking one, since others may share it.
"""

import io
import os
import select
import stat
from collections.abc import Callable
from typing import BinaryIO, TextIO, cast

_PIECE = 4096
"""Bytes that a pipe takes at once where there is room: Linux' PIPE_BUF."""
_HELD = 1 << 16
"""Bytes after which they are written."""
LOOK_EVERY = 0.1
"""Seconds between looks for a reader, for whether somebody still waits for one, and for what there is to read."""


class UnreadError(OSError):
    """The output was not read in time."""


def waited_for() -> bool:
    """Never gives up."""
    return False


class Outlet(io.RawIOBase):
    """Writes into a descriptor, which stays open. `given_up` is asked, in the thread that writes, while there is no
    room.

    Raises UnreadError once it says so, BrokenPipeError where the reader has gone away.
    """

    def __init__(self, descriptor: int, given_up: Callable[[], bool]) -> None:
        self._descriptor = descriptor
        self._given_up = given_up
        self._held = bytearray()
        self._room = select.poll() if hasattr(select, "poll") else None  # not on Windows
        if self._room is not None:
            self._room.register(descriptor, select.POLLOUT)

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: object, /) -> int:
        """Takes everything."""
        with memoryview(data) as view:  # pyright: ignore[reportArgumentType]  what the caller has is bytes
            self._held += view
            count = view.nbytes
        if len(self._held) >= _HELD:
            self.flush()
        return count

    def flush(self) -> None:
        """Until everything is written; what cannot be is forgotten."""
        held, self._held = self._held, bytearray()
        with memoryview(held) as rest:
            written = 0
            while written < len(rest):
                self._wait()
                written += os.write(self._descriptor, rest[written : written + _PIECE])

    def _wait(self) -> None:
        while self._room is not None and not self._room.poll(1000 * LOOK_EVERY):
            if self._given_up():
                raise UnreadError("the output is not read")


def text_outlet(stream: TextIO, given_up: Callable[[], bool]) -> TextIO:
    """The same for text, which is written at once."""
    binary = getattr(stream, "buffer", None)
    found = None if binary is None else outlet(binary, given_up)
    if not isinstance(found, Outlet):
        return stream
    return io.TextIOWrapper(cast("BinaryIO", found), encoding="utf-8", write_through=True)


def outlet(stream: BinaryIO, given_up: Callable[[], bool]) -> BinaryIO:
    """What writes in the place of `stream`: an outlet where that is a pipe, a socket or a device, else the stream."""
    try:
        descriptor = stream.fileno()
    except OSError:
        return stream  # in memory
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return stream
    return cast("BinaryIO", Outlet(descriptor, given_up))
