"""Shards in one thread of this process: for work so short that sending it to a process costs more than doing it.

A thread cannot be stopped. One that hangs is left behind, and another takes its place and the shards that were behind
it; it dies with the process. The thread tells the loop of the end of a shard only, which is when the next one begins:
each word between the two would make one wait until the other lets go of the interpreter.
"""

import asyncio
import logging
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO, cast

from batchrun.post.chain import Chain, EndedError, timed_out
from batchrun.post.event_loop import EventLoopWorker
from batchrun.post.pool import LostError
from batchrun.post.reply import Done, Shard

log = logging.getLogger("batchrun.post.output")

_Order = tuple[Shard, asyncio.Future[Done]]
_Orders = queue.SimpleQueue[_Order | None]


class Inline:
    """One worker thread; make and use it on one event loop."""

    def __init__(self, make: Callable[[Callable[[], None]], Chain | EventLoopWorker]) -> None:
        """`make` makes what runs shards, in the thread; it is told what each further thread has to call first."""
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._orders: _Orders = queue.SimpleQueue()
        self._under_way: deque[_Order] = deque()
        self._diversion = Diversion()
        self._begin()

    def _begin(self) -> None:
        thread = threading.Thread(target=self._work, args=(self._orders,), name="post", daemon=True)
        thread.start()

    async def run(self, shard: Shard, seconds: float, grace: float = 0.0) -> Done:
        """One shard, as `Pool.run`; its time begins when the shard before it is done."""
        before = self._under_way[-1][1] if self._under_way else None
        done: asyncio.Future[Done] = self._loop.create_future()
        order = shard, done
        self._under_way.append(order)
        self._orders.put(order)
        try:
            if before is not None:
                await asyncio.wait([before])
            await asyncio.wait([done], timeout=seconds + grace)
        finally:
            self._under_way.remove(order)
            done.cancel()
        if done.cancelled():
            self._leave_behind()
            raise LostError(timed_out(seconds))
        return done.result()

    def _leave_behind(self) -> None:
        """Let another thread take the place of the one that hangs, and what was behind that."""
        self._orders.put(None)
        self._orders = queue.SimpleQueue()
        for order in self._under_way:
            self._orders.put(order)
        self._begin()

    async def close(self) -> None:
        """Let the thread end when it is through with what it does."""
        self._orders.put(None)
        self._diversion.close()

    def _work(self, orders: _Orders) -> None:
        self._diversion.divert()
        worker = self._make(self._diversion.divert)
        while orders is self._orders and (order := orders.get()) is not None:
            shard, done = order
            self._tell(_resolve, done, worker.run(shard))
        worker.close()

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            return  # the loop is closed: no future is left to resolve


def _resolve(future: asyncio.Future[Done], result: Done) -> None:
    if not future.done():
        future.set_result(result)


class Diversion:
    """Takes what chosen threads print, and puts it into the log, and lets none of them end the process. What other
    threads print goes where it always went."""

    def __init__(self) -> None:
        self._threads: set[int] = set()
        self._before = sys.stdout, sys.stderr
        self._now = tuple(_Fork(stream, self._threads) for stream in self._before)
        sys.stdout, sys.stderr = cast("tuple[TextIO, TextIO]", self._now)
        self._end = os._exit  # pyright: ignore[reportPrivateUsage]  the function has no other name
        self._pid = os.getpid()
        self._stay: Any = self._leave  # one object, to know it by
        os._exit = self._stay  # pyright: ignore[reportPrivateUsage]  as above

    def divert(self) -> None:
        """From here on for the calling thread."""
        self._threads.add(threading.get_ident())

    def close(self) -> None:
        """Put the streams back, where nothing else has replaced them since."""
        if sys.stdout is self._now[0]:
            sys.stdout = self._before[0]
        if sys.stderr is self._now[1]:
            sys.stderr = self._before[1]
        if os._exit is self._stay:  # pyright: ignore[reportPrivateUsage]  as above
            os._exit = self._end  # pyright: ignore[reportPrivateUsage]  as above

    def _leave(self, code: int) -> None:
        if threading.get_ident() in self._threads and os.getpid() == self._pid:
            raise EndedError(f"the function ends its process with os._exit({code})")
        self._end(code)


class _Fork:
    """A text stream that tells by the thread who writes."""

    def __init__(self, stream: TextIO, threads: set[int]) -> None:
        self._stream = stream
        self._threads = threads
        self._line = ""

    def write(self, text: str) -> int:
        """Whole lines of a diverted thread go to the log."""
        if threading.get_ident() not in self._threads:
            return self._stream.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            log.info("%s", line)
        return len(text)

    def flush(self) -> None:
        """Of a diverted thread nothing is held back that could be flushed."""
        if threading.get_ident() not in self._threads:
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
