"""However and whenever the app ends or a screen is closed: nothing works on widgets that are gone, or not there yet."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import test_tui_screens as still
import tui
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Static
from textual.worker import Worker

from batchrun.errors import ExitCode
from batchrun.tui.app import BatchrunApp
from batchrun.tui.screens import setup
from batchrun.tui.screens.row import RowScreen
from batchrun.tui.services import EstimateText, NewRun

# Slow: each test starts an app, which takes most of a second.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undisturbed", "alone")]


async def _gone(screen: Screen[Any], selector: str) -> None:
    """Wait until a widget of a screen is gone: whoever waits for this wakes at the worst moment."""
    while screen.query(selector):  # noqa: ASYNC110  at once, not soon
        await asyncio.sleep(0)


async def test_a_row_that_is_closed_before_it_was_read_is_shown_no_more() -> None:
    asked, ended = asyncio.Event(), list[str]()

    class JournalRows(still.StillLook):
        async def record(self, seq: int) -> Any:
            asked.set()
            try:
                await _gone(row, "#heading")
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise
            ended.append("read")
            return await super().record(seq)

    async with BatchrunApp().run_test() as pilot:
        row = RowScreen(JournalRows(), 4, still.Still(still.STATES["done"]))
        await pilot.app.push_screen(row)
        await asked.wait()
        await pilot.app.pop_screen()
        assert ended == ["cancelled"]


async def test_what_a_run_would_cost_is_shown_no_more_once_the_app_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def estimate(_: Mapping[str, Any], __: Callable[[], bool]) -> EstimateText:
        asked.set()
        await _gone(screen, "#plan")
        return EstimateText("1 request", ("rows  1",))

    monkeypatch.setattr(setup, "QUIET", 0.0)
    tui.place(tmp_path, tui.rows(1))
    app = tui.app()
    monkeypatch.setattr(app, "estimate", estimate)
    async with app.run_test() as pilot:
        screen = tui.setup(pilot)
        await asked.wait()
        app.action_show("runs")


def _unmounted(monkeypatch: pytest.MonkeyPatch, seen: Callable[[Static], None]) -> None:
    """Have every text looked at while it is taken from its screen."""
    monkeypatch.setattr(Static, "on_unmount", seen, raising=False)


@pytest.mark.parametrize("by_key", [False, True])
async def test_a_screen_takes_no_message_once_its_widgets_are_taken_away(
    monkeypatch: pytest.MonkeyPatch, *, by_key: bool
) -> None:
    at_work: list[Screen[Any]] = []

    def journal_rows(text: Static) -> None:
        if text.screen.is_running:
            at_work.append(text.screen)

    _unmounted(monkeypatch, journal_rows)
    async with BatchrunApp().run_test() as pilot:
        for name in ("run", "runs"):
            pilot.app.action_show(name)
            await pilot.pause()
        if by_key:
            tui.last_key(pilot, "ctrl+q")
            await tui.ended(pilot)
    assert at_work == []


@pytest.mark.parametrize("name", ["run", "runs"])
async def test_an_app_that_ends_while_a_screen_is_made_ends_in_good_order(name: str) -> None:
    async with BatchrunApp().run_test() as pilot:
        pilot.app.action_show(name)
        pilot.app.quit_on_signal(ExitCode.TERMINATED)
        await tui.ended(pilot)
    assert pilot.app.return_code == 143


async def test_an_app_that_is_told_to_go_while_it_starts_goes_in_good_order() -> None:
    app = BatchrunApp()
    app.call_later(app.quit_on_signal, ExitCode.HANGUP)
    await app.run_async(headless=True)
    assert app.return_code == 129


async def test_work_that_a_last_message_begins_ends_before_the_widgets_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Last(Message):
        """The last that a screen hears."""

    works: list[Worker[None]] = []

    def begin(screen: setup.SetupScreen, _: Last) -> None:
        works.append(screen.run_worker(partial(_gone, screen, "#plan")))

    monkeypatch.setattr(setup.SetupScreen, "on_last", begin, raising=False)
    async with BatchrunApp().run_test() as pilot:
        await tui.until(pilot, lambda: "choose a prompt" in tui.shown(pilot))
        screen = tui.setup(pilot)
        pilot.app.exit()
        screen.post_message(Last())
    assert works[0].is_cancelled


async def test_no_run_begins_in_an_app_that_is_leaving() -> None:
    async with BatchrunApp().run_test() as pilot:
        pilot.app.quit_on_signal(ExitCode.TERMINATED)
        assert not pilot.app.begin(NewRun(flags={}))
