"""What arrives late takes nothing from the user: no focus, no cursor, no selection, no screen."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_tui_screens as still
import tui
from textual.widgets import Input, OptionList, TextArea
from waiting import PATIENCE

from batchrun.errors import ExitCode
from batchrun.registry import Summary
from batchrun.tui import draft, overview, session
from batchrun.tui.app import BatchrunApp
from batchrun.tui.screens import runs
from batchrun.tui.screens.dialogs import Confirm, Help
from batchrun.tui.screens.options import OptionsScreen
from batchrun.tui.screens.row import RowScreen
from batchrun.tui.screens.run import RunScreen
from batchrun.tui.screens.runs import RunsScreen
from batchrun.tui.screens.setup import SetupScreen
from batchrun.tui.setup_flags import FROM_VALUE, Origin
from batchrun.tui.widgets.answers import HeadTable
from batchrun.tui.widgets.controls import RowTable
from batchrun.tui.widgets.editor import Editor
from batchrun.tui.widgets.form import Variables

# Slow: each test starts the app.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undisturbed", "alone")]

WIDE = (150, 40)


class Held:
    """Functions that run in threads of the app, and return only once `may` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may = threading.Event()
        self._monkeypatch = monkeypatch
        self.calls = 0

    def hold(self, where: Any, name: str) -> None:
        self.may.clear()
        real: Callable[..., Any] = getattr(where, name)

        def held(*values: Any, **named: Any) -> Any:
            self.calls += 1
            self.may.wait(PATIENCE)
            return real(*values, **named)

        self._monkeypatch.setattr(where, name, held)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held(monkeypatch)
    yield held
    held.may.set()  # no thread stays behind where a test fails


@pytest.mark.parametrize(
    ("keys", "focused"),
    [
        ([], None),
        (["f7"], "editor"),
        (["home"], "input"),
        (["shift+tab"], "prompt"),
        (["enter"], None),
        (["enter", "f7"], "editor"),
        (["f5", "f7"], "editor"),
    ],
)
async def test_the_setup_goes_to_what_is_missing_only_before_the_next_key(
    tmp_path: Path, held: Held, keys: list[str], focused: str | None
) -> None:
    tui.place(tmp_path, tui.rows(2))
    held.hold(draft, "read_head")
    async with tui.app(set=[]).run_test(size=WIDE) as pilot:
        await tui.until(pilot, lambda: "Says a row again." in tui.shown(pilot))
        await tui.until(pilot, lambda: isinstance(pilot.app.focused, Input) and pilot.app.focused.id == "input")
        for key in keys:
            await pilot.press(key)
        held.may.set()
        await tui.until(pilot, lambda: "✗ tone" in tui.shown(pilot))
        await tui.quiet(pilot)
        await pilot.pause()
        entry = tui.setup(pilot).form.entry("variable:tone")
        assert pilot.app.focused is (entry if focused is None else tui.setup(pilot).query_one(f"#{focused}"))
        assert keys != ["home"] or pilot.app.focused.cursor_position == 0
        assert ("not started" in tui.told(pilot)) == ("f5" in keys)


async def test_start_goes_from_another_pane_to_the_field_that_lacks_a_value(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(2))
    async with tui.app(set=[]).run_test(size=WIDE) as pilot:
        await tui.until(pilot, lambda: "✗ tone" in tui.shown(pilot))
        await tui.quiet(pilot)
        await pilot.press("f7")
        await tui.until(pilot, lambda: isinstance(pilot.app.focused, Editor))
        await pilot.press("f5")
        entry = tui.setup(pilot).form.entry("variable:tone")
        await tui.until(pilot, lambda: "not started" in tui.told(pilot) and pilot.app.focused is entry)


async def test_files_that_are_read_again_take_neither_cursor_nor_selected_rows_nor_a_choice(
    tmp_path: Path, held: Held
) -> None:
    tui.place(tmp_path, tui.rows(5))
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.ready(pilot)
        screen = tui.setup(pilot)
        editor, table, text = (
            screen.query_one(Editor),
            screen.query_one(HeadTable),
            screen.query_one(Variables).fields["text"],
        )
        held.hold(draft, "read_head")
        held.hold(draft, "read_prompt")
        screen.action_options()
        await tui.asked(pilot, OptionsScreen)
        await pilot.press("escape")
        await tui.until(pilot, lambda: held.calls == 2)
        editor.move_cursor((3, 2))
        table.move_cursor(row=1)
        table.action_mark()
        text.choose(FROM_VALUE)
        held.may.set()
        await tui.until(pilot, lambda: screen._names_read == {"prompt": "echo", "input": "rows.jsonl"})
        assert (editor.cursor_location, table.marked, table.cursor_row) == ((3, 2), {2}, 2)
        assert text.origin == Origin(FROM_VALUE, "")
        assert pilot.app.focused is text.entry


async def test_the_last_key_in_a_prompt_is_kept_when_another_is_chosen(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(2))
    Path("prompts/other.prompty").write_text("user:\n{{ text }}\n")
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.ready(pilot)
        editor, name = tui.setup(pilot).query_one(Editor), tui.setup(pilot).query_one("#prompt", Input)
        with editor.prevent(TextArea.Changed):  # its message has not been handled yet
            editor.insert("odd")
        name.value = "other"
        await tui.until(pilot, lambda: editor.text.startswith("user:"))
        name.value = "echo"
        await tui.until(pilot, lambda: editor.text.startswith("odd---"))


async def test_the_setup_of_a_row_is_shown_once_its_run_was_read_and_not_over_another_screen(
    tmp_path: Path, held: Held
) -> None:
    tui.place(tmp_path, tui.rows(2))
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: "● 2 done" in tui.shown(pilot) and not pilot.app.busy)
        await tui.read(pilot)
        held.hold(draft, "plan_of")
        for key, shown in (("f4", RunsScreen), (None, SetupScreen)):
            await pilot.press("f3")
            await tui.until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
            await pilot.press("enter")
            await tui.until(pilot, lambda: "attempts · 1" in tui.shown(pilot))
            held.calls = 0
            held.may.clear()
            await pilot.press("e")
            await tui.until(pilot, lambda: held.calls == 1)
            assert isinstance(pilot.app.screen, RowScreen)
            if key is not None:
                await pilot.press(key)
                await tui.until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
            held.may.set()
            await tui.quiet(pilot)
            await tui.until(pilot, lambda shown=shown: isinstance(pilot.app.screen, shown))


async def test_a_run_that_is_refused_late_is_reported_where_its_user_has_gone(tmp_path: Path, held: Held) -> None:
    tui.place(tmp_path, tui.rows(2))
    Path("out.jsonl").write_text("of another program\n")
    async with tui.app().run_test(size=WIDE) as pilot:
        held.hold(session, "prepare")
        await tui.started(pilot)
        await pilot.press("f4", "f1")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, Help))
        held.may.set()
        await tui.until(pilot, lambda: "belongs to no run" in tui.told(pilot))
        assert isinstance(pilot.app.screen, Help)
        await pilot.press("escape", "f2")
        await tui.until(pilot, lambda: "belongs to no run" in tui.shown(pilot).replace("\n", " "))


async def test_a_run_that_ends_while_the_app_asks_about_it_was_not_interrupted(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(2), latency="0.5")
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: pilot.app.steered.snapshot().progress.in_flight > 0)
        await pilot.press("ctrl+q")
        await tui.asked(pilot, Confirm)
        await tui.until(pilot, lambda: not pilot.app.busy)
        tui.last_key(pilot, "enter")
        await tui.ended(pilot)
    assert pilot.app.return_code == ExitCode.OK


async def test_a_list_of_runs_that_has_changed_is_not_scrolled_and_keeps_its_cursor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, *_, last = still.summaries(None)
    count = 60

    def listed(_: object) -> list[Summary]:
        metas = [replace(last.run.meta, run=f"run-{n}", created=1e9 + n) for n in range(count)]
        return [*(last._replace(run=last.run._replace(meta=meta)) for meta in metas), first]

    monkeypatch.setattr(runs, "listed", listed)
    async with BatchrunApp().run_test(size=WIDE) as pilot:
        pilot.app.action_show("runs")
        await tui.until(pilot, lambda: "run-59" in tui.shown(pilot))
        table = pilot.app.screen.query_one(RowTable)
        await pilot.press("down", "down")
        table.scroll_to(y=20, animate=False)
        await tui.until(pilot, lambda: table.scroll_offset.y == 20)
        count = 61
        await tui.until(pilot, lambda: table.row_count == 62 and table.scroll_offset.y == 21)
        assert table.cursor_row == 3


async def test_a_start_page_that_has_changed_keeps_its_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    found = overview.Overview((), (), (overview.Item("a.csv", "csv"), overview.Item("b.csv", "csv")))
    monkeypatch.setattr(overview, "overview", lambda _: found)
    async with BatchrunApp().run_test(size=WIDE) as pilot:
        pilot.app.action_show("start")
        await tui.until(pilot, lambda: "b.csv" in tui.shown(pilot))
        await pilot.press("i", "down")
        found = found._replace(inputs=(overview.Item("0.csv", "csv"), *found.inputs))
        await pilot.press("f2", "f9")
        await tui.until(pilot, lambda: "0.csv" in tui.shown(pilot))
        assert pilot.app.screen.query_one(OptionList).highlighted_option.id == "inputs:2"
