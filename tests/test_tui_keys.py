"""Keys that once lost something: a screen, an edited prompt, the form."""

import asyncio
import json
import re
from pathlib import Path

import pytest
import tui
from textual.widgets import Input, Static

from batchrun.journal import Line, Reader
from batchrun.models import State
from batchrun.tui.journal_rows import JournalRows
from batchrun.tui.screens.dialogs import Choose, Confirm, Help, key_groups
from batchrun.tui.screens.row import RowScreen
from batchrun.tui.screens.run import RunScreen
from batchrun.tui.screens.runs import RunsScreen
from batchrun.tui.screens.setup import SetupScreen
from batchrun.tui.widgets.editor import Editor
from batchrun.tui.widgets.form import Variables
from batchrun.tui.widgets.outcomes import Outcomes, RowPreview

# Slow: each test starts the app.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undisturbed", "alone")]

WIDE = (150, 40)
OTHER = "---\nname: Other\ninputs:\n  tone:\n    kind: string\n---\nuser:\n{{ tone }} {{ text }}\n"


async def test_a_row_is_sent_again_from_its_view_and_every_screen_is_still_there(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(8), faults=["400=text:Row 1 "])
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: "some rows failed" in tui.shown(pilot))
        for times in (1, 2):
            await tui.read(pilot, lambda line: line.state is State.FAILED)
            await pilot.press("enter")
            await tui.until(
                pilot, lambda: isinstance(pilot.app.screen, RowScreen) and "attempts · " in tui.shown(pilot)
            )
            await pilot.press("r")
            await tui.until(pilot, lambda times=times: tui.attempts() == 8 + times and not pilot.app.busy)
            await tui.until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        for key, screen in (("f2", SetupScreen), ("f4", RunsScreen), ("f3", RunScreen)):
            await pilot.press(key)
            await tui.until(pilot, lambda screen=screen: isinstance(pilot.app.screen, screen))


async def test_a_done_row_is_sent_again_after_a_question_and_its_earlier_reply_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, may = JournalRows.page, asyncio.Event()

    async def page(rows: JournalRows, first: int, count: int) -> list[Line]:
        await may.wait()
        return await read(rows, first, count)

    may.set()
    monkeypatch.setattr(JournalRows, "page", page)
    tui.place(tmp_path, tui.rows(3))
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: "● 3 done" in tui.shown(pilot) and not pilot.app.busy)
        await tui.read(pilot)
        for key in ("escape", "enter"):
            await pilot.press("enter")
            await tui.until(
                pilot, lambda: isinstance(pilot.app.screen, RowScreen) and "attempts · 1" in tui.shown(pilot)
            )
            await pilot.press("r")
            await tui.asked(pilot, Confirm)
            if key == "enter":
                may.clear()  # the rows that are listed stay until they are read again
            await pilot.press(key)
            await tui.until(pilot, lambda key=key: isinstance(pilot.app.screen, (RowScreen, RunScreen)))
            await pilot.press("escape") if key == "escape" else None
            await tui.until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        await tui.until(pilot, lambda: tui.attempts() == 4 and not pilot.app.busy)
        await tui.until(pilot, lambda: "● 3 done" in tui.shown(pilot))
        await pilot.press("enter")
        await tui.until(pilot, lambda: "attempts · 2" in tui.shown(pilot) and "earlier reply" in tui.shown(pilot))
        may.set()
    with Reader.open(tui.journal()) as reader:
        assert reader.totals.done == 3
        assert [attempt.body is not None for attempt in reader.attempts(1)] == [True, True]
        assert reader.check() == []


async def test_the_rows_that_are_listed_are_written_to_a_file_of_their_own(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(6), faults=["400=text:Row 2", "400=text:Row 5"])
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: "✗ 2 failed" in tui.shown(pilot) and not pilot.app.busy)
        await pilot.press("slash", *"Row", "space", "5", "enter")
        await tui.until(pilot, lambda: "with “Row 5”" in tui.shown(pilot))
        await pilot.press("w")
        await tui.until(pilot, lambda: "wrote out.filtered.jsonl (1 row)" in tui.told(pilot))
        (line,) = Path("out.filtered.jsonl").read_text().splitlines()
        assert json.loads(line)["id"] == "r5"
        assert "400" in json.loads(line)["_batchrun"]["cause"]
        await pilot.press("escape", "w")
        await tui.until(pilot, lambda: "wrote out.filtered.jsonl (6 rows)" in tui.told(pilot))
    written = [json.loads(line) for line in Path("out.filtered.jsonl").read_text().splitlines()]
    assert [row["id"] for row in written] == [f"r{number}" for number in range(1, 7)]
    assert "[simulated]" in written[0]["output"]


async def test_the_footer_has_the_keys_that_do_something_and_help_has_all_of_them_in_groups(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(30), latency="0.2")
    async with tui.app(concurrency="2").run_test(size=(WIDE[0], WIDE[1] + 8)) as pilot:
        screen = await tui.started(pilot)
        await tui.until(pilot, lambda: "Pause" in tui.shown(pilot).splitlines()[-1])
        assert "Resume/retry" not in tui.shown(pilot).splitlines()[-1]
        await pilot.press("x", "x")
        await tui.until(pilot, lambda: not pilot.app.busy and "Resume/retry" in tui.shown(pilot).splitlines()[-1])
        assert "Pause" not in tui.shown(pilot).splitlines()[-1]
        await pilot.press("f1")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, Help))
        await tui.until(pilot, lambda: "Raise concurrency by 25 %" in tui.shown(pilot))
        shown = tui.shown(pilot)
        assert shown.index("steer the run") < shown.index("Pause or resume sending")
        groups = key_groups(screen)
        assert list(groups)[-1] == "everywhere"
        assert "Set up a run" in groups["everywhere"]


async def test_the_row_view_goes_through_the_list_and_the_list_goes_along(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(6), faults=["400=text:Row 2 ", "400=text:Row 5 "])
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: "some rows failed" in tui.shown(pilot))
        outcomes = pilot.app.screen.query_one(Outcomes)
        await pilot.press("f")
        await tui.asked(pilot, Choose)
        await pilot.press("down", "down", "down", "enter")
        await tui.until(pilot, lambda: outcomes.total == 2 and outcomes.current is not None)
        await pilot.press("enter")
        await tui.until(pilot, lambda: "line 2 " in tui.shown(pilot))
        for key, line in (("n", 5), ("n", 5), ("p", 2)):
            await pilot.press(key)
            await tui.until(pilot, lambda line=line: f"Row {line} says" in tui.shown(pilot))
            assert f"line {line} " in tui.shown(pilot)
        await pilot.press("n")
        await tui.until(pilot, lambda: "Row 5 says" in tui.shown(pilot))
        await pilot.press("escape")
        await tui.until(pilot, lambda: outcomes.current is not None and outcomes.current.line == 5)


@pytest.mark.parametrize("over", ["enter", "f", "l", "f1", "x"])
async def test_a_key_that_comes_twice_closes_no_main_screen(tmp_path: Path, over: str) -> None:
    tui.place(tmp_path, tui.rows(30), latency="0.2")
    async with tui.app(concurrency="2").run_test(size=WIDE) as pilot:
        screen = await tui.started(pilot)
        await tui.until(pilot, lambda: pilot.app.steered.snapshot().progress.done > 0)
        await pilot.press(over)
        pilot.app.pop_screen()
        pilot.app.pop_screen()
        await pilot.press("escape", "escape")
        await tui.until(pilot, lambda: pilot.app.screen is screen)
        await pilot.press("f2")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, SetupScreen))


@pytest.mark.parametrize("size", [(80, 24), WIDE])
@pytest.mark.parametrize("key", ["ctrl+q", "ctrl+c"])
async def test_an_edited_prompt_is_marked_and_not_lost_without_a_question(
    tmp_path: Path, size: tuple[int, int], key: str
) -> None:
    tui.place(tmp_path, tui.rows(2))
    async with tui.app().run_test(size=size) as pilot:
        await tui.ready(pilot)
        assert "● edited" not in tui.shown(pilot)
        await pilot.press("f7", "ctrl+home", *"odd")
        await tui.until(pilot, lambda: "● edited" in tui.shown(pilot))
        await pilot.press(key)
        await tui.asked(pilot, Confirm)
        await tui.until(pilot, lambda: "not saved" in tui.shown(pilot) and "echo.prompty" in tui.shown(pilot))
        await pilot.press("escape")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, SetupScreen))
        await pilot.press(key)
        await tui.asked(pilot, Confirm)
        tui.last_key(pilot, "enter")
        await tui.ended(pilot)
    assert Path("prompts/echo.prompty").read_text().startswith("odd---")


async def test_a_prompt_that_was_edited_before_another_was_chosen_is_asked_about_too(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(2))
    Path("prompts/other.prompty").write_text(OTHER)
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.ready(pilot)
        editor = tui.setup(pilot).query_one(Editor)
        editor.text = editor.text.replace("Say it", "Sing it")
        await tui.until(pilot, lambda: "● edited" in tui.shown(pilot))
        tui.setup(pilot).query_one("#prompt", Input).value = "other"
        await tui.until(pilot, lambda: "name: Other" in editor.text)
        await tui.until(pilot, lambda: "● edited" not in tui.shown(pilot))
        await pilot.press("ctrl+q")
        await tui.asked(pilot, Confirm)
        tui.last_key(pilot, "enter")
        await tui.ended(pilot)
    assert "Sing it" in Path("prompts/echo.prompty").read_text()
    assert Path("prompts/other.prompty").read_text() == OTHER


async def test_an_edited_prompt_is_thrown_away_where_that_is_chosen(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(2))
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.ready(pilot)
        await pilot.press("f7", *"odd")
        await tui.until(pilot, lambda: "● edited" in tui.shown(pilot))
        await pilot.press("ctrl+c")
        await tui.asked(pilot, Confirm)
        tui.last_key(pilot, "ctrl+c")
        await tui.ended(pilot)
    assert Path("prompts/echo.prompty").read_text() == tui.PROMPT


async def test_a_default_is_offered_only_by_a_prompt_that_has_one(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(2))
    with_default = OTHER.replace("kind: string", "kind: string\n    default: calmly")
    Path("prompts/other.prompty").write_text(with_default)
    async with tui.app(prompt="other", set=[]).run_test(size=WIDE) as pilot:
        await tui.until(pilot, lambda: re.search(r"tone +default", tui.shown(pilot)))
        tui.setup(pilot).query_one("#prompt", Input).value = "echo"
        await tui.until(pilot, lambda: "Say it" in tui.setup(pilot).query_one(Editor).text)
        await tui.until(pilot, lambda: "✗ tone" in tui.shown(pilot) and "no value for `tone`" in tui.shown(pilot))
        assert not re.search(r"tone +default", tui.shown(pilot))
        tui.setup(pilot).query_one("#prompt", Input).value = "other"
        await tui.until(pilot, lambda: re.search(r"tone +default", tui.shown(pilot)))


async def test_start_on_a_form_that_lacks_a_value_stays_there_and_goes_to_its_field(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(2))
    async with tui.app(set=[]).run_test(size=WIDE) as pilot:
        await tui.until(pilot, lambda: "⟨tone⟩" in tui.shown(pilot))
        await pilot.press("f5")
        field = tui.setup(pilot).query_one(Variables).fields["tone"]
        await tui.until(pilot, lambda: pilot.app.focused is field.entry)
        assert "tone" in tui.shown(pilot)
        assert not Path(".batchrun").exists()
        await pilot.press(*"calmly", "f5")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        await tui.until(pilot, lambda: "finished" in tui.shown(pilot))


@pytest.mark.parametrize(
    ("flags", "field", "said"),
    [
        ({"input": ""}, "input", "choose a prompt and an input"),
        ({"input": "none.jsonl"}, "input", "none.jsonl"),
        ({"prompt": "nothing"}, "prompt", "nothing"),
        ({"profile": "openai"}, "profile", "no API key"),
    ],
)
async def test_start_on_an_incomplete_form_stays_there_and_says_what_is_missing(
    tmp_path: Path, flags: dict[str, str], field: str, said: str
) -> None:
    tui.place(tmp_path, tui.rows(2))
    async with tui.app(**flags).run_test(size=WIDE) as pilot:
        await pilot.press("f5")
        await tui.until(pilot, lambda: "not started" in tui.told(pilot))
        await tui.until(pilot, lambda: pilot.app.focused is not None and pilot.app.focused.id == field)
        await tui.until(pilot, lambda: said in tui.shown(pilot))
        assert not Path(".batchrun").exists()


async def test_a_run_that_is_refused_after_all_rows_were_checked_comes_back_to_the_form(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(2))
    Path("out.jsonl").write_text("somebody else's\n")
    async with tui.app().run_test(size=WIDE) as pilot:
        await tui.until(pilot, lambda: "Say it calmly" in tui.shown(pilot))
        await pilot.press("f5")
        await tui.until(pilot, lambda: "out.jsonl exists and belongs to no run" in tui.shown(pilot))
        assert isinstance(pilot.app.screen, SetupScreen)
    assert Path("out.jsonl").read_text() == "somebody else's\n"


async def test_a_question_is_closed_by_its_own_key_alone(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(3))
    async with tui.app().run_test(size=WIDE) as pilot:
        screen = await tui.started(pilot)
        await tui.until(pilot, lambda: "finished" in tui.shown(pilot))
        await pilot.press("f")
        await tui.asked(pilot, Choose)
        await pilot.press("escape", "escape", "escape")
        await tui.until(pilot, lambda: pilot.app.screen is screen)


async def test_the_table_shows_what_the_prompt_reads_and_the_row_under_the_cursor_stands_beside_it(
    tmp_path: Path,
) -> None:
    tui.place(tmp_path, [{**row, "noise": "never read"} for row in tui.rows(6)])
    async with tui.app().run_test(size=(120, 36)) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: "finished" in tui.shown(pilot))
        await tui.until(pilot, lambda: "line text " in tui.shown(pilot))
        assert "never read" not in tui.shown(pilot)
        await tui.until(pilot, lambda: "▌ source" in tui.shown(pilot))
        await pilot.press("down", "down")
        await tui.until(pilot, lambda: "line 3  r3" in tui.shown(pilot))
        preview = pilot.app.screen.query_one(RowPreview)
        await tui.until(pilot, lambda: "[simulated] Row 3 says a word." in str(preview.query_one(Static).content))
        await pilot.resize_terminal(100, 30)
        await tui.until(pilot, lambda: "▌ source" not in tui.shown(pilot))
        await pilot.press("enter")
        await tui.until(pilot, lambda: "source · line 3" in tui.shown(pilot) and "attempts · 1" in tui.shown(pilot))


async def test_the_filter_counts_the_rows_of_each_cause(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(6), faults=["400=text:Row 2", "400=text:Row 5"])
    async with tui.app().run_test(size=(120, 36)) as pilot:
        await tui.started(pilot)
        await tui.until(pilot, lambda: "✗ 2 failed" in tui.shown(pilot) and not pilot.app.busy)
        await pilot.press("f")
        await tui.asked(pilot, Choose)
        await tui.until(pilot, lambda: "2  failed: 400" in tui.shown(pilot))
        await pilot.press("end", "enter")
        await tui.until(pilot, lambda: "because of 400" in tui.shown(pilot) and "· 2" in tui.shown(pilot))
        await tui.until(pilot, lambda: "Row 2 says" in tui.shown(pilot) and "Row 1 says" not in tui.shown(pilot))
