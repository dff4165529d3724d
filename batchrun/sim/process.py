"""The simulated provider as a child process, and its control endpoints."""

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
from urllib.parse import urlsplit

from batchrun.errors import RefusedError
from batchrun.sim.server import serve
from batchrun.sim.settings import Settings

# The child needs no key, so it gets no variable that could hold one.
_PASSED_ON = frozenset(
    {"PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "TEMP", "SYSTEMROOT"}
)


@contextmanager
def spawn(settings: Settings) -> Generator[str, None, None]:
    """Gives its base URL. Raises RefusedError. Its own session: Ctrl-C ends only the run; it ends when this process
    dies.
    """
    with tempfile.TemporaryFile() as errors, _started(errors) as process:
        try:
            yield _ready(process, settings, errors)
        finally:
            process.kill()


def run(settings: Settings, *, as_json: bool = False) -> None:
    """Raises RefusedError."""
    asyncio.run(_serve_until_stopped(settings, as_json=as_json, child=False))


def run_as_child(settings: Settings) -> None:
    asyncio.run(_serve_until_stopped(settings, as_json=True, child=True))


def stats(base_url: str, *, prompts: bool = True) -> dict[str, Any]:
    """Without `prompts` only sums. Raises OSError."""
    return _call(base_url, "GET", "/_sim/stats" if prompts else "/_sim/stats?summary")


def log(base_url: str) -> list[dict[str, Any]]:
    """The ended calls; empty unless `record` is set. Raises OSError."""
    return _call(base_url, "GET", "/_sim/log")


def change(base_url: str, **values: Any) -> None:
    """Raises ValueError, OSError."""
    _call(base_url, "POST", "/_sim/settings", values)


def down(base_url: str, seconds: float) -> None:
    """Refuse connections for some seconds. Raises OSError."""
    _call(base_url, "POST", "/_sim/down", {"seconds": seconds})


def _started(errors: IO[bytes]) -> subprocess.Popen[str]:
    home = str(Path(__file__).parents[2])
    environment = {name: value for name, value in os.environ.items() if name in _PASSED_ON}
    paths = [home, environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "batchrun.sim"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment,
        start_new_session=True,
    )


def _ready(process: subprocess.Popen[str], settings: Settings, errors: IO[bytes]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(settings.to_json()) + "\n")
        process.stdin.flush()
    line = process.stdout.readline()
    answer: dict[str, Any] = json.loads(line) if line else {}
    if "base_url" in answer:
        return answer["base_url"]
    errors.seek(0)
    last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
    raise RefusedError(answer.get("message") or f"The simulated provider did not start: {last}", answer.get("hint"))


async def _serve_until_stopped(settings: Settings, *, as_json: bool, child: bool) -> None:
    loop = asyncio.get_running_loop()

    def announce(url: str) -> None:
        print(json.dumps({"base_url": url, "pid": os.getpid()}) if as_json else f"listening on {url}", flush=True)

    task = loop.create_task(serve(settings, ready=announce))
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows has none
            loop.add_signal_handler(number, task.cancel)
    if child:
        threading.Thread(target=_wait_for_end_of_input, args=(loop, task), daemon=True).start()
        _watch_parent(loop, task, os.getppid())
    await task


def _wait_for_end_of_input(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]") -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    # The loop may have ended by a signal meanwhile.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(task.cancel)


def _watch_parent(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]", parent: int) -> None:
    # stdin stays open if another child of the parent has inherited it
    if os.getppid() != parent:
        task.cancel()
    else:
        loop.call_later(0.5, _watch_parent, loop, task, parent)


def _call(base_url: str, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    from http.client import HTTPConnection  # noqa: PLC0415  # 15 ms that the server's own start shall not pay

    connection = HTTPConnection(urlsplit(base_url).netloc, timeout=10)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        answer = json.loads(response.read())
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(answer["error"]["message"])
    return answer
