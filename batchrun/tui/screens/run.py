"""The run screen: how far, how fast, what holds it back; steering; and a table over all rows."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Footer, Input, Static

from batchrun.display import printable
from batchrun.errors import BatchrunError, StorageError
from batchrun.journal import Line, Order, Reader, Wanted
from batchrun.models import State
from batchrun.plan import Plan, plan_from_json
from batchrun.tui.journal_rows import JournalRows
from batchrun.tui.replay import Replay
from batchrun.tui.screen_lifecycle import LifecycleScreen
from batchrun.tui.screens.ask import AskBounds, Choose, nudged
from batchrun.tui.screens.batches import BatchesScreen
from batchrun.tui.screens.row import RowScreen
from batchrun.tui.services import Again, Bounds, Phase, RunSnapshot, Steered, Watched, app_of, services
from batchrun.tui.widgets import paint
from batchrun.tui.widgets.columns import columns_of, source_fields
from batchrun.tui.widgets.field import Field
from batchrun.tui.widgets.outcomes import Outcomes
from batchrun.tui.widgets.panels import Account, Heading, LimitsPanel, Panel, Speed, Why
from batchrun.tui.widgets.preview import RowPreview
from batchrun.tui.widgets.title_bar import TitleBar

STEERING = (
    *("run.pause", "run.drain", "run.abandon", "run.limits", "run.cap_up", "run.cap_down"),
    *("run.rpm_up", "run.rpm_down", "run.tpm_up", "run.tpm_down"),
)
"""The keys that act on a run that is under way."""
PAINT_EVERY = 1 / 8
REREAD_EVERY = 1.0
FIND_EVERY = 5.0
"""Seconds after which a filtered list is found again while the run goes on."""


class RunScreen(LifecycleScreen):
    """One run, live or old."""

    CSS_PATH = "run.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide"), (120, "-paired")]  # noqa: RUF012  Textual declares it so
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p,space", "pause", "Pause", id="run.pause", tooltip="Pause or resume sending"),
        Binding("x", "drain", "Stop", id="run.drain", tooltip="Send nothing new and wait for requests in flight; again: abandon them"),
        Binding("X", "abandon", "Stop now", show=False, id="run.abandon", tooltip="Stop and abandon requests in flight"),
        Binding("l", "limits", "Limits", id="run.limits", tooltip="Change concurrency, requests and tokens per minute"),
        Binding("plus,equals_sign", "bound('cap', 1)", "Raise concurrency", show=False, id="run.cap_up", tooltip="Raise concurrency by 25 %"),
        Binding("minus", "bound('cap', -1)", "Lower concurrency", show=False, id="run.cap_down", tooltip="Lower concurrency by 20 %"),
        Binding("right_square_bracket", "bound('rpm', 1)", "Raise requests/min", show=False, id="run.rpm_up", tooltip="Raise requests per minute by 25 %"),
        Binding("left_square_bracket", "bound('rpm', -1)", "Lower requests/min", show=False, id="run.rpm_down", tooltip="Lower requests per minute by 20 %"),
        Binding("right_curly_bracket", "bound('tpm', 1)", "Raise tokens/min", show=False, id="run.tpm_up", tooltip="Raise tokens per minute by 25 %"),
        Binding("left_curly_bracket", "bound('tpm', -1)", "Lower tokens/min", show=False, id="run.tpm_down", tooltip="Lower tokens per minute by 20 %"),
        Binding("r", "retry", "Retry", id="run.retry", tooltip="Send rows again: this one, all of a cause, all that failed, what is left"),
        Binding("f", "filter", "Filter", id="run.filter", tooltip="Show rows of one state or one cause of failure"),
        Binding("slash", "search", "Search", id="run.search", tooltip="Search in rows, replies and messages"),
        Binding("s", "sort", "Sort", id="run.sort", tooltip="Sort by row, latency or tokens"),
        Binding("w", "export", "Write", id="run.export", tooltip="Write the rows that are listed to a file of their own"),
        Binding("b", "batches", "Batches", show=False, id="run.batches", tooltip="Show the run's batches at the provider"),
        Binding("escape", "clear", "Clear filter", show=False, id="run.clear", tooltip="List all rows again"),
    ]  # fmt: skip
    KEY_GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {"steer the run": STEERING, "after the run": ("run.retry",)}
    ABOUT = "A run sends every pending row once. Each reply is kept before anything is done with it; a retry sends only what it names."

    def __init__(self) -> None:
        super().__init__()
        self._watched: Watched | None = None
        self._journal_rows: JournalRows | None = None
        self._wanted = Wanted()
        self._changing = True
        self._read_at: tuple[int, int, bool] | None = None
        self._found_at = 0.0
        self._said = Content("")
        self._snapshot: RunSnapshot | None = None
        self._fields: Sequence[str] = ()
        self._previewed: Line | None = None

    def compose(self) -> ComposeResult:
        """Heading, account, three panels, the table."""
        yield TitleBar("run")
        yield Heading(id="heading")
        yield Account(id="account")
        with Horizontal(id="panels"):
            yield Speed(id="speed")
            yield LimitsPanel(id="limits")
            yield Why(id="why")
        with Vertical(id="rows"):
            yield Static("", id="listing")
            yield Field(placeholder="text in row, reply or message; Enter searches, Escape leaves", id="search")
            with Horizontal():
                yield Outcomes(id="outcomes")
                yield RowPreview(id="preview")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Paint a few times a second, read the journal about once."""
        for name, title in (("account", "rows"), ("speed", "speed"), ("limits", "limits"), ("why", "status")):
            self.query_one(f"#{name}").border_title = title
        self.query_one("#rows").border_title = "results"
        self.query_one("#search").display = False
        self.set_interval(PAINT_EVERY, self._paint)
        self.set_interval(REREAD_EVERY, self._reread)
        self.query_one(Outcomes).focus()

    def on_screen_resume(self) -> None:
        """At once, not at the next tick."""
        self._paint()
        self._reread()

    def watch_run(self, watched: Watched | None) -> None:
        """Show another run."""
        self._watched, self._snapshot = watched, None
        self._changing = True
        self._read_at = None
        self._wanted = Wanted()
        self._drop_look()
        if self.is_mounted:
            self._paint()
            self._reread()

    def _drop_look(self) -> None:
        if self._journal_rows is not None:
            self._journal_rows.close()
            self._journal_rows = None
        self._previewed = None
        for outcomes in self.query(Outcomes):
            outcomes.show(None)
        for preview in self.query(RowPreview):
            preview.show(None, ())

    def let_go(self) -> None:
        """Let go of the journal."""
        self._drop_look()

    def _paint(self) -> None:
        if not self.is_current:
            return
        if self._watched is None:
            self._say(Content.styled("no run yet: F2 sets one up, F4 lists those that are here", "$foreground-muted"))
            return
        snapshot = self._watched.snapshot()
        if snapshot is not self._snapshot:
            before, self._snapshot = self._snapshot, snapshot
            if before is None or before.steerable != snapshot.steerable:
                self.refresh_bindings()
            for panel in self.query(Panel):
                panel.show(snapshot)
            self._open_journal(snapshot)
        self._say(self._listing())

    def idle_keys(self) -> Collection[str]:
        """Steering is for a run that is under way, retrying for one that is not."""
        if self._snapshot is None:
            return (*STEERING, "run.retry")
        return ("run.retry",) if self._snapshot.steerable else STEERING

    def _say(self, listing: Content) -> None:
        if not listing.is_same(self._said):
            self._said = listing
            self.query_one("#listing", Static).update(listing, layout=False)

    def _open_journal(self, snapshot: RunSnapshot) -> None:
        """Open the journal once there is one."""
        outcomes = self.query_one(Outcomes)
        outcomes.live = snapshot.phase in (Phase.RUNNING, Phase.PAUSED, Phase.STOPPING)
        if snapshot.journal is not None and self._journal_rows is None:
            self._journal_rows = JournalRows(snapshot.journal)
            outcomes.show(self._journal_rows)
            self._find()
            self._name_columns(self._journal_rows)

    @work(exclusive=True, group="columns")
    async def _name_columns(self, rows: JournalRows) -> None:
        """The columns of this run, from its plan."""
        try:
            plan, fields = await rows.ask(_columns)
        except BatchrunError:
            return  # the columns that fit any run stay; what is wrong with the journal is said where its rows are read
        if rows is self._journal_rows:
            self._fields = fields
            outcomes = self.query_one(Outcomes)
            outcomes.columns = columns_of(plan, fields)
            outcomes.refresh()

    @on(Outcomes.Moved)
    @work(exclusive=True, group="preview")
    async def _follow(self) -> None:
        """Show the row under the cursor beside the table, where there is room."""
        line, rows = self.query_one(Outcomes).current, self._journal_rows
        if rows is None or line == self._previewed or not self.query_one(RowPreview).display:
            return
        self._previewed = line
        try:
            record = None if line is None else (await rows.record(line.seq))[0]
        except StorageError:
            return
        if rows is self._journal_rows:
            self.query_one(RowPreview).show(record, self._fields)

    def on_resize(self) -> None:
        """A wider screen has room for the row under the cursor."""
        self.call_after_refresh(self._follow)

    def _listing(self) -> Content:
        wanted, rows = self._wanted, self._journal_rows
        what = [str(wanted.state)] if wanted.state else []
        what += [f"because of {printable(wanted.cause, 60)}"] if wanted.cause else []
        what += [f"with “{printable(wanted.text, 40)}”"] if wanted.text else []
        shown = ", ".join(what) or "all rows"
        total = "" if rows is None else f" · {rows.total:,}"
        more = " · looking …" if rows is not None and rows.finding else ""
        trouble = f" · {printable(rows.trouble, 120)}" if rows is not None and rows.trouble else ""
        order = "" if wanted.order is Order.ROW else f" · by {wanted.order}, most first"
        return Content.assemble((shown, "bold"), (f"{total}{order}{more}", "$foreground-muted"), (trouble, "$error"))

    @work(exclusive=True, group="reread")
    async def _reread(self) -> None:
        """What events do not tell: an old or foreign run, and the lines of the table while rows finish."""
        watched, rows = self._watched, self._journal_rows
        if watched is None or not self.is_current:
            return
        if self._changing:
            self._changing = await self._looked(watched)
            self._paint()
        progress = watched.snapshot().progress
        mark = progress.finished, progress.in_flight, progress.ended is not None
        if rows is None or mark == self._read_at:
            return
        self._read_at = mark
        await rows.recount()
        self._found_again()

    async def _looked(self, watched: Watched) -> bool:
        return await asyncio.to_thread(watched.read_again)

    def _found_again(self) -> None:
        outcomes = self.query_one(Outcomes)
        now = services(self).time
        if self._wanted.everything:
            outcomes.found()
        elif now - self._found_at > FIND_EVERY:
            self._find()
        outcomes.reread()

    @work(exclusive=True, group="find")
    async def _find(self) -> None:
        rows, outcomes = self._journal_rows, self.query_one(Outcomes)
        if rows is None:
            return

        def told() -> None:
            outcomes.reread()
            outcomes.found()

        await rows.choose(self._wanted, told)

    def _want(self, wanted: Wanted) -> None:
        self._wanted = wanted
        outcomes = self.query_one(Outcomes)
        outcomes.forget()
        outcomes.action_move_to(0)
        self._find()
        outcomes.focus()

    def _steer(self) -> Steered | None:
        """The run that is shown, where it is under way and can be steered; else it is said why not."""
        steered, watched = services(self).steered, self._watched
        if steered is not None and steered is watched:
            if services(self).busy:
                return steered
            self.notify("this run has ended; r sends rows again", severity="warning")
        elif isinstance(watched, Replay) and watched.snapshot().bounds is not None:
            return watched
        elif watched is not None and watched.snapshot().foreign is not None:
            self.notify("read only: the process that works on this run cannot be steered", severity="warning")
        else:
            self.notify("no run is under way here", severity="warning")
        return None

    def action_pause(self) -> None:
        """Pause, or go on."""
        if (steered := self._steer()) is not None:
            steered.go_on() if steered.snapshot().phase is Phase.PAUSED else steered.pause()

    def action_bound(self, name: str, direction: int) -> None:
        """Raise or lower one limit by a quarter; a rate that is not limited yet starts from what it is now."""
        steered = self._steer()
        bounds = steered.snapshot().bounds if steered is not None else None
        if steered is None or bounds is None:
            return
        changed = nudged(bounds, name, direction, steered.snapshot())
        steered.bound(changed)
        value = getattr(changed, name)
        label = {"cap": "concurrency cap", "rpm": "requests per minute", "tpm": "tokens per minute"}[name]
        self.notify(f"{label}: {'none set' if value is None else f'{value:,.0f}'}", timeout=2)

    def action_limits(self) -> None:
        """Type limits."""
        steered = self._steer()
        bounds = steered.snapshot().bounds if steered is not None else None
        if steered is None or bounds is None:
            return

        def typed(found: Bounds | None) -> None:
            if found is not None:
                steered.bound(found)

        app_of(self).push_screen(AskBounds(bounds), typed)

    def action_drain(self) -> None:
        """Stop: nothing new leaves, what is in flight is awaited; a second time leaves at once."""
        if (steered := self._steer()) is not None:
            steered.abandon() if steered.snapshot().phase is Phase.STOPPING else steered.drain()

    def action_abandon(self) -> None:
        """Stop at once: what is in flight becomes unknown."""
        if (steered := self._steer()) is not None:
            steered.abandon()

    @work(exclusive=True, group="filter")
    async def action_filter(self) -> None:
        """Choose a state, or a cause of failure, each with its rows."""
        rows = self._journal_rows
        if self._watched is None:
            return
        try:
            failures = {} if rows is None else await rows.ask(lambda reader: reader.failures())
        except StorageError as error:
            self.notify(printable(error.message, 300), severity="error", markup=False)
            return
        progress = self._watched.snapshot().progress
        found = paint.counts(progress)
        states = [(f"state:{state}", f"{found[state]:>9,}  {state}") for state in State if state is not State.IN_FLIGHT]
        causes = [
            (f"cause:{cause}", f"{count:>9,}  failed: {printable(cause, 60)}") for cause, count in failures.items()
        ]
        self._ask("Show", [("all", f"{progress.rows:>9,}  all rows"), *states, *causes], self._filtered)

    def _ask(self, question: str, options: list[tuple[str, str]], then: Callable[[str], None]) -> None:
        app_of(self).push_screen(Choose(question, options), lambda answer: then(answer) if answer else None)

    def _filtered(self, answer: str) -> None:
        kind, _, name = answer.partition(":")
        if kind == "all":
            self._want(self._wanted._replace(state=None, cause=None))
        elif kind == "state":
            self._want(self._wanted._replace(state=State(name), cause=None))
        else:
            self._want(self._wanted._replace(state=State.FAILED, cause=name))

    @work(exclusive=True, group="export")
    async def action_export(self) -> None:
        """Write the rows that are listed to a file beside the output."""
        if self._journal_rows is None:
            return
        try:
            said = await services(self).export_rows(self._journal_rows.path, self._wanted)
        except BatchrunError as error:
            self.notify(printable(error.message, 300), severity="error", markup=False)
        else:
            self.notify(printable(f"wrote {said}", 300), markup=False)

    def action_batches(self) -> None:
        """The batches of the run."""
        if self._journal_rows is not None:
            app_of(self).push_screen(BatchesScreen(self._journal_rows.path, self._journal_rows.path.stem))

    def action_sort(self) -> None:
        """The next order: by row, latency, tokens."""
        orders = list(Order)
        following = orders[(orders.index(self._wanted.order) + 1) % len(orders)]
        self._want(self._wanted._replace(order=following))

    def action_search(self) -> None:
        """Type what to look for."""
        search = self.query_one("#search", Input)
        search.display = True
        search.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Search."""
        event.input.display = bool(event.value)
        self._want(self._wanted._replace(text=event.value.strip()))

    def action_clear(self) -> None:
        """All rows again."""
        search = self.query_one("#search", Input)
        search.value, search.display = "", False
        if not self._wanted.everything:
            self._want(Wanted())
        self.query_one(Outcomes).focus()

    def on_outcomes_opened(self, event: Outcomes.Opened) -> None:
        """Show the row whole."""
        if self._journal_rows is not None and self._watched is not None:
            app_of(self).push_screen(
                RowScreen(self._journal_rows, event.line.seq, self._watched, self.query_one(Outcomes).stepped)
            )

    def action_retry(self) -> None:
        """Choose what to send again."""
        if self._watched is None:
            return
        snapshot, line = self._watched.snapshot(), self.query_one(Outcomes).current
        if snapshot.foreign is not None:
            self.notify("another process works on this run: retry when it has ended", severity="warning")
            return
        options: list[tuple[str, str]] = []
        if line is not None and line.state is State.FAILED:
            options.append(
                (f"row:{line.position}", f"this row (line {line.line:,}): {printable(line.cause or '', 60)}")
            )
            options.append(
                (f"cause:{line.cause}", f"all rows that failed for this cause: {printable(line.cause or '', 40)}")
            )
        options += [
            ("failed", "everything that failed, and what is left"),
            ("left", "pending and retryable rows"),
        ]
        self._ask("Send again", options, lambda answer: self._retried(snapshot, answer))

    def _retried(self, snapshot: RunSnapshot, answer: str) -> None:
        kind, _, name = answer.partition(":")
        if snapshot.reference is None:
            return
        flags = {"runs_dir": services(self).runs_dir} if services(self).runs_dir else {}
        services(self).begin(
            Again(
                reference=snapshot.reference,
                flags=flags,
                failed=kind == "failed",
                cause=name if kind == "cause" else None,
                only=(int(name),) if kind == "row" else None,
            )
        )


def _columns(reader: Reader) -> tuple[Plan, Sequence[str]]:
    """The plan of a run, and the fields of its first row that the prompt reads."""
    plan = plan_from_json(reader.meta.plan)
    first = next(iter(reader.lines(0, 1)), None)
    record = None if first is None else reader.row(seq=first.seq)
    return plan, source_fields(plan, "" if record is None else record.text)
