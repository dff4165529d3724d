"""What arrives late takes nothing from the user: no focus, no cursor, no selection, no screen."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tui
from textual.app import App, ComposeResult
from textual.widgets import Input, Static, TextArea

from batchrun.journal import Line, Wanted
from batchrun.models import State
from batchrun.tui import draft, journal_rows
from batchrun.tui.journal_rows import JournalRows
from batchrun.tui.screens.options import OptionsScreen
from batchrun.tui.screens.row import RowScreen
from batchrun.tui.screens.run import RunScreen
from batchrun.tui.screens.runs import RunsScreen
from batchrun.tui.screens.setup import SetupScreen
from batchrun.tui.setup_flags import FROM_VALUE, Origin
from batchrun.tui.widgets.answers import HeadTable
from batchrun.tui.widgets.editor import Editor
from batchrun.tui.widgets.form import Variables
from batchrun.tui.widgets.outcomes import Outcomes, RowPreview

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
            self.may.wait(60)
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
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()
        entry = tui.setup(pilot).form.entry("variable:tone")
        assert pilot.app.focused is (entry if focused is None else tui.setup(pilot).query_one(f"#{focused}"))
        assert keys != ["home"] or pilot.app.focused.cursor_position == 0
        assert ("not started" in tui.told(pilot)) == ("f5" in keys)


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
            await pilot.app.workers.wait_for_complete()
            await tui.until(pilot, lambda shown=shown: isinstance(pilot.app.screen, shown))


class Found:
    """A journal of 100 rows in which a search finds `stretches` of positions."""

    def __init__(self) -> None:
        self.totals, self.stretches = self, [[10, 20, 30]]
        self.rows = 100
        self.may = asyncio.Event()
        self.may.set()

    def positions(self, _: Wanted) -> Iterator[list[int]]:
        yield from self.stretches

    def lines(self, first: int, count: int) -> list[Line]:
        return self.lines_at(range(first + 1, min(self.rows, first + count) + 1))

    def lines_at(self, positions: Any) -> list[Line]:
        state = State.DONE
        return [Line(n, n, n, f"r{n}", state, True, None, None, frozenset(), 1, 0.1, 1, 1, "", "") for n in positions]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Found:
    """What `JournalRows` read, each query once `may` is set."""
    found = Found()

    class Queries:
        def __init__(self, _: Path) -> None: ...

        async def query(self, query: Callable[[Any], Any]) -> Any:
            await found.may.wait()
            return query(found)

        def interrupt(self) -> None: ...

    monkeypatch.setattr(journal_rows, "_Thread", Queries)
    return found


FAILED = Wanted(state=State.FAILED)


async def test_a_list_that_is_found_again_stays_until_it_is_complete_and_the_cursor_stays_on_its_row(
    found: Found,
) -> None:
    class Wall(App[None]):
        def compose(self) -> ComposeResult:
            yield Outcomes()

    async with Wall().run_test() as pilot:
        outcomes, rows = pilot.app.query_one(Outcomes), JournalRows(Path("run.db"))
        totals: list[int] = []

        def changed() -> None:
            totals.append(rows.total)
            outcomes.reread()
            outcomes.found()

        outcomes.show(rows)
        outcomes.focus()
        await rows.choose(FAILED, changed)
        await tui.until(pilot, lambda: rows.total == 3 and outcomes.current is not None)
        await pilot.press("down", "down")
        found.stretches, totals[:] = [[5], [], [10, 20, 25, 30]], []
        await rows.choose(FAILED, changed)
        await tui.until(pilot, lambda: outcomes.cursor == 4 and outcomes.current is not None)
        assert (outcomes.current.line, totals) == (30, [5])


async def test_the_number_of_all_rows_is_not_that_of_a_list_that_was_found_meanwhile(found: Found) -> None:
    rows = JournalRows(Path("run.db"))
    await rows.choose(Wanted(), lambda: None)
    found.may.clear()
    counting = asyncio.create_task(rows.recount())
    await asyncio.sleep(0)
    found.may, may = asyncio.Event(), found.may
    found.may.set()
    await rows.choose(FAILED, lambda: None)
    await asyncio.sleep(0)
    may.set()
    await counting
    assert (rows.total, rows.listed) == (3, FAILED)


async def test_a_search_that_was_broken_off_is_no_longer_shown_as_going_on(found: Found) -> None:
    rows = JournalRows(Path("run.db"))
    found.may.clear()
    searching = asyncio.create_task(rows.choose(FAILED, lambda: None))
    await asyncio.sleep(0)
    assert rows.finding
    found.may.set()
    await rows.choose(Wanted(), lambda: None)
    await searching
    assert (rows.finding, rows.total, rows.listed) == (False, 100, Wanted())


async def test_a_page_that_was_read_before_rows_changed_is_read_again(found: Found) -> None:
    class Wall(App[None]):
        def compose(self) -> ComposeResult:
            yield Outcomes()

    async with Wall().run_test() as pilot:
        outcomes, rows = pilot.app.query_one(Outcomes), JournalRows(Path("run.db"))
        await rows.choose(Wanted(), lambda: None)
        lines, read = found.lines, 0

        def counted(first: int, count: int) -> list[Line]:
            nonlocal read
            read += 1
            return lines(first, count)

        found.lines = counted
        found.may.clear()
        outcomes.show(rows)
        assert outcomes.current is None
        await pilot.pause()  # it is being read
        outcomes.reread()
        found.may.set()
        await tui.until(pilot, lambda: read == 2)


async def test_the_last_rows_are_read_although_the_screen_was_left_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recount, may, waiting = JournalRows.recount, asyncio.Event(), list[bool]()

    async def slow(rows: JournalRows) -> None:
        waiting.append(may.is_set())
        await may.wait()
        await recount(rows)

    monkeypatch.setattr(JournalRows, "recount", slow)
    may.set()
    tui.place(tmp_path, tui.rows(2), latency="0.5")
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        await tui.read(pilot)
        may.clear()
        waiting.clear()
        await tui.until(pilot, lambda: not pilot.app.busy and bool(waiting))
        await pilot.press("f2")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, SetupScreen))
        await pilot.press("f3")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, RunScreen) and len(waiting) > 1)
        may.set()
        await tui.read(pilot, lambda line: line.state is State.DONE)


async def test_the_preview_shows_the_row_under_the_cursor_although_the_list_is_read_again_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, may, asked = JournalRows.record, asyncio.Event(), list[int]()

    async def slow(rows: JournalRows, seq: int) -> Any:
        asked.append(seq)
        await may.wait()
        return await record(rows, seq)

    monkeypatch.setattr(JournalRows, "record", slow)
    may.set()
    tui.place(tmp_path, tui.rows(3))
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: "[simulated] Row 1 says" in str(_preview(pilot)))
        may.clear()
        await pilot.press("down")
        await tui.until(pilot, lambda: asked[-1] == 2)
        pilot.app.screen.query_one(Outcomes).reread()
        await tui.read(pilot)
        await pilot.pause()
        may.set()
        await tui.until(pilot, lambda: "[simulated] Row 2 says" in str(_preview(pilot)))


def _preview(pilot: Any) -> object:
    return pilot.app.screen.query_one(RowPreview).query_one(Static).content


async def test_a_question_that_comes_late_does_not_open_over_another_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, may, asked = JournalRows.query, asyncio.Event(), list[object]()

    async def slow(rows: JournalRows, wanted: Any) -> Any:
        asked.append(wanted)
        await may.wait()
        return await query(rows, wanted)

    monkeypatch.setattr(JournalRows, "query", slow)
    may.set()
    tui.place(tmp_path, tui.rows(2))
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: "● 2 done" in tui.shown(pilot) and not pilot.app.busy)
        await tui.read(pilot)
        may.clear()
        asked.clear()
        await pilot.press("f")
        await tui.until(pilot, lambda: bool(asked))
        await pilot.press("f2")
        setup = pilot.app.screen
        assert isinstance(setup, SetupScreen)
        may.set()
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()
        assert pilot.app.screen is setup
