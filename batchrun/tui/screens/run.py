"""The run screen."""

import asyncio
from collections.abc import Collection, Mapping
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Footer, Static
from textual.worker import Worker

from batchrun.display import printable
from batchrun.models import State
from batchrun.tui.replay import Replay
from batchrun.tui.screens import listing
from batchrun.tui.screens.dialogs import AskBounds, stepped
from batchrun.tui.screens.listing import ListingScreen
from batchrun.tui.services import Bounds, Phase, ResumedRun, RunSnapshot, Steered, Watched, app_of, run_flags, services
from batchrun.tui.widgets.controls import TitleBar
from batchrun.tui.widgets.outcomes import Outcomes
from batchrun.tui.widgets.panels import Account, Heading, LimitsPanel, Panel, Speed, StatusPanel

STEERING = (
    *("run.pause", "run.drain", "run.abandon", "run.limits", "run.cap_up", "run.cap_down"),
    *("run.rpm_up", "run.rpm_down", "run.tpm_up", "run.tpm_down"),
)
PAINT_EVERY = 1 / 8
REREAD_EVERY = 1.0
_NONE = """\
No run is shown.

F9  start page: recent runs, prompts, input files
F2  set up a run
F4  all runs of this directory"""


class RunScreen(ListingScreen):
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
        Binding("r", "retry", "Resume/retry", id="run.retry", tooltip="Send pending rows, or rows again: this one, all of a cause, all that failed"),
        *listing.KEYS,
    ]  # fmt: skip
    KEY_GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {"steer the run": STEERING, "after the run": ("run.retry",)}
    ABOUT = "A run sends every pending row once. Each reply is saved before it is processed; a retry sends only the chosen rows."

    def __init__(self) -> None:
        super().__init__()
        self._changing = True
        self._read_at: tuple[int, int, bool] | None = None
        self._rereading: Worker[None] | None = None
        self._snapshot: RunSnapshot | None = None

    def compose(self) -> ComposeResult:
        yield TitleBar("run")
        yield Static(_NONE, id="none")
        yield Heading(id="heading")
        yield Account(id="account")
        with Horizontal(id="panels"):
            yield Speed(id="speed")
            yield LimitsPanel(id="limits")
            yield StatusPanel(id="why")
        yield from self.rows()
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        for name, title in (("account", "rows"), ("speed", "speed"), ("limits", "limits"), ("why", "status")):
            self.query_one(f"#{name}").border_title = title
        self.query_one("#rows").border_title = "results"
        self.query_one("#search").display = False
        self.set_interval(PAINT_EVERY, self._paint)
        self.set_interval(REREAD_EVERY, self._reread_later)
        self.query_one(Outcomes).focus()

    def on_screen_resume(self) -> None:
        self._paint()
        self._reread()

    def watch_run(self, watched: Watched | None) -> None:
        before, self._watched, self._snapshot = self._watched, watched, None
        self._changing = True
        self._read_at = None
        reference = None if watched is None else watched.snapshot().reference
        if reference is None or before is None or before.snapshot().reference != reference:
            self.drop_rows()
        if self.is_mounted:
            self._paint()
            self._reread()

    def _paint(self) -> None:
        if not self.is_current:
            return
        self.set_class(self._watched is None, "-none")
        if self._watched is None:
            return
        snapshot = self._watched.snapshot()
        if snapshot is not self._snapshot:
            before, self._snapshot = self._snapshot, snapshot
            if before is None or before.steerable != snapshot.steerable:
                self.refresh_bindings()
            for panel in self.query(Panel):
                panel.show(snapshot)
            self.open_journal(snapshot)
        self.show_heading(self.listed())

    def idle_keys(self) -> Collection[str]:
        if self._snapshot is None:
            return (*STEERING, *listing.NEED_ROWS, "run.retry")
        return ("run.retry",) if self._snapshot.steerable else STEERING

    def _reread_later(self) -> None:
        # a slow disk must not cancel every reading
        if self._rereading is None or self._rereading.is_finished:
            self._reread()

    def _reread(self) -> None:
        self._rereading = self._read_rows()

    @work(exclusive=True, group="reread")
    async def _read_rows(self) -> None:
        watched, rows = self._watched, self._journal_rows
        if watched is None or not self.is_current:
            return
        if self._changing:
            self._changing = await asyncio.to_thread(watched.read_again)
            self._paint()
        progress = watched.snapshot().progress
        mark = progress.finished, progress.in_flight, progress.ended is not None
        if rows is None or mark == self._read_at:
            return
        await rows.recount()
        self._read_at = mark
        self.refresh_rows(ended=progress.ended is not None)

    def _steer(self) -> Steered | None:
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
            self.notify("no run is active here", severity="warning")
        return None

    def action_pause(self) -> None:
        if (steered := self._steer()) is not None:
            steered.resume() if steered.snapshot().phase is Phase.PAUSED else steered.pause()

    def action_bound(self, name: str, direction: int) -> None:
        steered = self._steer()
        bounds = steered.snapshot().bounds if steered is not None else None
        if steered is None or bounds is None:
            return
        changed = stepped(bounds, name, direction, steered.snapshot())
        steered.bound(changed)
        value = getattr(changed, name)
        label = {"cap": "concurrency cap", "rpm": "requests per minute", "tpm": "tokens per minute"}[name]
        self.notify(f"{label}: {'none set' if value is None else f'{value:,.0f}'}", timeout=2)

    def action_limits(self) -> None:
        steered = self._steer()
        bounds = steered.snapshot().bounds if steered is not None else None
        if steered is None or bounds is None:
            return

        def typed(found: Bounds | None) -> None:
            if found is not None:
                steered.bound(found)

        app_of(self).push_screen(AskBounds(bounds), typed)

    def action_drain(self) -> None:
        if (steered := self._steer()) is not None:
            steered.abandon() if steered.snapshot().phase is Phase.STOPPING else steered.drain()

    def action_abandon(self) -> None:
        if (steered := self._steer()) is not None:
            steered.abandon()

    @work(exclusive=True, group="retry")
    async def action_retry(self) -> None:
        line = await self.query_one(Outcomes).reached()
        if self._watched is None or not self.is_current:
            return
        snapshot = self._watched.snapshot()
        if snapshot.foreign is not None:
            self.notify("another process is working on this run; retry when it has ended", severity="warning")
            return
        options: list[tuple[str, str]] = []
        if line is not None and line.state is State.FAILED:
            cause = printable(line.cause or "", 40)
            options.append((f"row:{line.position}", f"this row (line {line.line:,}): {cause}"))
            options.append((f"cause:{line.cause}", f"all rows that failed for this cause: {cause}"))
        progress = snapshot.progress
        left = progress.pending + progress.unknown + progress.retryable
        whole = left + progress.failed - progress.retryable
        kinds = (("rows in batches", progress.in_batches), ("pending and retryable rows", left))
        not_done = "; ".join(f"{kind}: {rows:,}" for kind, rows in kinds if rows)
        options += [("left", not_done)] if not_done else []
        options += [("failed", f"pending rows and all failed rows: {whole:,}")] if whole > left else []
        if not options:
            self.notify("nothing to send: no row is pending or failed", timeout=3)
            return
        self.ask("Which rows should be sent?", options, lambda answer: self._retried(snapshot, answer))

    def _retried(self, snapshot: RunSnapshot, answer: str) -> None:
        kind, _, name = answer.partition(":")
        if snapshot.reference is None:
            return
        services(self).begin(
            ResumedRun(
                reference=snapshot.reference,
                flags=run_flags(self),
                failed=kind == "failed",
                cause=name if kind == "cause" else None,
                only=(int(name),) if kind == "row" else None,
            )
        )
