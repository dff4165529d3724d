"""Shards in one thread of this process: for work so short that sending it to a process costs more than doing it.

A thread cannot be stopped. One that hangs is left behind, and another takes its place; it dies with the process.
"""

import asyncio
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO, cast

from batchrun.post.chain import Chain, EndedError, timed_out
from batchrun.post.flight import Flight
from batchrun.post.pool import LostError
from batchrun.post.reply import Done, Shard

log = logging.getLogger("batchrun.post.output")

_Order = tuple[Shard, asyncio.Future[Done], asyncio.Event]


class Inline:
    """One worker thread; make and use it on one event loop."""

    def __init__(self, make: Callable[[Callable[[], None]], Chain | Flight]) -> None:
        """`make` makes what runs shards, in the thread; it is told what each further thread has to call first."""
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._diversion = Diversion()
        self._begin()

    def _begin(self) -> None:
        self._orders = queue.SimpleQueue()
        thread = threading.Thread(target=self._work, args=(self._orders,), name="post", daemon=True)
        thread.start()

    async def run(self, shard: Shard, seconds: float, grace: float = 0.0) -> Done:
        """One shard, as `Pool.run`."""
        done: asyncio.Future[Done] = self._loop.create_future()
        begun = asyncio.Event()
        orders = self._orders
        orders.put((shard, done, begun))
        await begun.wait()
        try:
            async with asyncio.timeout(seconds + grace):
                return await done
        except TimeoutError:
            if self._orders is orders:
                self._begin()
            raise LostError(timed_out(seconds)) from None

    async def close(self) -> None:
        """Let the thread end when it is through with what it does."""
        self._orders.put(None)
        self._diversion.close()

    def _work(self, orders: "queue.SimpleQueue[_Order | None]") -> None:
        self._diversion.divert()
        worker = self._make(self._diversion.divert)
        while (order := orders.get()) is not None:
            shard, done, begun = order
            self._tell(begun.set)
            result = worker.run(shard)
            self._tell(_resolve, done, result)
        worker.close()

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more


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
        """Put the streams back, where nobody else has replaced them since."""
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
