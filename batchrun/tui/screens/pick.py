"""Choosing a prompt or a file."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from rich.text import Text, TextType
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import DirectoryTree, Label, OptionList
from textual.widgets.option_list import Option

from batchrun.display import printable
from batchrun.prompts import Listing, available


class Files(DirectoryTree):
    def process_label(self, label: TextType) -> Text:
        return Text(printable(label if isinstance(label, str) else label.plain, 120))

    def filter_paths(self, paths: Iterable[Path]) -> Iterable[Path]:
        return [path for path in paths if not path.name.startswith(".") and path.name != "__pycache__"]


class Pick(ModalScreen[str | None]):
    CSS_PATH = "pick.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Close")]

    def __init__(self, question: str, prompts: Sequence[Listing] = ()) -> None:
        super().__init__()
        self._question = question
        self._prompts = prompts

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(Content(self._question), classes="question")
            if self._prompts:
                yield OptionList(*(Option(described(found), id=found.name) for found in self._prompts), compact=True)
            yield Files(Path.cwd())

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option.id)

    def on_directory_tree_file_selected(self, event: DirectoryTree.FileSelected) -> None:
        path = event.path
        shown = str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
        if not shown.isprintable():
            self.notify("this name has control characters: rename the file first", severity="error")
            return
        self.dismiss(shown)


def prompts() -> list[Listing]:
    return available()


def described(found: Listing) -> Content:
    text = f"cannot be used: {found.error}" if found.error else found.description
    style = "$error" if found.error else "$foreground-muted"
    return Content.assemble((f"{printable(found.name, 24):<24}", "bold"), (printable(text, 200), style))
