"""The form of a prompt's variables: for each, where it has its value from."""

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
    """Where a variable has its value from; Enter or a click asks for another."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space", "ask", "Change", show=False)]
    ALLOW_SELECT = False

    class Asked(Message):
        """Another origin is wanted."""

    def action_ask(self) -> None:
        """Ask."""
        self.post_message(self.Asked())

    def on_click(self) -> None:
        """Ask."""
        self.post_message(self.Asked())


_BESIDE = 14 + 18 + 1
"""Cells beside the typed value: name and origin, as the style has them."""


class VariableField(Horizontal):
    """One variable: its name, its origin, and its value where it is typed."""

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
        """A list of origins to choose from, (id, label) each."""

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
        """Name, origin, value."""
        yield Label(Content(printable(self.variable, 13)))
        yield Origins(self._said())
        self._value.display = self._typed
        yield self._value

    def know(self, columns: Sequence[str], *, hint: str, default: bool) -> None:
        """What there is to choose from, and what the prompt says of the variable."""
        self._columns = columns
        self._default = default
        self._hint = printable(hint, 300)
        self.tooltip = Content(self._hint) if hint else None
        self.on_resize()

    def on_resize(self) -> None:
        """What the prompt says of the variable is shown in the empty field where it has room there."""
        room = self.content_size.width - _BESIDE
        self._value.placeholder = self._hint if 0 < len(self._hint) < room else "type a value"

    @property
    def origin(self) -> Origin:
        """What is chosen; a typed value is the present text of the field."""
        return Origin(FROM_VALUE, self._value.value) if self._typed else self._origin

    @origin.setter
    def origin(self, origin: Origin) -> None:
        self._origin = origin
        if origin.kind == FROM_VALUE and origin.text:
            self._value.value = origin.text
        self._value.display = self._typed
        for said in self.query(Origins):
            said.update(self._said())

    @property
    def entry(self) -> Widget:
        """What takes its value: the line to type in, or where it comes from."""
        return self._value if self._typed else self.query_one(Origins)

    @property
    def _typed(self) -> bool:
        return self._origin.kind == FROM_VALUE

    def _said(self) -> Content:
        kind, text = self._origin
        said = {FROM_VALUE: "constant", FROM_DEFAULT: "default"}.get(kind, f"column {printable(text, 9)}")
        return Content.assemble(f"{said:<16}", ("▾", "$foreground-muted"))

    def choose(self, answer: str) -> None:
        """Take the origin with this id from the list."""
        column = answer.removeprefix(_PREFIX)
        self.origin = Origin(answer) if column == answer else Origin("column", column)
        if self._typed:
            self._value.focus()
        self.post_message(self.Changed())

    def on_origins_asked(self, event: Origins.Asked) -> None:
        """The screen asks the question."""
        event.stop()
        options = [(FROM_VALUE, "constant: the same value for all rows")]
        if self._default:
            options.append((FROM_DEFAULT, "default of the prompt"))
        options += [(_PREFIX + name, f"column {printable(name, 60)}") for name in self._columns]
        self.post_message(self.Wanted(self, options))

    def on_input_changed(self, event: Input.Changed) -> None:
        """Told as it is typed."""
        event.stop()
        self.post_message(self.Changed())


class Variables(Vertical):
    """The fields of all variables of a prompt. A field lives as long as its variable, and keeps what was typed."""

    DEFAULT_CSS = "Variables { height: auto; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.fields: dict[str, VariableField] = {}

    def ask(
        self, origins: Mapping[str, Origin], columns: Sequence[str], hints: Mapping[str, str], defaults: frozenset[str]
    ) -> None:
        """Show these variables, over an input with these columns."""
        for name in self.fields.keys() - origins.keys():
            self.fields.pop(name).remove()
        for place, (name, origin) in enumerate(origins.items()):
            field = self.fields.get(name)
            if field is None:
                field = self.fields[name] = VariableField(name, origin)
                self.mount(field, before=place if place < len(self.children) else None)
            elif field.origin != origin:
                field.origin = origin
            field.know(columns, hint=hints.get(name, ""), default=name in defaults)

    def forget(self) -> None:
        """What was chosen and typed holds no more."""
        self.fields.clear()
        self.remove_children()

    @property
    def origins(self) -> dict[str, Origin]:
        """What is chosen, by variable."""
        return {name: field.origin for name, field in self.fields.items()}
