"""The variables of a prompt, each with the origin of its value."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Label, Static

from batchrun.display import printable
from batchrun.tui.setup_flags import FROM_DEFAULT, FROM_VALUE, Origin
from batchrun.tui.widgets.field import Field

_PREFIX = "column:"


class Origins(Static, can_focus=True):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space", "ask", "Change", show=False)]
    ALLOW_SELECT = False

    class Asked(Message):
        """Another origin is wanted."""

    def action_ask(self) -> None:
        self.post_message(self.Asked())

    def on_click(self) -> None:
        self.post_message(self.Asked())


_BESIDE = 14 + 18 + 1
"""Cells of name and origin, as in the style."""


class VariableField(Horizontal):
    DEFAULT_CSS = """
    VariableField { height: 1; }
    VariableField Label { width: 14; color: $foreground-muted; }
    VariableField Origins { width: 18; margin-right: 1; background: $surface; }
    VariableField Origins:focus { background: $primary-muted; }
    VariableField Input { width: 1fr; }
    """

    class Changed(Message):
        """Another origin or value."""

    class Wanted(Message):
        """Choose an origin from `options`, (id, label) each."""

        def __init__(self, field: "VariableField", options: list[tuple[str, str]]) -> None:
            super().__init__()
            self.field = field
            self.options = options

    def __init__(self, name: str, origin: Origin) -> None:
        super().__init__()
        self.variable = name
        self._origin = origin
        self._value = Field(origin.text if origin.kind == FROM_VALUE else "")
        self._columns: Sequence[str] = ()
        self._default = False
        self._hint = ""

    def compose(self) -> ComposeResult:
        yield Label(Content(printable(self.variable, 13)))
        yield Origins(self._label())
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
        for origins in self.query(Origins):
            origins.update(self._label())

    @property
    def entry(self) -> Widget:
        return self._value if self._typed else self.query_one(Origins)

    @property
    def _typed(self) -> bool:
        return self._origin.kind == FROM_VALUE

    def _label(self) -> Content:
        kind, text = self._origin
        label = {FROM_VALUE: "constant", FROM_DEFAULT: "default"}.get(kind, f"column {printable(text, 9)}")
        return Content.assemble(f"{label:<16}", ("▾", "$foreground-muted"))

    def choose(self, answer: str) -> None:
        column = answer.removeprefix(_PREFIX)
        self.origin = Origin(answer) if column == answer else Origin("column", column)
        if self._typed:
            self._value.focus()
        self.post_message(self.Changed())

    def on_origins_asked(self, event: Origins.Asked) -> None:
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
    """A field exists as long as its variable and keeps what was typed."""

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
