"""Output files: replaced as a whole or not at all; a pipe or terminal with a bounded wait for its reader.

A blocked write cannot be interrupted, so each is preceded by a poll and no larger than the pipe accepts at once (POSIX,
`write`: PIPE_BUF). The descriptor stays blocking: other processes may share it.
"""

import contextlib
import io
import os
import select
import stat
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from batchrun.errors import StorageError
from batchrun.journal.database import sync_directory
from batchrun.plan.outputs import is_device

_PIECE = 4096  # Bytes that a pipe with room accepts at once: Linux' PIPE_BUF
_HELD = 1 << 16  # Bytes buffered before a write
POLL_EVERY = 0.1  # Seconds between polls for a reader, and for something to read


class UnreadError(OSError):
    """The output was not read in time."""


def wait_forever() -> bool:
    return False


class Outlet(io.RawIOBase):
    """Raises UnreadError once `cancelled` returns true, BrokenPipeError without a reader."""

    def __init__(self, descriptor: int, cancelled: Callable[[], bool]) -> None:
        self._descriptor = descriptor
        self._cancelled = cancelled
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
        """What cannot be written is dropped."""
        held, self._held = self._held, bytearray()
        with memoryview(held) as rest:
            written = 0
            while written < len(rest):
                while self._room is not None and not self._room.poll(1000 * POLL_EVERY):
                    if self._cancelled():
                        raise UnreadError("the output is not read")
                written += os.write(self._descriptor, rest[written : written + _PIECE])


def text_outlet(stream: TextIO, cancelled: Callable[[], bool]) -> TextIO:
    binary = getattr(stream, "buffer", None)
    found = None if binary is None else outlet(binary, cancelled)
    if not isinstance(found, Outlet):
        return stream
    return io.TextIOWrapper(cast("BinaryIO", found), encoding="utf-8", write_through=True)


def outlet(stream: BinaryIO, cancelled: Callable[[], bool]) -> BinaryIO:
    """For a pipe, socket or device, else the stream itself."""
    try:
        descriptor = stream.fileno()
    except OSError:
        return stream  # in memory
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return stream
    return cast("BinaryIO", Outlet(descriptor, cancelled))


@contextlib.contextmanager
def storing(output: Path) -> Generator[None]:
    """OSError becomes StorageError, except for a missing reader."""
    try:
        yield
    except (BrokenPipeError, UnreadError):
        raise
    except OSError as error:
        raise StorageError(
            f"{output}: the output cannot be written: {error.strerror or error}",
            "every reply is safe in the journal; `batchrun export --output FILE` writes the output elsewhere",
        ) from error


@contextlib.contextmanager
def replaced(
    path: Path, *, unless_empty: bool = False, cancelled: Callable[[], bool] = wait_forever
) -> Generator[BinaryIO]:
    """Temp file, fsync, rename, fsync, if the block succeeds. A pipe or device is appended to."""
    if is_device(path):
        with path.open("ab") as device:
            stream = outlet(device, cancelled)
            yield stream
            stream.flush()
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb", buffering=1 << 18) as stream:
            yield stream
            stream.flush()
            temporary.chmod(_mode_for(path))
            os.fsync(stream.fileno())
            empty = stream.tell() == 0
        if empty and unless_empty:
            path.unlink(missing_ok=True)
            temporary.unlink()
        else:
            temporary.replace(path)
        sync_directory(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _mode_for(path: Path) -> int:
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
