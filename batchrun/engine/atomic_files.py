"""Files that are replaced as a whole or not at all, and the errors of writing them."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import BinaryIO

from batchrun.engine.pipe import UnreadError, outlet, waited_for
from batchrun.errors import StorageError
from batchrun.journal.database import sync_directory
from batchrun.plan.outputs import is_device


@contextlib.contextmanager
def storing(output: Path) -> Generator[None]:
    """Turns an OSError into StorageError, except for a missing reader."""
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
    path: Path, *, unless_empty: bool = False, given_up: Callable[[], bool] = waited_for
) -> Generator[BinaryIO]:
    """A stream whose content replaces `path` when the block succeeds: temp file, fsync, rename, fsync.

    An existing pipe or device is appended to, until `given_up` returns true. With `unless_empty` no empty file is left.
    """
    if is_device(path):
        with path.open("ab") as device:
            stream = outlet(device, given_up)
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
