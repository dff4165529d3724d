"""A pipe or terminal as an output, with a bounded wait for its reader.

A blocked write cannot be interrupted. So each is preceded by a poll and no larger than a pipe accepts at once (POSIX,
`write`: PIPE_BUF). The descriptor stays blocking: other processes may share it.
"""

import io
import os
import select
import stat
from collections.abc import Callable
from typing import BinaryIO, TextIO, cast

_PIECE = 4096  # Bytes that a pipe with room accepts at once: Linux' PIPE_BUF
_HELD = 1 << 16  # Bytes buffered before a write
LOOK_EVERY = 0.1  # Seconds between polls for a reader, and for something to read


class UnreadError(OSError):
    """The output was not read in time."""


def waited_for() -> bool:
    return False


class Outlet(io.RawIOBase):
    """Polls `given_up` while there is no room.

    Raises UnreadError once it returns true, BrokenPipeError without a reader.
    """

    def __init__(self, descriptor: int, given_up: Callable[[], bool]) -> None:
        self._descriptor = descriptor
        self._given_up = given_up
        self._held = bytearray()
        self._room = select.poll() if hasattr(select, "poll") else None  # not on Windows
        if self._room is not None:
            self._room.register(descriptor, select.POLLOUT)

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        with memoryview(data) as view:  # pyright: ignore[reportArgumentType]  what the caller has is bytes
            self._held += view
            count = view.nbytes
        if len(self._held) >= _HELD:
            self.flush()
        return count

    def flush(self) -> None:
        """Write all data; what cannot be written is dropped."""
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
    """The same for text, unbuffered."""
    binary = getattr(stream, "buffer", None)
    found = None if binary is None else outlet(binary, given_up)
    if not isinstance(found, Outlet):
        return stream
    return io.TextIOWrapper(cast("BinaryIO", found), encoding="utf-8", write_through=True)


def outlet(stream: BinaryIO, given_up: Callable[[], bool]) -> BinaryIO:
    """An outlet for a pipe, socket or device, else the stream itself."""
    try:
        descriptor = stream.fileno()
    except OSError:
        return stream  # in memory
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return stream
    return cast("BinaryIO", Outlet(descriptor, given_up))
