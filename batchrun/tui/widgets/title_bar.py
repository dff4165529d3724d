"""The first line of main screens: program, version, screens with their keys, directory."""

from pathlib import Path
from typing import ClassVar

from textual import events
from textual.content import Content
from textual.widget import Widget

from batchrun import __version__
from batchrun.display import printable
from batchrun.tui.services import app_of

SCREENS = (("start", "Start"), ("setup", "Setup"), ("run", "Run"), ("runs", "Runs"))


def directory() -> str:
    here = Path.cwd()
    return printable(f"~/{here.relative_to(Path.home())}" if here.is_relative_to(Path.home()) else str(here), 200)


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
            for name, title in SCREENS
        ]

    def on_click(self, event: events.Click) -> None:
        at = len(f"batchrun {__version__}  ") + 1
        for text, _, name in self._tabs():
            if at <= event.x < at + len(text):
                app_of(self).call_later(app_of(self).run_action, f"show({name!r})")
            at += len(text)
