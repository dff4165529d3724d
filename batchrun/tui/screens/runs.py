"""The runs of this directory."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, ClassVar, cast

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import DataTable, Footer, Static
from textual.worker import Worker

from batchrun import registry
from batchrun.display import counted, printable
from batchrun.errors import BatchrunError
from batchrun.registry import RunFile, Summary
from batchrun.report import words
from batchrun.tui.replay import Replay
from batchrun.tui.screen_lifecycle import LifecycleScreen
from batchrun.tui.screens.dialogs import Confirm
from batchrun.tui.services import ResumedRun, app_of, run_flags, services
from batchrun.tui.widgets import paint
from batchrun.tui.widgets.controls import RowTable, TitleBar

REREAD_EVERY = 2.0
_NONE = """\
No runs here yet.

n   set up a run
F9  start page: prompts, input files, a try without a key"""
_COLOURS = {"running": "success", "finished": "foreground", "killed": "error", "damaged": "error"}
COLUMNS = (
    *(Text("state"), Text("output"), *(Text(name, justify="right") for name in ("rows", "done", "failed", "left"))),
    *(Text("started"), Text("prompt"), Text("model"), Text("tokens", justify="right"), Text("run")),
)
_SORTED: Mapping[str, Callable[[Summary], Any]] = {
    "state": words.state_of,
    "output": lambda found: found.run.reference,
    "rows": lambda found: -found.totals.rows,
    "done": lambda found: -found.totals.done,
    "failed": lambda found: -found.totals.failed,
    "left": lambda found: -(found.totals.pending + found.totals.unknown),
    "started": lambda found: -found.run.meta.created,
    "prompt": lambda found: str(words.planned(found).get("prompt_name") or ""),
    "model": lambda found: str(words.planned(found).get("model") or ""),
    "tokens": lambda found: -(found.totals.input_tokens + found.totals.output_tokens),
    "run": lambda found: found.run.id,
}
_LONGEST = 24  # cells of a prompt or a model
_GAP = 2


class RunTable(RowTable):
    # Enter waits until the list has been read

    def action_select_cursor(self) -> None:
        cast("RunsScreen", self.screen).once_loaded(super().action_select_cursor)


class RunsScreen(LifecycleScreen):
    CSS_PATH = "runs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "resume", "Resume", id="runs.resume", tooltip="Send everything that is pending or retryable"),
        Binding("f", "retry", "Retry failed", id="runs.retry", tooltip="Also send what failed permanently"),
        Binding("e", "export", "Export", id="runs.export", tooltip="Write the output again from the journal"),
        Binding("d,delete", "delete", "Delete", id="runs.delete", tooltip="Delete the journal, after a confirmation; the output stays"),
        Binding("s", "sort", "Sort", id="runs.sort", tooltip="Sort by the next column; a click on a title sorts by it"),
        Binding("n", "app.show('setup')", "New", id="runs.new", tooltip="Set up another run"),
    ]  # fmt: skip
    ABOUT = "A run is one prompt over one input; its journal has every row and reply. A run can be resumed at any time."

    def __init__(self) -> None:
        super().__init__()
        self._found: list[Summary] = []
        self._by = "started"
        self._reading: Worker[None] | None = None

    def compose(self) -> ComposeResult:
        yield TitleBar("runs")
        yield Static("", id="heading")
        yield Static(_NONE, id="none")
        yield RunTable(id="runs", cursor_type="row", zebra_stripes=False)
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self.set_interval(REREAD_EVERY, self._read_if_seen)
        self._table.focus()

    def on_resize(self) -> None:
        self._fill(self._table.cursor_row)

    def on_screen_resume(self) -> None:
        self._read()

    @property
    def _table(self) -> RowTable:
        return self.query_one("#runs", RowTable)

    def _read_if_seen(self) -> None:
        if self.is_current and (self._reading is None or self._reading.is_finished):
            self._read()

    def _read(self) -> None:
        self._reading = self._read_runs()

    @work(exclusive=True)
    async def _read_runs(self) -> None:
        self._take(await asyncio.to_thread(listed, services(self).runs_dir))

    def _take(self, found: list[Summary]) -> None:
        found = sorted(found, key=_SORTED[self._by])
        self.loaded.set()
        if found == self._found:
            return
        seen, row = self._current, self._table.cursor_row
        self._found = found
        ids = [summary.run.id for summary in found]
        row = ids.index(seen.run.id) if seen is not None and seen.run.id in ids else min(row, max(0, len(ids) - 1))
        self._fill(row)

    def _fill(self, row: int) -> None:
        """The cursor goes to `row`, on the same line of the screen."""
        # Textual's own measuring comes after the first frame
        table, room = self._table, self.size.width
        top = table.scroll_offset.y + row - table.cursor_row
        table.clear(columns=True)
        lines = [cells(summary, app_of(self).theme_variables, room // 2) for summary in self._found]
        titles = [Text.assemble(title, " ▾" if title.plain == self._by else "") for title in COLUMNS]
        for title, column in zip(titles, COLUMNS, strict=True):
            title.justify = column.justify
        widths = fitting([max(cell.cell_len for cell in column) for column in zip(titles, *lines, strict=True)], room)
        for title, column, width in zip(titles, COLUMNS, widths, strict=False):
            table.add_column(title, key=column.plain, width=width)
        for summary, line in zip(self._found, lines, strict=True):
            table.add_row(*line[: len(widths)], key=summary.run.id)
        table.move_cursor(row=row)
        table.call_after_refresh(table.scroll_to, y=top, animate=False)
        self._show_heading()

    def _show_heading(self) -> None:
        where = registry.directory_for(registry.STREAM, services(self).runs_dir)
        place = printable(str(where), 80)
        found = f"{counted(len(self._found), 'run')} in {place}" if self._found else f"none in {place}"
        self.set_class(not self._found, "-none")
        self.query_one("#heading", Static).update(Content.assemble(("runs  ", "bold"), (found, "$foreground-muted")))

    @property
    def _current(self) -> Summary | None:
        row = self._table.cursor_row
        return self._found[row] if 0 <= row < len(self._found) else None

    def on_data_table_row_selected(self) -> None:
        found = self._current
        if found is None:
            return
        steered = services(self).steered
        if steered is not None and steered.snapshot().journal == found.run.path and services(self).busy:
            services(self).show_run(steered)
        else:
            services(self).show_run(Replay(found.run))

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        self._sort(str(event.column_key.value))

    def action_sort(self) -> None:
        columns = [str(column.key.value) for column in self._table.ordered_columns]
        self._sort(columns[(columns.index(self._by) + 1) % len(columns) if self._by in columns else 0])

    def _sort(self, column: str) -> None:
        self._by = column
        self._take(self._found)
        self._fill(self._table.cursor_row)

    def action_resume(self) -> None:
        self.once_loaded(lambda: self._again(failed=False))

    def action_retry(self) -> None:
        self.once_loaded(lambda: self._again(failed=True))

    def _again(self, *, failed: bool) -> None:
        found = self._current
        if found is not None and found.running is not None:
            self.notify("another process is working on this run; Enter shows it", severity="warning")
        elif found is not None:
            services(self).begin(ResumedRun(reference=found.run.reference, flags=run_flags(self), failed=failed))

    @work(exclusive=True, group="export")
    async def action_export(self) -> None:
        await self.loaded.wait()
        found = self._current
        if found is None:
            return
        try:
            written = await services(self).export(found.run)
        except BatchrunError as error:
            self.notify(printable(error.message, 300), severity="error", markup=False)
        else:
            self.notify(printable(f"wrote {written}", 300), markup=False)

    def action_delete(self) -> None:
        self.once_loaded(self._ask_to_delete)

    def _ask_to_delete(self) -> None:
        found = self._current
        if found is None:
            return

        def answered(answer: str | None) -> None:
            if answer == "delete":
                self._delete(found.run)

        detail = f"{found.totals.replies:,} replies that were paid for are in its journal. The output file stays."
        question = f"Delete run {found.run.id} ({printable(found.run.reference, 60)})?"
        app_of(self).push_screen(Confirm(question, detail, [("delete", "Delete", "error")]), answered)

    @work(exclusive=True, group="delete")
    async def _delete(self, run: RunFile) -> None:
        try:
            await asyncio.to_thread(registry.remove, run)
        except BatchrunError as error:
            self.notify(printable(error.message, 300), severity="error", markup=False)
        self._read()


def listed(runs_dir: str | None) -> list[Summary]:
    return registry.summaries(registry.directory_for(registry.STREAM, runs_dir))


def fitting(widths: Sequence[int], room: int) -> list[int]:
    ends = accumulate(width + _GAP for width in widths)
    return [width for width, end in zip(widths, ends, strict=True) if end <= room]


def cells(found: Summary, colours: Mapping[str, str], longest: int) -> list[Text]:
    totals, state = found.totals, words.state_of(found)
    left = totals.pending + totals.unknown
    mark = "  SIMULATED" if found.run.meta.simulated else ""
    name = Text(printable(found.run.reference, longest))
    name.truncate(max(8, longest - len(mark)), overflow="ellipsis")
    plan = words.planned(found)

    def number(value: int, colour: str) -> Text:
        return Text(f"{value:,}", style=colours[colour if value else "foreground-muted"], justify="right")

    return [
        Text(state, style=colours[_COLOURS.get(state, "warning")]),
        Text.assemble(name, (mark, colours["warning"])),
        number(totals.rows, "foreground"),
        number(totals.done, "success"),
        number(totals.failed, "error"),
        number(left, "warning"),
        Text(paint.clock(found.run.meta.created), style=colours["foreground-muted"]),
        *(Text(printable(str(plan.get(key) or "–"), _LONGEST)) for key in ("prompt_name", "model")),
        Text(f"{words.count(totals.input_tokens)}+{words.count(totals.output_tokens)}", justify="right"),
        Text(found.run.id, style=colours["foreground-muted"]),
    ]
