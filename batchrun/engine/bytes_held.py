"""What the rows that were handed out hold of requests and replies, kept under `--max-bytes-in-flight`; and what the C library
keeps of memory that Python has freed.

Rows are handed out while there is room for what they are likely to hold. Beyond that a request leaves only when there is room
for the reply that it may bring, which is taken to be as long as the last ones were: what is in flight cannot be stopped, and a
reply stays until it is committed and post-processed. One row always passes, however large it is.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchrun.engine.pending_queue import RowState

import contextlib
import ctypes
import sys
from functools import cache

_COPIES = 3
"""Of a reply: the body as it came, as text for the journal, and the text in it."""
_SLOWLY = 1 / 16
"""Weight of the last row in an average."""


class BytesHeld:
    """On the loop of the run, no threads. `most` is in bytes, for rows that were handed out, and for replies."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._total = 0
        self._replies = 0  # held by rows whose requests have left, or expected to be
        self._left = 0
        self._leaving: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._usual = 0.0  # bytes of a reply in memory, by the last ones
        self.beside = 0.0
        """What a row takes beside its text, by the last ones."""

    @property
    def lacking(self) -> bool:
        """Whether requests wait to leave until replies have gone."""
        return bool(self._leaving)

    def has_room(self, size: int) -> bool:
        """Whether a row of so many bytes can be handed out."""
        return not self._total or self._total + size + self.beside <= self._most

    def count(self, state: "RowState", size: int) -> None:
        """The row counts for so many bytes from now on."""
        self._total += size - state.counted
        state.counted = size

    def holds(self, state: "RowState", body: int, reply: int = 0) -> None:
        """The row holds so many bytes now, beside its text where that is still needed."""
        size = len(state.row.text) + body + _COPIES * reply
        state.held = max(state.held, size)
        if size > state.counted:
            self._total += size - state.counted
            state.counted = size
        if reply and state.left:
            held = _COPIES * reply
            self._usual += (held - self._usual) * (_SLOWLY if self._usual else 1.0)
            self._replies += held - state.reply
            state.reply = held

    def leaves(self, state: "RowState") -> bool:
        """Whether there is room for the reply to the request of this row, which leaves then."""
        if self._left and self._replies + self._usual > self._most and not self._closed:
            return False
        self._left += 1
        state.left, state.reply = True, int(self._usual)
        self._replies += state.reply
        if self._leaving:
            self._wake()
        return True

    async def leave(self, state: "RowState") -> None:
        """The same, once there is room."""
        while not self.leaves(state):
            waiter = asyncio.get_running_loop().create_future()
            self._leaving.append(waiter)
            await waiter

    def over(self, state: "RowState", size: int) -> None:
        """The row has its outcome, or goes out again, and counts for so many bytes from now on."""
        beside = state.held - state.size
        self.beside += ((beside if beside > 0 else 0) - self.beside) * _SLOWLY
        self._total += size - state.counted
        state.counted = size
        if state.left:
            self._left -= 1
            self._replies -= state.reply
            state.left = False
        if self._leaving:
            self._wake()

    def close(self) -> None:
        """Nothing waits any more."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        """Have the first one that waits look again if it may leave, or all of them once it is over."""
        while self._leaving and (self._closed or not self._left or self._replies + self._usual <= self._most):
            waiter = self._leaving.popleft()
            if not waiter.done():
                waiter.set_result(None)
                if not self._closed:
                    return


_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE = 8 * 1024 * 1024
_M_TRIM_THRESHOLD = -1
_KEPT = 32 * 1024 * 1024


@cache
def keep_what_rows_take() -> None:
    """Have up to 32 MiB of free memory kept for the next rows, and blocks of 8 MiB and more given back when freed.

    By itself glibc gives free memory back from 128 KiB on at the end of its heap: a body of 2 MB is copied several times
    on its way, and each copy had the system clear 500 pages anew, which cost ten times as much as the copy and nearly
    half of all CPU. It also takes blocks of up to 32 MiB from the heap, once such a block was freed (mallopt(3),
    M_TRIM_THRESHOLD and M_MMAP_THRESHOLD), where a few long rows leave holes that stay until the end. Other systems are
    left as they are.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # musl has no mallopt
            library = ctypes.CDLL(None)
            library.mallopt(_M_MMAP_THRESHOLD, _LARGE)
            library.mallopt(_M_TRIM_THRESHOLD, _KEPT)
