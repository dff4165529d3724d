"""The row view."""

import json
import os
import shlex
import tempfile
from collections.abc import Sequence
from typing import ClassVar

from textual import work
from textual.app import ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Static

from batchrun import replies
from batchrun.display import printable
from batchrun.errors import BatchrunError
from batchrun.journal import Attempt, Reader, Record
from batchrun.models import State
from batchrun.plan import plan_from_json
from batchrun.report import row_text
from batchrun.tui import safe_text
from batchrun.tui.journal_rows import JournalRows
from batchrun.tui.screen_lifecycle import LifecycleScreen
from batchrun.tui.screens.dialogs import Confirm
from batchrun.tui.services import ResumedRun, Watched, app_of, run_flags, services
from batchrun.tui.widgets import paint
from batchrun.tui.widgets.columns import source_fields
from batchrun.tui.widgets.outcomes import CUT, Outcomes, reply_text, source_text


class RowScreen(LifecycleScreen):
    CSS_PATH = "row.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012  Textual declares it so
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "app.pop_screen", "Back", id="row.back", tooltip="Back to the list"),
        Binding("n", "step(1)", "Next", id="row.next", tooltip="The next row of the list"),
        Binding("p", "step(-1)", "Previous", id="row.previous", tooltip="The row before"),
        Binding("c", "copy", "Copy", id="row.copy", tooltip="Copy the reply to the clipboard"),
        Binding("C", "copy_request", "Copy request", show=False, id="row.copy_request", tooltip="Copy the request to the clipboard"),
        Binding("o", "pager", "Pager", id="row.pager", tooltip="Open all texts of the row in $PAGER"),
        Binding("r", "retry", "Send again", id="row.retry", tooltip="Send this row again; a done row only after a confirmation, and its earlier reply is kept"),
        Binding("e", "edit", "Edit", id="row.edit", tooltip="Edit the prompt in the setup, and try this row"),
    ]  # fmt: skip

    def __init__(self, journal_rows: JournalRows, seq: int, watched: Watched, listed: Outcomes | None = None) -> None:
        super().__init__()
        self._listed = listed
        self._journal_rows = journal_rows
        self._seq = seq
        self._watched = watched
        self._record: Record | None = None
        self._texts: dict[str, str] = {}

    def compose(self) -> ComposeResult:
        yield Static("", id="heading")
        with VerticalScroll(id="source", can_focus=True):
            yield Static("", id="source-text")
        with VerticalScroll(id="reply", can_focus=True):
            yield Static("", id="reply-text")
        with VerticalScroll(id="request", can_focus=True):
            yield Static("", id="request-text")
        with VerticalScroll(id="attempts", can_focus=True):
            yield Static("", id="attempts-text")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        for name in ("source", "reply", "request", "attempts"):
            self.query_one(f"#{name}").border_title = name
        self._read(None)

    @work(exclusive=True)
    async def _read(self, listed: Outcomes | None) -> None:
        line = None if listed is None else await listed.reached()
        self._seq = self._seq if line is None else line.seq
        try:
            record, attempts = await self._journal_rows.record(self._seq)
            rendered, fields = (
                ("", ()) if record is None else await self._journal_rows.query(lambda reader: _rendered(reader, record))
            )
        except BatchrunError as error:
            self.notify(printable(error.message, 300), severity="error", markup=False)
            self._record, self._texts = None, {}
            self.loaded.set()
            return
        self._record = record
        if record is not None:
            self._show(record, attempts, rendered, fields)
        self.loaded.set()

    def _show(self, record: Record, attempts: list[Attempt], rendered: str, fields: Sequence[str]) -> None:
        self._texts = {
            "request": rendered,
            "reply": row_text.reply_text(record),
            "attempts": attempts_text(attempts),
        }
        if (thinking := replies.thinking_of(record.body or "")) is not None:
            self._texts["thinking"] = thinking
        self.query_one("#source-text", Static).update(safe_text.shown(source_text(record.text, fields), CUT))
        self.query_one("#source").border_title = f"source · line {record.line:,}"
        self.query_one("#heading", Static).update(heading(record))
        self.query_one("#request-text", Static).update(safe_text.shown(rendered, CUT))
        self.query_one("#reply-text", Static).update(safe_text.shown(reply_text(record), CUT))
        self.query_one("#reply").border_title = "error" if record.state is State.FAILED else "reply"
        self.query_one("#attempts-text", Static).update(Content("\n").join(attempt_lines(attempts)))
        self.query_one("#attempts").border_title = f"attempts · {len(attempts)}"

    def action_step(self, by: int) -> None:
        listed = self._listed
        if listed is None:
            return

        def step() -> None:
            listed.action_move(by)
            self.loaded.clear()
            self._read(listed)

        self.once_loaded(step)  # keys before it act on the row that they were pressed for

    def action_copy(self) -> None:
        self.once_loaded(lambda: self._copy("reply"))

    def action_copy_request(self) -> None:
        self.once_loaded(lambda: self._copy("request"))

    def _copy(self, name: str) -> None:
        app_of(self).copy_to_clipboard(self._texts.get(name, ""))
        self.notify(f"the {name} is copied", timeout=2)

    @work(exclusive=True, group="pager")
    async def action_pager(self) -> None:
        await self.loaded.wait()
        await show_in_pager(self, "\n\n".join(f"=== {name} ===\n{text}" for name, text in self._texts.items()))

    def action_retry(self) -> None:
        self.once_loaded(self._retry)

    def _retry(self) -> None:
        record, reference = self._record, self._watched.snapshot().reference
        if record is None or record.position is None or reference is None:
            return
        if self._watched.snapshot().foreign is not None:
            self.notify("another process is working on this run; retry when it has ended", severity="warning")
            return
        done = record.state is State.DONE
        again = ResumedRun(reference=reference, flags=run_flags(self), only=(record.position,), done=done)
        if not done:
            services(self).begin(again)
            return

        def answered(answer: str | None) -> None:
            if answer == "send":
                services(self).begin(again)

        detail = "The new reply goes into the output; the earlier one stays in the journal, with its attempt."
        answers = [("send", "Send again", "warning")]
        app_of(self).push_screen(Confirm(f"Line {record.line:,} is done: send it again?", detail, answers), answered)

    def action_edit(self) -> None:
        self.once_loaded(self._edit)

    def _edit(self) -> None:
        if self._record is not None and self._record.position is not None:
            services(self).edit_again(self._journal_rows.path, self._record.position)


def _rendered(reader: Reader, record: Record) -> tuple[str, Sequence[str]]:
    plan = plan_from_json(reader.meta.plan)
    return row_text.of_record(plan, record, reader.parts(record.seq)), source_fields(plan, record.text)


async def show_in_pager(screen: Screen[None], text: str) -> None:
    import asyncio  # noqa: PLC0415  only where a pager runs

    pager = shlex.split(os.environ.get("PAGER", "less"))
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt", prefix="batchrun-") as file:
        file.write("\n".join(printable(line) for line in text.split("\n")))
        file.flush()
        try:
            with app_of(screen).suspend():
                process = await asyncio.create_subprocess_exec(*pager, file.name)
                try:
                    await process.wait()
                finally:
                    if process.returncode is None:  # the app ends: nothing may read the terminal after it
                        process.terminate()
        except (SuspendNotSupported, OSError) as error:
            screen.notify(printable(f"cannot open the pager: {error}", 200), severity="error", markup=False)


def heading(record: Record) -> Content:
    sign, colour = paint.SIGNS[record.state]
    parts: list[paint.Part] = [(f"{sign} {record.state}", f"bold {colour}"), f"  line {record.line:,}"]
    parts.append((f"  {printable(record.key, 60)}", paint.DIM))
    if record.flags:
        parts.append((f"  {', '.join(sorted(record.flags))}", "$warning"))
    if record.cause:
        parts.append((f"  {printable(record.cause, 80)}", "$error"))
    if record.seconds is not None:
        parts.append((f"  {record.seconds:.2f} s", paint.DIM))
    if record.input_tokens is not None:
        parts.append((f"  {record.input_tokens:,} tokens in, {record.output_tokens or 0:,} out", paint.DIM))
    return paint.joined(parts)


def attempt_lines(attempts: list[Attempt]) -> list[Content]:
    lines: list[Content] = []
    before: float | None = None
    for attempt in attempts:
        waited = "" if before is None else f"  {max(0.0, attempt.began - before):.1f} s wait"
        good = attempt.cause is None and attempt.ended is not None
        status = "no answer recorded" if attempt.ended is None else str(attempt.status or "no answer")
        parts: list[paint.Part] = [(f"{attempt.number:>2} ", paint.DIM), (f"{paint.clock(attempt.began)} ", "")]
        parts.append((f"{status} ", "$success" if good else "$error"))
        parts.append((f"{attempt.seconds or 0.0:>5.2f} s", "bold"))
        if attempt.input_tokens is not None:
            parts.append((f"  {attempt.input_tokens:,}+{attempt.output_tokens or 0:,} tokens", paint.DIM))
        lines.append(paint.joined([*parts, (waited, paint.DIM)]))
        if attempt.cause:
            text = f"{printable(attempt.cause, 60)}: {printable(attempt.message or '', 300)}".removesuffix(": ")
            lines.append(paint.joined([(f"     {text}", "$error")]))
        if attempt.spent and attempt.body is not None:
            lines.append(paint.joined([("     earlier reply", "bold $accent")]))
            lines.append(safe_text.shown(row_text.body_text(attempt.body), CUT))
        if attempt.excerpt:
            lines.append(paint.joined([(f"     {printable(attempt.excerpt.strip(), 2000)}", paint.DIM)]))
        before = attempt.ended
    return lines or [paint.joined([("nothing has been sent", paint.DIM)])]


def attempts_text(attempts: list[Attempt]) -> str:
    return "\n".join(json.dumps(attempt._asdict(), ensure_ascii=False) for attempt in attempts)
