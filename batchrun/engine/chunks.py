"""The file of one chunk of requests while it is written."""

import os
from pathlib import Path

from batchrun.engine.till import Hold
from batchrun.journal import Lease
from batchrun.lanes.results import digest
from batchrun.lanes.shapes import Vendor

SHARE = 0.9
"""Of a vendor's limits that a chunk may have: what it counts may be a little more than what is counted here."""


def has_room(vendor: Vendor, size: int) -> bool:
    """Whether so many bytes of requests are within what a batch of this vendor takes."""
    return size <= vendor.bytes * SHARE and (vendor.tokens is None or size / 4 <= vendor.tokens * SHARE)


class Chunk:
    """A chunk of requests to one endpoint for one model: its file, and the leases of its rows with what they may cost.

    It is written under another name and gets its own when it is whole and on the disk. Blocks: make and finish it in a
    thread.
    """

    def __init__(self, folder: Path, head: bytes, endpoint: str, model: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._path = folder / "next.jsonl"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._stream = os.fdopen(descriptor, "wb", buffering=1 << 20)
        self._stream.write(head)
        self.endpoint = endpoint
        self.model = model
        self.size = 0
        self.leases: list[Lease] = []
        self.holds: list[Hold] = []

    def add(self, line: bytes, separator: bytes, lease: Lease, hold: Hold) -> None:
        """One more request."""
        if self.leases:
            self._stream.write(separator)
        self._stream.write(line)
        self.size += len(line)
        self.leases.append(lease)
        self.holds.append(hold)

    def finish(self, tail: bytes, path: Path) -> tuple[int, str]:
        """The whole file is on the disk under `path`; its size and SHA-256."""
        with self._stream as stream:
            stream.write(tail)
            stream.flush()
            os.fsync(stream.fileno())
        self._path.replace(path)
        return path.stat().st_size, digest(path)

    def discard(self) -> None:
        """The file is not needed."""
        self._stream.close()
        self._path.unlink(missing_ok=True)
