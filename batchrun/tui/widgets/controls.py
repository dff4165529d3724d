"""A text field that shows any value safely, a text that can be pressed, a table for the mouse, the title bar."""

import os
from pathlib import Path
from typing import ClassVar

from rich.highlighter import Highlighter
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import DataTable, Input, Static

from batchrun import __version__
from batchrun.display import printable
from batchrun.tui import safe_text
from batchrun.tui.services import app_of


class Field(Input):
    DEFAULT_CSS = """
    Field { height: 1; background: $surface; }
    Field > .input--placeholder { color: $foreground-muted; }
    """

    def __init__(self, value: str = "", *, placeholder: str = "", id: str | None = None) -> None:
        super().__init__(
            value, placeholder=placeholder, id=id, compact=True, select_on_focus=False, highlighter=_Literal()
        )
        self.cursor_blink = False


class _Literal(Highlighter):
    def __call__(self, text: str | Text) -> Text:
        plain = text if isinstance(text, str) else text.plain
        return Text(safe_text.one_for_one(plain), no_wrap=True, overflow="ignore", end="")

    def highlight(self, text: Text) -> None: ...


class PressableText(Static, can_focus=True):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space", "press", "Press", show=False)]
    ALLOW_SELECT = False

    class Pressed(Message):
        """By Enter, Space or a click."""

        def __init__(self, text: "PressableText") -> None:
            super().__init__()
            self.text = text

        @property
        def control(self) -> "PressableText":
            return self.text

    def action_press(self) -> None:
        self.post_message(self.Pressed(self))

    def on_click(self) -> None:
        self.action_press()


class RowTable(DataTable[Text]):
    """A double click opens the row; in Textual's table one click does."""

    def on_click(self, event: events.Click) -> None:
        row = event.style.meta.get("row", -1)
        if row < 0:
            return
        event.prevent_default()
        event.stop()
        self.move_cursor(row=row)
        if event.chain > 1:
            self.double_clicked()

    def double_clicked(self) -> None:
        self.action_select_cursor()


_SCREENS = (("start", "Start"), ("setup", "Setup"), ("run", "Run"), ("runs", "Runs"))


def directory() -> str:
    here, home = Path.cwd(), os.path.expanduser("~")  # "~" for a user without a home directory
    return printable(f"~/{here.relative_to(home)}" if here.is_relative_to(home) else str(here), 200)


class TitleBar(Widget):
    DEFAULT_CSS = "TitleBar { dock: top; height: 1; background: $panel; padding: 0 1; }"
    ALLOW_SELECT = False
    WIDE: ClassVar[int] = 100

    def __init__(self, here: str) -> None:
        super().__init__()
        self._here = here

    def render(self) -> Content:
        left = Content.assemble(("batchrun", "bold $text-primary"), (f" {__version__}  ", "$foreground-muted"))
        for text, style, _ in self._tabs():
            left += Content.styled(text, style)
        room = self.size.width - left.cell_length - 2
        folder = directory()
        if self.size.width < self.WIDE or len(folder) > room:
            return left
        return left + Content.styled(folder.rjust(room + 2), "$foreground-muted")

    def _tabs(self) -> list[tuple[str, str, str]]:
        keys = {
            active.binding.id: app_of(self).get_key_display(active.binding)
            for active in self.screen.active_bindings.values()
        }
        return [
            (
                f" {keys.get(f'app.{name}', '')} {title} ",
                "reverse bold" if name == self._here else "$foreground",
                name,
            )
            for name, title in _SCREENS
        ]

    def on_click(self, event: events.Click) -> None:
        at = len(f"batchrun {__version__}  ") + 1
        for text, _, name in self._tabs():
            if at <= event.x < at + len(text):
                app_of(self).call_later(app_of(self).run_action, f"show({name!r})")
            at += len(text)
