"""Widgets by themselves, without a run."""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import tui
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.content import Content
from textual.widgets import Input

from batchrun.errors import StorageError
from batchrun.events import Waiting, WaitReason
from batchrun.journal import Line, Meta, Wanted
from batchrun.models import Endpoint, Kind, State, Totals
from batchrun.plan import Plan
from batchrun.plan.profiles import SIM, Profile
from batchrun.progress import Progress
from batchrun.registry import RunFile, Summary
from batchrun.report.words import status
from batchrun.tui.draft import Draft, Source
from batchrun.tui.journal_rows import JournalRows
from batchrun.tui.screens import runs
from batchrun.tui.screens.runs import cells, fitting
from batchrun.tui.services import Phase, RunSnapshot, Trouble
from batchrun.tui.session import overall
from batchrun.tui.setup_flags import FROM_VALUE, Origin
from batchrun.tui.widgets import outcomes, paint
from batchrun.tui.widgets.columns import columns_of, field, fitted, source_fields, trouble, values
from batchrun.tui.widgets.controls import Field
from batchrun.tui.widgets.form import Variables, key_state
from batchrun.tui.widgets.outcomes import Outcomes
from batchrun.tui.widgets.paint import account, counts, eta, limit_lines, status_lines
from batchrun.tui.widgets.panels import Panel

NOTHING = Origin(FROM_VALUE)


class Bench(App[None]):
    """The variables of a prompt, and a line to type in."""

    def compose(self) -> ComposeResult:
        yield Field("a\x1b]0;owned\x07\u202eb", id="field")
        yield Variables()


def test_every_state_of_a_row_has_its_place_its_sign_and_its_filter() -> None:
    progress = Progress(causes={}, now=1.0, rows=10, in_batches=4)
    assert set(State) <= set(counts(progress)) == {name for name, _, _ in paint.STATES}
    assert set(outcomes._CLASSES) == set(State) <= set(paint.SIGNS)
    assert len({sign for _, sign, _ in paint.STATES}) == len(paint.STATES)
    assert sum(counts(progress).values()) == 10


def test_rows_in_post_processing_have_their_own_place_in_the_account() -> None:
    progress = Progress(causes={}, now=1.0, rows=10, done=3, in_flight=2, post=4)
    assert sum(counts(progress).values()) == 10
    shown = account(progress, narrow=False).plain
    assert "◌ 2 in flight  ◍ 4 in post-processing  · 1 pending  of 10 rows" in shown
    assert "post-processing" not in account(Progress(causes={}, now=1.0, rows=10), narrow=False).plain


def test_a_status_line_has_both_stages_while_post_processing_is_behind_and_after_the_last_reply() -> None:
    behind = Waiting(WaitReason.POST, None, 9.0)
    shown = status(Progress(causes={}, now=9.0, rows=100, done=10, in_flight=3, post=64, waiting=behind))
    assert "3 in flight, 64 in post-processing" in shown
    assert shown.endswith("waiting: post-processing is behind")
    assert "0 in flight, 15 in post-processing" in status(Progress(causes={}, now=9.0, rows=100, done=85, post=15))


def test_the_runs_have_the_columns_that_have_room_and_none_that_is_cut() -> None:
    assert fitting([8, 20, 9], 80) == [8, 20, 9]
    assert fitting([8, 20, 9], 43) == [8, 20, 9]
    assert fitting([8, 20, 9], 42) == [8, 20]


def test_a_wide_name_of_a_run_leaves_room_for_its_numbers(tmp_path: Path) -> None:
    output = "漢字" * 40 + ".jsonl"
    meta = Meta(run="20261120-1015-abcd", created=1.0, plan="{}", prompt=None, simulated=True, output=output)
    run = Summary(RunFile(tmp_path / "run.db", meta), Totals(rows=3), [], None, None)
    name = cells(run, dict.fromkeys(("success", "error", "warning", "foreground", "foreground-muted"), "red"), 40)[1]
    assert name.cell_len <= 40
    assert name.plain.endswith("…  SIMULATED")


@pytest.mark.parametrize(
    ("plan", "shown"),
    [
        ('{"prompt_name": "translate", "model": "gpt-5.4-mini"}', ["translate", "gpt-5.4-mini"]),
        ('{"prompt_name": null, "model": null}', ["–", "–"]),
        ('{"prompt_name": "trans', ["–", "–"]),
    ],
)
def test_the_list_of_runs_has_prompt_and_model(plan: str, shown: list[str], tmp_path: Path) -> None:
    meta = Meta(run="20261120-1015-abcd", created=1.0, plan=plan, prompt=None, simulated=False, output="-")
    run = Summary(RunFile(tmp_path / "run.db", meta), Totals(rows=3), [], None, None)
    colours = dict.fromkeys(("success", "error", "warning", "foreground", "foreground-muted"), "red")
    titles = [title.plain for title in runs.COLUMNS]
    line = dict(zip(titles, cells(run, colours, 40), strict=True))
    assert [line["prompt"].plain, line["model"].plain] == shown


async def test_a_value_that_was_just_typed_outlives_another_input_and_another_prompt() -> None:
    async with Bench().run_test() as pilot:
        form = pilot.app.query_one(Variables)
        form.ask({"tone": NOTHING}, (), {}, frozenset())
        await pilot.pause()
        form.query_one(Input).value = "loudly"
        origins = form.origins  # before any message of the key has arrived
        form.ask({"extra": NOTHING, **origins}, ("text",), {"tone": "How"}, frozenset())
        await pilot.pause()
        assert form.origins == {"extra": NOTHING, "tone": Origin(FROM_VALUE, "loudly")}
        assert [field.variable for field in form.query("VariableField").results()] == ["extra", "tone"]
        form.ask({"tone": form.origins["tone"]}, (), {}, frozenset())
        await pilot.pause()
        assert form.origins == {"tone": Origin(FROM_VALUE, "loudly")}


async def test_what_acts_on_a_terminal_is_shown_and_kept_in_a_field() -> None:
    async with Bench().run_test() as pilot:
        field = pilot.app.query_one(Field)
        seen = "".join(segment.text for segment in field.render_line(0))
        assert not {char for char in seen if not char.isprintable()}
        assert "owned" in seen
        assert field.value == "a\x1b]0;owned\x07\u202eb"


def test_what_was_typed_into_a_prompt_is_there_again_when_it_is_shown_again(tmp_path: Path) -> None:
    one, other = Source(tmp_path / "a.md", "One {{ x }}"), Source(tmp_path / "b.md", "Other")
    draft = Draft()
    draft.take_prompt(one)
    draft.edit("One more {{ x }}")
    assert draft.take_prompt(other) == "Other"
    assert not draft.edited
    assert draft.take_prompt(one) == "One more {{ x }}"
    assert draft.edited
    assert draft.save() == one.path
    assert not draft.edited
    assert (tmp_path / "a.md").read_text() == "One more {{ x }}"


def test_the_first_frame_waits_for_neither_the_engine_nor_prompts_nor_sqlite() -> None:
    heavy = "sqlite3", "jinja2", "pydantic", "openai", "aiohttp", "batchrun.rows", "batchrun.engine"
    code = f"import sys, batchrun.tui.app; print([name for name in {heavy!r} if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ran.stdout.strip() == "[]"


class Counted(Panel):
    """Draws one number of a snapshot, and counts how often it is painted."""

    painted = 0

    def lines(self, snapshot: RunSnapshot, width: int, height: int) -> list[Content]:
        return [Content(f"{snapshot.progress.done}")]

    def render(self) -> Content:
        self.painted += 1
        return super().render()


async def test_a_panel_is_painted_only_when_it_would_look_different() -> None:
    class Wall(App[None]):
        def compose(self) -> ComposeResult:
            yield Counted()

    async with Wall().run_test() as pilot:
        panel = pilot.app.query_one(Counted)
        snapshot = RunSnapshot(phase=Phase.RUNNING, progress=Progress(causes={}, done=1, now=1.0), title="a run")
        panel.show(snapshot)
        await pilot.pause()
        before = panel.painted
        for now in range(5):
            panel.show(replace(snapshot, progress=replace(snapshot.progress, now=float(now))))
            await pilot.pause()
        assert panel.painted == before
        panel.show(replace(snapshot, progress=replace(snapshot.progress, done=2)))
        await pilot.pause()
        assert panel.painted == before + 1


def _line(number: int) -> Line:
    return Line(
        number, number, number, f"r{number}", State.DONE, True, None, None, frozenset(), 1, 0.1, 1, 1, "", f"reply {number}"
    )  # fmt: skip


class SlowLook:
    """A list of one row, whose pages come when the test lets them."""

    def __init__(self) -> None:
        self.total, self.listed, self.row, self.may = 1, Wanted(), 1, asyncio.Event()
        self.read, self.counted = 0, True

    async def page(self, first: int, count: int) -> list[Line]:
        row = self.row
        self.read += 1
        await self.may.wait()
        return [_line(row)]


async def test_enter_on_a_row_that_is_still_being_read_opens_it_once_it_has_been_read() -> None:
    opened: list[Line] = []

    class Wall(App[None]):
        def compose(self) -> ComposeResult:
            yield Outcomes()

        def on_outcomes_opened(self, event: Outcomes.Opened) -> None:
            opened.append(event.line)

    async with Wall().run_test() as pilot:
        outcomes, journal_rows = pilot.app.query_one(Outcomes), SlowLook()
        outcomes.focus()
        journal_rows.total, journal_rows.counted = 0, False
        outcomes.show(cast("JournalRows", journal_rows))
        await pilot.press("enter")
        journal_rows.total, journal_rows.counted = 1, True
        outcomes.found()
        await tui.until(pilot, lambda: journal_rows.read > 0)
        assert not opened
        journal_rows.may.set()
        await tui.until(pilot, lambda: opened == [_line(1)])


async def test_enter_opens_nothing_where_no_row_is_listed_or_none_can_be_read() -> None:
    class Unreadable(SlowLook):
        async def page(self, first: int, count: int) -> list[Line]:
            raise StorageError("the disk is gone")

    class Wall(App[None]):
        def compose(self) -> ComposeResult:
            yield Outcomes()

    async with Wall().run_test() as pilot:
        outcomes, journal_rows = pilot.app.query_one(Outcomes), Unreadable()
        assert await outcomes.reached() is None
        outcomes.show(cast("JournalRows", journal_rows))
        assert await outcomes.reached() is None
        journal_rows.total = 0
        outcomes.show(cast("JournalRows", journal_rows))
        assert await outcomes.reached() is None


async def test_no_row_of_an_earlier_list_stands_in_the_list_that_was_found() -> None:
    class Wall(App[None]):
        def compose(self) -> ComposeResult:
            yield Outcomes()

    async with Wall().run_test() as pilot:
        outcomes, journal_rows = pilot.app.query_one(Outcomes), SlowLook()
        journal_rows.may.set()
        outcomes.show(cast("JournalRows", journal_rows))
        await tui.until(pilot, lambda: outcomes.current == _line(1))
        journal_rows.may = asyncio.Event()
        outcomes.forget()  # a wish, and a page of the list before it that is still being read when rows are found
        read = journal_rows.read
        await tui.until(pilot, lambda: journal_rows.read > read)
        journal_rows.listed, journal_rows.row = Wanted(text="39"), 39
        outcomes.reread()
        assert outcomes.current is None
        journal_rows.may.set()
        await tui.until(pilot, lambda: outcomes.current == _line(39))
        outcomes.reread()
        assert outcomes.current == _line(39)


def test_a_run_that_has_ended_has_the_rates_of_all_its_time() -> None:
    progress = Progress(causes={}, started=10.0, now=30.0, finished_here=100, input_tokens=30, output_tokens=10)
    shown = overall(replace(progress, row_rate=0.1))
    assert (shown.row_rate, shown.token_rate) == (5.0, 2.0)


def test_what_may_have_been_paid_is_whole_at_any_width() -> None:
    progress = Progress(causes={}, attempts=12_345, retries=120, throttled=33, possibly_billed=7)
    snapshot = RunSnapshot(phase=Phase.RUNNING, progress=progress, title="a run")
    for width, height in ((36, 4), (49, 7), (62, 7)):
        lines = limit_lines(snapshot, width, height)
        assert len(lines) <= height
        assert all(line.cell_length <= width for line in lines)
        assert any("maybe billed 7" in line.plain for line in lines)


def test_why_a_run_was_refused_is_folded_where_there_is_room_and_cut_where_there_is_none() -> None:
    trouble = Trouble("The run is locked by process 4711 of this machine since noon", "wait until it ends, or stop it")
    snapshot = RunSnapshot(phase=Phase.REFUSED, progress=Progress(causes={}), title="a run", trouble=trouble)
    wide = [line.plain.strip() for line in status_lines(snapshot, 30, 7)]
    assert " ".join(wide) == f"nothing was sent {trouble.message} next: {trouble.hint}"
    assert all(len(line) <= 30 for line in wide)
    assert [line.plain for line in status_lines(snapshot, 30, 2)] == ["nothing was sent", trouble.message]


def test_the_rows_of_the_table_are_told_by_their_values_even_where_they_are_cut() -> None:
    assert (
        values('{"id": "r1", "n": 1.50, "text": "a \\"word\\", {x}: [y]", "ok": true}')
        == 'r1 · 1.50 · a "word", {x}: [y] · true'
    )
    assert values('{"id": "r1", "text": "cut he') == "r1 · cut he"
    assert values('{"id": "r1", "text": "cut \\u00') == "r1 · cut \\u00"
    assert values('{"id": "r1", "te') == "r1"
    assert values('{"custom_id": "a", "body": {"model": "m"}}') == '{"custom_id": "a", "body": {"model": "m"}}'
    assert values("a line of text") == "a line of text"
    assert values("{}") == "{}"


def test_a_field_is_found_however_deep_the_others_are_and_however_the_text_is_cut() -> None:
    text = '{"meta": {"text": "inner", "n": [1, 2]}, "text": "outer \\"q\\"", "n": 1.50}'
    assert field(text, "text") == 'outer "q"'
    assert field(text, "n") == "1.50"
    assert field(text, "meta") == '{"text": "inner", "n": [1, 2]}'
    assert field(text, "absent") == ""
    assert field('{"id": "r1", "text": "cut he', "text") == "cut he"
    assert field('{"id": "r1", "text": "cut he', "later") == "…"
    assert field('{"meta": {"text": "in', "text") == "…"
    assert field("", "text") == ""


@given(
    st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.lists(st.text()), st.none()), min_size=1),
    st.integers(0, 400),
)
def test_every_field_before_a_cut_is_found_whole(row: dict[str, Any], cut: int) -> None:
    text = json.dumps(row, ensure_ascii=False)
    for name, value in row.items():
        whole = field(text, name)
        assert whole == (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        seen = field(text[:cut], name)
        assert seen in ("", "…") or isinstance(value, str) or whole.startswith(seen)


def _plan(**changes: Any) -> Plan:
    base: dict[str, Any] = {
        "kind": Kind.ROWS,
        "input": "rows.csv",
        "input_format": "csv",
        "id_column": "id",
        "prompt_name": "p",
    }
    base |= {
        "prompt_path": "p.prompty",
        "prompt_source": "user:\n{{ text }} {{ language }} {% if register %}{{ register }}{% endif %}",
        "endpoint": Endpoint.CHAT,
    }
    base |= {"model": "m", "output": "out", "output_format": "csv", "output_column": "output", "profile": "sim"}
    return Plan(**{**base, "base_url": "", "api_key_env": None, "variables": {"language": "French"}, **changes})


def _titles(plan: Plan, width: int) -> list[str]:
    text = '{"id": "r1", "text": "a", "body": "b"}'
    return [column.title for column, _ in fitted(columns_of(plan, source_fields(plan, text)), width)]


def test_the_columns_are_what_the_prompt_reads_and_what_the_reply_has() -> None:
    plan = _plan(columns={"text": "body"}, output_fields=("translation", "notes"))
    assert _titles(plan, 80) == ["state", "line", "body", "translation", "notes"]
    assert _titles(plan, 200) == [
        *("state", "line", "id", "body", "translation", "notes", "latency", "tokens", "tries"),
    ]
    assert "id" not in _titles(_plan(id_column=None), 200)
    assert _titles(_plan(), 80) == ["state", "line", "text", "reply"]
    assert _titles(_plan(prompt_source=None), 80) == ["state", "line", "row", "reply"]


@pytest.mark.parametrize("width", [20, 48, 72, 80, 120, 200])
def test_columns_fill_the_width_and_the_reply_has_the_most_of_it(width: int) -> None:
    found = fitted(columns_of(_plan(), ("text",)), width)
    rooms = {column.title: room for column, room in found}
    assert sum(rooms.values()) + len(rooms) - 1 == max(width, 12 + 6 + 8 + 2)
    assert rooms["reply"] == max(rooms["reply"], rooms.get("text", 0))


def test_a_row_that_failed_says_why_where_its_reply_would_be() -> None:
    line = _line(1)._replace(state=State.FAILED, cause="400 bad", message="no such model", output=None)
    assert trouble(line) == "400 bad: no such model"
    assert trouble(line._replace(state=State.DONE)) is None


def test_the_time_that_is_left_is_short_and_no_more_exact_than_it_can_be() -> None:
    def said(left: float | None, phase: Phase = Phase.RUNNING) -> str:
        return eta(RunSnapshot(phase=phase, progress=Progress(causes={}, eta=left), title="a run"))

    assert said(None) == "not known"
    assert said(20.4) == "≈ 20 s"
    assert said(500) == "≈ 8 min 20 s"
    assert said(1431) == "≈ 24 min"
    assert said(7300) == "≈ 2 h 2 min"
    assert said(20, Phase.STOPPING) == "–"


def test_the_list_of_providers_says_whether_a_key_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hosted = Profile(name="hosted", api_key_env="HOSTED_KEY")
    monkeypatch.delenv("HOSTED_KEY", raising=False)
    assert key_state(hosted) == "no key"
    monkeypatch.setenv("HOSTED_KEY", "  ")
    assert key_state(hosted) == "no key"
    monkeypatch.setenv("HOSTED_KEY", "k")
    assert key_state(hosted) == "key found"
    placed = Profile(name="placed", api_key_file=str(tmp_path / "key"))
    assert key_state(placed) == "no key"
    (tmp_path / "key").write_text("k")
    assert key_state(placed) == "key found"
    assert key_state(Profile(name="asked", api_key_command=("false",))) == "key from a command"
    assert key_state(Profile(name="local", key_optional=True)) == "no key needed"
    assert key_state(Profile(name=SIM)) == "no key needed"
