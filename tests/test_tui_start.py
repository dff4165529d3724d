"""The start page: what it lists, and that one key leads from there to a run."""

import json
from pathlib import Path

import pytest
import tui
from textual.widgets import Input, OptionList

from batchrun.journal import Reader
from batchrun.plan import plan_from_json
from batchrun.plan.options import OPTIONS
from batchrun.tui.app import BatchrunApp
from batchrun.tui.overview import rows_of
from batchrun.tui.screens import options
from batchrun.tui.screens.run import RunScreen
from batchrun.tui.screens.setup import SetupScreen
from batchrun.tui.setup_flags import checklist, first_missing

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
        assert "jsonl · 3 rows" in tui.shown(pilot)
        assert tui.shown(pilot).count("rows.again.jsonl") == 1  # the run, and no input
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


@pytest.mark.parametrize(
    "keys",
    [
        ["p", "down", "down", "enter", *"calmly", "enter", "enter", "f5"],  # the simulated provider chosen by hand
        ["p", "down", "t", *"calmly", "f5"],
    ],
)
async def test_at_most_twelve_keys_besides_the_value_lead_from_the_start_page_to_a_run(
    tmp_path: Path, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    tui.place(tmp_path, tui.rows(3))
    Path("prompts/again.prompty").write_text(PLAIN)
    Path("prompts/calm.prompty").write_text(tui.PROMPT) if keys.count("down") > 1 else None
    assert len(keys) <= 12 + len("calmly")
    async with _begun().run_test(size=(80, 24)) as pilot:
        await tui.until(pilot, lambda: "Says a row again." in tui.shown(pilot))
        for place, key in enumerate(keys):
            if key == "c":
                await tui.until(pilot, lambda: "✗ tone" in tui.shown(pilot) and pilot.app.focused.id is None)
            if keys[place - 1] == "enter" and key == "enter":
                await tui.until(pilot, lambda: isinstance(pilot.app.focused, OptionList))
            if key == "f5":
                await tui.ready(pilot)
            await pilot.press(key)
        await tui.until(pilot, lambda: "● 3 done" in tui.shown(pilot) and not pilot.app.busy)


async def test_an_option_of_the_command_line_is_set_in_the_list_of_all(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(5))
    async with tui.app(limit="3").run_test(size=(120, 36)) as pilot:
        await tui.ready(pilot)
        await pilot.press("ctrl+t")
        await tui.until(pilot, lambda: "--id-column" in tui.shown(pilot))
        await pilot.press(*"vary", "down", *"0.3")
        await tui.until(pilot, lambda: "--id-column" not in tui.shown(pilot))
        await pilot.press("up", *["backspace"] * 4, *"dedupe", "down", "space", "escape")
        await tui.until(pilot, lambda: "--param temperature=0.3" in tui.shown(pilot).replace("\n", " "))
        await tui.until(pilot, lambda: "--dedupe" in tui.shown(pilot) and "--limit 3" in tui.shown(pilot))
        await tui.started(pilot)
        await tui.until(pilot, lambda: "● 3 done" in tui.shown(pilot) and not pilot.app.busy)
    with Reader.open(tui.journal()) as reader:
        plan = plan_from_json(reader.meta.plan)
    assert plan.params["temperature"] == 0.3
    assert plan.dedupe


async def test_what_an_option_would_be_refused_for_is_said_where_it_is_typed_and_on_the_setup(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(5))
    async with tui.app().run_test(size=(120, 36)) as pilot:
        await tui.ready(pilot)
        await pilot.press("ctrl+t")
        await tui.until(pilot, lambda: "--id-column" in tui.shown(pilot))
        await pilot.press(*"adapts", "down", *"many", "down")
        await tui.until(pilot, lambda: "--concurrency: must be a whole number" in tui.shown(pilot))
        await pilot.press("escape")
        await tui.until(pilot, lambda: isinstance(pilot.app.screen, SetupScreen))
        await tui.until(pilot, lambda: "--concurrency: must be a whole number" in tui.shown(pilot))


def test_every_option_of_the_command_line_has_its_place_in_the_app() -> None:
    assert {option.name for option in options.shown()} | options.ELSEWHERE == {o.name for o in OPTIONS} | {
        options.TEMPERATURE.name
    }
    flags = {"params": ["temperature=0", 'stop=["a b"]'], "headers": {"X-Team": "a b"}, "dedupe": True, "limit": "3"}
    assert options.flags_of(options.texts_of(flags)) == {**flags, "headers": ["X-Team:a b"]}


async def test_a_pilot_measures_what_the_plan_says_and_the_run_sends_the_rest(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(60))
    async with tui.app().run_test(size=(120, 40)) as pilot:
        await tui.ready(pilot)
        await pilot.press("ctrl+r")
        await tui.until(pilot, lambda: "pilot finished" in tui.shown(pilot))
        await tui.until(pilot, lambda: "measured on 50" in " ".join(tui.shown(pilot).split()))
        await tui.until(pilot, lambda: "plan  10 requests" in tui.shown(pilot))
        assert tui.attempts() == 50
        assert not Path("out.jsonl").exists()
        await tui.started(pilot)
        await tui.until(pilot, lambda: "● 60 done" in tui.shown(pilot) and not pilot.app.busy)
    assert tui.attempts() == 60


def test_what_is_missing_is_told_in_the_order_in_which_it_is_filled_in() -> None:
    items = checklist(prompt=True, source=True, typed={"tone": "calm", "mood": ""}, missing=["mood"], key=False)
    assert [(item.name, item.met) for item in items] == [
        *(("prompt", True), ("input", True), ("tone", True), ("mood", False), ("key", False)),
    ]
    assert first_missing(items) == ("mood", False, "variable:mood")
    assert first_missing([item for item in items if item.met]) is None


async def test_an_empty_directory_says_what_to_do(tmp_path: Path) -> None:
    async with _begun().run_test(size=(80, 24)) as pilot:
        await tui.until(pilot, lambda: "start batchrun in a directory with a .jsonl" in tui.shown(pilot))
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
