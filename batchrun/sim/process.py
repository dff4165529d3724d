"""The simulated provider as a process of its own, that never outlives the one that started it."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from batchrun.errors import RefusedError
from batchrun.sim.server import serve
from batchrun.sim.settings import Settings

# The child needs no key, so it gets no variable that could hold one.
_PASSED_ON = frozenset(
    {"PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "TEMP", "SYSTEMROOT"}
)


@contextmanager
def spawn(settings: Settings) -> Generator[str, None, None]:
    """A server in a process of its own, for the time of the context; gives its base URL.

    It has its own session, so Ctrl-C ends only the run; it ends with the context, and by itself when this process
    dies. Raises RefusedError where it cannot start.
    """
    with tempfile.TemporaryFile() as complaints, _started(complaints) as process:
        try:
            yield _ready(process, settings, complaints)
        finally:
            process.kill()


def run(settings: Settings, *, as_json: bool = False) -> None:
    """Serve until SIGINT or SIGTERM; one line on stdout when ready. Raises RefusedError where the port is taken."""
    asyncio.run(_until_told(settings, as_json=as_json, leash=False))


def run_on_leash(settings: Settings) -> None:
    """Serve until stdin is closed or the parent is gone; one line of JSON on stdout when ready."""
    asyncio.run(_until_told(settings, as_json=True, leash=True))


def _started(complaints: IO[bytes]) -> subprocess.Popen[str]:
    home = str(Path(__file__).parents[2])
    environment = {name: value for name, value in os.environ.items() if name in _PASSED_ON}
    paths = [home, environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "batchrun.sim"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        text=True,
        env=environment,
        start_new_session=True,
    )


def _ready(process: subprocess.Popen[str], settings: Settings, complaints: IO[bytes]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(settings.to_json()) + "\n")
        process.stdin.flush()
    line = process.stdout.readline()
    told: dict[str, Any] = json.loads(line) if line else {}
    if "base_url" in told:
        return told["base_url"]
    complaints.seek(0)
    last = complaints.read().decode(errors="replace").strip().rpartition("\n")[2]
    raise RefusedError(told.get("message") or f"The simulated provider did not start: {last}", told.get("hint"))


async def _until_told(settings: Settings, *, as_json: bool, leash: bool) -> None:
    loop = asyncio.get_running_loop()
    task = loop.create_task(serve(settings, ready=lambda url: _announce(url, as_json=as_json)))
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows has none
            loop.add_signal_handler(number, task.cancel)
    if leash:
        threading.Thread(target=_hold, args=(loop, task), daemon=True).start()
        _watch_parent(loop, task, os.getppid())
    await task


def _announce(url: str, *, as_json: bool) -> None:
    print(json.dumps({"base_url": url, "pid": os.getpid()}) if as_json else f"listening on {url}", flush=True)


def _hold(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]") -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    # The loop may have ended by a signal meanwhile.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(task.cancel)


def _watch_parent(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]", parent: int) -> None:
    """Stdin stays open where another child of the parent has inherited it, so the parent itself is watched too."""
    if os.getppid() != parent:
        task.cancel()
    else:
        loop.call_later(0.5, _watch_parent, loop, task, parent)
