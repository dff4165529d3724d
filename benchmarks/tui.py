"""What the app costs beside the headless run, how well its loop answers, how soon it and a long run are there."""

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

from measure import Bench, median
from mockserver import Mock, serving

from batchrun import registry
from batchrun.errors import ExitCode
from batchrun.tui.app import BatchrunApp
from batchrun.tui.replay import Replay
from batchrun.tui.widgets.outcomes import Outcomes
from batchrun.tui.widgets.panels import Account

ROWS, ROUNDS = 10_000, 3
LONG = 1_000_000
RATE = 500
START = b"\x1b[15~"
WIDE, HIGH = 200, 60


def run(bench: Bench) -> None:
    """Throughput, first frame, lag of the loop."""
    with serving(bench.program) as mock:
        ratios: list[float] = []
        for _ in range(ROUNDS):
            headless = _pace(mock, lambda: bench.batchrun(mock.base_url, ROWS, "--concurrency", "64"))
            ratios.append(_pace(mock, lambda: _in_app(bench, mock)) / headless)
        share = median(ratios)
        bench.table.row(
            "tui", f"rows/s in the app over headless, {ROWS:,} rows", f"{share:.2f}", "≥ 0.90", share >= 0.9
        )
        lag = asyncio.run(_lag(bench, mock))
        bench.table.row(
            "tui", f"lag of the loop at {RATE} rows/s, p95", f"{lag * 1000:.0f} ms", "≤ 25 ms", lag <= 0.025
        )
    frames = median([_first_frame(bench) for _ in range(5)])
    bench.table.row("tui", "first frame", f"{frames:.2f} s", "≤ 0.8 s", frames <= 0.8)


def million(bench: Bench) -> None:
    """Opening a long run."""
    with serving(bench.program) as mock:
        bench.batchrun(mock.base_url, LONG, "--limit", "1000")
    taken = asyncio.run(_opened(bench))
    bench.table.row("tui", f"opening a run of {LONG:,} rows", f"{taken:.2f} s", "≤ 0.5 s", taken <= 0.5)


def _pace(mock: Mock, work: Callable[[], object]) -> float:
    """Requests a second at the server, from the first to the last."""
    mock.reset()
    work()
    at = sorted(mock.arrivals().at)
    return (len(at) - 1) / (at[-1] - at[0])


class _Terminal:
    """A command on a terminal of 200 by 60 that is read as fast as it draws."""

    def __init__(self, bench: Bench, command: list[str]) -> None:
        self.began = time.monotonic()
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", HIGH, WIDE, 0, 0))
        environment = {**bench.environment, "TERM": "xterm-256color"}
        streams = {"stdin": slave, "stdout": slave, "stderr": slave}
        self.process = subprocess.Popen(command, cwd=bench.folder, env=environment, start_new_session=True, **streams)
        os.close(slave)
        self.seen = b""

    def until(self, text: bytes) -> None:
        """Read until this is drawn."""
        while text not in self.seen:
            self.seen = self.seen[-200:] + os.read(self.master, 1 << 16)

    def press(self, keys: bytes) -> None:
        """As a user would."""
        os.write(self.master, keys)

    def end(self) -> None:
        """Leave, and wait for it."""
        self.press(b"\x11")
        with contextlib.suppress(OSError):
            while os.read(self.master, 1 << 16):
                pass
        self.process.wait()
        os.close(self.master)


def _flags(bench: Bench, base_url: str, rows: int) -> list[str]:
    command = bench.command(base_url, rows, "--concurrency", "64", name="app")
    dropped = {"--no-progress"}
    words = [word for word in command[command.index("run") + 1 :] if word not in dropped]
    source, prompt = words[words.index("-i") + 1], words[words.index("-p") + 1]
    rest = [word for place, word in enumerate(words) if place > words.index("-p") + 1]
    return [prompt, source, *rest]


def _in_app(bench: Bench, mock: Mock) -> None:
    terminal = _Terminal(bench, [sys.executable, "-m", "batchrun", "app", *_flags(bench, mock.base_url, ROWS)])
    terminal.until(b"ready")
    terminal.press(START)
    terminal.until(b"finished")
    terminal.end()


def _first_frame(bench: Bench) -> float:
    terminal = _Terminal(bench, [sys.executable, "-m", "batchrun", "app"])
    terminal.until(b"output")
    taken = time.monotonic() - terminal.began
    terminal.end()
    return taken


async def _lag(bench: Bench, mock: Mock) -> float:
    """The 95th percentile of how late a callback of the loop comes while a run goes on, in seconds."""
    prompt, source, *_ = _flags(bench, mock.base_url, ROWS)
    flags = {"prompt": str(bench.folder / prompt), "input": str(bench.folder / source), "model": "mock"}
    flags |= {"base_url": mock.base_url, "output": str(bench.folder / "app/lag.jsonl"), "rpm": str(60 * RATE)}
    os.environ.update(OPENAI_API_KEY=bench.environment["OPENAI_API_KEY"])
    app = BatchrunApp(flags)
    late: list[float] = []
    async with app.run_test(size=(WIDE, HIGH)) as pilot:
        await pilot.pause(1.0)
        await pilot.press("f5")
        await pilot.pause(2.0)
        until = time.monotonic() + 6.0
        while (due := time.monotonic() + 0.01) < until:
            await asyncio.sleep(0.01)
            late.append(time.monotonic() - due)
        await app.settle(ExitCode.INTERRUPTED, 0.0)
    return sorted(late)[int(0.95 * len(late))]


async def _opened(bench: Bench) -> float:
    """From choosing the run to its account and its first rows on the screen, in seconds."""
    (found,) = registry.listing(Path(bench.folder) / "out" / registry.DIRECTORY)
    app = BatchrunApp({})
    async with app.run_test(size=(WIDE, HIGH)) as pilot:
        await pilot.pause(1.0)
        began = time.monotonic()
        app.show_run(Replay(found))
        while not _seen(app):  # noqa: ASYNC110  as a user looks
            await asyncio.sleep(0.005)
        return time.monotonic() - began


def _seen(app: BatchrunApp) -> bool:
    """Whether the account counts rows and the table has some."""
    tables, accounts = app.screen.query(Outcomes), app.screen.query(Account)
    said = accounts.first().render().plain if accounts else ""
    return bool(tables) and tables.first().current is not None and bool(re.search("[1-9]", said))
