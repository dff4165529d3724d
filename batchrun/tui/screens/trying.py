"""What the setup sends before a run: the marked rows, or a pilot; and the prompt, saved before anything is sent."""

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
from batchrun.tui.screens.panes import PanedScreen
from batchrun.tui.services import PILOT, Fresh, Phase, RunSnapshot, app_of, services
from batchrun.tui.widgets import paint
from batchrun.tui.widgets.answers import Answers, HeadTable
from batchrun.tui.widgets.editor import Editor, PromptStatus
from batchrun.tui.widgets.form import Form

if TYPE_CHECKING:
    from batchrun.tui.draft import Draft


PATIENCE = 2.0
"""Seconds that a key waits for an input that may stay silent, such as a pipe."""


class TryingScreen(PanedScreen):
    """A screen with a form, a table of rows, and a pane of answers."""

    def __init__(self) -> None:
        super().__init__()
        self._draft: Draft | None = None
        self._trying: tuple[int, ...] = ()
        self._piloting = False
        self._form_width, self._upper = 48, 60

    def say(self, problem: BatchrunError | str | None) -> None:
        """Show what is wrong, or that nothing is."""

    async def read(self, *, begins: bool = False) -> None:
        """Wait until the prompt and the input that are named are read; where a run `begins`, not for a silent input."""

    @property
    def patience(self) -> float | None:
        """How long a start waits for the input; then the run waits for it, where it can be stopped. None for a file."""
        name = self.form.typed("input")
        path = Path(name)
        return PATIENCE if name == "-" or (path.exists() and not path.is_file()) else None

    def draft_changed(self) -> None:
        """The prompt is saved."""

    def count_again(self) -> None:
        """Rows have been sent: the plan is another one."""

    @property
    def form(self) -> Form:
        """What is filled in."""
        return self.query_one(Form)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Saving is a key only where something is edited, going to the error where there is one."""
        if action == "error":
            return self.error_line is not None
        return bool(self.unsaved) if action == "save" else super().check_action(action, parameters)

    def idle_keys(self) -> Collection[str]:
        """Nothing can be sent while the prompt has an error; prompts and inputs are chosen for fields of the form."""
        idle = ("setup.try", "setup.pilot") if self.error_line is not None else ()
        focused = app_of(self).focused
        return idle if focused is None or self.form in focused.ancestors else (*idle, "setup.pick")

    def action_border(self, right: int, down: int) -> None:
        """Move the border of the form, or the one between upper and lower panes, in the wide layout."""
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
        """The line of the prompt with an error, from 1."""
        trouble = None if self._draft is None else self._draft.prompt_trouble
        return trouble.line if isinstance(trouble, PromptError) else None

    def action_error(self) -> None:
        """The cursor to the line with the error."""
        if (line := self.error_line) is not None:
            self.show_pane("prompt-pane")
            editor = self.query_one(Editor)
            editor.focus()
            self.call_after_refresh(editor.go_to, line)

    def action_go_to(self, field: str) -> None:
        """The focus to an item of the checklist that was clicked."""
        self.go_to_field(field)

    def go_to_field(self, field: str) -> Widget:
        """The focus to a field of the form; to the line with the error where that is what the prompt lacks."""
        if field == "prompt" and self.error_line is not None:
            self.action_error()
            return self.query_one(Editor)
        self.show_pane("form")
        entry = self.form.entry(field)
        entry.focus()
        return entry

    def show_status(self) -> None:
        """Below the editor what is wrong with the prompt, else where the cursor is and whether the text is saved."""
        editor, draft, line = self.query_one(Editor), self._draft, self.error_line
        editor.mark(line)
        self.set_class(line is not None, "-error-in-prompt")
        trouble = None if draft is None else draft.prompt_trouble
        if trouble is None or draft is None:
            row, column = editor.cursor_location
            edited = "" if draft is None or not draft.edited else " · ● edited: Ctrl+S saves, Ctrl+Z undoes"
            shown = Content.styled(f"line {row + 1}, column {column + 1}{edited}", "$foreground-muted")
        else:
            said = trouble.message.removeprefix(f"{draft.path}:").removeprefix(f"{line}:").strip()
            where = "" if line is None else f"line {line} (Ctrl+G): "
            parts: list[paint.Part] = [(f"✗ {where}", "bold $error"), (printable(said, 300), "$error")]
            parts.append((f"  {printable(trouble.hint or '', 300)}", "$foreground-muted"))
            shown = paint.joined(parts)
        self.query_one(PromptStatus).show(shown)

    def action_save(self) -> bool:
        """Write the editor's text to the prompt's file; one that comes with batchrun is copied here first."""
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
        """The files of prompts that were edited and not saved."""
        return () if self._draft is None else self._draft.unsaved

    def save_all(self) -> bool:
        """Write every edited prompt; False, with a note, where one cannot be written."""
        try:
            if self._draft is not None:
                self._draft.save_all()
        except (OSError, UnicodeEncodeError) as error:
            self.notify(printable(f"not saved: {error}", 300), severity="error", markup=False)
            return False
        return True

    def saved_first(self) -> bool:
        """What runs is what is seen: an edited prompt is saved before it is sent."""
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
        """Send the marked rows alone, as soon as prompt and input have been read."""
        await self.read()
        chosen = self.query_one(HeadTable).chosen
        if not chosen:
            self.notify("choose an input first; Space selects rows to try", severity="warning")
        elif self.saved_first() and services(self).begin(Fresh(flags=self.form.flags, only=chosen)):
            self._trying, self._piloting = chosen, False
            self.show_pane("answers")

    @work(exclusive=True, group="try")
    async def action_pilot(self) -> None:
        """Send a few rows from all over the input, so that the plan rests on their replies."""
        await self.read(begins=True)
        if not self.form.typed("input"):
            self.notify("choose an input first", severity="warning")
        elif self.saved_first() and services(self).begin(Fresh(flags=self.form.flags, pilot=PILOT)):
            self._piloting = True
            self.show_pane("answers")

    def watch_sent(self) -> None:
        """Show how far the marked rows or the pilot are; at the end their replies."""
        steered = services(self).steered
        if not (self._trying or self._piloting) or steered is None:
            return
        snapshot = steered.snapshot()
        title = self.query_one("#answers")
        if services(self).busy:
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
            self.say(BatchrunError(*snapshot.trouble))
        if snapshot.phase is Phase.REFUSED or snapshot.journal is None:
            self.query_one(Answers).show([], "nothing was sent")
            return
        note = f"the pilot is done: the plan is measured on {snapshot.progress.finished:,} rows; F5 sends the rest"
        self._read_answers(snapshot.journal, None if piloted else positions, note if piloted else "")

    @work(exclusive=True, group="answers")
    async def _read_answers(self, journal: Path, positions: tuple[int, ...] | None, note: str) -> None:
        import asyncio  # noqa: PLC0415  only where a thread reads

        self.query_one(Answers).show(await asyncio.to_thread(drafts().answers, journal, positions), note)

    def focused_in(self, name: str) -> str:
        """The first field that is empty, the editor, the table: what takes keys."""
        first = "#input" if self.query_one("#prompt", Input).value else "#prompt"
        inside = {"form": first, "prompt-pane": "#editor", "rows": "#head"}
        return inside.get(name) or super().focused_in(name)


def drafts() -> ModuleType:
    """What reads prompts and inputs: not before the first frame."""
    from batchrun.tui import draft  # noqa: PLC0415  as above

    return draft
