"""The real program on a real terminal (a pseudo-terminal): from a prompt and an input to whole outputs, however it ends."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tui
from terminal import Terminal
from waiting import PATIENCE

from batchrun.errors import StorageError
from batchrun.journal import Reader
from batchrun.models import Totals

# Slow: each test waits for a terminal.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("alone")]

ROOT = Path(__file__).parents[1]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    tui.place(tmp_path, tui.rows(120), latency="0.2")
    options = "--profile", "sim", "--set", "language=Dutch", "--concurrency", "4", "--output", "out.jsonl"
    opened = Terminal("app", "translate", "rows.jsonl", *options)
    yield opened
    opened.close()


def totals() -> Totals:
    try:
        with Reader.open(tui.journal()) as reader:
            return reader.totals
    except (StorageError, ValueError):
        return Totals()


async def _running(terminal: Terminal) -> None:
    await terminal.until(lambda: b"ready" in terminal.output)
    terminal.press("start")
    await terminal.until(lambda: totals().done > 4)


async def _at_rest() -> None:
    """Wait until nothing changes any more: what was in flight is there."""
    before, now = None, totals()
    while now != before:
        await asyncio.sleep(1)
        before, now = now, totals()


async def test_a_batch_is_loaded_run_paused_continued_and_its_output_is_whole(terminal: Terminal) -> None:
    await _running(terminal)
    terminal.press("pause")
    await terminal.until(lambda: b"paused" in terminal.output)
    await _at_rest()
    before = totals()
    await asyncio.sleep(0.5)
    assert totals() == before
    assert before.done < 120
    terminal.press("pause")
    await terminal.until(lambda: Path("out.jsonl").exists())
    await terminal.until(lambda: b"finished" in terminal.output)
    terminal.press("quit")
    assert await terminal.ended() == 0
    written = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in written] == [f"r{number}" for number in range(1, 121)]
    assert all(row["output"] for row in written)
    assert totals().attempts == 120
    assert b"\x1b[?1049l" in terminal.output
    assert b"120 done" in terminal.output.rpartition(b"\x1b[?1049l")[2]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
async def test_a_signal_awaits_what_is_in_flight_and_restores_the_terminal(
    terminal: Terminal, number: signal.Signals, code: int
) -> None:
    await _running(terminal)
    terminal.process.send_signal(number)
    assert await terminal.ended() == code
    with Reader.open(tui.journal()) as reader:
        assert reader.totals.unknown == 0
        assert reader.totals.done == tui.left(reader) < 120
        assert reader.check() == []
    assert b"\x1b[?1049l" in terminal.output
    assert b"resume with: batchrun resume out.jsonl" in terminal.output


async def test_a_closed_terminal_ends_the_app_with_a_whole_journal(terminal: Terminal) -> None:
    await _running(terminal)
    os.close(terminal.master)
    for _ in range(int(PATIENCE / 0.05)):
        if terminal.process.poll() is not None:
            break
        await asyncio.sleep(0.05)
    assert terminal.process.poll() is not None
    with Reader.open(tui.journal()) as reader:
        assert reader.check() == []
        assert reader.totals.done > 4


async def test_the_start_page_leads_to_a_finished_run_on_a_real_terminal(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(3))
    Path("prompts/again.prompty").write_text("---\nname: Again\n---\nuser:\n{{ text }}\n")
    shown = Terminal()
    try:
        await shown.until(lambda: b"input files here" in shown.output and b"rows.jsonl" in shown.output)
        shown.press("try")
        await shown.until(lambda: b"ready" in shown.output)
        shown.press("start")
        await shown.until(lambda: totals().done == 3)
        await shown.until(lambda: b"finished" in shown.output)
        shown.press("quit")
        assert await shown.ended() == 0
    finally:
        shown.close()
    assert b"3 done" in shown.output.rpartition(b"\x1b[?1049l")[2]


async def test_without_a_terminal_the_app_is_refused() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "batchrun", "app"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=PATIENCE,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "the app needs a terminal" in ran.stderr


async def _in_the_pager(terminal: Terminal) -> None:
    """A run is active, and one of its rows is in the pager."""
    await _running(terminal)
    terminal.press("enter")
    await terminal.until(lambda: b"Pager" in terminal.output)
    os.write(terminal.master, b"o")
    await terminal.until(lambda: b"PAGER SHOWS" in terminal.output)


async def test_a_row_is_read_in_the_pager_while_the_run_goes_on_and_the_app_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pager = tmp_path / "pager"
    pager.write_text(
        f"#!{sys.executable}\nimport sys\nprint('PAGER SHOWS', open(sys.argv[1]).read())\ninput()\nprint('PAGER ENDS')\n"
    )
    pager.chmod(0o755)
    monkeypatch.setenv("PAGER", str(pager))
    tui.place(tmp_path, tui.rows(120), latency="0.2")
    terminal = Terminal("app", "echo", "rows.jsonl", "--profile", "sim", "--set", "tone=a", "--concurrency", "2")
    try:
        await _in_the_pager(terminal)
        left = terminal.output.rpartition(b"PAGER SHOWS")[0]
        assert b"\x1b[?1049l" in left.rpartition(b"\x1b[?1049h")[2]  # the terminal was the pager's
        before = totals().done
        await terminal.until(lambda: b"[simulated] Row 1 says a word." in terminal.read().rpartition(b"PAGER SHOWS")[2])
        await terminal.until(lambda: totals().done > before + 2)
        os.write(terminal.master, b"\n")
        await terminal.until(lambda: b"Pager" in terminal.output.rpartition(b"PAGER ENDS")[2])
        terminal.press("escape")
        await terminal.until(lambda: b"Filter" in terminal.output.rpartition(b"PAGER ENDS")[2])
        terminal.process.send_signal(signal.SIGTERM)
        assert await terminal.ended() == 143
    finally:
        terminal.close()


def _nobody_has(session: str) -> bool:
    """Whether no process of this session is left."""
    return not subprocess.run(
        ["ps", "-s", session, "-o", "pid="], capture_output=True, text=True, check=False
    ).stdout.split()


async def test_a_signal_ends_the_app_while_the_pager_has_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGER", f"{sys.executable} -c 'import sys; print(\"PAGER SHOWS\"); input()'")
    tui.place(tmp_path, tui.rows(120), latency="0.2")
    terminal = Terminal("app", "echo", "rows.jsonl", "--profile", "sim", "--set", "tone=a", "--concurrency", "2")
    try:
        await _in_the_pager(terminal)
        terminal.process.send_signal(signal.SIGTERM)
        assert await terminal.ended() == 143
        assert terminal.output.rfind(b"\x1b[?1049l") > terminal.output.rfind(b"\x1b[?1049h")
        assert b"resume with" in terminal.output
        assert await asyncio.to_thread(_nobody_has, str(terminal.process.pid))
    finally:
        terminal.close()
