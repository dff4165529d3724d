"""Orders rows so that requests read shared prefixes from a prompt cache: it is readable once its writer is answered."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from batchrun.prompts import Caching, RenderError
from batchrun.prompts.caching import BYTES_PER_TOKEN
from batchrun.rows import restore

if TYPE_CHECKING:
    from batchrun.engine.pending_queue import RowState
    from batchrun.prompts import PromptRenderer

WRITE_SECONDS = 60.0  # Seconds after which another request may write a prefix whose writer is still in flight
MOST_SHARED = 3  # Prefixes of a row beside the one that all share: a request may mark four


class Prefix:
    __slots__ = ("__weakref__", "_kept_until", "_seconds", "_writer", "_writing_until", "digest", "end")

    def __init__(self, digest: bytes, end: int, seconds: float) -> None:
        self.digest = digest
        self.end = end  # In bytes
        self._seconds = seconds  # Kept for these after its last use
        self._kept_until = self._writing_until = 0.0
        self._writer: RowState | None = None

    def is_for(self, state: "RowState", now: float, *, more: bool = True) -> bool:
        """Whether the request marks it: to read it, or to write it for `more` rows."""
        if now < self._kept_until:
            return True
        return more and (self._writer in (None, state) or now >= self._writing_until)

    def marked(self, state: "RowState", now: float) -> None:
        if now >= self._kept_until:
            self._writer, self._writing_until = state, now + WRITE_SECONDS

    def is_awaited(self, now: float) -> bool:
        return self._writer is not None and self._kept_until <= now < self._writing_until

    def ended(self, state: "RowState", now: float, *, answered: bool) -> None:
        if answered:
            self._kept_until = now + self._seconds
        if self._writer is state:
            self._writer = None


class Groups:
    def __init__(self, renderer: "PromptRenderer", caching: Caching) -> None:
        self._renderer = renderer
        self._caching = caching
        self._known: WeakValueDictionary[bytes, Prefix] = WeakValueDictionary()
        self._least = caching.minimum * BYTES_PER_TOKEN - renderer.constant
        self._aside: dict[Prefix, deque[RowState]] = {}
        self.waiting = 0  # Rows that are set aside

    def arranged(self, states: Sequence["RowState"]) -> list["RowState"]:
        cuts = [self._cuts(state) for state in states]
        many = Counter(digest for found in cuts for digest, _ in found)
        first: dict[bytes, int] = {}
        order: list[tuple[list[int], int]] = []
        for number, (state, found) in enumerate(zip(states, cuts, strict=True)):
            shared = [(digest, end) for digest, end in found if many[digest] > 1 or digest in self._known]
            state.shared = tuple(self._prefix(digest, end) for digest, end in shared[-MOST_SHARED:])
            order.append(([first.setdefault(digest, number) for digest, _ in shared] or [number], number))
        return [states[number] for _, number in sorted(order)] if first else list(states)

    def _cuts(self, state: "RowState") -> list[tuple[bytes, int]]:
        row = state.row
        if len(row.text) < self._least or state.shared_outcome is not None or row.reused is not None:
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

    def next_of(self, fresh: deque["RowState"], now: float) -> "RowState | None":
        """The next row whose prefix is not being written, else the first."""
        while fresh:
            state = fresh.popleft()
            if not state.shared or not state.shared[-1].is_awaited(now):
                if state.shared:
                    state.shared[-1].marked(state, now)
                return state
            self._aside.setdefault(state.shared[-1], deque()).append(state)
            self.waiting += 1
        if not self._aside:
            return None
        prefix, states = next(iter(self._aside.items()))
        state = states.popleft()
        self.waiting -= 1
        if not states:
            del self._aside[prefix]
        return state

    def released(self, state: "RowState") -> Iterable["RowState"]:
        for prefix in state.shared:
            prefix.ended(state, 0.0, answered=False)
        found = self._aside.pop(state.shared[-1], None) if state.shared else None
        self.waiting -= len(found) if found else 0
        return found or ()
