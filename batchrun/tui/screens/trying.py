"""The setup's prompt editor, tries and pilots."""

from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from textual import on, work
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, TextArea

from batchrun.display import printable
from batchrun.errors import BatchrunError, PromptError
from batchrun.tui.screen_lifecycle import PanedScreen
from batchrun.tui.services import PILOT, NewRun, Phase, RunSnapshot, Steered, app_of, services
from batchrun.tui.widgets import paint
from batchrun.tui.widgets.answers import Answers, HeadTable
from batchrun.tui.widgets.editor import Editor, PromptStatus
from batchrun.tui.widgets.form import Form

if TYPE_CHECKING:
    from batchrun.tui.draft import Draft


# seconds to wait for an input: a pipe may send nothing
INPUT_TIMEOUT = 2.0


class TryingScreen(PanedScreen):
    def __init__(self) -> None:
        super().__init__()
        self._draft: Draft | None = None
        self._sent: Steered | None = None
        self._trying: tuple[int, ...] = ()
        self._piloting = False
        self._form_width, self._upper = 48, 60

    def show_problem(self, problem: BatchrunError | str | None) -> None: ...

    async def read(self, *, begins: bool = False) -> bool:
        """Wait until prompt and input are read; whether the user has done nothing meanwhile. If a run `begins`, does not
        wait for a silent input.
        """
        raise NotImplementedError

    @property
    def input_timeout(self) -> float | None:
        name = self.form.typed("input")
        path = Path(name)
        return INPUT_TIMEOUT if name == "-" or (path.exists() and not path.is_file()) else None

    def draft_changed(self) -> None: ...

    def count_again(self) -> None: ...

    @property
    def form(self) -> Form:
        return self.query_one(Form)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "error":
            return self.error_line is not None
        return bool(self.unsaved) if action == "save" else super().check_action(action, parameters)

    def idle_keys(self) -> Collection[str]:
        idle = ("setup.try", "setup.pilot") if self.error_line is not None else ()
        focused = app_of(self).focused
        return idle if focused is None or self.form in focused.ancestors else (*idle, "setup.pick")

    def action_border(self, right: int, down: int) -> None:
        self._form_width = max(32, min(self.size.width - 60, self._form_width + 4 * right))
        self._upper = max(20, min(80, self._upper + 5 * down))
        styles = self.query_one("#panes").styles
        styles.grid_columns = f"{self._form_width} 1fr 1fr"
        styles.grid_rows = f"{self._upper}fr {100 - self._upper}fr"

    # The prompt

    @on(TextArea.SelectionChanged, "#editor")
    def _cursor_moved(self) -> None:
        self.show_status()

    @on(PromptStatus.Clicked)
    def _error_wanted(self) -> None:
        self.action_error()

    @property
    def error_line(self) -> int | None:
        trouble = None if self._draft is None else self._draft.prompt_trouble
        return trouble.line if isinstance(trouble, PromptError) else None

    def action_error(self) -> None:
        if (line := self.error_line) is not None:
            self.show_pane("prompt-pane")
            editor = self.query_one(Editor)
            editor.focus()
            self.call_after_refresh(editor.go_to, line)

    def action_go_to(self, field: str) -> None:
        self.go_to_field(field)

    def go_to_field(self, field: str) -> Widget:
        if field == "prompt" and self.error_line is not None:
            self.action_error()
            return self.query_one(Editor)
        self.show_pane("form")
        entry = self.form.entry(field)
        entry.focus()
        return entry

    def show_status(self) -> None:
        editor, draft, line = self.query_one(Editor), self._draft, self.error_line
        editor.mark(line)
        self.set_class(line is not None, "-error-in-prompt")
        trouble = None if draft is None else draft.prompt_trouble
        if trouble is None or draft is None:
            row, column = editor.cursor_location
            edited = "" if draft is None or not draft.edited else " · ● edited: Ctrl+S saves, Ctrl+Z undoes"
            shown = Content.styled(f"line {row + 1}, column {column + 1}{edited}", "$foreground-muted")
        else:
            text = trouble.message.removeprefix(f"{draft.path}:").removeprefix(f"{line}:").strip()
            where = "" if line is None else f"line {line} (Ctrl+G): "
            parts: list[paint.Part] = [(f"✗ {where}", "bold $error"), (printable(text, 300), "$error")]
            parts.append((f"  {printable(trouble.hint or '', 300)}", "$foreground-muted"))
            shown = paint.joined(parts)
        self.query_one(PromptStatus).show(shown)

    def action_save(self) -> bool:
        try:
            target = None if self._draft is None else self._draft.save()
        except (OSError, UnicodeEncodeError) as error:
            self.notify(printable(f"not saved: {error}", 300), severity="error", markup=False)
            return False
        if target is None:
            return False
        self.notify(printable(f"saved {target}", 200), timeout=3, markup=False)
        self.draft_changed()
        return True

    @property
    def unsaved(self) -> tuple[Path, ...]:
        return () if self._draft is None else self._draft.unsaved

    def save_all(self) -> bool:
        try:
            if self._draft is not None:
                self._draft.save_all()
        except (OSError, UnicodeEncodeError) as error:
            self.notify(printable(f"not saved: {error}", 300), severity="error", markup=False)
            return False
        return True

    def save_before_sending(self) -> bool:
        draft = self._draft
        if draft is None:
            return True
        if draft.prompt_trouble is not None:
            self.notify("fix the prompt first", severity="error", timeout=3)
            self.action_error()
            return False
        return not draft.edited or self.action_save()

    # What is sent

    @on(HeadTable.Marked)
    def _marked(self) -> None:
        count = len(self.query_one(HeadTable).marked)
        self.query_one("#rows").border_title = f"rows · {count} selected to try" if count else "rows"

    @work(exclusive=True, group="try")
    async def action_try(self) -> None:
        stayed = await self.read()
        chosen = self.query_one(HeadTable).chosen
        if not chosen:
            self.notify("choose an input first; Space selects rows to try", severity="warning")
        elif self.save_before_sending() and services(self).begin(NewRun(flags=self.form.flags, only=chosen)):
            self._sent, self._trying, self._piloting = services(self).steered, chosen, False
            if stayed:
                self.show_pane("answers")

    @work(exclusive=True, group="try")
    async def action_pilot(self) -> None:
        stayed = await self.read(begins=True)
        if not self.form.typed("input"):
            self.notify("choose an input first", severity="warning")
        elif self.save_before_sending() and services(self).begin(NewRun(flags=self.form.flags, pilot=PILOT)):
            self._sent, self._piloting = services(self).steered, True
            if stayed:
                self.show_pane("answers")

    def watch_sent(self) -> None:
        steered = services(self).steered
        if steered is not None and steered.snapshot().tried:  # one that replaces replies is another
            self._sent = steered
        if not (self._trying or self._piloting) or self._sent is None:
            return
        snapshot = self._sent.snapshot()
        title = self.query_one("#answers")
        if steered is self._sent and services(self).busy:
            title.border_title = f"replies · {'pilot' if self._piloting else 'try'} {snapshot.phase}"
            done = f"{snapshot.progress.finished:,} rows finished · " if self._piloting else ""
            self.query_one(Answers).show([], done + paint.waiting_line(snapshot).plain)
            return
        self._ended(snapshot)

    def _ended(self, snapshot: RunSnapshot) -> None:
        positions, piloted = self._trying, self._piloting
        self._trying, self._piloting = (), False
        self.count_again()
        self.query_one("#answers").border_title = "replies"
        if snapshot.trouble is not None:
            self.show_problem(BatchrunError(*snapshot.trouble))
        if snapshot.phase is Phase.REFUSED or snapshot.journal is None:
            self.query_one(Answers).show([], "nothing was sent")
            return
        note = f"pilot finished: the plan is based on {snapshot.progress.finished:,} rows; F5 sends the rest"
        self._read_answers(snapshot.journal, None if piloted else positions, note if piloted else "")

    @work(exclusive=True, group="answers")
    async def _read_answers(self, journal: Path, positions: tuple[int, ...] | None, note: str) -> None:
        import asyncio  # noqa: PLC0415  only where a thread reads

        self.query_one(Answers).show(await asyncio.to_thread(drafts().answers, journal, positions), note)

    def focused_in(self, name: str) -> str:
        first = "#input" if self.query_one("#prompt", Input).value else "#prompt"
        inside = {"form": first, "prompt-pane": "#editor", "rows": "#head"}
        return inside.get(name) or super().focused_in(name)


def drafts() -> ModuleType:
    from batchrun.tui import draft  # noqa: PLC0415  as above

    return draft
