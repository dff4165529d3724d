"""The app as its user meets it: what is seen, and what the engine did. Over the simulated provider, on a real journal."""

import asyncio
import json
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import tui
from textual.widgets import Input, Select
from waiting import PATIENCE

from batchrun import steering
from batchrun.journal import Reader
from batchrun.models import State
from batchrun.registry import RunFile
from batchrun.tui.app import BatchrunApp
from batchrun.tui.screens.dialogs import Choose, Confirm
from batchrun.tui.screens.row import RowScreen
from batchrun.tui.screens.run import RunScreen
from batchrun.tui.screens.runs import RunsScreen
from batchrun.tui.screens.setup import SetupScreen
from batchrun.tui.services import Phase
from batchrun.tui.widgets.editor import Editor
from batchrun.tui.widgets.outcomes import Outcomes

# Slow: each test waits for a real run.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undisturbed", "alone")]

WIDE = (150, 40)
HOSTILE = "\x1b]0;owned\x07 [/x] [@click=app.quit]x[/] \u202eabc\u202c \x9b31m a\u0301\u0302 漢字 \r\n second [bold"


async def test_a_run_is_set_up_started_and_finished(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(5))
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.ready(pilot)
        await tui.until(pilot, lambda: "Say it calmly." in tui.shown(pilot))
        seen = tui.shown(pilot)
        assert "batchrun --input rows.jsonl --prompt echo --set tone=calmly --profile sim --output out.jsonl" in seen
        await tui.started(pilot)
        await tui.until(pilot, lambda: "finished" in tui.shown(pilot))
        await tui.until(pilot, lambda: "● done" in tui.shown(pilot))
        await tui.until(pilot, lambda: "● 5 done" in tui.shown(pilot))
        await tui.until(pilot, lambda: "SIMULATED" in tui.shown(pilot))
        await pilot.press("p")
        await tui.until(pilot, lambda: "this run has ended" in tui.told(pilot))
    written = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in written] == ["r1", "r2", "r3", "r4", "r5"]
    assert all("[simulated]" in row["output"] for row in written)


async def test_an_empty_setup_asks_for_the_prompt_first_and_then_for_the_input(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(2))
    async with BatchrunApp({"profile": "sim"}).run_test(size=WIDE) as pilot:
        await tui.until(pilot, lambda: pilot.app.focused is not None and "choose a prompt" in tui.shown(pilot))
        await pilot.press("ctrl+o")
        await tui.until(pilot, lambda: "Which prompt?" in tui.shown(pilot) and "summarize" in tui.shown(pilot))
        await pilot.press("enter")
        await tui.until(pilot, lambda: "Says a row again." in tui.shown(pilot))
        await pilot.press("f3")
        await tui.until(pilot, lambda: "No run is shown" in tui.shown(pilot))


async def test_a_provider_is_found_by_the_beginning_of_its_name(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(2))
    async with tui.app(profile="openai").run_test(size=WIDE) as pilot:
        await tui.until(pilot, lambda: "api.openai.com" in tui.shown(pilot))
        profile = tui.setup(pilot).query_one("#profile", Select)
        profile.focus()
        await tui.until(pilot, lambda: pilot.app.focused is profile)
        await pilot.press("enter")
        await tui.until(pilot, lambda: profile.expanded and pilot.app.focused is not profile)
        await pilot.press("s", "enter")  # one letter: after 0.7 s another would begin a search of its own
        await tui.until(pilot, lambda: "--profile sim" in tui.shown(pilot))


async def test_a_missing_variable_is_marked_and_typing_it_mends_the_request(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(2))
    async with tui.app(set=[]).run_test(size=WIDE) as pilot:
        await tui.until(pilot, lambda: "Say it ⟨tone⟩." in tui.shown(pilot))
        await tui.until(pilot, lambda: "no value for `tone`" in tui.shown(pilot))
        (typed,) = (field for field in tui.setup(pilot).query("VariableField Input").results(Input) if field.display)
        typed.value = "loudly"
        await tui.until(pilot, lambda: "Say it loudly." in tui.shown(pilot))
        await tui.until(pilot, lambda: "--set tone=loudly" in tui.shown(pilot))


async def test_a_prompt_is_edited_and_saved_and_its_request_follows_each_key(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(2))
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.ready(pilot)
        editor = tui.setup(pilot).query_one(Editor)
        editor.text = editor.text.replace("Say it", "Sing it")
        await tui.until(pilot, lambda: "Sing it calmly." in tui.shown(pilot))
        await tui.until(pilot, lambda: "edited" in tui.shown(pilot))
        await pilot.press("ctrl+s")
        await tui.until(pilot, lambda: "Sing it" in Path("prompts/echo.prompty").read_text())
        editor.text = "---\nname: [\n---\nx"
        await tui.until(pilot, lambda: "ready" not in tui.shown(pilot))
        await pilot.press("f5")
        assert not Path(".batchrun").exists()


async def test_tried_rows_are_not_paid_for_again_by_the_run(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(6))
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.ready(pilot)
        tui.setup(pilot).query_one("#head").focus()
        await pilot.press("space", "space", "f6")
        await tui.until(pilot, lambda: "[simulated] Row 2 says a word." in tui.shown(pilot))
        assert tui.attempts() == 2
        assert not Path("out.jsonl").exists()
        await pilot.press("f5")
        await tui.until(pilot, lambda: "finished" in tui.shown(pilot))
        assert tui.attempts() == 6


async def test_a_changed_prompt_tries_the_rows_again_and_asks_before_a_run_pays_again(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(3))
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: "finished" in tui.shown(pilot))
        await pilot.press("f2")
        editor = tui.setup(pilot).query_one(Editor)
        editor.text = editor.text.replace("Say it", "Sing it")
        await tui.until(pilot, lambda: "Sing it calmly" in tui.shown(pilot))
        await pilot.press("f5")
        await tui.asked(pilot, Confirm)
        await tui.until(pilot, lambda: "3 already done would be sent again" in tui.shown(pilot).replace("\n", " "))
        await pilot.press("escape")
        assert tui.attempts() == 3


async def test_a_paused_run_sends_nothing_and_goes_on(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(300), latency="0.05", concurrency=4, queue=True)
    async with tui.app(concurrency="4").run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        session = pilot.app.steered
        await tui.until(pilot, lambda: session.snapshot().progress.done > 4)
        await pilot.press("p")
        await tui.until(pilot, lambda: session.snapshot().progress.in_flight == 0)
        await tui.until(pilot, lambda: "paused" in tui.shown(pilot))
        before = session.snapshot().progress.attempts
        await pilot.pause(0.4)
        assert session.snapshot().progress.attempts == before < 300
        await pilot.press("plus", "plus")
        await tui.until(pilot, lambda: session.snapshot().bounds.cap == 6)
        await pilot.press("left_square_bracket")
        await tui.until(pilot, lambda: session.snapshot().bounds.rpm is not None)
        await pilot.press("p")
        await tui.until(pilot, lambda: session.snapshot().progress.attempts > before)
        await pilot.press("x")
        await tui.until(pilot, lambda: session.snapshot().phase is Phase.ENDED)
    with Reader.open(tui.journal()) as reader:
        assert reader.totals.unknown == 0
        assert reader.totals.pending > 0


async def test_leaving_asks_awaits_what_is_in_flight_and_keeps_the_journal_whole(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(200), latency="0.3")
    app = tui.app(concurrency="5")
    async with app.run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: app.steered.snapshot().progress.done > 0)
        await pilot.press("q")
        await tui.asked(pilot, Confirm)
        tui.last_key(pilot, "enter")
        await tui.ended(pilot)
    assert app.return_code == 130
    with Reader.open(tui.journal()) as reader:
        assert reader.check() == []
        assert (reader.totals.unknown, tui.left(reader)) == (0, reader.totals.done)
    assert any("batchrun resume out.jsonl" in line for line in app.closing_lines())


async def test_rows_are_filtered_searched_sorted_and_opened(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(40))
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: "finished" in tui.shown(pilot))
        outcomes = pilot.app.screen.query_one(Outcomes)
        await tui.read(pilot, lambda line: line.state is State.DONE)
        await pilot.press("slash", *"Row 39", "enter")
        await tui.until(pilot, lambda: outcomes.total == 1)
        await tui.until(pilot, lambda: "with “Row 39” · 1" in tui.shown(pilot))
        await tui.read(pilot)
        await pilot.press("enter")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, RowScreen) and "Say it calmly." in tui.shown(pilot))
        await tui.until(pilot, lambda: "[simulated] Row 39 says a word." in tui.shown(pilot))
        await tui.until(pilot, lambda: "attempts · 1" in tui.shown(pilot))
        await pilot.press("escape")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        await pilot.press("escape", "s")
        await tui.until(pilot, lambda: outcomes.total == 40 and "by latency" in tui.shown(pilot))
        await pilot.press("f")
        await tui.asked(pilot, Choose)
        await pilot.press("down", "enter")
        await tui.until(pilot, lambda: outcomes.total == 0)
        await tui.until(pilot, lambda: "pending · 0" in tui.shown(pilot))


async def test_failed_rows_are_sent_again_one_by_one(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(8), faults=["400=0.4"])
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: "some rows failed" in tui.shown(pilot))
        before = tui.attempts()
        Path("batchrun.toml").write_text("")
        await pilot.press("f")
        await tui.asked(pilot, Choose)
        await pilot.press("down", "down", "down", "enter")
        await tui.until(pilot, lambda: re.search(r"failed · [1-9]", tui.shown(pilot)))
        await tui.read(pilot, lambda line: line.state is State.FAILED)
        failed = pilot.app.screen.query_one(Outcomes).total
        await pilot.press("r")
        await tui.asked(pilot, Choose)
        await pilot.press("enter")
        await tui.until(pilot, lambda: not pilot.app.busy and tui.attempts() == before + 1)
        with Reader.open(tui.journal()) as reader:
            assert reader.totals.failed == failed - 1


async def test_text_from_outside_neither_acts_nor_breaks_anything(tmp_path: Path) -> None:
    odd = [{"id": f"{number}{HOSTILE}", "text": HOSTILE, "[/b]": HOSTILE} for number in range(4)]
    tui.place(tmp_path, [*odd, {"id": "long", "text": "x" * 300_000}], reply_tokens=100_000)
    for size in ((80, 24), WIDE):
        async with tui.app(output=f"out{size[0]}.jsonl").run_test(size=size) as pilot:
            await tui.ready(pilot)
            seen = tui.shown(pilot)
            await tui.started(pilot)
            await tui.until(pilot, lambda: "finished" in tui.shown(pilot))
            await tui.until(pilot, lambda: "● done" in tui.shown(pilot))
            seen += tui.shown(pilot)
            await tui.read(pilot)
            await pilot.press("enter")
            await tui.until(pilot, lambda: "attempts · 1" in tui.shown(pilot) and "simulated" in tui.shown(pilot))
            seen += tui.shown(pilot)
            await pilot.press("escape")
            await tui.until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
            await pilot.press("end")
            await tui.read(pilot, lambda line: line.key == "long")
            await pilot.press("enter")
            await tui.until(pilot, lambda: "attempts · 1" in tui.shown(pilot) and "xxxxx" in tui.shown(pilot))
            seen += tui.shown(pilot)
            assert not {char for char in seen if char != "\n" and (ord(char) < 32 or 0x7F <= ord(char) < 0xA0)}
            assert "\u202e" not in seen
            assert "[/x]" in seen


async def test_the_table_follows_rows_that_end_while_the_run_stands(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(40), latency="0.3")
    async with tui.app(concurrency=4, concurrency_fixed=True).run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: "◌ in flight" in tui.shown(pilot))
        await pilot.press("p")
        await tui.until(pilot, lambda: re.search(r"in flight +0/4", tui.shown(pilot)) is not None)
        await tui.until(pilot, lambda: "◌ in flight" not in tui.shown(pilot))


async def test_nothing_is_offered_to_go_on_with_once_its_journal_is_deleted(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(40), latency="0.3")
    app = tui.app(concurrency=2)
    async with app.run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: "◌ 2 in flight" in tui.shown(pilot))
        await pilot.press("X")
        await tui.until(pilot, lambda: "stopped" in tui.shown(pilot))
        await tui.until(pilot, lambda: any("resume with: batchrun resume" in line for line in app.closing_lines()))
        await pilot.press("f4")
        await tui.until(pilot, lambda: "1 run in" in tui.shown(pilot))
        await pilot.press("d")
        await tui.asked(pilot, Confirm)
        await pilot.press("enter")
        await tui.until(pilot, lambda: "none in" in tui.shown(pilot))
        assert not any("resume" in line for line in app.closing_lines())


async def test_old_runs_are_listed_opened_and_deleted(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(3))
    app = tui.app()
    async with app.run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: "finished" in tui.shown(pilot))
    async with tui.app().run_test(size=WIDE) as pilot:
        await pilot.press("f4")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and "finished" in tui.shown(pilot))
        await tui.until(pilot, lambda: "out.jsonl" in tui.shown(pilot))
        await pilot.press("enter")
        await tui.until(pilot, lambda: "● 3 done" in tui.shown(pilot) and "Row 3 says" in tui.shown(pilot))
        await pilot.press("p")
        await tui.until(pilot, lambda: "no run is active here" in tui.told(pilot))
        Path("out.jsonl").unlink()
        await pilot.press("f4", "e")
        await tui.until(pilot, lambda: Path("out.jsonl").exists())
        await pilot.press("d")
        await tui.asked(pilot, Confirm)
        await pilot.press("enter")
        await tui.until(pilot, lambda: not list(Path(".batchrun").glob("2*.db")))
        assert Path("out.jsonl").exists()


async def test_a_run_of_another_terminal_is_watched_and_steered(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(60), latency="0.3")
    options = ["--prompt", "echo", "--set", "tone=calmly", "--profile", "sim", "--output", "out.jsonl", "--quiet"]
    command = [sys.executable, "-m", "batchrun", "--input", "rows.jsonl", "--concurrency", "2", *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    headless = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL, env=environment)
    try:
        async with tui.app().run_test(size=WIDE) as pilot:
            await pilot.press("f4")
            await tui.until(pilot, lambda: "running" in tui.shown(pilot))
            await pilot.press("r")
            await tui.until(pilot, lambda: "another process is working on this run; Enter" in tui.told(pilot))
            await pilot.press("enter")
            await tui.until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
            await tui.until(pilot, lambda: "running in another process" in tui.shown(pilot))
            await tui.read(pilot, lambda line: line.state is State.DONE)
            await pilot.press("p")
            await tui.until(pilot, lambda: "paused in another process" in tui.shown(pilot))
            await pilot.press("plus")
            await tui.until(pilot, lambda: steering.send(tui.journal(), {"command": "status"})["concurrency"] == 3)
            await pilot.press("p")
            await tui.until(pilot, lambda: "running in another process" in tui.shown(pilot))
            await pilot.press("r")
            await tui.until(pilot, lambda: "another process is working" in tui.told(pilot))
            assert headless.returncode is None
            await tui.until(pilot, lambda: "finished" in tui.shown(pilot))
            await tui.until(pilot, lambda: "● 60 done" in tui.shown(pilot))
        assert await headless.wait() == 0
    finally:
        if headless.returncode is None:
            headless.kill()
            await headless.wait()
    assert tui.attempts() == 60


async def test_an_output_that_is_being_written_is_whole_when_the_app_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tui.place(tmp_path, tui.rows(3))
    may, whole = threading.Event(), Path("whole")

    def exported(_: RunFile) -> str:
        may.wait(PATIENCE)
        whole.touch()
        return "whole"

    monkeypatch.setattr("batchrun.tui.session.exported", exported)
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: "finished" in tui.shown(pilot))
        await pilot.press("f4")
        await tui.until(pilot, lambda: "1 run in" in tui.shown(pilot))
        await pilot.press("e", "q")
        await tui.until(pilot, lambda: "an output is being written" in tui.told(pilot))
        may.set()
        await tui.ended(pilot)
        assert whole.exists()


async def test_what_is_refused_is_said_with_what_to_do_next(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(3))
    async with tui.app(profile="openai").run_test(size=WIDE) as pilot:
        await tui.until(pilot, lambda: "no API key: OPENAI_API_KEY is not set" in tui.shown(pilot))
        await tui.until(
            pilot, lambda: "requests 3 to send" in tui.shown(pilot)
        )  # what it would cost is known without a key
        assert "ready" not in tui.shown(pilot)
        await pilot.press("f5")
        await tui.until(pilot, lambda: "not started" in tui.told(pilot))
        await tui.until(pilot, lambda: "no API key: OPENAI_API_KEY is not set" in tui.shown(pilot))
        assert isinstance(pilot.app.screen, SetupScreen)


async def test_a_setup_without_a_key_is_ready_once_a_provider_is_chosen_that_needs_none(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(3))
    async with tui.app(profile="openai").run_test(size=WIDE) as pilot:
        await tui.until(pilot, lambda: "no API key: OPENAI_API_KEY is not set" in tui.shown(pilot))
        editor = tui.setup(pilot).query_one(Editor)
        editor.text = editor.text.replace("Say it", "Sing it")
        tui.setup(pilot).query_one("#profile", Select).value = "sim"
        await tui.until(pilot, lambda: "ready" in tui.shown(pilot))
        assert "edited" in tui.shown(pilot)


async def test_keys_are_listed_in_help_and_everything_is_in_the_palette(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(1))
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.ready(pilot)
        await pilot.press("f1")
        await tui.until(pilot, lambda: "Keys" in tui.shown(pilot))
        await tui.until(pilot, lambda: "Try" in tui.shown(pilot))
        await pilot.press("escape")
        names = {command.title for command in pilot.app.get_system_commands(pilot.app.screen)}
        assert {"Start", "Try", "Pilot", "Options", "Runs", "Quit", "Theme"} <= names


@pytest.mark.parametrize("keys", [{"app.runs": "f9"}])
async def test_keys_can_be_chosen(tmp_path: Path, keys: dict[str, Any]) -> None:
    from batchrun.tui.app import BatchrunApp  # noqa: PLC0415  beside its use

    async with BatchrunApp({}, settings={"keys": keys, "theme": "batchrun-light"}).run_test(size=WIDE) as pilot:
        await pilot.press("f9")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))
        await tui.until(pilot, lambda: pilot.app.theme == "batchrun-light")
