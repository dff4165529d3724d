"""The form of a run, and its values as flags."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widget import Widget
from textual.widgets import Input, Label, Select, Static

from batchrun.display import printable
from batchrun.errors import BatchrunError
from batchrun.models import Kind
from batchrun.plan import Plan
from batchrun.plan.config import every_profile, one_profile
from batchrun.plan.profiles import DEFAULT, Profile
from batchrun.tui import setup_flags
from batchrun.tui.setup_flags import FROM_DEFAULT, FROM_VALUE, Origin
from batchrun.tui.widgets.controls import Field, PressableText

if TYPE_CHECKING:
    from batchrun.prompts import Prompt

_PLAIN = {"model": "model", "output": "INPUT.PROMPT.jsonl"}
NO_COLUMN = "none"
NO_KEY = "no key"
_FIELDS = (*_PLAIN, "prompt", "input", "profile", "set", "columns")


class Form(Vertical, can_focus=False):
    """Flags without a field are in `more`."""

    def __init__(self, flags: Mapping[str, Any], *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._given = dict(flags)
        self.more = {name: value for name, value in flags.items() if name not in _FIELDS}
        self._default = DEFAULT
        self._prompts_model: str | None = None

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="fields", can_focus=False):
            yield Label("prompt", classes="title")
            yield self._field("prompt", "a name, or the path of a file")
            yield Static("", id="prompt-info", classes="info")
            yield Label("input", classes="title")
            yield self._field("input", "a file, a directory or a glob")
            yield Static("", id="input-info", classes="info")
            yield Label("variables", classes="title", id="variables-title")
            yield Variables(id="variables")
            yield Label("provider", classes="title")
            # Text, not Content: typing the beginning of a name finds it, and it is no markup either.
            known = sorted(every_profile(), key=lambda profile: (not profile.simulated, key_state(profile) == NO_KEY))
            profiles = [
                (Text(f"{printable(profile.name, 30)} · {key_state(profile)}"), profile.name) for profile in known
            ]
            chosen = str(self._given.get("profile") or self._default)
            yield Select(profiles, value=chosen, id="profile", allow_blank=False, compact=True)
            yield self._field("model", _PLAIN["model"])
            yield Static("", id="profile-info", classes="info")
            yield Label("output", classes="title")
            yield self._field("output", _PLAIN["output"])
            yield Label("options", classes="title")
            yield PressableText("", id="options")
        yield Label("plan", classes="title", id="plan-title")
        with VerticalScroll(id="plan-lines", can_focus=False):
            yield Static("", id="plan")

    def on_mount(self) -> None:
        self.show_options()

    def show_options(self) -> None:
        text = setup_flags.command(self.more).removeprefix("batchrun").strip()
        dim = Content.styled("none set; Enter lists all", "$foreground-muted")
        self.query_one("#options", PressableText).update(Content(printable(text, 400)) if text else dim)

    def _field(self, name: str, placeholder: str) -> Input:
        return Field(str(self._given.get(name, "")), id=name, placeholder=placeholder)

    def set_defaults(self, default: str, names: Iterable[str]) -> None:
        self.query_one("#prompt", Input).suggester = SuggestFromList([name for name in names if name.isprintable()])
        if self._select.value == self._default and "profile" not in self._given:
            self._select.value = default
        self._default = default

    def show_plan(self, lines: Iterable[str]) -> None:
        # each line is a name, two spaces or more, and a text that wraps beside it
        table = Table.grid(padding=(0, 1))
        for line in lines:
            name, _, text = printable(line, 300).partition("  ")
            table.add_row(Text(name, no_wrap=True), Text(text.strip()))
        self.query_one("#plan", Static).update(table)

    def entry(self, field: str) -> Widget:
        kind, _, name = field.partition(":")
        if kind == "variable" and name in self.query_one(Variables).fields:
            return self.query_one(Variables).fields[name].entry
        return self.query_one(f"#{kind}") if kind in ("prompt", "input") else self._select

    @property
    def origins(self) -> dict[str, Origin]:
        return self.query_one(Variables).origins

    @property
    def has_key(self) -> bool:
        try:
            return key_state(one_profile(self.profile)) != NO_KEY
        except BatchrunError:
            return False

    def typed(self, name: str) -> str:
        return self.query_one(f"#{name}", Input).value.strip()

    def choose(self, fields: Mapping[str, str]) -> None:
        for name, value in fields.items():
            if name == "profile":
                self._select.value = value
            else:
                self.query_one(f"#{name}", Input).value = value

    def fill(self, plan: Plan) -> None:
        values = {"prompt": plan.prompt_path, "input": plan.input, "model": plan.model, "output": plan.output}
        self._given = {"set": dict(plan.variables), "columns": dict(plan.columns), "profile": plan.profile}
        if plan.kind is Kind.ROWS:
            self.more["id_column"] = plan.id_column or NO_COLUMN
        for name, value in values.items():
            self.query_one(f"#{name}", Input).value = value or ""
        self._select.value = plan.profile
        self.query_one(Variables).forget()

    @property
    def _select(self) -> "Select[str]":
        return cast("Select[str]", self.query_one("#profile", Select))

    @property
    def profile(self) -> str:
        return str(self._select.value)

    def model(self, prompt: "Prompt | None") -> str | None:
        if typed := self.typed("model") or (prompt is not None and prompt.model):
            return typed
        try:
            return one_profile(self.profile).model
        except BatchrunError:
            return None

    @property
    def flags(self) -> dict[str, Any]:
        found: dict[str, Any] = {"input": self.typed("input"), "prompt": self.typed("prompt")}
        found |= setup_flags.variable_flags(self.query_one(Variables).origins)
        found["profile"] = self.profile if self.profile != self._default or "profile" in self._given else ""
        found |= {name: self.typed(name) for name in _PLAIN}
        return {name: value for name, value in {**found, **self.more}.items() if value not in ("", None)}

    def ask_variables(self, prompt: "Prompt | None", columns: tuple[str, ...] | None) -> None:
        """`columns` is None before the input is read."""
        self._prompts_model = None if prompt is None else prompt.model
        self.show_profile()
        names = sorted(prompt.variables) if prompt is not None else []
        self.query_one("#variables-title").display = bool(names)
        form = self.query_one(Variables)
        if prompt is None:
            form.ask({}, (), {}, frozenset())
            return
        hints = {name: field.description or "" for name, field in prompt.inputs.items()}
        origins = {name: self._origin(prompt, name, columns) for name in names}
        form.ask(origins, columns or (), hints, frozenset(prompt.defaults) | prompt.optional)

    def _origin(self, prompt: "Prompt", name: str, columns: tuple[str, ...] | None) -> Origin:
        field = self.query_one(Variables).fields.get(name)
        known = None if field is None else field.origin
        given, mapped = table(self._given.get("set")), table(self._given.get("columns"))
        if known is not None and known.holds(columns, default=setup_flags.has_default(prompt, name)):
            return known
        if field is not None and field.chosen and known is not None and known.kind == FROM_VALUE:
            return known  # its value is still to be typed
        if name in given:
            return Origin(setup_flags.FROM_VALUE, given[name])
        if name in mapped and (columns is None or mapped[name] in columns):
            return Origin("column", mapped[name])
        return setup_flags.guess(prompt, name, columns or ())

    def show_profile(self) -> None:
        model = self._prompts_model
        try:
            profile = one_profile(self.profile)
        except BatchrunError as error:
            text = error.message
        else:
            key = "no key needed" if profile.key_optional else f"key from {profile.api_key_env or 'a file or command'}"
            where = (
                "simulated replies on this machine, no cost"
                if profile.simulated
                else profile.base_url or "no address yet"
            )
            text = f"{where} · {key}"
            model = model or profile.model
        default = f"model (default: {printable(model, 40)})" if model else "model (no default)"
        self.query_one("#model", Input).placeholder = default
        self.query_one("#profile-info", Static).update(Content(printable(text, 200)))


def key_state(profile: Profile) -> str:
    """`api_key_command` is not run."""
    if profile.simulated or profile.key_optional:
        return "no key needed"
    if profile.api_key_command:
        return "key from a command"
    placed = Path(profile.api_key_file).expanduser().is_file() if profile.api_key_file else False
    return "key found" if placed or os.environ.get(profile.api_key_env or "", "").strip() else NO_KEY


def table(given: Any) -> dict[str, str]:
    if isinstance(given, Mapping):
        return {str(name): str(value) for name, value in cast("Mapping[Any, Any]", given).items()}
    pairs = (str(text).partition("=") for text in given or ())
    return {name: value for name, _, value in pairs}


_PREFIX = "column:"


_BESIDE = 14 + 18 + 1


class VariableField(Horizontal):
    DEFAULT_CSS = """
    VariableField { height: 1; }
    VariableField Label { width: 14; color: $foreground-muted; }
    VariableField PressableText { width: 18; margin-right: 1; background: $surface; }
    VariableField PressableText:focus { background: $primary-muted; }
    VariableField Input { width: 1fr; }
    """

    class Changed(Message):
        pass

    class Wanted(Message):
        """`options` are (id, label)."""

        def __init__(self, field: "VariableField", options: list[tuple[str, str]]) -> None:
            super().__init__()
            self.field = field
            self.options = options

    def __init__(self, name: str, origin: Origin) -> None:
        super().__init__()
        self.variable = name
        self.chosen = False
        self._origin = origin
        self._value = Field(origin.text if origin.kind == FROM_VALUE else "")
        self._columns: Sequence[str] = ()
        self._default = False
        self._hint = ""

    def compose(self) -> ComposeResult:
        yield Label(Content(printable(self.variable, 13)))
        yield PressableText(self._label())
        self._value.display = self._typed
        yield self._value

    def set_choices(self, columns: Sequence[str], *, hint: str, default: bool) -> None:
        self._columns = columns
        self._default = default
        self._hint = printable(hint, 300)
        self.tooltip = Content(self._hint) if hint else None
        self.on_resize()

    def on_resize(self) -> None:
        room = self.content_size.width - _BESIDE
        self._value.placeholder = self._hint if 0 < len(self._hint) < room else "type a value"

    @property
    def origin(self) -> Origin:
        return Origin(FROM_VALUE, self._value.value) if self._typed else self._origin

    @origin.setter
    def origin(self, origin: Origin) -> None:
        self._origin = origin
        if origin.kind == FROM_VALUE and origin.text:
            self._value.value = origin.text
        self._value.display = self._typed
        for origins in self.query(PressableText):
            origins.update(self._label())

    @property
    def entry(self) -> Widget:
        return self._value if self._typed else self.query_one(PressableText)

    @property
    def _typed(self) -> bool:
        return self._origin.kind == FROM_VALUE

    def _label(self) -> Content:
        kind, text = self._origin
        label = {FROM_VALUE: "constant", FROM_DEFAULT: "default"}.get(kind, f"column {printable(text, 9)}")
        return Content.assemble(f"{label:<16}", ("▾", "$foreground-muted"))

    def choose(self, answer: str) -> None:
        column = answer.removeprefix(_PREFIX)
        self.chosen = True
        self.origin = Origin(answer) if column == answer else Origin("column", column)
        if self._typed:
            self._value.focus()
        self.post_message(self.Changed())

    def on_pressable_text_pressed(self, event: PressableText.Pressed) -> None:
        event.stop()
        options = [(FROM_VALUE, "constant: the same value for all rows")]
        if self._default:
            options.append((FROM_DEFAULT, "default of the prompt"))
        options += [(_PREFIX + name, f"column {printable(name, 60)}") for name in self._columns]
        self.post_message(self.Wanted(self, options))

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Changed())


class Variables(Vertical):
    DEFAULT_CSS = "Variables { height: auto; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.fields: dict[str, VariableField] = {}

    def ask(
        self, origins: Mapping[str, Origin], columns: Sequence[str], hints: Mapping[str, str], defaults: frozenset[str]
    ) -> None:
        for name in self.fields.keys() - origins.keys():
            self.fields.pop(name).remove()
        for place, (name, origin) in enumerate(origins.items()):
            field = self.fields.get(name)
            if field is None:
                field = self.fields[name] = VariableField(name, origin)
                self.mount(field, before=place if place < len(self.children) else None)
            elif field.origin != origin:
                field.origin = origin
            field.set_choices(columns, hint=hints.get(name, ""), default=name in defaults)

    def forget(self) -> None:
        self.fields.clear()
        self.remove_children()

    @property
    def origins(self) -> dict[str, Origin]:
        return {name: field.origin for name, field in self.fields.items()}
