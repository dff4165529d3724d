"""The form of a prompt's variables: for each, where it has its value from."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Label, Static

from batchrun.display import printable
from batchrun.tui.choices import FROM_DEFAULT, FROM_VALUE, Origin

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


class VariableField(Horizontal):
    """One variable: its name, its origin, and its value where it is typed."""

    DEFAULT_CSS = """
    VariableField { height: 1; }
    VariableField Label { width: 14; color: $text-muted; }
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

    def __init__(self, name: str, origin: Origin, columns: Sequence[str], *, hint: str, default: bool) -> None:
        super().__init__()
        self.variable = name
        self.origin = origin
        self._columns = columns
        self._hint = hint
        self._default = default

    def compose(self) -> ComposeResult:
        """Name, origin, value."""
        label = Label(Content(printable(self.variable, 13)))
        label.tooltip = Content(printable(self._hint, 300)) if self._hint else None
        yield label
        yield Origins(self._said())
        hint = printable(self._hint, 60)
        field = Input(self.origin.text if self._typed else "", placeholder=hint, compact=True)
        field.display = self._typed
        yield field

    @property
    def _typed(self) -> bool:
        return self.origin.kind == FROM_VALUE

    def _said(self) -> Content:
        kind, text = self.origin
        said = {FROM_VALUE: "same for all", FROM_DEFAULT: "its default"}.get(kind, f"column {printable(text, 9)}")
        return Content.assemble(f"{said:<16}", ("▾", "$foreground-muted"))

    def choose(self, answer: str) -> None:
        """Take the origin with this id from the list."""
        column = answer.removeprefix(_PREFIX)
        self.origin = Origin(answer) if column == answer else Origin("column", column)
        self.query_one(Origins).update(self._said())
        field = self.query_one(Input)
        field.display = self._typed
        if self._typed:
            self.origin = Origin(FROM_VALUE, field.value)
            field.focus()
        self.post_message(self.Changed())

    def on_origins_asked(self, event: Origins.Asked) -> None:
        """The screen asks the question."""
        event.stop()
        options = [(FROM_VALUE, "the same value for all rows")]
        if self._default:
            options.append((FROM_DEFAULT, "the default of the prompt"))
        options += [(_PREFIX + name, f"column {printable(name, 60)}") for name in self._columns]
        self.post_message(self.Wanted(self, options))

    def on_input_changed(self, event: Input.Changed) -> None:
        """Told as it is typed."""
        event.stop()
        if self._typed:
            self.origin = Origin(FROM_VALUE, event.value)
            self.post_message(self.Changed())


class Variables(Vertical):
    """The fields of all variables of a prompt."""

    DEFAULT_CSS = "Variables { height: auto; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._made: object = None
        self.fields: list[VariableField] = []

    def ask(
        self, origins: Mapping[str, Origin], columns: Sequence[str], hints: Mapping[str, str], defaults: frozenset[str]
    ) -> None:
        """Show these variables; fields that are right already stay as they are."""
        wanted = (tuple(origins), tuple(columns), tuple(hints.items()), defaults)
        if wanted == self._made:
            return
        self._made = wanted
        self.fields = [
            VariableField(name, origin, columns, hint=hints.get(name, ""), default=name in defaults)
            for name, origin in origins.items()
        ]
        self.remove_children()
        self.mount_all(self.fields)

    @property
    def origins(self) -> dict[str, Origin]:
        """What is chosen, by variable."""
        return {field.variable: field.origin for field in self.fields}
