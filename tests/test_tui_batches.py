"""The batches of a run in the app."""

from pathlib import Path

import pytest
import tui

from batchrun.tui.screens.dialogs import Choose
from batchrun.tui.screens.listing import BatchesScreen

# Slow: it starts an app and a run.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undisturbed", "alone")]


async def test_a_key_shows_the_batches_of_a_run_that_was_started_with_the_option() -> None:
    tui.place(Path.cwd(), tui.rows(3), batch_seconds=3000.0)
    async with tui.app(batch=True).run_test(size=(160, 40)) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: "3 in a batch" in tui.shown(pilot))
        await pilot.press("b")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, BatchesScreen))
        await tui.until(pilot, lambda: "3 in batches = 3 input rows" in tui.shown(pilot))
        assert "finish-live" in tui.shown(pilot)
        await pilot.press("escape")
        await tui.until(pilot, lambda: not isinstance(pilot.app.screen, BatchesScreen))
        await pilot.press("x")
        await tui.until(pilot, lambda: "3 rows in 1 batch at the provider" in tui.shown(pilot))
        assert "r collects the results of batches: 3 rows" in tui.shown(pilot)
        await tui.read(pilot)
        await pilot.press("r")
        await tui.asked(pilot, Choose)
        assert "rows in batches: 3" in tui.shown(pilot)
