"""One process per run: an advisory lock (`flock`) on a file beside the journal, which ends with its process."""

# Not on the database, whose locks SQLite drops when any descriptor of it is closed. The content, process id and host,
# is only for messages. Only `Lock.remove` unlinks the file, as another process may wait for it.

import contextlib
import os
import socket
import sys
import weakref
from pathlib import Path
from typing import Self

from batchrun.errors import BusyError, StorageError

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # far behind the content: Windows forbids reading a locked byte
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True
else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class Lock:
    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor
        _held.add(self)

    def release(self) -> None:
        """Idempotent; the file stays."""
        _held.discard(self)
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def remove(self) -> None:
        if os.name == "posix":
            self.path.unlink(missing_ok=True)
        self.release()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


_held: "weakref.WeakSet[Lock]" = weakref.WeakSet()


def _release_in_child() -> None:
    # A forked worker must not keep the run locked after its parent was killed.
    for held in list(_held):
        held.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)


def lock(journal: Path) -> Lock:
    """Without waiting. Raises BusyError where the run is locked, else StorageError."""
    path = journal.with_suffix(".lock")
    while True:
        descriptor = _open(path)
        if not _try_lock(descriptor):
            words = os.read(descriptor, 512).decode("utf-8", "replace").split()
            holder = f"process {words[0]} on {words[1]}" if len(words) == 2 else "another process"
            os.close(descriptor)
            raise BusyError(
                f"The run {journal.stem} is locked by {holder}.",
                "Wait until it ends or stop it; `batchrun show` and `batchrun export` work meanwhile.",
            )
        if _is_current(path, descriptor):
            with contextlib.suppress(OSError):  # a full disk must not prevent locking
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode())
            return Lock(path, descriptor)
        os.close(descriptor)  # removed with its run between opening and locking it


def _open(path: Path) -> int:
    try:
        return os.open(path, _FLAGS, 0o600)
    except OSError as error:
        raise StorageError(
            f"{path}: the lock file cannot be opened: {error.strerror}.",
            "Check the permissions of the directory, or choose another one with --runs-dir.",
        ) from error


def _is_current(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
