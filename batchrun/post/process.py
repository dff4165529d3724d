"""Worker processes: without secrets in the environment, with their output in the log.

`multiprocessing` starts a spawned process with its parent's whole environment and terminal; `Launcher` does not. On Windows only the
process itself can drop secrets.
"""

import io
import os
import signal
import sys
import threading
from collections.abc import Mapping
from multiprocessing import process, spawn, util
from multiprocessing.context import SpawnContext, SpawnProcess, set_spawning_popen
from typing import Any, cast

from batchrun.child_processes import into_log


class Launcher:
    """Starts worker processes, logs what they print, and kills them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = dict(environ)
        self._processes: list[WorkerProcess] = []
        reading, self.output = os.pipe()
        self._reader = threading.Thread(target=into_log, args=(reading,), name="post output", daemon=True)
        self._reader.start()

    def process(self, *args: Any, **settings: Any) -> "WorkerProcess":
        """A process that is not started yet."""
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
        """Pickled without its launcher."""
        return {name: value for name, value in self.__dict__.items() if name != "launcher"}


class WorkerContext(SpawnContext):
    def __init__(self, launcher: Launcher) -> None:
        super().__init__()
        self._launcher = launcher

    def Process(self, *args: Any, **settings: Any) -> process.BaseProcess:  # noqa: N802  # pyright: ignore[reportIncompatibleVariableOverride]  a class in the base, here what makes one
        return self._launcher.process(*args, **settings)


def popen_type() -> Any:
    """The Popen class for systems with `posix_spawn`."""
    from multiprocessing import popen_spawn_posix, reduction, resource_tracker  # noqa: PLC0415  not on Windows

    class Popen(popen_spawn_posix.Popen):
        """As the base, but for the environment, the standard streams, and the parent's main module, which is not loaded."""

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
