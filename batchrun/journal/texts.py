"""Long texts of rows, in a file beside the journal.

SQLite copies a long text three times when it is stored and three times when it is read. So the first intake writes the
texts of long rows here, one behind the other, and syncs the file before the intake is complete; nothing changes it
afterwards. `rows.text_at` and `rows.text_size` are the place of a text, in bytes.
"""

import os
import threading
from io import FileIO
from pathlib import Path

from batchrun.models import Span

LONG = 16_384  # characters of a text that is stored here
_BEGINNING = 1600  # bytes that have 400 characters at least


def texts_of(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}-texts")


def size_of(texts: Path) -> int:
    """Bytes; 0 where there is no such file."""
    try:
        return texts.stat().st_size
    except OSError:
        return 0


class Texts:
    """Opened when the first is read. Threads may share it."""

    def __init__(self, path: Path) -> None:
        self._path, self._absolute = path, str(path.absolute())
        self._file: FileIO | None = None
        self._guard = threading.Lock()  # the position is the file's

    def read(self, at: int, size: int) -> bytes:
        """Raises OSError where the file is missing or too short."""
        with self._guard:
            if self._file is None:
                self._file = FileIO(self._absolute)
            self._file.seek(at)
            data = self._file.read(size)
            while len(data) < size:  # a signal, or more than 2 GB (read(2))
                if not (more := self._file.read(size - len(data))):
                    raise OSError(f"{self._path.name} is shorter than the journal says")
                data += more
        return data

    def place(self, at: int, size: int, base64: bool | None) -> Span:
        return Span(self._absolute, at, size, base64)

    def text(self, at: int, size: int) -> str:
        return self.read(at, size).decode()

    def beginning(self, at: int, size: int) -> str:
        return self.read(at, min(size, _BEGINNING)).decode(errors="ignore")

    def close(self) -> None:
        with self._guard:
            if self._file is not None:
                self._file.close()
                self._file = None


class NewTexts:
    """Begun anew by each first intake. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: FileIO | None = None
        self.size = 0  # bytes

    def add(self, text: bytes) -> int:
        """Returns its place."""
        if self._file is None:
            self._file = FileIO(self.path, "w", opener=_open_private)
        written = self._file.write(text)
        while written < len(text):
            written += self._file.write(memoryview(text)[written:])
        self.size += written
        return self.size - written

    def sync(self) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
