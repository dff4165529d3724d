"""What holds for every test."""

import asyncio
import importlib.util
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM
from hypothesis import HealthCheck, settings
from looptime import LoopTimeEventLoop

from batchrun.engine import monitors
from batchrun.journal.writer import Writer

# looptime asks for the current event loop around synchronous tests as well. Before any was ever set, asyncio would
# make one that nobody closes, and some later test would fail for it; once None was set, there simply is none.
asyncio.set_event_loop(None)

# A shell has the jobs of its background ignore Ctrl-C, and nohup a hang-up: so would every program that a test starts.
for _name, _usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    if (_number := getattr(signal, _name, None)) and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

# Examples take as long as the machine needs, and are the same in every run: what they find does not depend on luck. New
# ones are looked for by `pytest --hypothesis-profile search`.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", settings.get_profile("search"), derandomize=True)
settings.load_profile("steady")

collect_ignore = [] if CHROMIUM else ["test_report_browser.py"]
if importlib.util.find_spec("ray") is None:  # an extra, which not every system has
    collect_ignore += ["test_ray.py"]
if sys.platform == "win32":  # no pseudo-terminals
    collect_ignore += ["test_tui_browser.py", "test_tui_program.py", "test_tui_terminal.py"]
    collect_ignore += ["test_senders_run.py"]  # no sockets that a process inherits


def pytest_report_header() -> str | None:
    return None if CHROMIUM else "left out: test_report_browser.py, for there is no Chromium here"


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a directory of its own, with nothing from outside: no variables of ours or of a provider, no user's file."""
    for name in list(os.environ):
        if name.startswith(("BATCHRUN_", "OPENAI_", "AZURE_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


_select = LoopTimeEventLoop._LoopTimeEventLoop__replaced_select  # type: ignore[attr-defined]


def _select_without_time(loop: Any, timeout: float | None) -> Any:
    """While a thread works, looptime 0.9 moves its clock with the real one: here it stands, however slow the thread."""
    if loop.looptime_on and timeout != 0 and any(not future.done() for future in loop._LoopTimeEventLoop__sync_futures):
        return loop._LoopTimeEventLoop__original_select(None)  # the thread wakes the loop
    return _select(loop, timeout)


LoopTimeEventLoop._LoopTimeEventLoop__replaced_select = _select_without_time  # type: ignore[attr-defined]


@pytest.fixture(autouse=True, scope="session")
def no_prices_from_outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prices that are kept for the day are those of this session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def time_stands_still_while_the_journal_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop of looptime moves its clock on while a thread works, unless it knows the thread's future.

    It knows those of `run_in_executor` (private name of looptime 0.9); the journal's thread has futures of its own.
    """
    put = Writer._put  # type: ignore[attr-defined]

    def known(writer: Writer, apply: Any) -> Any:
        future = put(writer, apply)
        if isinstance(loop := future.get_loop(), LoopTimeEventLoop):
            loop._LoopTimeEventLoop__sync_futures.add(future)  # type: ignore[attr-defined]
        return future

    complete = Writer.complete

    def known_complete(writer: Writer, *values: Any) -> None:
        complete(writer, *values)
        known(writer, lambda _: None)  # committed and told with it

    monkeypatch.setattr(Writer, "_put", known)
    monkeypatch.setattr(Writer, "complete", known_complete)


@pytest.fixture
async def undisturbed() -> None:
    """The loop's debug mode notes where each callback was made, which slows a screen down ten times."""
    asyncio.get_running_loop().set_debug(False)


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where the system has a place for that: thousands of commits wait for no disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else tmp_path) as name:
        yield Path(name)


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port of 127.0.0.1 where nobody listens, and nobody else can."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-offs and the trickle of a provider that is down take milliseconds, and no rate is felt for."""
    monkeypatch.setattr("batchrun.retry.decision._backoff", lambda _: 0.002)
    monkeypatch.setattr("batchrun.limits.learning._FIRST_PACE", 10_000.0)

    for name in ("_DOWN", "_LOADING", "_DOUBT"):
        monkeypatch.setattr(monitors, name, getattr(monitors, name)._replace(every=0.002))


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """A night has 300,000 looks at the gate and 80,000 at the connections: nothing is told or lost by them here."""
    monkeypatch.setattr("batchrun.engine.run.TICK", 60.0)
    monkeypatch.setattr("batchrun.engine.monitors.EVERY", 60.0)
