"""Every text that is drawn can be read in both themes, on every screen (the table of colours is in test_tui_theme.py)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import test_tui_screens as still
import test_tui_theme
import tui
from rich.segment import Segment
from textual.color import Color
from textual.pilot import Pilot
from textual.screen import ModalScreen

from batchrun.tui.app import BatchrunApp
from batchrun.tui.screens import runs
from batchrun.tui.screens.dialogs import Choose, Confirm, Help
from batchrun.tui.screens.pick import Pick
from batchrun.tui.screens.row import RowScreen

# Slow: each test walks through the whole app.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undisturbed", "alone")]

LEAST = 4.5


def contrast(segment: Segment) -> float:
    """The contrast of a text that has both colours, 1 to 21."""
    assert segment.style is not None
    assert segment.style.color is not None
    assert segment.style.bgcolor is not None
    over, under = Color.from_rich_color(segment.style.color), Color.from_rich_color(segment.style.bgcolor)
    if segment.style.reverse:
        over, under = under, over
    return test_tui_theme.contrast(over, under)


def texts(pilot: Pilot[Any]) -> Iterator[Segment]:
    """What is written on the screen; of a question what is in its frame: what lies behind is meant to step back."""
    screen = pilot.app.screen
    lines = screen._compositor.render_strips()
    if isinstance(screen, ModalScreen):
        region = screen.query(".dialog").first().region
        lines = [line.crop(region.x, region.right) for line in lines[region.y : region.bottom]]
    for line in lines:
        yield from (part for part in line if any(map(str.isalnum, part.text)))


async def readable(pilot: Pilot[Any]) -> None:
    await pilot.pause(0.2)
    poor = {f"{part.text.strip()!r}: {contrast(part):.2f}" for part in texts(pilot) if contrast(part) < LEAST}
    assert not poor, pilot.app.screen


@pytest.mark.parametrize("theme", ["batchrun-dark", "batchrun-light"])
async def test_every_screen_and_question_can_be_read(
    theme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "listed", still.summaries)
    tui.place(tmp_path, tui.rows(30))
    flags = {"prompt": "echo", "input": "rows.jsonl", "profile": "sim", "set": ["tone=calmly"]}
    async with BatchrunApp(flags, settings={"theme": theme}).run_test(size=(150, 40)) as pilot:
        await tui.ready(pilot)
        for name in ("input", "model", "profile", "editor", "head"):
            pilot.app.screen.query_one(f"#{name}").focus()
            await readable(pilot)
        await pilot.press("space")
        await readable(pilot)
        for keys, kind in ((["ctrl+o"], Pick), (["f1"], Help)):
            await pilot.press(*keys)
            await tui.until(pilot, lambda kind=kind: isinstance(pilot.app.screen, kind))
            await readable(pilot)
            await pilot.press("down")
            await readable(pilot)
            await pilot.press("escape")
        for seen in still.STATES.values():
            pilot.app.show_run(still.Still(seen))
            await tui.until(pilot, lambda: "rows/s" in tui.shown(pilot))
            await readable(pilot)
        await pilot.press("f")
        await tui.asked(pilot, Choose)
        await pilot.press("down")
        await readable(pilot)
        await pilot.press("escape")
        pilot.app.push_screen(RowScreen(still.StillLook(), 4, still.Still(still.STATES["done"])))
        await tui.until(pilot, lambda: "attempts · 3" in tui.shown(pilot))
        await readable(pilot)
        await pilot.press("escape", "f4")
        await tui.until(pilot, lambda: "articles" in tui.shown(pilot))
        for _ in range(4):
            await readable(pilot)
            await pilot.press("down")
        await pilot.press("d")
        await tui.asked(pilot, Confirm)
        await readable(pilot)
