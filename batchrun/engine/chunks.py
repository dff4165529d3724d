"""The requests of a batch: their lines, and a chunk's file."""

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from batchrun import prompts
from batchrun.engine.judge import Judged
from batchrun.engine.sending import NOT_TAKEN, refused_member
from batchrun.journal import Lease
from batchrun.lanes.shapes import OpenAIShape
from batchrun.lanes.vendors import Vendor
from batchrun.models import Endpoint, Request
from batchrun.plan import Plan
from batchrun.plan.rendering import prompt_of, sharing_of, spelling_of
from batchrun.prompts import Caching
from batchrun.prompts.caching import BYTES_PER_TOKEN
from batchrun.retry import Meaning

_TOGETHER = 256  # Lines hashed and written together, at most
_LONG = 1 << 16  # Bytes of a line that is written at once
SHARE = 0.9  # Of a vendor's limits that a chunk may use; the vendor may count slightly more


@dataclass(slots=True)
class Size:
    rows: int = 0
    bytes: int = 0  # Of lines
    tokens: float = 0.0  # Estimated input

    def has_room(self, most: "Size", size: int, tokens: float) -> bool:
        return self.rows < most.rows and self.bytes + size <= most.bytes and (self.tokens + tokens <= most.tokens)

    def add(self, size: int, tokens: float) -> None:
        self.rows += 1
        self.bytes += size
        self.tokens += tokens

    @classmethod
    def most(cls, vendor: Vendor) -> "Size":
        tokens = math.inf if vendor.tokens is None else vendor.tokens * SHARE
        return cls(max(1, int(vendor.lines * SHARE)), int(vendor.bytes * SHARE), tokens)


class Tokens:
    """Estimates input tokens: bytes / 4 until replies state better."""

    def __init__(self, learned: tuple[int, int] = (0, 0)) -> None:
        self._bytes, self._tokens = learned

    @property
    def learned(self) -> tuple[int, int]:
        """Bytes of bodies, and their tokens."""
        return self._bytes, self._tokens

    def of(self, body: int) -> float:
        return body * self._tokens / self._bytes if self._bytes else body / BYTES_PER_TOKEN

    def learn(self, body: int, tokens: int) -> None:
        if not body:
            return
        self._bytes, self._tokens = self._bytes + body, self._tokens + tokens


class Chunk:
    """Blocks. The file is renamed when it is on disk."""

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
        self.weight += weight
        if self.leases and self._shape.separator:
            self._lines.append(self._shape.separator)
        self._lines.append(line)
        self.leases.append(lease)
        self.size.add(len(line), tokens)
        if len(self._lines) >= _TOGETHER or len(line) >= _LONG:
            self._write()

    def _write(self) -> None:
        together = b"".join(self._lines)
        self._lines.clear()
        self._digest.update(together)
        self._stream.write(together)

    def finish(self, path: Path) -> tuple[int, str]:
        """Returns size and SHA-256."""
        self._lines.append(self._shape.tail)
        with self._stream as stream:
            self._write()
            stream.flush()
            os.fsync(stream.fileno())
        self._path.replace(path)
        return path.stat().st_size, self._digest.hexdigest()

    def discard(self) -> None:
        self._stream.close()
        self._path.unlink(missing_ok=True)


class BatchLines:
    def __init__(self, plan: Plan, notify: Callable[[str], None] | None = None) -> None:
        self._spelling = spelling_of(plan, prompt_of(plan))
        self._notify = notify
        self._caching: Caching | None = None
        self._fixed, self._members, self._marks = b"", "", True
        if (found := sharing_of(plan, prompt_of(plan), batch=True)) is not None:
            renderer, self._caching = found
            self._fixed = renderer.fixed
            kept = self._fixed and self._caching.is_kept(len(self._fixed))
            key = "" if self._caching.key is None or not kept else prompts.key_member(self._caching.key, self._fixed)
            self._members = ",".join(filter(None, (key, self._caching.options)))
            if not (self._members or (kept and self._caching.mark)):
                self._caching = None  # nothing is added to any line

    def line(self, request: Request) -> Request:
        if self._marks and self._caching is not None and bytes(request.body).startswith(self._fixed):
            request = request._replace(body=self._marked(request, self._caching))
        return request if self._spelling is None else self._spelling.apply(request)

    def _marked(self, request: Request, caching: Caching) -> bytes:
        body = bytes(request.body)
        if caching.mark and self._fixed and caching.is_kept(len(self._fixed)):
            body = prompts.marked(body, [len(self._fixed)], caching.mark, request.endpoint)
        return prompts.with_members(body, self._members) if self._members else body

    def receive(self, judged: Judged) -> Judged:
        """If an added member is refused, later lines have none."""
        answer = judged.answer
        if self._caching is None or answer.status not in NOT_TAKEN:
            return judged
        name = refused_member(answer, self._caching.names, marked=bool(self._caching.mark))
        if name is None:
            return judged
        if self._marks and self._notify is not None:
            self._notify(f"the provider does not accept {name} in batches: later ones have no prompt cache marks")
        self._marks = False
        return judged._replace(answer=answer._replace(meaning=Meaning.ADDED))
