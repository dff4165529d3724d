"""The app as textual-serve shows it in a browser, spoken to as that server does: packets through two pipes."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tui
from test_tui_program import totals
from waiting import PATIENCE

from batchrun.journal import Reader

# Slow: each test waits for a program.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undisturbed", "alone")]

ROOT = Path(__file__).parents[1]


class Tab:
    """A browser's tab. `read` is what it has been sent; while nobody reads, the pipe fills."""

    def __init__(self) -> None:
        driver = {"TEXTUAL_DRIVER": "textual.drivers.web_driver:WebDriver", "COLUMNS": "120", "ROWS": "40"}
        command = [sys.executable, "-m", "batchrun", "app", "echo", "rows.jsonl", "--profile", "sim"]
        self.process = subprocess.Popen(
            [*command, "--set", "tone=calmly", "--output", "out.jsonl"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT), **driver},
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.sent = b""

    def read(self) -> bytes:
        assert self.process.stdout is not None
        while piece := self.process.stdout.read():
            self.sent += piece
        return self.sent

    def say(self, kind: bytes, payload: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(kind + len(payload).to_bytes(4, "big") + payload)
        self.process.stdin.flush()

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    async def until(self, seen: Callable[[], object], seconds: float = PATIENCE) -> None:
        for _ in range(int(seconds / 0.05)):
            if seen():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(self.sent[-3000:])

    async def started(self) -> None:
        await self.until(lambda: b"ready" in self.read())
        self.say(b"D", b"\x1b[15~")
        await self.until(lambda: self.read() and totals().done > 4)


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    tui.place(tmp_path, tui.rows(3000), latency="0.05-3")
    opened = Tab()
    yield opened
    opened.close()


async def _gone_in_good_order(tab: Tab) -> None:
    """By itself: the deadline for a process that is held would have noted no end."""
    await tab.until(lambda: tab.process.poll() is not None)
    assert tab.process.returncode == 129
    with Reader.open(tui.journal()) as reader:
        assert reader.check() == []
        assert reader.totals.unknown == 0
        assert 4 < reader.totals.done < 3000
        assert [session.exit_code for session in reader.sessions] == [129]


async def test_a_tab_that_is_closed_lets_the_run_drain_and_ends_the_app(tab: Tab) -> None:
    await tab.started()
    tab.say(b"M", json.dumps({"type": "quit"}).encode())
    await _gone_in_good_order(tab)


async def test_a_server_that_is_gone_ends_the_app(tab: Tab) -> None:
    await tab.started()
    assert tab.process.stdin is not None
    assert tab.process.stdout is not None
    tab.process.stdin.close()
    tab.process.stdout.close()
    await _gone_in_good_order(tab)


async def test_a_tab_that_takes_nothing_does_not_hold_the_run(tab: Tab, tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(1500), latency="0.05-0.5")
    await tab.started()
    for key in [b"G", b"g"] * 30:
        tab.say(b"D", key)
        await asyncio.sleep(0.05)
    await tab.until(Path("out.jsonl").exists)
    assert totals().done == 1500
    await tab.until(lambda: b"finished" in tab.read())
