"""Shards in worker processes, with pebble underneath: one worker that dies or hangs costs one shard, and is replaced."""

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
from batchrun.post.event_loop import StrangerError
from batchrun.post.process import Launcher, WorkerContext
from batchrun.post.reply import Done, Failure, Shard
from batchrun.post.worker import Setup, initialize, run

if TYPE_CHECKING:  # only a run with --post pays for it
    from pebble import ProcessPool

log = logging.getLogger(__name__)

REBUILDS = 5
"""Times in a row that a pool is made anew before anything comes back from it."""
LOOK = 1.0
"""Seconds between looks whether the pool of an outstanding shard still works."""


class LostError(Exception):
    """A shard did not come back; `failure` is what that means for a row that was alone in it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Pool:
    """Worker processes; make and use it on one event loop."""

    def __init__(self, workers: int, setup: Setup, environ: Mapping[str, str]) -> None:
        self._workers = workers
        self._setup = setup
        self._launcher = Launcher(environ)
        self._loop = asyncio.get_running_loop()
        self._making: asyncio.Future[ProcessPool] | None = None
        self._rebuilt = 0
        self._closed = False

    def start(self) -> None:
        """Have the workers started, in a thread, not waiting until they are up."""
        if self._making is None and not self._closed:
            self._making = self._loop.run_in_executor(None, self._made)

    def _made(self) -> "ProcessPool":
        from pebble import ProcessPool  # noqa: PLC0415  only a run with --post pays for it

        context: Any = WorkerContext(self._launcher)  # its `Process` is a method, where the protocol has no word for it
        pool = ProcessPool(self._workers, initializer=initialize, initargs=(self._setup,), context=context)
        try:
            assert pool.active  # asking starts it
        except OSError as error:
            raise BrokenProcessPool from error
        return pool

    async def run(self, shard: Shard, seconds: float, grace: float = 0.0) -> Done:
        """One shard; `seconds` is how long it may take, `grace` what it gets beyond that. Raises LostError where it
        does not come back."""
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
                raise LostError(_death(error)) from None
            except StrangerError:
                raise LostError(Failure("post: worker died", "the worker process ended")) from None
            else:
                self._rebuilt = 0
                return done

    def _rebuild(self, broken: "asyncio.Future[ProcessPool]", error: Exception) -> None:
        """pebble gives a pool up when a worker dies while none is at work; make another."""
        if self._closed or self._making is not broken:
            return
        self._rebuilt += 1
        if self._rebuilt > REBUILDS:
            said = error.__cause__ or error
            raise LostError(Failure("post: no workers", f"worker processes cannot be kept running: {said}"))
        log.warning("the worker pool is restarted: %s", error.__cause__ or error)
        self._making = self._loop.run_in_executor(None, self._made_anew, _outcome(broken))

    def _made_anew(self, broken: "ProcessPool | None") -> "ProcessPool":
        self._stop(broken)
        return self._made()

    async def close(self) -> None:
        """Kill the workers, whatever they do; a pool that is being made is waited for."""
        self._closed = True
        making, self._making = self._making, None
        if making is not None:
            await asyncio.wait([making])
            await asyncio.to_thread(self._stop, _outcome(making))
        await asyncio.to_thread(self._launcher.close)

    def _stop(self, pool: "ProcessPool | None") -> None:
        if pool is not None:
            pool.stop()
        self._launcher.kill()
        if pool is not None:
            with contextlib.suppress(RuntimeError, OSError):
                pool.join()


async def _answer(pool: "ProcessPool", shard: Shard, seconds: float) -> Done:
    """What comes back for a shard. A pool that breaks answers only for the shards that it had begun to hand out, so
    whoever waits looks at the pool now and then."""
    answer = asyncio.wrap_future(pool.schedule(run, args=(shard,), timeout=seconds))
    try:
        while not answer.done():
            await asyncio.wait([answer], timeout=LOOK)
            if not answer.done() and not pool.active:
                raise BrokenProcessPool("it broke with the shard still in its queue")
        return answer.result()
    finally:
        answer.cancel()


def _outcome(making: "asyncio.Future[ProcessPool]") -> "ProcessPool | None":
    """The pool that was made; None where making it failed."""
    return making.result() if making.exception() is None else None


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
