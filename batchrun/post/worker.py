"""What runs in a worker process until its parent stops it or is gone."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import connection
from typing import Any, NamedTuple, cast

from batchrun.post.chain import Chain, failure_of
from batchrun.post.event_loop import EventLoopWorker, worker
from batchrun.post.load import load
from batchrun.post.reply import Done, Failure, Shard

EXITED = 70  # in place of 0, which the pool takes for a finished worker


class Setup(NamedTuple):
    specs: tuple[str, ...]
    concurrency: int
    timeout: float
    batch: bool


_worker: Chain | EventLoopWorker | None = None
_broken: Failure | None = None


def initialize(setup: Setup) -> None:
    # faulty functions fail the rows; raises nothing
    global _worker, _broken  # noqa: PLW0603  one worker, one chain: there is nothing else in this process
    _die_with_parent()
    _never_end_well()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            cast("Any", stream).reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        functions = load(setup.specs)
        _worker = worker(functions, concurrency=setup.concurrency, timeout=setup.timeout, batch=setup.batch)
    except BaseException as error:  # noqa: BLE001  a module may raise anything when it is imported
        _broken = failure_of(error)


def refusal() -> Failure | None:
    return _broken


def run(shard: Shard) -> Done:
    if _worker is None:
        broken = _broken or Failure("post: not set up", "the worker has no functions")
        count = len(shard.items)
        return Done([broken] * count, 0.0, 0.0, {}, range(shard.first, shard.first + count))
    return _worker.run(shard)


def _die_with_parent() -> None:
    # This process must end with its parent, whatever a function is doing here. The kernel sends SIGIO when the parent's
    # end of the pipe closes, which kills a process that does not handle it; on other systems a thread waits for the
    # same.
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    pipe = parent.sentinel
    threading.Thread(target=_leave_when_closed, args=(pipe,), name="parent", daemon=True).start()
    if sys.platform != "win32":
        import fcntl  # noqa: PLC0415  not on Windows

        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with contextlib.suppress(AttributeError, OSError):
            fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)  # pyright: ignore[reportAttributeAccessIssue]  Unix


def _leave_when_closed(pipe: int) -> None:
    connection.wait([pipe])
    os.kill(os.getpid(), signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)


def _never_end_well() -> None:
    end = os._exit  # pyright: ignore[reportPrivateUsage]  the function has no other name
    own = os.getpid()

    def leave(code: int) -> Any:
        end(EXITED if code == 0 and os.getpid() == own else code)  # a process that a function forks may end well

    os._exit = leave  # pyright: ignore[reportPrivateUsage]  as above
