"""Beginnings that requests share, and the order in which their rows are sent, so that a prompt cache can be read.

A cache can be read once the reply to the request that wrote it is there. So rows that share a beginning are brought next to
each other, and while the first of them is under way, rows with other beginnings are sent. Nothing stands still for it: where
there are no others, they are sent all the same, without writing what another one is writing already.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from batchrun.prompts import Caching, PromptRenderer, RenderError
from batchrun.prompts.caching import BYTES_PER_TOKEN
from batchrun.rows import restore

if TYPE_CHECKING:
    from batchrun.engine.window import Job

PATIENCE = 60.0
"""Seconds after which another request may write what one that is still under way was to write."""
MOST_SHARED = 3
"""Beginnings of a row, beside the one that all share: a request may mark four."""


class Prefix:
    """A beginning of `end` bytes, and what is known of the cache that has it. Times are the loop's, in seconds."""

    __slots__ = ("__weakref__", "_kept_until", "_seconds", "_writer", "_writing_until", "digest", "end")

    def __init__(self, digest: bytes, end: int, seconds: float) -> None:
        """A part is kept for `seconds` after its last use."""
        self.digest = digest
        self.end = end
        self._seconds = seconds
        self._kept_until = self._writing_until = 0.0
        self._writer: Job | None = None

    def is_for(self, job: "Job", now: float, *, more: bool = True) -> bool:
        """Whether the request of this job marks the beginning: to read it, or as the one that writes it, where there are
        `more` to read it."""
        if now < self._kept_until:
            return True
        if not more:
            return False
        if self._writer not in (None, job) and now < self._writing_until:
            return False
        self._writer, self._writing_until = job, now + PATIENCE
        return True

    def is_awaited(self, now: float) -> bool:
        """Whether a request that writes it is under way, so that another one could not read it yet."""
        return self._writer is not None and self._kept_until <= now < self._writing_until

    def ended(self, job: "Job", now: float, *, answered: bool) -> None:
        """A request that marked it is over, with a reply where `answered`."""
        if answered:
            self._kept_until = now + self._seconds
        if self._writer is job:
            self._writer = None


class Groups:
    """Brings rows that share a beginning next to each other; on the loop of the run, no threads."""

    def __init__(self, renderer: PromptRenderer, caching: Caching) -> None:
        self._renderer = renderer
        self._caching = caching
        self._known: WeakValueDictionary[bytes, Prefix] = WeakValueDictionary()
        self._least = caching.minimum * BYTES_PER_TOKEN - renderer.constant
        self._aside: dict[Prefix, deque[Job]] = {}
        self.waiting = 0
        """Rows that are set aside."""

    def arranged(self, jobs: Sequence["Job"]) -> list["Job"]:
        """The jobs in the order to send them; each with what it shares with others that is long enough to be kept."""
        cuts = [self._cuts(job) for job in jobs]
        many = Counter(digest for found in cuts for digest, _ in found)
        first: dict[bytes, int] = {}
        order: list[tuple[list[int], int]] = []
        for number, (job, found) in enumerate(zip(jobs, cuts, strict=True)):
            shared = [(digest, end) for digest, end in found if many[digest] > 1 or digest in self._known]
            job.shared = tuple(self._prefix(digest, end) for digest, end in shared[-MOST_SHARED:])
            order.append(([first.setdefault(digest, number) for digest, _ in shared] or [number], number))
        return [jobs[number] for _, number in sorted(order)] if first else list(jobs)

    def _cuts(self, job: "Job") -> list[tuple[bytes, int]]:
        """The digest and the end of each beginning of a row that is long enough."""
        row = job.row
        if len(row.text) < self._least or job.given is not None or row.lent is not None:
            return []
        try:
            pieces = self._renderer.beginnings(restore(row.line, row.key, row.text))
        except RenderError:
            return []
        digest, end, found = blake2b(digest_size=16), 0, list[tuple[bytes, int]]()
        for piece in pieces:
            digest.update(piece)
            end += len(piece)
            if end > len(self._renderer.fixed) and self._caching.is_kept(end):
                found.append((digest.digest(), end))
        return found

    def _prefix(self, digest: bytes, end: int) -> Prefix:
        found = self._known.get(digest)
        if found is None:
            found = self._known[digest] = Prefix(digest, end, self._caching.seconds)
        return found

    def next_of(self, fresh: deque["Job"], now: float) -> "Job | None":
        """Take the next job whose beginning no request is writing at this moment; where there is none, the first of the others."""
        while fresh:
            job = fresh.popleft()
            if not job.shared or not job.shared[-1].is_awaited(now):
                if job.shared:
                    job.shared[-1].is_for(job, now)
                return job
            self._aside.setdefault(job.shared[-1], deque()).append(job)
            self.waiting += 1
        if not self._aside:
            return None
        prefix, jobs = next(iter(self._aside.items()))
        job = jobs.popleft()
        self.waiting -= 1
        if not jobs:
            del self._aside[prefix]
        return job

    def released(self, job: "Job") -> Iterable["Job"]:
        """The jobs that were set aside for one whose request is over, in their order."""
        for prefix in job.shared:
            prefix.ended(job, 0.0, answered=False)
        found = self._aside.pop(job.shared[-1], None) if job.shared else None
        self.waiting -= len(found) if found else 0
        return found or ()
