"""What the keys do, for the screen that help was asked on."""

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from batchrun.tui.desk import app_of


class Help(ModalScreen[None]):
    """Every key of a screen, shown or not."""

    CSS_PATH = "ask.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,f1", "dismiss(None)", "Close")]

    def __init__(self, about: Screen[Any]) -> None:
        super().__init__()
        self._lines = key_lines(about)

    def compose(self) -> ComposeResult:
        """The list."""
        with VerticalScroll(classes="dialog"):
            yield Static("Keys", classes="question")
            yield Static(Content("\n").join(self._lines))


def key_lines(about: Screen[Any]) -> list[Content]:
    """One line a binding: its keys, what it does."""
    found: dict[str, list[str]] = {}
    for active in about.active_bindings.values():
        binding = active.binding
        if binding.description and binding.id:
            shown = app_of(about).get_key_display(binding)
            found.setdefault(binding.description, []).append(shown)
    return [Content.assemble((f"{' '.join(keys):<16}", "bold $accent"), text) for text, keys in found.items()]
