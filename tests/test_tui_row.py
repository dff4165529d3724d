"""The row view and the deletion of a run, over a journal that is not there: what a key does."""

import asyncio
import base64
import sys
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_tui_screens as still
import tui
from textual.pilot import Pilot
from waiting import PATIENCE
from wire import chat

from batchrun import registry
from batchrun.models import State
from batchrun.tui.app import BatchrunApp
from batchrun.tui.screens import runs
from batchrun.tui.screens.dialogs import Choose, Confirm
from batchrun.tui.screens.row import RowScreen
from batchrun.tui.screens.run import RunScreen
from batchrun.tui.screens.runs import RunsScreen
from batchrun.tui.services import ResumedRun, Task
from batchrun.tui.widgets.outcomes import Outcomes

# Slow: each test starts an app, which takes most of a second.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undisturbed", "alone")]


class JournalRows(still.StillLook):
    """One failed row."""

    path = Path("run.db")

    def __init__(self, **changes: Any) -> None:
        self._record = still.RECORD._replace(**changes)

    async def record(self, _: int) -> Any:
        return self._record, still.ATTEMPTS


class Asked(BatchrunApp):
    """An app that notes which runs it is asked for."""

    CSS_PATH = Path(str(sys.modules[BatchrunApp.__module__].__file__)).with_name("app.tcss")

    def __init__(self, flags: Mapping[str, Any] | None = None) -> None:
        super().__init__(flags)
        self.tasks: list[Task] = []
        self.edited: list[tuple[Path, int]] = []

    def begin(self, task: Task) -> bool:
        self.tasks.append(task)
        return True

    def edit_again(self, path: Path, position: int) -> None:
        self.edited.append((path, position))


async def _shown(pilot: Pilot[Any], **changes: Any) -> None:
    seen = still.Still(replace(still.STATES["done"], reference="out.jsonl"))
    pilot.app.push_screen(RowScreen(JournalRows(**changes), 4, seen))
    await tui.until(pilot, lambda: "attempts · 3" in tui.shown(pilot))


async def test_a_reply_is_copied_through_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Asked().run_test() as pilot:
        await _shown(pilot)
        written: list[str] = []
        monkeypatch.setattr(pilot.app._driver, "write", written.append)
        await pilot.press("c")
        await tui.until(pilot, lambda: any(text.startswith("\x1b]52;c;") for text in written))
        (sent,) = [text for text in written if text.startswith("\x1b]52;c;")]
        assert "Guten Tag [/x]" in base64.b64decode(sent.removeprefix("\x1b]52;c;").rstrip("\x07\x1b\\")).decode()


async def test_what_the_model_thought_is_shown_below_its_reply_and_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    body = chat("<think>\nLet me see.\n</think>\n\nGuten Tag").decode()
    async with Asked().run_test(size=(140, 40)) as pilot:
        await _shown(pilot, value=None, body=body)
        shown = tui.shown(pilot)
        assert "Guten Tag" in shown
        assert "Let me see." in shown
        assert "<think>" not in shown
        written: list[str] = []
        monkeypatch.setattr(pilot.app._driver, "write", written.append)
        await pilot.press("c")
        await tui.until(pilot, lambda: any(text.startswith("\x1b]52;c;") for text in written))
        (sent,) = [text for text in written if text.startswith("\x1b]52;c;")]
        assert base64.b64decode(sent.removeprefix("\x1b]52;c;").rstrip("\x07\x1b\\")).decode() == "Guten Tag"


async def test_the_pager_gets_all_of_a_row_and_nothing_that_acts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pager = tmp_path / "my pager"
    pager.write_text(f"#!/bin/sh\ncp \"$2\" '{tmp_path}/read.txt'\n")
    pager.chmod(0o755)
    monkeypatch.setenv("PAGER", f"'{pager}' -R")
    monkeypatch.setattr(Asked, "suspend", lambda _: nullcontext())
    async with Asked().run_test() as pilot:
        await _shown(pilot, value=f'"{"x" * 50_000}\\u001b]0;owned"')
        await pilot.press("o")
        await tui.until(pilot, (tmp_path / "read.txt").exists)
    read = (tmp_path / "read.txt").read_text()
    assert "x" * 50_000 in read
    assert "\x1b" not in read
    assert "=== attempts ===" in read


async def test_a_failed_row_is_sent_again_alone_and_one_that_is_done_is_not() -> None:
    async with Asked().run_test() as pilot:
        await _shown(pilot)
        await pilot.press("r")
        assert pilot.app.tasks == []
        pilot.app.pop_screen()
        await _shown(pilot, state=State.FAILED)
        await pilot.press("r")
        await tui.until(pilot, lambda: pilot.app.tasks == [ResumedRun(reference="out.jsonl", flags={}, only=(4,))])


async def test_keys_that_come_before_the_row_was_read_act_once_it_has_been() -> None:
    may = asyncio.Event()

    class Slow(JournalRows):
        async def record(self, _: int) -> Any:
            await may.wait()
            return await super().record(_)

    async with Asked().run_test() as pilot:
        seen = still.Still(replace(still.STATES["done"], reference="out.jsonl"))
        pilot.app.push_screen(RowScreen(Slow(state=State.FAILED), 4, seen))
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, RowScreen) and pilot.app.screen.is_mounted)
        await pilot.press("c", "r", "e")
        assert (tui.told(pilot), pilot.app.tasks, pilot.app.edited) == ("", [], [])
        may.set()
        await tui.until(pilot, lambda: bool(pilot.app.edited))
        assert tui.told(pilot) == "the reply is copied"
        assert pilot.app.tasks == [ResumedRun(reference="out.jsonl", flags={}, only=(4,))]


async def test_the_prompt_of_a_row_is_edited_to_try_that_row() -> None:
    async with Asked().run_test() as pilot:
        await _shown(pilot)
        await pilot.press("e")
        await tui.until(pilot, lambda: pilot.app.edited == [(Path("run.db"), 4)])


async def test_everything_that_failed_for_one_cause_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    line = still.RECORD._replace(state=State.FAILED, cause="503 overloaded")

    async def reached(_: Outcomes) -> Any:
        return line

    monkeypatch.setattr(Outcomes, "reached", reached)
    async with Asked().run_test() as pilot:
        pilot.app.show_run(still.Still(replace(still.STATES["failing"], reference="out.jsonl")))
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, RunScreen) and "rows/s" in tui.shown(pilot))
        await pilot.press("r")
        await tui.asked(pilot, Choose)
        await pilot.press("down", "enter")
        await tui.until(pilot, lambda: bool(pilot.app.tasks))
        assert pilot.app.tasks == [ResumedRun(reference="out.jsonl", flags={}, cause="503 overloaded")]


async def test_a_key_that_comes_before_the_runs_were_read_acts_once_they_have_been(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may, shown = threading.Event(), list[object]()

    def slow(directory: object) -> Any:
        may.wait(PATIENCE)
        return still.summaries(directory)

    monkeypatch.setattr(runs, "listed", slow)
    async with Asked().run_test() as pilot:
        monkeypatch.setattr(pilot.app, "show_run", shown.append)
        pilot.app.action_show("runs")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and pilot.app.focused is not None)
        await pilot.press("enter", "f")
        assert (shown, pilot.app.tasks) == ([], [])
        may.set()
        await tui.until(pilot, lambda: len(shown) == 1 and "Enter shows it" in tui.told(pilot))


async def test_a_run_is_deleted_after_a_question_and_not_without(monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []
    monkeypatch.setattr(runs, "listed", still.summaries)
    monkeypatch.setattr(registry, "remove", lambda run: removed.append(run.id))
    async with Asked().run_test() as pilot:
        pilot.app.action_show("runs")
        await tui.until(pilot, lambda: "articles" in tui.shown(pilot))
        await pilot.press("down", "d")
        await tui.asked(pilot, Confirm)
        await tui.until(pilot, lambda: "replies that were paid for" in tui.shown(pilot))
        await pilot.press("escape")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        assert removed == []
        await pilot.press("d")
        await tui.asked(pilot, Confirm)
        await pilot.press("enter")
        await tui.until(pilot, lambda: removed == ["20261120-1015-simu"])
