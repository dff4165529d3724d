"""The setup screen."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import DataTable, Footer, Input, OptionList, Select, Static, Tab, TextArea

from batchrun.display import printable
from batchrun.errors import BatchrunError
from batchrun.models import Kind
from batchrun.tui import safe_text, setup_flags
from batchrun.tui.screen_lifecycle import MOVING
from batchrun.tui.screens.dialogs import Choose
from batchrun.tui.screens.options import OptionsScreen
from batchrun.tui.screens.trying import TryingScreen, drafts
from batchrun.tui.services import NewRun, app_of, services
from batchrun.tui.setup_flags import Head, Item, checklist, first_missing
from batchrun.tui.widgets import paint
from batchrun.tui.widgets.answers import Answers, HeadTable
from batchrun.tui.widgets.controls import PressableText, TitleBar
from batchrun.tui.widgets.editor import Editor, PromptStatus
from batchrun.tui.widgets.form import Form, VariableField

if TYPE_CHECKING:
    from batchrun.tui.draft import Draft, Preview

# seconds before all rows are counted
QUIET = 0.6
# seconds before files are read
DEBOUNCE = 0.15
_NOTHING_YET = "choose a prompt and an input: Ctrl+O lists them, F9 is the start page, F1 lists all keys"
_NOT_TRIED = "replies appear here. Space selects rows (at most 5), F6 tries only these; Ctrl+R runs a pilot of 50 rows"


class SetupScreen(TryingScreen):
    PANES = {"form": "setup", "prompt-pane": "prompt", "request": "request", "rows": "rows", "answers": "replies"}  # noqa: RUF012  declared by the base
    CSS_PATH = "setup.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012  Textual declares it so
    VERTICAL_BREAKPOINTS = [(0, "-short"), (44, "-tall")]  # noqa: RUF012  as above
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f5", "start", "Start", priority=True, id="setup.start", tooltip="Start the run, or go to what is missing"),
        Binding("f6", "try", "Try", priority=True, id="setup.try", tooltip="Send only the selected rows, or the one under the cursor"),
        Binding("ctrl+r", "pilot", "Pilot", priority=True, id="setup.pilot", tooltip="Send 50 rows from all over the input, and predict cost and time from them"),
        Binding("ctrl+t", "options", "Options", priority=True, id="setup.options", tooltip="All options of the command line"),
        Binding("ctrl+o", "pick", "Choose…", priority=True, id="setup.pick", tooltip="Choose a prompt, or an input if that field has the focus"),
        Binding("ctrl+s", "save", "Save", priority=True, id="setup.save", tooltip="Save the prompt; one that comes with batchrun is copied to ./prompts"),
        Binding("ctrl+g", "error", "Error", priority=True, id="setup.error", tooltip="Go to the line of the prompt with the error"),
        Binding("f7", "pane", "Next pane", priority=True, id="setup.pane", tooltip="Go to the next pane"),
        Binding("shift+f7", "pane(-1)", "Previous pane", show=False, priority=True, id="setup.pane_back", tooltip="Go to the previous pane"),
        Binding("f8", "copy", "Copy command", show=False, priority=True, id="setup.copy", tooltip="Copy the command that does the same"),
        *MOVING,
        *(Binding(f"alt+{place}", f"go_pane({place - 1})", f"Pane {place}", show=False, priority=True) for place in range(1, 6)),
    ]  # fmt: skip
    KEY_GROUPS = {"send": ("setup.start", "setup.try", "setup.pilot", "setup.mark")}  # noqa: RUF012  declared by the base
    ABOUT = "A prompt is a template with {{ variables }}; an input has rows; each row fills the variables and is one request."

    def __init__(self, flags: Mapping[str, Any]) -> None:
        super().__init__()
        self._flags = dict(flags)
        self._opened = asyncio.Event()
        self._untouched: tuple[object, ...] = ()
        self._names_read: dict[str, str | None] = {"prompt": None, "input": None}
        self._read_event = asyncio.Event()
        self._wanted_row = 0
        self._estimated_for: object = None
        self._items: tuple[Item, ...] = ()
        self._missing: tuple[str, ...] = ()
        self._refusal: BatchrunError | None = None
        self._refused: tuple[Mapping[str, Any], BatchrunError | str] | None = None

    def compose(self) -> ComposeResult:
        yield TitleBar("setup")
        yield self.tabs()
        with Vertical(id="panes"):
            yield Form(self._flags, id="form", classes="pane")
            with Vertical(id="prompt-pane", classes="pane"):
                yield Editor(id="editor")
                yield PromptStatus("", id="prompt-status")
            with VerticalScroll(id="request", classes="pane"):
                yield Static("", id="request-text")
            with Vertical(id="rows", classes="pane"):
                yield HeadTable(id="head")
            with VerticalScroll(id="answers", classes="pane"):
                yield Answers(_NOT_TRIED, id="answers-text")
        yield Static("", id="brief")
        yield Static("", id="checklist")
        yield Static("", id="trouble")
        yield Static("", id="command")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self.show_pane("form")
        self.form.show_profile()
        self.set_interval(0.2, self.watch_sent)
        self._untouched = self._touched(self.query_one(self.focused_in("form")).focus())
        self.query_one("#checklist").auto_links = False  # what can be clicked keeps its colours
        self._note_plan("")
        self.show_problem("reading the prompt and the input" if self._flags.get("input") else _NOTHING_YET)
        self.call_after_refresh(self._open_draft)

    @work(exclusive=True, group="draft")
    async def _open_draft(self) -> None:
        module = await asyncio.to_thread(drafts)
        self._draft = module.Draft()
        self._load_prompt()
        self._read_head()
        default = await asyncio.to_thread(module.default_profile, self.form.more)
        self.form.set_defaults(default, await asyncio.to_thread(module.prompt_names))
        self._opened.set()
        if self._touched(self.focused) != self._untouched or not await self.read():
            return
        missing = first_missing(self._items)
        if missing is not None and missing.field != "profile":
            self.go_to_field(missing.field)

    def _touched(self, focused: Widget | None) -> tuple[object, ...]:
        """What the first key or click changes: the focus, the cursor in its field, or a name."""
        cursor = focused.selection if isinstance(focused, Input) else None
        return focused, cursor, self.form.typed("prompt"), self.form.typed("input")

    @work(exclusive=True, group="again")
    async def open_again(self, path: Path, position: int) -> None:
        shown = app_of(self).screen
        try:
            plan = await asyncio.to_thread(drafts().plan_of, path)
        except BatchrunError as error:
            self.notify(printable(error.message, 300), severity="error", markup=False)
            return
        if app_of(self).screen is not shown:
            return
        self._wanted_row = position
        self.form.fill(plan)
        self._load_prompt()
        self._read_head()
        await app_of(self).run_action("show('setup')")

    @on(Input.Changed, "#prompt")
    def _prompt_named(self) -> None:
        self._load_prompt()

    @on(Input.Changed, "#input")
    def _input_named(self) -> None:
        self._read_head()

    @on(Select.Changed, "#profile")
    def _profile_chosen(self) -> None:
        self._refusal = None  # it may have been about the other provider's key
        self.form.show_profile()
        self._refresh_preview()

    @on(VariableField.Changed)
    @on(Input.Changed, "#model, #output")
    @on(DataTable.RowHighlighted, "#head")
    def _setting_changed(self) -> None:
        self._refresh_preview()

    @on(VariableField.Wanted)
    def _origin_wanted(self, event: VariableField.Wanted) -> None:
        def chosen(answer: str | None) -> None:
            if answer is not None:
                event.field.choose(answer)

        question = f"Value for {printable(event.field.variable, 40)}"
        app_of(self).push_screen(Choose(question, event.options), chosen)

    @on(PressableText.Pressed, "#options")
    def action_options(self) -> None:
        def chosen(flags: dict[str, Any] | None) -> None:
            if flags is not None:
                self.form.more = flags
                self.form.show_options()
                self._load_prompt()
                self._read_head()

        if not isinstance(app_of(self).screen, OptionsScreen):
            app_of(self).push_screen(OptionsScreen(self.form.more), chosen)

    @on(Input.Submitted)
    async def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.go_to_missing()

    @work(exclusive=True, group="missing")
    async def go_to_missing(self) -> None:
        if not await self.read():
            return
        missing = first_missing(self._items)
        if missing is None:
            self.show_pane("rows")
            return
        entry = self.go_to_field(missing.field)
        if isinstance(entry, Select):
            entry.action_show_overlay()
            entry.query_one(OptionList).highlighted = 0

    @work(exclusive=True, group="prompt")
    async def _load_prompt(self) -> None:
        self._names_read["prompt"] = None
        await asyncio.sleep(DEBOUNCE)
        draft, name = self._draft, self.form.typed("prompt")
        if draft is None:
            return
        source = await asyncio.to_thread(drafts().read_prompt, name) if name else drafts().Source()
        editor, path = self.query_one(Editor), draft.path
        draft.edit(editor.text)  # with the last key, whose message may still be on its way
        text = draft.take_prompt(source)
        loaded = draft.path != path or text != editor.text
        if loaded:
            editor.load_text(text)
        self.draft_changed()
        if loaded and self.error_line is not None:
            editor.go_to(self.error_line)
        self._read_now("prompt", name)

    @on(TextArea.Changed, "#editor")
    def _edited(self) -> None:
        if self._draft is not None:
            self._refused = None
            self._draft.edit(self.query_one(Editor).text)
            self.draft_changed()

    @work(exclusive=True, group="head")
    async def _read_head(self) -> None:
        self._names_read["input"] = None
        await asyncio.sleep(DEBOUNCE)
        draft, name = self._draft, self.form.typed("input")
        if draft is None:
            return
        draft.take_head(None, None)
        if name:
            has_prompt, flags = bool(self.form.typed("prompt")), self.form.more
            try:
                head = await asyncio.to_thread(drafts().read_head, name, flags, has_prompt=has_prompt)
                draft.take_head(head, None)
            except BatchrunError as error:
                draft.take_head(None, error)
        self._show_head(draft.head)
        self.draft_changed()
        self._read_now("input", name)

    def _read_now(self, field: str, name: str) -> None:
        self._names_read[field] = name
        self._read_event.set()

    def _show_head(self, head: Head | None) -> None:
        table = self.query_one(HeadTable)
        table.show(head)
        if head is not None and 0 < self._wanted_row <= len(head.rows):
            table.move_cursor(row=self._wanted_row - 1)
        self._wanted_row = 0
        summary = "" if head is None else head.summary
        self.query_one("#input-info", Static).update(Content(printable(summary, 300)))

    def draft_changed(self) -> None:
        # an invalid prompt keeps the earlier variables
        draft = self._draft
        if draft is None:
            return
        self.refresh_bindings()
        self.show_status()
        text = "" if draft.prompt is None else draft.prompt.description
        self.query_one("#prompt-info", Static).update(Content(printable(text, 200)))
        mark = " ● edited" if draft.edited else ""
        title = "prompt" if draft.path is None else f"prompt{mark} · {printable(draft.shown_path, 60)}"
        self.query_one("#prompt-pane").border_title = Content(title).markup
        self.query_one("#tab-prompt-pane", Tab).label = f"prompt{mark}"
        if draft.prompt is not None or not self.form.typed("prompt"):
            self.form.ask_variables(draft.prompt, None if draft.head is None else draft.head.columns)
        self._refresh_preview()

    def _refresh_preview(self) -> None:
        draft, flags = self._draft, self.form.flags
        self.query_one("#command", Static).update(
            Content.assemble(("$ ", "$success"), printable(setup_flags.command(flags)))
        )
        if draft is None:
            return
        row = self.query_one(HeadTable).current
        shown = draft.preview(row, self.form.model(draft.prompt), flags)
        self.query_one("#request-text", Static).update(safe_text.shown(shown.text, 60_000))
        size = f" · about {shown.tokens:,} tokens in" if shown.tokens else ""
        where = 0 if row is None else row.line
        self.query_one("#request").border_title = f"request of line {where}{size}" if shown.text else "request"
        self.query_one("#output", Input).placeholder = printable(draft.output_name, 80)
        problem = self._problem(draft, shown)
        self._missing = shown.missing
        self.show_problem(problem)
        self._plan(problem)

    def _plan(self, problem: BatchrunError | str | None) -> None:
        draft, flags = self._draft, self.form.flags
        edited = draft is not None and draft.edited
        counted = problem is None and draft is not None and not edited
        if not counted:
            note = "the prompt has unsaved changes; Ctrl+S saves it, then the plan is computed"
            self._note_plan(note if edited and problem is None else "")
        shown = flags, counted, None if draft is None else draft.path
        if shown != self._estimated_for:
            self._estimated_for = shown
            self._estimate_plan(shown, counted=counted)

    @work(exclusive=True, group="plan")
    async def _estimate_plan(self, shown: object, *, counted: bool) -> None:
        await asyncio.sleep(QUIET)
        if services(self).busy:
            return
        self._refusal = await services(self).refusal(self.form.flags)
        self._refresh_preview()
        if not counted:
            return
        try:
            found = await services(self).estimate(self.form.flags, lambda: self._estimated_for is shown)
        except BatchrunError as error:
            self._note_plan(error.message)
            return
        if found is not None:
            brief, lines = found
            self.query_one("#brief", Static).update(
                Content.assemble(("plan  ", "bold $primary"), printable(brief, 400))
            )
            self.form.show_plan(lines)
            self.show_problem(None)

    def _note_plan(self, note: str) -> None:
        text = printable(note, 300) or "shown once prompt, input and variables are set"
        self.query_one("#brief", Static).update(
            Content.assemble(("plan  ", "bold $primary"), (text, "$foreground-muted"))
        )
        self.query_one("#plan", Static).update(Content.styled(text, "$foreground-muted"))

    def on_screen_resume(self) -> None:
        self.count_again()

    def count_again(self) -> None:
        self._estimated_for = None
        self._refresh_preview()

    def _problem(self, draft: "Draft", shown: "Preview") -> BatchrunError | str | None:
        if not self.form.typed("input"):
            return draft.prompt_trouble or _NOTHING_YET
        return draft.prompt_trouble or draft.head_trouble or shown.trouble

    def show_problem(self, problem: BatchrunError | str | None) -> None:
        if self._refused is not None and self._refused[0] == self.form.flags:
            problem = problem or self._refused[1]
        problem = problem or self._refusal
        self._items = self._checked()
        parts: list[paint.Part] = []
        for item in self._items:
            sign, colour = ("✓", "$success") if item.met else ("✗", "$error")
            click = f"@click=screen.go_to({item.field!r})"
            name = f"{printable(item.name, 20)}   "
            parts += [(f"{sign} ", f"bold {colour} {click}"), (name, f"{'' if item.met else 'bold '}{click}")]
        if problem is None and first_missing(self._items) is None:
            parts += [("ready ", "bold $success"), ("F5 starts, F6 tries the selected rows", "$foreground-muted")]
        elif first_missing(self._items) is not None:
            parts.append(("Enter goes to what is missing", "$foreground-muted"))
        self.query_one("#checklist", Static).update(paint.joined(parts))
        trouble = self.query_one("#trouble", Static)
        trouble.set_class(problem is not None, "-shown")
        if isinstance(problem, BatchrunError):
            parts = [(printable(problem.message, 400), "$error")]
            parts += [("  " + printable(problem.hint, 300), "$foreground-muted")] if problem.hint else []
            trouble.update(paint.joined(parts))
        elif problem is not None:
            trouble.update(Content.styled(printable(problem, 400), "$warning"))

    def _checked(self) -> tuple[Item, ...]:
        draft, form = self._draft, self.form
        head = None if draft is None else draft.head
        bodies = head is not None and head.kind is not Kind.ROWS
        typed = {name: origin.text for name, origin in form.origins.items() if origin.kind == setup_flags.FROM_VALUE}
        return checklist(
            prompt=draft is not None and draft.prompt_trouble is None and (bool(form.typed("prompt")) or bodies),
            source=head is not None,
            typed=typed,
            missing=self._missing,
            key=form.has_key,
        )

    @work(exclusive=True, group="start")
    async def action_start(self) -> None:
        stayed = await self.read(begins=True)
        draft, flags = self._draft, self.form.flags
        assert draft is not None
        row = None if self.form.more.get("skip_invalid") else self.query_one(HeadTable).current
        shown = drafts().Preview("")
        if row is not None:
            shown = draft.preview(row, self.form.model(draft.prompt), flags)
        problem = self._problem(draft, shown) or await services(self).refusal(flags)
        if problem is None:
            if self.save_before_sending():
                services(self).begin(NewRun(flags=flags))
            return
        self.refuse(problem)
        self.notify("not started: something is missing", severity="warning", timeout=3)
        missing = first_missing(self._items)
        if stayed:
            self.go_to_field("profile" if missing is None else missing.field)

    async def read(self, *, begins: bool = False) -> bool:
        before = self._touched(self.focused)
        await self._opened.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.input_timeout if begins else None):
                while any(self.form.typed(name) != read for name, read in self._names_read.items()):
                    self._read_event.clear()
                    await self._read_event.wait()
        return self.is_current and self._touched(self.focused) == before

    def refuse(self, problem: BatchrunError | str) -> None:
        self._refused = self.form.flags, problem
        self.show_problem(None)

    @work(exclusive=True, group="pick")
    async def action_pick(self) -> None:
        from batchrun.tui.screens.pick import Pick, prompts  # noqa: PLC0415  prompts: not before the first frame

        name = "input" if self.focused is not None and self.focused.id == "input" else "prompt"
        found = await asyncio.to_thread(prompts) if name == "prompt" else []
        if self.is_current:
            app_of(self).push_screen(Pick(f"Which {name}?", found), lambda chosen: self._picked(name, chosen))

    def _picked(self, name: str, chosen: str | None) -> None:
        if chosen:
            field = self.query_one(f"#{name}", Input)
            field.value = chosen
            field.focus()

    def action_copy(self) -> None:
        app_of(self).copy_to_clipboard(setup_flags.command(self.form.flags))
        self.notify("the command is copied", timeout=2)
