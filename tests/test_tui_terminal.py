"""A terminal that goes away, or stands still, holds neither the app nor its run."""

import asyncio
import os
import pty
import signal
import threading
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
import tui
from terminal import Terminal
from test_tui_program import totals
from waiting import PATIENCE

from batchrun.journal import Reader
from batchrun.tui.terminal import BEHIND, CLOSE_TIMEOUT, Output

pytestmark = pytest.mark.usefixtures("undisturbed", "alone")

OPTIONS = "--profile", "sim", "--set", "tone=calmly", "--output", "out.jsonl"


async def _running(count: int, latency: str) -> Terminal:
    tui.place(Path.cwd(), tui.rows(count), latency=latency)
    terminal = Terminal("app", "echo", "rows.jsonl", *OPTIONS)
    await terminal.greet()
    await terminal.until(lambda: b"ready" in terminal.output)
    terminal.press("start")
    await terminal.until(lambda: totals().done > 4)
    return terminal


@pytest_asyncio.fixture
async def busy() -> AsyncGenerator[Terminal]:
    """A run with more rows than time."""
    terminal = await _running(3000, "0.05-3")
    yield terminal
    terminal.close()


async def _until(seen: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait without reading the terminal."""
    for _ in range(int(seconds / 0.05)):
        if seen():
            return
        await asyncio.sleep(0.05)


async def _code(terminal: Terminal) -> int | None:
    """The exit code of an app whose terminal nobody reads."""
    await _until(lambda: terminal.process.poll() is not None)
    return terminal.process.returncode


async def _gone_in_good_order(terminal: Terminal, code: int = 129) -> None:
    """By itself: the deadline for a process that is held would have noted no end."""
    assert await _code(terminal) == code
    with Reader.open(tui.journal()) as reader:
        assert reader.check() == []
        assert reader.totals.unknown == 0
        assert [session.exit_code for session in reader.sessions] == [code]


@pytest.mark.slow
async def test_a_terminal_that_is_closed_while_a_row_is_open_ends_the_app(busy: Terminal) -> None:
    busy.press("enter")
    await busy.until(lambda: b"Pager" in busy.output)
    busy.hang_up()
    await _gone_in_good_order(busy)


@pytest.mark.slow
async def test_a_terminal_that_was_not_read_before_it_was_closed_ends_the_app(busy: Terminal) -> None:
    await asyncio.sleep(3)
    busy.hang_up()
    await _gone_in_good_order(busy)


@pytest.mark.slow
async def test_a_terminal_that_is_closed_while_rows_are_searched_ends_the_app(busy: Terminal) -> None:
    busy.press("search")
    await busy.until(lambda: b"Enter searches" in busy.output)
    os.write(busy.master, b"a word\r")
    busy.hang_up()
    await _gone_in_good_order(busy)


@pytest.mark.slow
@pytest.mark.parametrize("controlling", [False, True])
@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.3, 0.6])
async def test_a_terminal_that_is_closed_while_the_app_starts_ends_it(
    tmp_path: Path, seconds: float, *, controlling: bool
) -> None:
    tui.place(tmp_path, tui.rows(100))
    terminal = Terminal("app", "echo", "rows.jsonl", *OPTIONS, controlling=controlling)
    try:
        await terminal.greet()
        await asyncio.sleep(seconds)
        terminal.hang_up()
        assert await _code(terminal) == 129
    finally:
        terminal.close()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 0)])
async def test_a_signal_while_the_app_starts_ends_it(tmp_path: Path, number: signal.Signals, code: int) -> None:
    tui.place(tmp_path, tui.rows(100))
    terminal = Terminal("app", "echo", "rows.jsonl", *OPTIONS)
    try:
        await terminal.greet()
        terminal.process.send_signal(number)
        assert await terminal.ended() == code
        assert b"Traceback" not in terminal.output
        assert b"\x1b[?1049l" in terminal.output
    finally:
        terminal.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_to_an_app_that_has_left_changes_nothing(tmp_path: Path, number: signal.Signals) -> None:
    tui.place(tmp_path, tui.rows(100))
    terminal = Terminal("app", "echo", "rows.jsonl", *OPTIONS)
    try:
        await terminal.until(lambda: b"ready" in terminal.output)
        os.write(terminal.master, b"\x11")
        await terminal.until(lambda: b"\x1b[?1049l" in terminal.output)
        while terminal.process.poll() is None:
            terminal.process.send_signal(number)
            await asyncio.sleep(0.01)
        assert terminal.process.returncode == 0
    finally:
        terminal.close()


@pytest.mark.slow
async def test_a_terminal_that_nobody_reads_does_not_hold_the_run_and_is_whole_when_it_is_read_again() -> None:
    terminal = await _running(2000, "0.1")
    try:
        await terminal.until(lambda: b"Filter" in terminal.output)
        for key in [b"G", b"g"] * 100:
            os.write(terminal.master, key)
            await asyncio.sleep(0.02)
        await _until(Path("out.jsonl").exists)
        assert totals().done == 2000
        terminal.output = b""
        await terminal.until(lambda: b"finished" in terminal.output and b"Filter" in terminal.output)
        terminal.press("quit")
        assert await terminal.ended() == 0
        assert b"\x1b[?1049l" in terminal.output
    finally:
        terminal.close()


@pytest.mark.slow
async def test_a_signal_ends_an_app_whose_terminal_stands_still(busy: Terminal) -> None:
    await asyncio.sleep(3)
    busy.process.send_signal(signal.SIGTERM)
    await _gone_in_good_order(busy, 143)


class Watch:
    """An output over a pseudo-terminal, and what it says."""

    def __init__(self, *, there: Callable[[], bool] = lambda: True) -> None:
        self.master, self.slave = pty.openpty()
        self.gone, self.caught_up = threading.Event(), threading.Event()
        self.output = Output(self.slave, there, gone=self.gone.set, caught_up=self.caught_up.set)


def test_what_is_painted_on_a_terminal_that_stands_still_is_dropped_and_painted_again() -> None:
    watch = Watch()
    piece = b"." * 1000
    for _ in range(3 * BEHIND // len(piece)):
        watch.output.write(piece)
    read = 0
    while read < BEHIND:
        read += len(os.read(watch.master, 65536))
    assert watch.caught_up.wait(PATIENCE)
    watch.output.write(b"again")
    said = b""
    while not said.endswith(b"again"):
        said += os.read(watch.master, 65536)
    assert read + len(said) <= BEHIND + 2 * len(piece)
    watch.output.close()
    assert not watch.gone.is_set()


def test_a_terminal_that_cannot_be_written_to_is_gone_and_takes_any_amount() -> None:
    watch = Watch()
    os.close(watch.master)
    watch.output.write(b"lost")
    assert watch.gone.wait(PATIENCE)
    for _ in range(1000):
        watch.output.write(b"." * 1000)
    watch.output.close()


def test_a_quiet_terminal_that_is_none_any_more_is_gone() -> None:
    watch = Watch(there=lambda: False)
    assert watch.gone.wait(PATIENCE)


def test_a_terminal_that_stands_still_is_not_waited_for_at_the_end() -> None:
    watch = Watch()
    watch.output.write(b"." * BEHIND)
    began = time.monotonic()
    watch.output.close()
    assert time.monotonic() - began < 10 * CLOSE_TIMEOUT  # for ever, were it waited for
    os.close(watch.master)


@pytest.mark.slow
@pytest.mark.parametrize(("start", "key"), [(False, b"\x11"), (True, b"\x11"), (True, None)])
async def test_an_input_that_stays_silent_keeps_nobody_in_the_app(
    tmp_path: Path, *, start: bool, key: bytes | None
) -> None:
    tui.place(tmp_path, [])
    (tmp_path / "rows.jsonl").unlink()
    os.mkfifo("rows.jsonl")
    terminal = Terminal("app", "echo", "rows.jsonl", *OPTIONS)
    try:
        await terminal.until(lambda: b"Start" in terminal.output)
        await asyncio.sleep(1)
        if start:
            terminal.press("start")
            await terminal.until(lambda: b"checking" in terminal.output)
        if key is None:
            terminal.process.send_signal(signal.SIGTERM)
        else:
            os.write(terminal.master, key)
            if start:
                await terminal.until(lambda: b"Quit now" in terminal.output)
                terminal.press("enter")
        assert await terminal.ended() in (0, 130, 143)
        assert (
            b"\x1b[?1049l" in terminal.output
        )  # by itself: the deadline for a process that is held leaves it as it is
    finally:
        terminal.close()
