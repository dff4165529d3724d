"""Rows in flight on an event loop, for coroutine functions.

Theory. The loop turns in a thread of its own for as long as there is a worker. A shard is taken in, and what comes back
is what has ended by then; a row that takes longer comes back with a later shard, so that no row waits for the end of
another. An answer comes as soon as something has ended and no row waits for a place on the loop, and else after `TURN`,
so that rows that have come meanwhile get places that are free. It is given on the loop itself: while a function
blocks the loop there is none, which is how that is noticed.
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

TURN = 0.05
"""Seconds until an answer at most, where the loop turns."""
GRACE = 1.0
"""Seconds that a row may take beyond its time to let itself be cancelled."""


class StrangerError(Exception):
    """The shard counts on rows in flight that are not here: they were on another worker, which is gone."""


class _Row:
    """A row in flight; `timer` is what ends its time, and then the grace after it."""

    __slots__ = ("is_late", "task", "timer")

    def __init__(self, task: asyncio.Task[Result], timer: asyncio.TimerHandle) -> None:
        self.task = task
        self.timer = timer
        self.is_late = False


class EventLoopWorker:
    """An event loop with up to `concurrency` rows of the chain on it; `begin` is called first in its thread.

    A row that does not let itself be cancelled when its `timeout` is over is left behind on the loop.
    """

    def __init__(self, chain: Chain, *, concurrency: int, timeout: float, begin: Callable[[], None]) -> None:
        self._chain = chain
        self._concurrency = concurrency
        self._timeout = timeout
        self._begin = begin
        self._waiting: deque[tuple[int, Item]] = deque()
        self._flying: dict[int, _Row] = {}
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
                    runner.run(self._until_over())

    async def _until_over(self) -> None:
        await self._over.wait()

    def close(self) -> None:
        """Let the loop end; what is in flight is cancelled."""
        self._loop.call_soon_threadsafe(self._over.set)

    def run(self, shard: Shard) -> Done:
        """Take the rows of the shard in, and give back those that have ended. Raises StrangerError."""
        return asyncio.run_coroutine_threadsafe(self._take(shard), self._loop).result()

    async def _take(self, shard: Shard) -> Done:
        if self._spent is None:
            self._chain.make()
            self._spent = time.thread_time()
        if shard.held != len(self._waiting) + len(self._flying) + len(self._ended):
            self._forget()
            raise StrangerError
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
        while self._waiting and len(self._flying) < self._concurrency:
            number, item = self._waiting.popleft()
            task = self._loop.create_task(self._chain.awaited(item))
            task.add_done_callback(partial(self._land, number))
            self._flying[number] = _Row(task, self._loop.call_later(self._timeout, self._stop, number))

    def _land(self, number: int, task: asyncio.Task[Result]) -> None:
        row = self._flying.get(number)
        if row is None or row.task is not task:
            return  # it was left behind
        row.timer.cancel()
        self._end(number, timed_out(self._timeout) if row.is_late else task.result())

    def _stop(self, number: int) -> None:
        row = self._flying[number]
        row.is_late = row.task.cancel()
        row.timer = self._loop.call_later(GRACE, self._leave_behind, number)

    def _leave_behind(self, number: int) -> None:
        self._end(number, timed_out(self._timeout))

    def _end(self, number: int, result: Result) -> None:
        del self._flying[number]
        self._ended.append((number, result))
        self._fill()
        if not self._waiting:
            self._answer_now()

    def _answer_now(self) -> None:
        if not self._answer.done():
            self._answer.set_result(None)

    def _forget(self) -> None:
        for row in self._flying.values():
            row.timer.cancel()
            row.task.cancel()
        for rows in (self._waiting, self._flying, self._ended):
            rows.clear()


def worker(
    functions: Sequence[Function],
    *,
    concurrency: int,
    timeout: float,
    batch: bool,
    begin: Callable[[], None] = lambda: None,
) -> Chain | EventLoopWorker:
    """What runs shards: an event loop where a function of the chain is a coroutine function, else the chain itself."""
    chain = Chain(functions, batch=batch)
    if not any(function.is_coroutine for function in functions):
        return chain
    return EventLoopWorker(chain, concurrency=concurrency, timeout=timeout, begin=begin)
