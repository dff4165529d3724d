"""The setup screen: prompt, input, variables, provider and limits; the request as it would be sent; try, then start."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import DataTable, Footer, Input, Select, Static, Tab, TextArea
from textual.worker import Worker, WorkerError

from batchrun.display import printable
from batchrun.errors import BatchrunError
from batchrun.tui import choices, literal
from batchrun.tui.choices import Head
from batchrun.tui.desk import Fresh, Phase, app_of, desk
from batchrun.tui.screens.ask import Choose
from batchrun.tui.screens.panes import PanedScreen
from batchrun.tui.widgets import paint
from batchrun.tui.widgets.answers import Answers, HeadTable
from batchrun.tui.widgets.editor import Editor
from batchrun.tui.widgets.form import Form
from batchrun.tui.widgets.variables import VariableField

if TYPE_CHECKING:
    from batchrun.tui.draft import Draft, Preview

QUIET = 0.6
"""Seconds of quiet before every row is looked at."""
DEBOUNCE = 0.15
"""Seconds of quiet after a key before files are looked at."""
_NOTHING_YET = "choose a prompt and an input; ctrl+o picks files, F1 lists all keys"
_NOT_TRIED = "space marks up to five rows; F6 sends these alone, and their answers stand here"
_READING = frozenset({"prompt", "head"})
"""Work after which it is known what is missing."""


class SetupScreen(PanedScreen):
    """Everything that a run needs, filled in and looked at before anything is sent."""

    PANES = {"form": "setup", "prompt-pane": "prompt", "request": "request", "rows": "rows", "answers": "answers"}  # noqa: RUF012  declared by the base
    CSS_PATH = "setup.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012  Textual declares it so
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f5", "start", "Start", priority=True, id="setup.start"),
        Binding("f6", "try", "Try", priority=True, id="setup.try"),
        Binding("ctrl+s", "save", "Save", priority=True, id="setup.save"),
        Binding("ctrl+o", "pick", "Pick", priority=True, id="setup.pick"),
        Binding("f7", "pane", "Pane", priority=True, id="setup.pane"),
        Binding("f8", "copy", "Copy", priority=True, id="setup.copy"),
    ]

    def __init__(self, flags: Mapping[str, Any]) -> None:
        super().__init__()
        self._flags = dict(flags)
        self._draft: Draft | None = None
        self._opened = asyncio.Event()
        self._trying: tuple[int, ...] = ()
        self._wanted_row = 0
        self._foreseen: object = None
        self._brief = ""
        self._refusal: BatchrunError | None = None
        self._refused: tuple[Mapping[str, Any], BatchrunError | str] | None = None

    def compose(self) -> ComposeResult:
        """Panes that stand side by side where there is room, else one at a time."""
        yield self.tabs()
        with Vertical(id="panes"):
            yield Form(self._flags, id="form", classes="pane")
            with Vertical(id="prompt-pane", classes="pane"):
                yield Editor("", id="editor", show_line_numbers=False, compact=True, soft_wrap=True)
            with VerticalScroll(id="request", classes="pane"):
                yield Static("", id="request-text")
            with Vertical(id="rows", classes="pane"):
                yield HeadTable(id="head")
            with VerticalScroll(id="answers", classes="pane"):
                yield Answers(_NOT_TRIED, id="answers-text")
        yield Static("", id="trouble")
        yield Static("", id="command")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Titles; what the command line gave; a look now and then at what is tried."""
        self.show_pane("form")
        self._form.show_profile()
        self.set_interval(0.2, self._watch_try)
        self.query_one(self.focused_in("form")).focus()
        self._say("reading the prompt and the input" if self._flags.get("input") else _NOTHING_YET)
        self.call_after_refresh(self._open_draft)

    @work(exclusive=True, group="draft")
    async def _open_draft(self) -> None:
        """Once the first frame is there: what it takes to read prompts and inputs, and what the fields may hold."""
        drafts = await asyncio.to_thread(_drafts)
        self._draft = drafts.Draft()
        self._load_prompt()
        self._read_head()
        self._opened.set()
        default = await asyncio.to_thread(drafts.default_profile, self._form.more)
        self._form.know(default, await asyncio.to_thread(drafts.prompt_names))

    @work(exclusive=True, group="again")
    async def open_again(self, path: Path, position: int) -> None:
        """Fill in what a journaled run was, with this row to try."""
        try:
            plan = await asyncio.to_thread(_drafts().plan_of, path)
        except BatchrunError as error:
            self.notify(printable(error.message, 300), severity="error", markup=False)
            return
        self._wanted_row = position
        self._form.fill(plan)
        self._load_prompt()
        self._read_head()

    # What is typed

    @on(Input.Changed, "#prompt")
    def _prompt_named(self) -> None:
        self._load_prompt()

    @on(Input.Changed, "#input")
    def _input_named(self) -> None:
        self._read_head()

    @on(Select.Changed, "#profile")
    def _profile_chosen(self) -> None:
        self._form.show_profile()
        self._refresh_preview()

    @on(VariableField.Changed)
    @on(Input.Changed, "#model, #concurrency, #rpm, #tpm, #limit, #output")
    @on(DataTable.RowHighlighted, "#head")
    def _told(self) -> None:
        self._refresh_preview()

    @on(VariableField.Wanted)
    def _origin_wanted(self, event: VariableField.Wanted) -> None:
        def chosen(answer: str | None) -> None:
            if answer is not None:
                event.field.choose(answer)

        question = f"Where does {printable(event.field.variable, 40)} come from?"
        app_of(self).push_screen(Choose(question, event.options), chosen)

    @on(HeadTable.Marked)
    def _marked(self) -> None:
        count = len(self.query_one(HeadTable).marked)
        self.query_one("#rows").border_title = f"rows · {count} marked to try" if count else "rows"

    @work(exclusive=True, group="prompt")
    async def _load_prompt(self) -> None:
        await asyncio.sleep(DEBOUNCE)
        draft, name = self._draft, self._form.typed("prompt")
        if draft is None:
            return
        source = await asyncio.to_thread(_drafts().read_prompt, name) if name else _drafts().Source()
        self.query_one(Editor).load_text(draft.take_prompt(source))
        self._show_draft()

    @on(TextArea.Changed, "#editor")
    def _edited(self) -> None:
        if self._draft is not None:
            self._refused = None
            self._draft.edit(self.query_one(Editor).text)
            self._show_draft()

    @work(exclusive=True, group="head")
    async def _read_head(self) -> None:
        await asyncio.sleep(DEBOUNCE)
        draft, name = self._draft, self._form.typed("input")
        if draft is None:
            return
        draft.take_head(None, None)
        if name:
            has_prompt, flags = bool(self._form.typed("prompt")), self._form.more
            try:
                head = await asyncio.to_thread(_drafts().read_head, name, flags, has_prompt=has_prompt)
                draft.take_head(head, None)
            except BatchrunError as error:
                draft.take_head(None, error)
        self._show_head(draft.head)
        self._show_draft()

    def _show_head(self, head: Head | None) -> None:
        table = self.query_one(HeadTable)
        table.show(head)
        if head is not None and 0 < self._wanted_row <= len(head.rows):
            table.move_cursor(row=self._wanted_row - 1)
        self._wanted_row = 0
        said = "" if head is None else head.said
        self.query_one("#input-info", Static).update(Content(printable(said, 300)))

    def _show_draft(self) -> None:
        """The prompt's title and its variables; a prompt that is broken for the moment keeps them."""
        draft = self._draft
        if draft is None:
            return
        said = "" if draft.prompt is None else draft.prompt.description
        self.query_one("#prompt-info", Static).update(Content(printable(said, 200)))
        mark = " ● edited" if draft.edited else ""
        title = "prompt" if draft.path is None else f"prompt{mark} · {printable(str(draft.path), 60)}"
        self.query_one("#prompt-pane").border_title = Content(title).markup
        self.query_one("#tab-prompt-pane", Tab).label = f"prompt{mark}"
        if draft.prompt is not None or not self._form.typed("prompt"):
            self._form.ask_variables(draft.prompt, None if draft.head is None else draft.head.columns)
        self._refresh_preview()

    @property
    def _form(self) -> Form:
        return self.query_one(Form)

    # What it would send

    def _refresh_preview(self) -> None:
        draft, flags = self._draft, self._form.flags
        self.query_one("#command", Static).update(
            Content.assemble(("$ ", "$success"), printable(choices.command(flags)))
        )
        if draft is None:
            return
        row = self.query_one(HeadTable).current
        shown = draft.preview(row, self._form.model(draft.prompt), flags)
        self.query_one("#request-text", Static).update(literal.shown(shown.text, 60_000))
        size = f" · about {shown.tokens:,} tokens in" if shown.tokens else ""
        where = 0 if row is None else row.line
        self.query_one("#request").border_title = f"request of line {where}{size}" if shown.text else "request"
        self.query_one("#output", Input).placeholder = printable(draft.output_name, 80)
        problem = self._problem(draft, shown)
        self._say(problem)
        self._plan(problem)

    def _plan(self, problem: BatchrunError | str | None) -> None:
        """What it would send, cost and take, found anew for other settings."""
        draft, flags = self._draft, self._form.flags
        edited = draft is not None and draft.edited
        counted = problem is None and draft is not None and not edited
        if not counted:
            note = "the prompt is edited: once saved, it is counted with every row"
            self._note_plan(note if edited and problem is None else "")
        wish = flags, counted, None if draft is None else draft.path
        if wish != self._foreseen:
            self._foreseen = wish
            self._foresee(wish, counted=counted)

    @work(exclusive=True, group="plan")
    async def _foresee(self, wish: object, *, counted: bool) -> None:
        """Whether it would be refused, and where every row can be `counted` what it would send, cost and take."""
        await asyncio.sleep(QUIET)
        if desk(self).busy:
            return
        self._refusal = await desk(self).refusal(self._form.flags)
        self._refresh_preview()
        if not counted:
            return
        try:
            found = await desk(self).foresee(self._form.flags, lambda: self._foreseen is wish)
        except BatchrunError as error:
            self._note_plan(error.message)
            return
        if found is not None:
            self._show_plan(*found)

    def _show_plan(self, brief: str, lines: Sequence[str]) -> None:
        self._brief = brief
        self._form.show_plan(lines)
        self._say(None)

    def _note_plan(self, note: str) -> None:
        """Why there is no plan."""
        self._brief = ""
        self.query_one("#plan", Static).update(Content(printable(note, 300)))

    def on_screen_resume(self) -> None:
        """A run that went on meanwhile leaves less to send."""
        self._foreseen = None
        self._refresh_preview()

    def _problem(self, draft: "Draft", shown: "Preview") -> BatchrunError | str | None:
        if not self._form.typed("input"):
            return draft.prompt_trouble or _NOTHING_YET
        return draft.prompt_trouble or draft.head_trouble or shown.trouble

    def _say(self, problem: BatchrunError | str | None) -> None:
        """The line above the command: what is missing, or that everything is there."""
        if self._refused is not None and self._refused[0] == self._form.flags:
            problem = problem or self._refused[1]
        problem = problem or self._refusal
        if problem is None:
            text = Content.assemble(
                ("ready  ", "bold $success"),
                (f"{self._brief}  " if self._brief else ""),
                ("F5 starts, F6 tries the marked rows", "$foreground-muted"),
            )
        elif isinstance(problem, BatchrunError):
            parts: list[paint.Part] = [(printable(problem.message, 400), "$error")]
            parts += [("  " + printable(problem.hint, 300), "$foreground-muted")] if problem.hint else []
            text = paint.joined(parts)
        else:
            text = Content.styled(printable(problem, 400), "$warning")
        self.query_one("#trouble", Static).update(text)

    # What is done

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
        self._show_draft()
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

    def _saved_first(self) -> bool:
        """What runs is what is seen: an edited prompt is saved before it is sent."""
        draft = self._draft
        if draft is None:
            return True
        if draft.prompt_trouble is not None:
            self.notify("fix the prompt first", severity="error", timeout=3)
            return False
        return not draft.edited or self.action_save()

    @work(exclusive=True, group="start")
    async def action_start(self) -> None:
        """Run all rows; where something is missing, stay, say what, and go to its field."""
        await self._opened.wait()
        while reading := [work for work in self.workers if work.group in _READING and not work.is_finished]:
            if not (await asyncio.wait([asyncio.create_task(_over(each)) for each in reading], timeout=2.0))[0]:
                break  # an input that stays silent, such as a pipe: the run waits for it where it can be stopped
        draft = self._draft
        assert draft is not None
        row = None if self._form.more.get("skip_invalid") else self.query_one(HeadTable).current
        shown = _drafts().Preview("")
        if row is not None:
            shown = draft.preview(row, self._form.model(draft.prompt), self._form.flags)
        problem = self._problem(draft, shown) or await desk(self).refusal(self._form.flags)
        if problem is None:
            if self._saved_first():
                desk(self).begin(Fresh(flags=self._form.flags))
            return
        self.refuse(problem)
        self.notify("not started: something is missing", severity="warning", timeout=3)
        self.show_pane("form")
        troubles = {"prompt": draft.prompt_trouble is not None, "input": draft.head_trouble is not None}
        self._form.gap(troubles, shown.missing).focus()

    def refuse(self, problem: BatchrunError | str) -> None:
        """Say why it was not started, until something is changed."""
        self._refused = self._form.flags, problem
        self._say(None)

    def action_try(self) -> None:
        """Send the chosen rows alone."""
        chosen = self.query_one(HeadTable).chosen
        if not chosen:
            self.notify("choose an input first; space marks rows to try", severity="warning")
        elif self._saved_first() and desk(self).begin(Fresh(flags=self._form.flags, only=chosen)):
            self._trying = chosen
            self.show_pane("answers")

    def _watch_try(self) -> None:
        steered = desk(self).steered
        if not self._trying or steered is None:
            return
        sight = steered.sight()
        title = self.query_one("#answers")
        if desk(self).busy:
            title.border_title = f"answers · {sight.phase}"
            self.query_one(Answers).show([], paint.waiting_line(sight).plain)
            return
        positions, self._trying = self._trying, ()
        self._foreseen = None
        self._refresh_preview()
        title.border_title = "answers"
        if sight.phase is Phase.REFUSED or sight.journal is None:
            self._say(None if sight.trouble is None else BatchrunError(*sight.trouble))
            self.query_one(Answers).show([], "nothing was sent")
            return
        if sight.trouble is not None:
            self._say(BatchrunError(*sight.trouble))
        self._read_answers(sight.journal, positions)

    @work(exclusive=True, group="answers")
    async def _read_answers(self, journal: Path, positions: tuple[int, ...]) -> None:
        self.query_one(Answers).show(await asyncio.to_thread(_drafts().answers, journal, positions))

    @work(exclusive=True, group="pick")
    async def action_pick(self) -> None:
        """A prompt, or an input where that field has the focus."""
        from batchrun.tui.screens.pick import Pick, known  # noqa: PLC0415  prompts: not before the first frame

        name = "input" if self.focused is not None and self.focused.id == "input" else "prompt"
        found = await asyncio.to_thread(known) if name == "prompt" else []
        app_of(self).push_screen(Pick(f"Which {name}?", found), lambda chosen: self._picked(name, chosen))

    def _picked(self, name: str, chosen: str | None) -> None:
        if chosen:
            field = self.query_one(f"#{name}", Input)
            field.value = chosen
            field.focus()

    def action_copy(self) -> None:
        """The command to the clipboard."""
        app_of(self).copy_to_clipboard(choices.command(self._form.flags))
        self.notify("the command is copied", timeout=2)

    def focused_in(self, name: str) -> str:
        """The first field, the editor, the table: what takes keys."""
        first = "#input" if self.query_one("#prompt", Input).value else "#prompt"
        inside = {"form": first, "prompt-pane": "#editor", "rows": "#head"}
        return inside.get(name) or super().focused_in(name)


async def _over(reading: Worker[Any]) -> None:
    """Until this work is over, however it ends."""
    with contextlib.suppress(WorkerError):
        await reading.wait()


def _drafts() -> ModuleType:
    from batchrun.tui import draft  # noqa: PLC0415  prompts and formats: not before the first frame

    return draft
