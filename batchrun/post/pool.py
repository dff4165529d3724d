"""Shards in worker processes by pebble: a worker that dies or hangs costs one shard.

`multiprocessing` starts a spawned process with its parent's whole environment and terminal; `Launcher` starts it
without secrets (on Windows only the process itself can drop them), and with its output in the log.
"""

import asyncio
import contextlib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import CancelledError, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import process, spawn, util
from multiprocessing.context import SpawnContext, SpawnProcess, set_spawning_popen
from typing import TYPE_CHECKING, Any, cast

from batchrun.child_processes import into_log
from batchrun.post.chain import timed_out
from batchrun.post.event_loop import UnknownRowsError
from batchrun.post.reply import Done, Failure, Shard
from batchrun.post.worker import Setup, initialize, run

if TYPE_CHECKING:  # only a run with --post pays for it
    from pebble import ProcessPool

log = logging.getLogger(__name__)

REBUILDS = 5  # times in a row that a pool is made again before anything comes back
LOOK = 1.0  # seconds between checks that the pool of a pending shard still works


class Launcher:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = dict(environ)
        self._processes: list[WorkerProcess] = []
        reading, self.output = os.pipe()
        self._reader = threading.Thread(target=into_log, args=(reading,), name="post output", daemon=True)
        self._reader.start()

    def process(self, *args: Any, **settings: Any) -> "WorkerProcess":
        made = WorkerProcess(*args, **settings)
        made.launcher = self
        self._processes = [one for one in self._processes if one.pid is None or one.is_alive()]
        self._processes.append(made)
        return made

    def kill(self) -> None:
        for one in self._processes:
            if one.pid is not None and one.is_alive():
                one.kill()

    def close(self) -> None:
        os.close(self.output)
        self._reader.join(1.0)


class WorkerProcess(SpawnProcess):
    launcher: Launcher | None = None

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802  the name that multiprocessing calls
        if sys.platform == "win32":
            return SpawnProcess._Popen(process_obj)  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]  the usual way
        return popen_type()(process_obj)

    def __getstate__(self) -> dict[str, Any]:
        # pickled without its launcher
        return {name: value for name, value in self.__dict__.items() if name != "launcher"}


class WorkerContext(SpawnContext):
    def __init__(self, launcher: Launcher) -> None:
        super().__init__()
        self._launcher = launcher

    def Process(self, *args: Any, **settings: Any) -> process.BaseProcess:  # noqa: N802  # pyright: ignore[reportIncompatibleVariableOverride]  a class in the base, here what makes one
        return self._launcher.process(*args, **settings)


def popen_type() -> Any:
    # for systems with `posix_spawn`
    from multiprocessing import popen_spawn_posix, reduction, resource_tracker  # noqa: PLC0415  not on Windows

    class Popen(popen_spawn_posix.Popen):
        # the parent's main module is not loaded
        _fds: list[int]

        def _launch(self, process_obj: Any) -> None:
            tracker = resource_tracker.getfd()
            assert tracker is not None
            self._fds.append(tracker)
            preparation = spawn.get_preparation_data(process_obj.name)
            for name in ("init_main_from_name", "init_main_from_path"):
                preparation.pop(name, None)
            data = io.BytesIO()
            set_spawning_popen(cast("Any", self))
            try:
                reduction.dump(preparation, data)
                reduction.dump(process_obj, data)
            finally:
                set_spawning_popen(None)
            parent_reads, child_writes = os.pipe()
            child_reads, parent_writes = os.pipe()
            try:
                command = spawn.get_command_line(tracker_fd=tracker, pipe_handle=child_reads)
                self._fds.extend([child_reads, child_writes])
                self.pid = _start(command, self._fds, process_obj.launcher)
                self.sentinel = parent_reads
                with open(parent_writes, "wb", closefd=False) as pipe:
                    pipe.write(data.getbuffer())
            finally:
                self.finalizer = util.Finalize(self, _close, (parent_reads, parent_writes))
                _close(child_reads, child_writes)

    return Popen


def _start(command: list[str], inherited: list[int], launcher: Launcher) -> int:
    actions: list[Any] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, launcher.output, 1),
        (os.POSIX_SPAWN_DUP2, launcher.output, 2),
        *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in inherited),  # onto itself: it stays open in the child
    ]
    return os.posix_spawn(
        os.fsdecode(spawn.get_executable()),
        command,
        launcher.environ,
        file_actions=actions,
        setsigdef=[signal.SIGPIPE, signal.SIGTERM, signal.SIGHUP, signal.SIGIO],
    )


def _close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


class LostError(Exception):
    # `failure`: of a row alone in the shard
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Pool:
    # used on one event loop

    def __init__(self, workers: int, setup: Setup, environ: Mapping[str, str]) -> None:
        self._workers = workers
        self._setup = setup
        self._launcher = Launcher(environ)
        self._loop = asyncio.get_running_loop()
        self._making: asyncio.Future[ProcessPool] | None = None
        self._rebuilt = 0
        self._closed = False

    def start(self) -> None:
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
        """Takes `seconds` and a further `grace` at most. Raises LostError."""
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
        # Pebble's pool stops when a worker dies while none is at work.
        if self._closed or self._making is not broken:
            return
        self._rebuilt += 1
        if self._rebuilt > REBUILDS:
            reason = error.__cause__ or error
            raise LostError(Failure("post: no workers", f"worker processes keep ending: {reason}"))
        log.warning("the worker pool is restarted: %s", error.__cause__ or error)
        self._making = self._loop.run_in_executor(None, self._remake, _pool_of(broken))

    def _remake(self, broken: "ProcessPool | None") -> "ProcessPool":
        self._stop(broken)
        return self._make()

    async def close(self) -> None:
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
    # A broken pool answers only for shards it had begun to hand out.
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
    # None if making it failed
    return making.result() if making.exception() is None else None


def _exit_failure(error: OSError) -> Failure:
    code = getattr(error, "exitcode", None)
    if isinstance(code, int) and code < 0:
        with contextlib.suppress(ValueError):
            return Failure("post: worker died", f"the worker process was killed by {signal.Signals(-code).name}")
    return Failure("post: worker died", f"the worker process ended with exit code {code}")


def cores() -> int:
    # that this process may use
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # sched_getaffinity is of Linux only
        return os.cpu_count() or 1
