"""Shards in one thread of this process, for work that is shorter than sending it.

A thread that hangs is abandoned, and another takes its shards.
"""

import asyncio
import contextlib
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
    # used on one event loop

    def __init__(self, make: Callable[[Callable[[], None]], Chain | EventLoopWorker]) -> None:
        """`make` is called in the thread; further threads call its argument first."""
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._orders: _Orders = queue.SimpleQueue()
        self._under_way: deque[_Order] = deque()
        self._redirect = OutputRedirect()
        self._begin()

    def _begin(self) -> None:
        thread = threading.Thread(target=self._work, args=(self._orders,), name="post", daemon=True)
        thread.start()

    async def run(self, shard: Shard, seconds: float, grace: float = 0.0) -> Done:
        # the time begins after the shard before it
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
            self._replace_thread()
            raise LostError(timed_out(seconds))
        return done.result()

    def _replace_thread(self) -> None:
        self._orders.put(None)
        self._orders = queue.SimpleQueue()
        for order in self._under_way:
            self._orders.put(order)
        self._begin()

    async def close(self) -> None:
        self._orders.put(None)
        self._redirect.close()

    def _work(self, orders: _Orders) -> None:
        self._redirect.redirect()
        worker = self._make(self._redirect.redirect)
        while orders is self._orders and (order := orders.get()) is not None:
            shard, done = order
            result = worker.run(shard)
            with contextlib.suppress(RuntimeError):  # the loop is closed: no future is left to resolve
                self._loop.call_soon_threadsafe(_resolve, done, result)
        worker.close()


def _resolve(future: asyncio.Future[Done], result: Done) -> None:
    if not future.done():
        future.set_result(result)


class OutputRedirect:
    """Logs what chosen threads print, and keeps them from ending the process."""

    def __init__(self) -> None:
        self._threads: set[int] = set()
        self._before = sys.stdout, sys.stderr
        self._now = tuple(_ThreadStream(stream, self._threads) for stream in self._before)
        sys.stdout, sys.stderr = cast("tuple[TextIO, TextIO]", self._now)
        self._end = os._exit  # pyright: ignore[reportPrivateUsage]  the function has no other name
        self._pid = os.getpid()
        self._stay: Any = self._leave  # one object, to know it by
        os._exit = self._stay  # pyright: ignore[reportPrivateUsage]  as above

    def redirect(self) -> None:
        self._threads.add(threading.get_ident())

    def close(self) -> None:
        # except streams that were replaced since
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


class _ThreadStream:
    def __init__(self, stream: TextIO, threads: set[int]) -> None:
        self._stream = stream
        self._threads = threads
        self._line = ""

    def write(self, text: str) -> int:
        if threading.get_ident() not in self._threads:
            return self._stream.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            log.info("%s", line)
        return len(text)

    def flush(self) -> None:
        if threading.get_ident() not in self._threads:
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
