"""What is read late moves nothing in the rows of a run: not the selected row, the preview or the last state."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tui
from textual.app import App, ComposeResult
from textual.widgets import Static

from batchrun.journal import Line, Wanted
from batchrun.models import State
from batchrun.tui import journal_rows
from batchrun.tui.journal_rows import JournalRows
from batchrun.tui.screens.run import RunScreen
from batchrun.tui.screens.setup import SetupScreen
from batchrun.tui.widgets.outcomes import Outcomes, RowPreview

# Slow: each test starts the app.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undisturbed", "alone")]

WIDE = (150, 40)


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
        await tui.quiet(pilot)
        await pilot.pause()
        assert pilot.app.screen is setup


async def test_keys_in_the_row_view_act_on_the_row_that_they_were_pressed_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, may, tasks = JournalRows.record, asyncio.Event(), list[Any]()

    async def slow(rows: JournalRows, seq: int) -> Any:
        await may.wait()
        return await record(rows, seq)

    monkeypatch.setattr(JournalRows, "record", slow)
    may.set()
    tui.place(tmp_path, tui.rows(4), faults=["400=text:Row"])
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: "✗ 4 failed" in tui.shown(pilot) and not pilot.app.busy)
        await tui.read(pilot)
        await pilot.press("enter")
        await tui.until(pilot, lambda: "source · line 1" in tui.shown(pilot))
        monkeypatch.setattr(pilot.app, "begin", tasks.append)
        may.clear()
        await pilot.press("n", "r", "n")
        may.set()
        await tui.until(pilot, lambda: "source · line 3" in tui.shown(pilot))
        assert [task.only for task in tasks] == [(2,)]
