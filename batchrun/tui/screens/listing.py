"""The rows of a run, and its batches."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from batchrun.display import printable
from batchrun.errors import BatchrunError, StorageError
from batchrun.journal import Line, Order, Reader, Wanted
from batchrun.models import State
from batchrun.plan import Plan, plan_from_json
from batchrun.report import words
from batchrun.report.batch_pages import batches, lines
from batchrun.tui.journal_rows import JournalRows
from batchrun.tui.screen_lifecycle import MOVING, LifecycleScreen
from batchrun.tui.screens.dialogs import Choose
from batchrun.tui.screens.row import RowScreen
from batchrun.tui.services import Phase, RunSnapshot, Watched, app_of, services
from batchrun.tui.widgets import paint
from batchrun.tui.widgets.columns import columns_of, source_fields
from batchrun.tui.widgets.controls import Field
from batchrun.tui.widgets.outcomes import Outcomes, RowPreview

KEYS: list[BindingType] = [
    Binding("f", "filter", "Filter", id="run.filter", tooltip="Show rows of one state or one cause of failure"),
    Binding("slash", "search", "Search", id="run.search", tooltip="Search in rows, replies and messages"),
    Binding("s", "sort", "Sort", id="run.sort", tooltip="Sort by row, latency or tokens"),
    Binding("w", "export", "Write", id="run.export", tooltip="Write the listed rows to a file of their own"),
    Binding("v", "preview", "Preview", show=False, id="run.preview", tooltip="Show the row under the cursor beside or below the list, or hide it"),
    Binding("b", "batches", "Batches", show=False, id="run.batches", tooltip="Show the run's batches at the provider"),
    Binding("escape", "clear", "Clear filter", show=False, id="run.clear", tooltip="List all rows again"),
    *MOVING,
]  # fmt: skip
NEED_ROWS = ("run.filter", "run.search", "run.sort", "run.export", "row.open")
FIND_EVERY = 5.0
# columns, and lines, from which the preview is shown there
BESIDE, BELOW = 120, 36
STEP = 5  # percent


class ListingScreen(LifecycleScreen):
    def __init__(self) -> None:
        super().__init__()
        self._watched: Watched | None = None
        self._journal_rows: JournalRows | None = None
        self._wanted = Wanted()
        self._found_at = 0.0
        self._heading = Content("")
        self._fields: Sequence[str] = ()
        self._previewed: Line | None = None
        self._preview: bool | None = None
        self._share = 40

    def rows(self) -> ComposeResult:
        with Vertical(id="rows"):
            yield Static("", id="listing")
            yield Field(placeholder="text in row, reply or message; Enter searches, Escape closes", id="search")
            with Container(id="results"):
                yield Outcomes(id="outcomes")
                yield RowPreview(id="preview")

    def on_resize(self) -> None:
        self._arrange()

    def _arrange(self) -> None:
        beside = self.size.width >= BESIDE
        shown = self._preview if self._preview is not None else beside or self.size.height >= BELOW
        self.set_class(shown and beside, "-beside")
        self.set_class(shown and not beside, "-below")
        styles = self.query_one(RowPreview).styles
        styles.width, styles.height = (f"{self._share}%", "1fr") if beside else ("1fr", f"{self._share}%")
        self.call_after_refresh(self._follow)

    def action_preview(self) -> None:
        self._preview = not self.query_one(RowPreview).display
        self._arrange()

    def action_border(self, right: int, down: int) -> None:
        self._share = max(20, min(80, self._share - STEP * (right if self.has_class("-beside") else down)))
        self._arrange()

    def drop_rows(self) -> None:
        self._wanted = Wanted()
        if self._journal_rows is not None:
            self._journal_rows.close()
            self._journal_rows = None
        self._previewed = None
        for outcomes in self.query(Outcomes):
            outcomes.order = self._wanted.order
            outcomes.show(None)
        for preview in self.query(RowPreview):
            preview.show(None, ())

    def release(self) -> None:
        self.drop_rows()

    def show_heading(self, listing: Content) -> None:
        if not listing.is_same(self._heading):
            self._heading = listing
            self.query_one("#listing", Static).update(listing, layout=False)

    def open_journal(self, snapshot: RunSnapshot) -> None:
        outcomes = self.query_one(Outcomes)
        outcomes.live = snapshot.phase in (Phase.RUNNING, Phase.PAUSED, Phase.STOPPING)
        if self._journal_rows is not None and snapshot.journal not in (None, self._journal_rows.path):
            self.drop_rows()
        if snapshot.journal is not None and self._journal_rows is None:
            self._journal_rows = JournalRows(snapshot.journal)
            outcomes.show(self._journal_rows)
            self._find()
            self._name_columns(self._journal_rows)

    @work(exclusive=True, group="columns")
    async def _name_columns(self, rows: JournalRows) -> None:
        try:
            plan, fields = await rows.query(_columns)
        except BatchrunError:
            return  # the columns that fit any run stay; reading its rows reports the journal's error
        if rows is self._journal_rows:
            self._fields, self._previewed = fields, None
            self._follow()
            outcomes = self.query_one(Outcomes)
            outcomes.columns = columns_of(plan, fields)
            outcomes.refresh()

    @on(Outcomes.Moved)
    @work(exclusive=True, group="preview")
    async def _follow(self) -> None:
        line, rows = self.query_one(Outcomes).current, self._journal_rows
        if rows is None or line == self._previewed or not self.query_one(RowPreview).display:
            return
        try:
            record = None if line is None else (await rows.record(line.seq))[0]
        except StorageError:
            return
        if rows is self._journal_rows:
            self._previewed = line
            self.query_one(RowPreview).show(record, self._fields)

    def listed(self) -> Content:
        wanted, rows = self._wanted, self._journal_rows
        what = [str(wanted.state)] if wanted.state else []
        what += [f"because of {printable(wanted.cause, 60)}"] if wanted.cause else []
        what += [f"with “{printable(wanted.text, 40)}”"] if wanted.text else []
        shown = ", ".join(what) or "all rows"
        total = "" if rows is None else f" · {rows.total:,}"
        more = " · searching …" if rows is not None and rows.finding else ""
        if what and rows is not None and not rows.total and not rows.finding:
            more = ": none; Escape lists all rows"
        trouble = f" · {printable(rows.trouble, 120)}" if rows is not None and rows.trouble else ""
        order = "" if wanted.order is Order.ROW else f" · by {wanted.order}, most first"
        return Content.assemble((shown, "bold"), (f"{total}{order}{more}", "$foreground-muted"), (trouble, "$error"))

    def refresh_rows(self, *, ended: bool) -> None:
        outcomes = self.query_one(Outcomes)
        now = services(self).time
        if self._wanted.everything:
            outcomes.found()
        elif ended or (now - self._found_at > FIND_EVERY and self._journal_rows and not self._journal_rows.finding):
            self._found_at = now
            self._find()
        outcomes.reread()

    @work(exclusive=True, group="find")
    async def _find(self) -> None:
        rows, outcomes = self._journal_rows, self.query_one(Outcomes)
        if rows is None:
            return

        def changed() -> None:
            outcomes.reread()
            outcomes.found()

        await rows.choose(self._wanted, changed)

    def list_rows(self, wanted: Wanted) -> None:
        self._wanted = wanted
        if self._journal_rows is not None:
            self._journal_rows.counted = False
        outcomes = self.query_one(Outcomes)
        outcomes.order = wanted.order
        outcomes.forget()
        outcomes.action_move_to(0)
        self._find()
        outcomes.focus()

    @on(Outcomes.FilterWanted)
    @work(exclusive=True, group="filter")
    async def action_filter(self) -> None:
        rows = self._journal_rows
        if self._watched is None:
            return
        try:
            failures = {} if rows is None else await rows.query(lambda reader: reader.failures())
        except StorageError as error:
            self.notify(printable(error.message, 300), severity="error", markup=False)
            return
        if not self.is_current:
            return
        progress = self._watched.snapshot().progress
        found = paint.counts(progress)
        states = [(f"state:{state}", f"{found[state]:>9,}  {state}") for state in State if state is not State.IN_FLIGHT]
        causes = [
            (f"cause:{cause}", f"{count:>9,}  failed: {printable(cause, 60)}") for cause, count in failures.items()
        ]
        self.ask("Show", [("all", f"{progress.rows:>9,}  all rows"), *states, *causes], self._filtered)

    def ask(self, question: str, options: list[tuple[str, str]], then: Callable[[str], None]) -> None:
        app_of(self).push_screen(Choose(question, options), lambda answer: then(answer) if answer else None)

    def _filtered(self, answer: str) -> None:
        kind, _, name = answer.partition(":")
        if kind == "all":
            self.list_rows(self._wanted._replace(state=None, cause=None))
        elif kind == "state":
            self.list_rows(self._wanted._replace(state=State(name), cause=None))
        else:
            self.list_rows(self._wanted._replace(state=State.FAILED, cause=name))

    def action_show_state(self, name: str) -> None:
        # states that the journal lacks list all rows
        self.list_rows(Wanted(state=State(name)) if name in set(State) - {State.IN_FLIGHT} else Wanted())

    def action_show_cause(self, place: int) -> None:
        causes = [] if self._watched is None else list(self._watched.snapshot().progress.causes)
        if place < len(causes):
            self.list_rows(Wanted(state=State.FAILED, cause=causes[place]))

    @work(exclusive=True, group="export")
    async def action_export(self) -> None:
        if self._journal_rows is None:
            self.notify("no rows yet: the input is being checked", severity="warning")
            return
        try:
            written = await services(self).export_rows(self._journal_rows.path, self._wanted)
        except BatchrunError as error:
            self.notify(printable(error.message, 300), severity="error", markup=False)
        else:
            self.notify(printable(f"wrote {written}", 300), markup=False)

    def action_batches(self) -> None:
        if self._journal_rows is None:
            self.notify("no batches yet: the input is being checked", severity="warning")
        else:
            app_of(self).push_screen(BatchesScreen(self._journal_rows.path, self._journal_rows.path.stem))

    def action_sort(self) -> None:
        orders = list(Order)
        self._sort(orders[(orders.index(self._wanted.order) + 1) % len(orders)])

    @on(Outcomes.SortWanted)
    def _sort_wanted(self, event: Outcomes.SortWanted) -> None:
        self._sort(event.order)

    def _sort(self, order: Order) -> None:
        self.list_rows(self._wanted._replace(order=order))

    def action_search(self) -> None:
        search = self.query_one("#search", Input)
        search.display = True
        search.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.input.display = bool(event.value)
        self.list_rows(self._wanted._replace(text=event.value.strip()))

    def action_clear(self) -> None:
        search = self.query_one("#search", Input)
        search.value, search.display = "", False
        if not self._wanted.everything:
            self.list_rows(Wanted())
        self.query_one(Outcomes).focus()

    def on_outcomes_opened(self, event: Outcomes.Opened) -> None:
        if self._journal_rows is not None and self._watched is not None:
            app_of(self).push_screen(
                RowScreen(self._journal_rows, event.line.seq, self._watched, self.query_one(Outcomes))
            )


def _columns(reader: Reader) -> tuple[Plan, Sequence[str]]:
    plan = plan_from_json(reader.meta.plan)
    first = next(iter(reader.lines(0, 1)), None)
    record = None if first is None else reader.row(seq=first.seq)
    return plan, source_fields(plan, "" if record is None else record.text)


EVERY = 2.0  # seconds


class BatchesScreen(ModalScreen[None]):
    CSS_PATH = "pick.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,b", "dismiss(None)", "Close")]

    def __init__(self, journal: Path, named: str) -> None:
        super().__init__()
        self._journal = journal
        self._named = named

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide"):
            yield Label("Batches", classes="question")
            with VerticalScroll():
                yield Static(id="batches")

    @work
    async def on_mount(self) -> None:
        while True:
            text = await asyncio.to_thread(self._text)
            for shown in self.query("#batches").results(Static):  # none once the screen is closed
                shown.update(Content(text))
            await asyncio.sleep(EVERY)

    def _text(self) -> str:
        try:
            with Reader.open(self._journal) as reader:
                found, totals = batches(reader, plan_from_json(reader.meta.plan)), reader.totals
        except StorageError as error:
            return error.message
        if not found:
            return "no batches in this run; --batch sends rows in batches"
        commands = f"batchrun batches {self._named} cancel | finish-live"
        return "\n".join([*lines(found, time.time()), "", words.account(totals), "", f"to end them: {commands}"])
