"""The mouse: each thing that looks as if it could be clicked can be, and every pane scrolls."""

from pathlib import Path
from typing import Any

import pytest
import tui
from textual import events
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import Footer, Input, Static, Tab

from batchrun.tui.screens.row import RowScreen
from batchrun.tui.screens.run import RunScreen
from batchrun.tui.screens.runs import RunsScreen
from batchrun.tui.screens.setup import SetupScreen
from batchrun.tui.screens.start import StartScreen
from batchrun.tui.widgets.answers import HeadTable
from batchrun.tui.widgets.editor import Editor
from batchrun.tui.widgets.outcomes import Outcomes, RowPreview

# Slow: each test starts the app.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undisturbed", "alone")]


async def click(pilot: Pilot[Any], said: str, times: int = 1) -> None:
    """Click the first place of the screen where this is written."""
    await tui.until(pilot, lambda: said in tui.shown(pilot))
    await tui.until(pilot, lambda: said in tui.shown(pilot))
    y, line = next((y, line) for y, line in enumerate(tui.shown(pilot).split("\n")) if said in line)
    await pilot.click(offset=(line.index(said) + 1, y), times=times)


async def test_screens_tabs_footer_and_checklist_are_clicked(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(3))
    async with tui.app().run_test(size=(80, 24)) as pilot:
        await tui.ready(pilot)
        screen = tui.setup(pilot)
        for name in ("request", "prompt-pane"):
            await pilot.click(f"#tab-{name}")
            await tui.until(pilot, lambda name=name: screen.query_one(f"#{name}").has_class("-chosen"))
        await tui.until(pilot, lambda: pilot.app.focused is screen.query_one(Editor))
        await click(pilot, "✓ input")
        await tui.until(pilot, lambda: pilot.app.focused is screen.query_one("#input", Input))
        for title, kind in (("f4 Runs", RunsScreen), ("f9 Start", StartScreen), ("f2 Setup", SetupScreen)):
            await click(pilot, title)
            await tui.until(pilot, lambda kind=kind: isinstance(pilot.app.screen, kind))
        await tui.until(pilot, lambda: "f1 Help" in tui.shown(pilot))
        await click(pilot, "f7 Next pane")
        await tui.until(pilot, lambda: screen.query_one("#prompt-pane").has_class("-chosen"))
        assert screen.query_one(Footer)
        assert screen.query_one("#tab-prompt-pane", Tab)


async def test_rows_titles_causes_states_and_runs_are_clicked(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(60), faults=["400=text:Row 60"])
    async with tui.app().run_test(size=(200, 36)) as pilot:
        screen = await tui.started(pilot)
        await tui.until(pilot, lambda: "✗ 1 failed" in tui.shown(pilot) and not pilot.app.busy)
        await tui.read(pilot)
        outcomes = screen.query_one(Outcomes)
        await click(pilot, "Row 5 says")
        await tui.until(pilot, lambda: outcomes.cursor == 4)
        await click(pilot, "Row 3 says", times=2)
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, RowScreen))
        await tui.until(pilot, lambda: "source · line 3" in tui.shown(pilot))
        await pilot.press("escape")
        await tui.until(pilot, lambda: pilot.app.screen is screen)
        await click(pilot, "latency ")
        await tui.until(pilot, lambda: "by latency, most first" in tui.shown(pilot) and "▼latency" in tui.shown(pilot))
        await click(pilot, " line ")
        await tui.until(pilot, lambda: "▼" not in tui.shown(pilot))
        await click(pilot, "✗ 1 failed  of 60")
        await tui.until(pilot, lambda: "failed · 1" in tui.shown(pilot))
        await pilot.press("escape")
        await click(pilot, "400 invalid_value")
        await tui.until(pilot, lambda: "because of 400" in tui.shown(pilot) and outcomes.total == 1)
        await click(pilot, "state ")
        await tui.until(pilot, lambda: "60  all rows" in tui.shown(pilot))
        await pilot.press("escape")
        await tui.until(pilot, lambda: pilot.app.screen is screen)
        preview = screen.query_one(RowPreview)
        assert preview.region.x > outcomes.region.x
        width = preview.size.width
        await pilot.press("alt+left")
        await tui.until(pilot, lambda: preview.size.width > width)
        await click(pilot, "f4 Runs")
        await tui.until(pilot, lambda: "started ▾" in tui.shown(pilot))
        await click(pilot, "output")
        await tui.until(pilot, lambda: "output ▾" in tui.shown(pilot) and "started ▾" not in tui.shown(pilot))
        await click(pilot, "out.jsonl")
        assert isinstance(pilot.app.screen, RunsScreen)
        await click(pilot, "out.jsonl", times=2)
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))


async def test_a_double_click_marks_a_row_to_try_and_borders_are_moved_with_keys(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(3))
    async with tui.app().run_test(size=(130, 36)) as pilot:
        await tui.ready(pilot)
        table, form, rows = (tui.setup(pilot).query_one(name) for name in ("#head", "#form", "#rows"))
        await click(pilot, "Row 2 says", times=2)
        assert isinstance(table, HeadTable)
        await tui.until(pilot, lambda: table.marked == {2})
        plan = tui.setup(pilot).query_one("#plan-lines")
        await tui.until(pilot, lambda: plan.max_scroll_y > 0)  # the plan has more lines than there is room for
        _wheel(plan)
        await tui.until(pilot, lambda: plan.scroll_offset.y > 0)
        width, height = form.size.width, rows.size.height
        await pilot.press("alt+right", "alt+up")
        await tui.until(pilot, lambda: form.size.width == width + 4 and rows.size.height > height)


async def test_the_preview_is_shown_below_the_list_where_it_has_no_room_beside_it(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(60))
    async with tui.app().run_test(size=(80, 24)) as pilot:
        screen = await tui.started(pilot)
        await tui.until(pilot, lambda: "finished" in tui.shown(pilot) and not pilot.app.busy)
        outcomes, preview = screen.query_one(Outcomes), screen.query_one(RowPreview)
        assert not preview.display
        await pilot.press("v")
        await tui.until(pilot, lambda: preview.size.height > 0 and "line 1" in _text(preview))
        assert preview.region.y > outcomes.region.y
        height = preview.size.height
        await pilot.press("alt+up", "alt+up", "alt+up")
        await tui.until(pilot, lambda: preview.size.height > height)
        _wheel(outcomes)
        await tui.until(pilot, lambda: outcomes.scroll_offset.y > 0)
        await pilot.press("v")
        await tui.until(pilot, lambda: not preview.display)


def _text(preview: RowPreview) -> str:
    return str(preview.query_one(Static).content)


def _wheel(widget: Widget) -> None:
    place = widget.region.center
    at = {"x": 1, "y": 1, "delta_x": 0, "delta_y": 1, "button": 0, "shift": False, "meta": False, "ctrl": False}
    widget.post_message(events.MouseScrollDown(widget, screen_x=place[0], screen_y=place[1], **at))
