"""Rows in flight on an event loop, for coroutine functions.

A shard is taken, and what has ended by then is returned; slower rows return with a later one.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from batchrun.post.chain import Chain, timed_out
from batchrun.post.load import Function
from batchrun.post.reply import Done, Item, Result, Shard

TURN = 0.05  # seconds until an answer, unless the loop is blocked
GRACE = 1.0  # seconds that a row may take beyond its time to be cancelled


class UnknownRowsError(Exception):
    """The shard counts on rows of a lost worker."""


class _Row:
    # `timer` ends its time, and then its grace
    __slots__ = ("is_late", "task", "timer")

    def __init__(self, task: asyncio.Task[Result], timer: asyncio.TimerHandle) -> None:
        self.task = task
        self.timer = timer
        self.is_late = False


class EventLoopWorker:
    """Up to `concurrency` rows on a loop; `begin` is called first in its thread.

    A row that is not cancelled in its grace is left running.
    """

    def __init__(self, chain: Chain, *, concurrency: int, timeout: float, begin: Callable[[], None]) -> None:
        self._chain = chain
        self._concurrency = concurrency
        self._timeout = timeout
        self._begin = begin
        self._waiting: deque[tuple[int, Item]] = deque()
        self._in_flight: dict[int, _Row] = {}
        self._ended: list[tuple[int, Result]] = []
        self._over = asyncio.Event()
        self._spent: float | None = None
        self._loop = asyncio.new_event_loop()
        self._answer = self._loop.create_future()
        threading.Thread(target=self._turn, name="post loop", daemon=True).start()

    def _turn(self) -> None:
        self._begin()
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            while not self._over.is_set():
                with contextlib.suppress(SystemExit, KeyboardInterrupt):  # of a task; who awaits that gets it as well
                    runner.run(self._over.wait())

    def close(self) -> None:
        # rows in flight are cancelled
        self._loop.call_soon_threadsafe(self._over.set)

    def run(self, shard: Shard) -> Done:
        """The rows that have ended. Raises UnknownRowsError."""
        return asyncio.run_coroutine_threadsafe(self._take(shard), self._loop).result()

    async def _take(self, shard: Shard) -> Done:
        if self._spent is None:
            self._chain.make()
            self._spent = time.thread_time()
        if shard.held != len(self._waiting) + len(self._in_flight) + len(self._ended):
            self._forget()
            raise UnknownRowsError
        self._waiting.extend(enumerate(shard.items, shard.first))
        self._fill()
        if not self._ended or self._waiting:
            self._answer = self._loop.create_future()
            timer = self._loop.call_later(TURN, self._answer_now)
            await self._answer
            timer.cancel()
        ended, self._ended = self._ended, []
        before, self._spent = self._spent, time.thread_time()
        longest, blocked = self._chain.noted()
        numbers, results = [number for number, _ in ended], [result for _, result in ended]
        work = self._spent - before
        return Done(results, work, longest, blocked, numbers, work)

    def _fill(self) -> None:
        while self._waiting and len(self._in_flight) < self._concurrency:
            number, item = self._waiting.popleft()
            task = self._loop.create_task(self._chain.awaited(item))
            task.add_done_callback(partial(self._completed, number))
            self._in_flight[number] = _Row(task, self._loop.call_later(self._timeout, self._stop, number))

    def _completed(self, number: int, task: asyncio.Task[Result]) -> None:
        row = self._in_flight.get(number)
        if row is None or row.task is not task:
            return  # it was left behind
        row.timer.cancel()
        self._end(number, timed_out(self._timeout) if row.is_late else task.result())

    def _stop(self, number: int) -> None:
        row = self._in_flight[number]
        row.is_late = row.task.cancel()
        row.timer = self._loop.call_later(GRACE, self._end, number, timed_out(self._timeout))

    def _end(self, number: int, result: Result) -> None:
        del self._in_flight[number]
        self._ended.append((number, result))
        self._fill()
        if not self._waiting:
            self._answer_now()

    def _answer_now(self) -> None:
        if not self._answer.done():
            self._answer.set_result(None)

    def _forget(self) -> None:
        for row in self._in_flight.values():
            row.timer.cancel()
            row.task.cancel()
        for rows in (self._waiting, self._in_flight, self._ended):
            rows.clear()


def worker(
    functions: Sequence[Function],
    *,
    concurrency: int,
    timeout: float,
    batch: bool,
    begin: Callable[[], None] = lambda: None,
) -> Chain | EventLoopWorker:
    chain = Chain(functions, batch=batch)
    if not any(function.is_coroutine for function in functions):
        return chain
    return EventLoopWorker(chain, concurrency=concurrency, timeout=timeout, begin=begin)
