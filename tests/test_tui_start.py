"""The start page: what it lists, and that one key leads from there to a run."""

import json
from pathlib import Path

import pytest
import tui
from textual.widgets import Input

from batchrun.tui.app import BatchrunApp
from batchrun.tui.overview import rows_of
from batchrun.tui.screens.run import RunScreen
from batchrun.tui.screens.setup import SetupScreen

# Slow: each test starts the app.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undisturbed", "alone")]

PLAIN = "---\nname: Again\ndescription: Repeats it.\n---\nuser:\n{{ text }}\n"


def _begun() -> BatchrunApp:
    app = BatchrunApp({})
    app.call_later(app.action_show, "start")
    return app


@pytest.mark.parametrize("size", [(80, 24), (120, 36)])
async def test_without_a_key_two_keys_lead_to_a_finished_run(tmp_path: Path, size: tuple[int, int]) -> None:
    tui.place(tmp_path, tui.rows(3))
    Path("prompts/again.prompty").write_text(PLAIN)
    async with _begun().run_test(size=size) as pilot:
        await tui.until(pilot, lambda: "rows.jsonl" in tui.shown(pilot))
        shown = tui.shown(pilot)
        assert "jsonl · 3 rows" in shown
        assert "Repeats it." in shown
        assert "none yet" in shown
        await pilot.press("t")
        await tui.ready(pilot)
        await pilot.press("f5")
        await tui.until(pilot, lambda: "● 3 done" in tui.shown(pilot) and not pilot.app.busy)
        await pilot.press("f9")
        await tui.until(pilot, lambda: "finished 3/3 · again · rows.jsonl · SIMULATED" in tui.shown(pilot))
        await pilot.press("r", "enter")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, RunScreen) and "● 3 done" in tui.shown(pilot))


async def test_an_input_and_a_prompt_of_the_page_fill_the_setup(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(2))
    async with _begun().run_test(size=(80, 24)) as pilot:
        await tui.until(pilot, lambda: "rows.jsonl" in tui.shown(pilot))
        await pilot.press("i", "enter")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, SetupScreen))
        await tui.until(pilot, lambda: tui.setup(pilot).query_one("#input", Input).value == "rows.jsonl")
        await pilot.press("f9")
        await tui.until(pilot, lambda: "Says a row again." in tui.shown(pilot))
        await pilot.press("p", "enter")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, SetupScreen))
        await tui.until(pilot, lambda: tui.setup(pilot).query_one("#prompt", Input).value == "echo")


async def test_an_empty_directory_says_what_to_do(tmp_path: Path) -> None:
    async with _begun().run_test(size=(80, 24)) as pilot:
        await tui.until(pilot, lambda: "go to a directory with a .jsonl" in tui.shown(pilot))
        await pilot.press("i")
        await pilot.press("n")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, SetupScreen))


def test_rows_are_counted_where_that_is_cheap(tmp_path: Path) -> None:
    lines = tmp_path / "a.jsonl"
    lines.write_text("\n".join(json.dumps({"n": n}) for n in range(3)) + "\n\n")
    table = tmp_path / "a.csv"
    table.write_text('id,text\n1,"two\nlines"\n2,b\n')
    assert rows_of(lines, "jsonl") == 3
    assert rows_of(table, "csv") == 2
    assert rows_of(table, "xlsx") is None
