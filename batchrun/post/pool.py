"""Shards in worker processes by pebble: a worker that dies or hangs costs one shard, and is replaced."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Mapping
from concurrent.futures import CancelledError, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from batchrun.post.chain import timed_out
from batchrun.post.event_loop import UnknownRowsError
from batchrun.post.process import Launcher, WorkerContext
from batchrun.post.reply import Done, Failure, Shard
from batchrun.post.worker import Setup, initialize, run

if TYPE_CHECKING:  # only a run with --post pays for it
    from pebble import ProcessPool

log = logging.getLogger(__name__)

REBUILDS = 5
"""Times in a row that a pool is made again before anything comes back."""
LOOK = 1.0
"""Seconds between checks that the pool of a pending shard still works."""


class LostError(Exception):
    """A shard did not come back; `failure` is that of a row alone in it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Pool:
    """Used on one event loop."""

    def __init__(self, workers: int, setup: Setup, environ: Mapping[str, str]) -> None:
        self._workers = workers
        self._setup = setup
        self._launcher = Launcher(environ)
        self._loop = asyncio.get_running_loop()
        self._making: asyncio.Future[ProcessPool] | None = None
        self._rebuilt = 0
        self._closed = False

    def start(self) -> None:
        """Start the workers, without waiting."""
        if self._making is None and not self._closed:
            self._making = self._loop.run_in_executor(None, self._make)

    def _make(self) -> "ProcessPool":
        from pebble import ProcessPool  # noqa: PLC0415  only a run with --post pays for it

        context: Any = WorkerContext(self._launcher)  # its `Process` is a method, which the protocol does not allow for
        pool = ProcessPool(self._workers, initializer=initialize, initargs=(self._setup,), context=context)
        try:
            assert pool.active  # asking starts it
        except OSError as error:
            raise BrokenProcessPool from error
        return pool

    async def run(self, shard: Shard, seconds: float, grace: float = 0.0) -> Done:
        """Run one shard, in `seconds` and a further `grace`. Raises LostError where it does not come back."""
        while True:
            self.start()
            making = self._making
            if making is None:
                raise LostError(Failure("post: stopped", "the pool is closed"))
            try:
                pool = await asyncio.shield(making)  # whoever is cancelled here leaves a pool that `close` must find
                done = await _answer(pool, shard, seconds + grace)
            except TimeoutError:
                raise LostError(timed_out(seconds)) from None
            except (BrokenProcessPool, RuntimeError) as error:
                self._rebuild(making, error)
            except CancelledError:
                raise LostError(Failure("post: stopped", "the pool was stopped")) from None
            except OSError as error:
                raise LostError(_exit_failure(error)) from None
            except UnknownRowsError:
                raise LostError(Failure("post: worker died", "the worker process ended")) from None
            else:
                self._rebuilt = 0
                return done

    def _rebuild(self, broken: "asyncio.Future[ProcessPool]", error: Exception) -> None:
        """Make another pool: pebble's stops when a worker dies while none is at work."""
        if self._closed or self._making is not broken:
            return
        self._rebuilt += 1
        if self._rebuilt > REBUILDS:
            reason = error.__cause__ or error
            raise LostError(Failure("post: no workers", f"worker processes end again and again: {reason}"))
        log.warning("the worker pool is restarted: %s", error.__cause__ or error)
        self._making = self._loop.run_in_executor(None, self._remake, _pool_of(broken))

    def _remake(self, broken: "ProcessPool | None") -> "ProcessPool":
        self._stop(broken)
        return self._make()

    async def close(self) -> None:
        """Kill the workers."""
        self._closed = True
        making, self._making = self._making, None
        if making is not None:
            await asyncio.wait([making])
            await asyncio.to_thread(self._stop, _pool_of(making))
        await asyncio.to_thread(self._launcher.close)

    def _stop(self, pool: "ProcessPool | None") -> None:
        if pool is not None:
            pool.stop()
        self._launcher.kill()
        if pool is not None:
            with contextlib.suppress(RuntimeError, OSError):
                pool.join()


async def _answer(pool: "ProcessPool", shard: Shard, seconds: float) -> Done:
    """A broken pool answers only for shards it had begun to hand out, so check it now and then."""
    answer = asyncio.wrap_future(pool.schedule(run, args=(shard,), timeout=seconds))
    try:
        while not answer.done():
            await asyncio.wait([answer], timeout=LOOK)
            if not answer.done() and not pool.active:
                raise BrokenProcessPool("it broke with the shard still in its queue")
        return answer.result()
    finally:
        answer.cancel()


def _pool_of(making: "asyncio.Future[ProcessPool]") -> "ProcessPool | None":
    """The pool, None where making it failed."""
    return making.result() if making.exception() is None else None


def _exit_failure(error: OSError) -> Failure:
    code = getattr(error, "exitcode", None)
    if isinstance(code, int) and code < 0:
        with contextlib.suppress(ValueError):
            return Failure("post: worker died", f"the worker process was killed by {signal.Signals(-code).name}")
    return Failure("post: worker died", f"the worker process ended with exit code {code}")


def cores() -> int:
    """The processors that this process may use."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # sched_getaffinity is of Linux only
        return os.cpu_count() or 1
