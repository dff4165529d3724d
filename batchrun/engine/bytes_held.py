"""Memory held by rows in progress (`--max-bytes-in-flight`), and glibc's retention of freed memory.

Rows are handed out while their probable size fits, and requests sent while a reply of average size does: it cannot be
stopped, and stays until committed and post-processed. Rows that are handed out before they can be sent have a part of
the room: bodies that wait are no longer in the processor's cache when they are sent. One row always passes.
"""

import asyncio
import contextlib
import ctypes
import math
import sys
from collections import deque
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchrun.engine.pending_queue import RowState

_COPIES = 3  # Of a reply: the body, its decoded text for the journal, and the text in it
_SLOWLY = 1 / 16  # Weight of the last row in an average
_WAITING = 1 / 4  # Share of the room for rows that were handed out and are not sent


class BytesHeld:
    def __init__(self, most: float) -> None:
        self._most = most
        self._total = 0
        self._replies = 0  # held by rows whose requests have left, or expected to be
        self._left = 0
        self._leaving: deque[asyncio.Future[None]] = deque()
        self._waiting = 0  # Bytes of rows that are not sent
        self.when_sent: Callable[[], object] = _nothing
        self._closed = self._waits_for_page = False
        self._usual = 0.0  # bytes of a reply in memory, by the last ones
        self.beside = 0.0  # Average bytes of a row beyond its text

    @property
    def lacking(self) -> bool:
        return bool(self._leaving)

    def has_room(self, size: int) -> bool:
        return not self._total or self._total + size + self.beside <= self._most

    def may_wait(self, size: int) -> bool:
        return not self._waiting or self._waiting + size <= self._most * _WAITING

    def room_for(self, size: float) -> int:
        room = min(self._most - self._total, self._most * _WAITING - self._waiting)
        free = max(0.0, room) / (size + self.beside or 1)
        return sys.maxsize if free == math.inf else int(free)

    def count(self, state: "RowState", size: int) -> None:
        self._total += size - state.counted
        state.counted = size

    def hand_out(self, state: "RowState", size: int) -> None:
        """Count a row that waits until it is sent."""
        self.count(state, size)
        state.waiting = size
        self._waiting += size

    def holds(self, state: "RowState", body: int, reply: int = 0) -> None:
        """Count at least its text, body and reply."""
        reply *= _COPIES
        size = len(state.row.text) + len(state.row.encoded) + body + reply
        if size > state.held:
            state.held = size
            if size > state.counted:
                self._total += size - state.counted
                state.counted = size
        if reply and state.left:
            self._usual += (reply - self._usual) * (_SLOWLY if self._usual else 1.0)
            self._replies += reply - state.reply
            state.reply = reply

    def leaves(self, state: "RowState") -> bool:
        """Returns False without room for a reply."""
        if self._left and self._replies + self._usual > self._most and not self._closed:
            return False
        self._left += 1
        state.left, state.reply = True, int(self._usual)
        self._replies += state.reply
        crowded = self._waiting > self._most * _WAITING / 2
        self._waiting -= state.waiting
        state.waiting = 0
        if crowded or not self._waiting:
            self.when_sent()
        if self._leaving:
            self._wake()
        return True

    async def leave(self, state: "RowState") -> None:
        while not self.leaves(state):
            waiter = asyncio.get_running_loop().create_future()
            self._leaving.append(waiter)
            await waiter

    def over(self, state: "RowState", size: int) -> None:
        if state.held:
            self.beside += (max(0, state.held - state.size) - self.beside) * _SLOWLY
        self._total += size - state.counted
        state.counted = size
        if state.left:
            self._left -= 1
            self._replies -= state.reply
            state.left = False
        self._waiting -= state.waiting
        state.waiting = 0
        if self._leaving:
            self._wake()

    def count_page(self, size: int) -> None:
        """Count more bytes (or fewer) for rows in pages."""
        self._total += size

    def leave_page(self, count: int) -> int:
        """How many may be sent, by room for replies."""
        free = count if self._usual < 1 or self._closed else int((self._most - self._replies) / self._usual)
        return min(count, max(free, 0 if self._left else 1))

    def fit_page(self, sizes: Iterable[int]) -> int:
        """How many of these bodies have room; the first has where nothing was sent."""
        room, count = self._most - self._total, 0
        for size in sizes:
            room -= size
            if room < 0 and (count or self._left) and not self._closed:
                break
            count += 1
        return count

    def when_room(self, call: Callable[[], object]) -> None:
        if not self._waits_for_page:
            self._waits_for_page = True
            waiter = asyncio.get_running_loop().create_future()
            waiter.add_done_callback(lambda _: self._page_may_leave(call))
            self._leaving.append(waiter)

    def _page_may_leave(self, call: Callable[[], object]) -> None:
        self._waits_for_page = False
        call()
        self._wake()  # the gate may hold the page, whose slots the next ones that wait here may have

    def left_page(self, count: int) -> int:
        """Returns the bytes reserved for each."""
        self._left += count
        self._replies += count * int(self._usual)
        return int(self._usual)

    def over_page(self, count: int, reserved: int, reply: float | None) -> None:
        """`reply`: the average size of a body, if known."""
        self._left -= count
        self._replies -= count * reserved
        if reply is not None:
            weight = min(1.0, count * _SLOWLY) if self._usual else 1.0
            self._usual += (_COPIES * reply - self._usual) * weight
        if self._leaving:
            self._wake()

    def close(self) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        while self._leaving and (self._closed or not self._left or self._replies + self._usual <= self._most):
            waiter = self._leaving.popleft()
            if not waiter.done():
                waiter.set_result(None)
                if not self._closed:
                    return


def _nothing() -> None: ...


_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE = 8 * 1024 * 1024  # Fixed: glibc's own threshold rises, which leaves holes for long rows
_M_TRIM_THRESHOLD = -1
_KEPT = 64 * 1024 * 1024


@cache
def keep_freed_memory() -> None:
    """Let glibc keep freed memory (Linux, mallopt(3)).

    By default each copy of a 2 MB body faults 500 pages anew, nearly half of all CPU.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # musl has no mallopt
            library = ctypes.CDLL(None)
            library.mallopt(_M_MMAP_THRESHOLD, _LARGE)
            library.mallopt(_M_TRIM_THRESHOLD, _KEPT)
