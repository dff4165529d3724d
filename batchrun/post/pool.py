"""Shards in worker processes, with pebble underneath: one worker that dies or hangs costs one shard, and is replaced."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from batchrun.post.process import Launcher, WorkerContext
from batchrun.post.reply import Done, Failure, Item
from batchrun.post.worker import Setup, initialize, ready, run

if TYPE_CHECKING:  # only a run with --post pays for it
    from pebble import ProcessPool

log = logging.getLogger(__name__)

REBUILDS = 5
"""Times in a row that a pool is made anew before anything comes back from it."""


class LostError(Exception):
    """A shard did not come back; `failure` is what that means for a row that was alone in it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Pool:
    """Worker processes; make and use it on one event loop."""

    def __init__(self, workers: int, setup: Setup, environ: Mapping[str, str]) -> None:
        self.workers = workers
        self._setup = setup
        self._launcher = Launcher(environ)
        self._pool: ProcessPool | None = None
        self._starting: asyncio.Lock = asyncio.Lock()
        self._rebuilt = 0
        self._closed = False

    async def start(self) -> None:
        """Have the workers started, not waiting until they are up."""
        async with self._starting:
            if self._pool is None and not self._closed:
                self._pool = await asyncio.to_thread(self._made)

    async def warm(self) -> None:
        """Wait until a worker is up."""
        await self.start()
        if self._pool is not None:
            await asyncio.wrap_future(self._pool.schedule(ready))

    def _made(self) -> "ProcessPool":
        from pebble import ProcessPool  # noqa: PLC0415  only a run with --post pays for it

        context: Any = WorkerContext(self._launcher)  # its `Process` is a method, where the protocol has no word for it
        pool = ProcessPool(self.workers, initializer=initialize, initargs=(self._setup,), context=context)
        assert pool.active  # asking starts it
        return pool

    async def run(self, items: Sequence[Item], seconds: float) -> Done:
        """One shard; `seconds` is how long it may take. Raises LostError where it does not come back."""
        while True:
            if self._pool is None:
                await self.start()
            pool = self._pool
            if pool is None:
                raise LostError(Failure("post: stopped", "the pool is closed"))
            try:
                done = await asyncio.wrap_future(pool.schedule(run, args=(items,), timeout=seconds))
            except TimeoutError:
                raise LostError(Failure("post: timed out", f"no result after {seconds:g} s (--post-timeout)")) from None
            except (BrokenProcessPool, RuntimeError) as error:
                await self._rebuild(pool, error)
            except CancelledError:
                raise LostError(Failure("post: stopped", "the pool was stopped")) from None
            except OSError as error:
                raise LostError(_death(error)) from None
            else:
                self._rebuilt = 0
                return done

    async def _rebuild(self, broken: "ProcessPool", error: Exception) -> None:
        """pebble gives a pool up when a worker dies while none is at work; make another."""
        async with self._starting:
            if self._closed or self._pool is not broken:
                return
            self._rebuilt += 1
            if self._rebuilt > REBUILDS:
                raise LostError(Failure("post: no workers", f"worker processes cannot be kept running: {error}"))
            log.warning("the pool of workers is made anew: %s", error)
            await asyncio.to_thread(self._stop, broken)
            self._pool = await asyncio.to_thread(self._made)

    async def close(self) -> None:
        """Kill the workers, whatever they do."""
        self._closed = True
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(self._stop, pool)
        await asyncio.to_thread(self._launcher.close)

    def _stop(self, pool: "ProcessPool") -> None:
        pool.stop()
        self._launcher.kill()
        with contextlib.suppress(RuntimeError, OSError):
            pool.join()


def _death(error: OSError) -> Failure:
    code = getattr(error, "exitcode", None)
    if isinstance(code, int) and code < 0:
        with contextlib.suppress(ValueError):
            return Failure("post: worker died", f"the worker process was killed by {signal.Signals(-code).name}")
    return Failure("post: worker died", f"the worker process ended with exit code {code}")


def cores() -> int:
    """The processors that this process may use."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # only Linux tells
        return os.cpu_count() or 1
