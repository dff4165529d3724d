"""The file of one chunk of requests while it is written."""

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path

from batchrun.journal import Lease
from batchrun.lanes.shapes import OpenAIShape, Vendor
from batchrun.models import Endpoint
from batchrun.prompts.caching import BYTES_PER_TOKEN

_TOGETHER = 256
"""Lines that are hashed and written together, at most."""
_LONG = 1 << 16
"""Bytes of a line that is written at once."""
SHARE = 0.9
"""Of a vendor's limits that a chunk may have: what it counts may be a little more than what is counted here."""


@dataclass(slots=True)
class Size:
    """How large a chunk is: requests, bytes of their lines, and about how many input tokens."""

    rows: int = 0
    bytes: int = 0
    tokens: float = 0.0

    def has_room(self, most: "Size", size: int, tokens: float) -> bool:
        """Whether there may be one more request of that size."""
        return self.rows < most.rows and self.bytes + size <= most.bytes and (self.tokens + tokens <= most.tokens)

    def add(self, size: int, tokens: float) -> None:
        """One more request."""
        self.rows += 1
        self.bytes += size
        self.tokens += tokens

    @classmethod
    def most(cls, vendor: Vendor) -> "Size":
        """What a batch of this vendor may have."""
        tokens = math.inf if vendor.tokens is None else vendor.tokens * SHARE
        return cls(max(1, int(vendor.lines * SHARE)), int(vendor.bytes * SHARE), tokens)


class Tokens:
    """Estimates input tokens by the length of bodies: a quarter of the bytes until replies tell better, of an earlier session
    too (`learned`)."""

    def __init__(self, learned: tuple[int, int] = (0, 0)) -> None:
        self._bytes, self._tokens = learned

    @property
    def learned(self) -> tuple[int, int]:
        """Bytes of bodies, and the tokens that replies count for them."""
        return self._bytes, self._tokens

    def of(self, body: int) -> float:
        """Those of a body of so many bytes."""
        return body * self._tokens / self._bytes if self._bytes else body / BYTES_PER_TOKEN

    def learn(self, body: int, tokens: int) -> None:
        """Replies count the tokens of such bodies; nothing is learnt where the size of bodies is not known."""
        if not body:
            return
        self._bytes, self._tokens = self._bytes + body, self._tokens + tokens


class Chunk:
    """A chunk of requests to one endpoint for one model: its file, and the leases of its rows with what they may cost.

    It is written under another name and gets its own when it is whole and on the disk. Blocks: make and finish it in a
    thread.
    """

    def __init__(self, folder: Path, number: int, shape: OpenAIShape, endpoint: Endpoint, model: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._path = folder / f"next-{number}.jsonl"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._stream = os.fdopen(descriptor, "wb", buffering=1 << 20)
        self._shape = shape
        self._digest = hashlib.sha256()
        self._lines = [shape.head]
        self.endpoint = endpoint
        self.model = model
        self.size = Size()
        self.weight = 0
        self.leases: list[Lease] = []

    def add(self, line: bytes, weight: int, tokens: float, lease: Lease) -> None:
        """One more request, of about so many input tokens by its `weight`, and what it may cost."""
        self.weight += weight
        if self.leases and self._shape.separator:
            self._lines.append(self._shape.separator)
        self._lines.append(line)
        self.leases.append(lease)
        self.size.add(len(line), tokens)
        if len(self._lines) >= _TOGETHER or len(line) >= _LONG:
            self._write()

    def _write(self) -> None:
        """Hash and write the lines that were added since the last time, all at once."""
        together = b"".join(self._lines)
        self._lines.clear()
        self._digest.update(together)
        self._stream.write(together)

    def finish(self, path: Path) -> tuple[int, str]:
        """The whole file is on the disk under `path`; its size and SHA-256."""
        self._lines.append(self._shape.tail)
        with self._stream as stream:
            self._write()
            stream.flush()
            os.fsync(stream.fileno())
        self._path.replace(path)
        return path.stat().st_size, self._digest.hexdigest()

    def discard(self) -> None:
        """The file is not needed."""
        self._stream.close()
        self._path.unlink(missing_ok=True)
