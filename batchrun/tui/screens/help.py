"""What the keys do, for the screen that help was asked on."""

from collections.abc import Mapping
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from batchrun.tui.screen_lifecycle import LifecycleScreen
from batchrun.tui.services import app_of


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
            yield Static(Content("\n").join(self._lines))


def key_lines(about: Screen[Any]) -> list[Content]:
    """What the screen is for, then the keys in groups: its own groups, the rest of it, what has the focus, everywhere."""
    groups: Mapping[str, tuple[str, ...]] = about.KEY_GROUPS if isinstance(about, LifecycleScreen) else {}
    titles = {key: title for title, keys in groups.items() for key in keys}
    found: dict[str, dict[str, list[str]]] = {}
    for active in about.active_bindings.values():
        binding = active.binding
        if not binding.description or not binding.id:
            continue
        own = "everywhere" if active.node is app_of(about) else "this screen" if active.node is about else "this pane"
        keys = found.setdefault(titles.get(binding.id, own), {})
        keys.setdefault(binding.tooltip or binding.description, []).append(app_of(about).get_key_display(binding))
    lines = [Content.styled("Keys", "bold")]
    if isinstance(about, LifecycleScreen) and about.ABOUT:
        lines.append(Content.styled(about.ABOUT, "$foreground-muted"))
    for title in sorted(found, key=lambda title: (title == "everywhere", title in ("this screen", "this pane"))):
        lines += [Content(""), Content.styled(title, "bold $primary")]
        lines += [
            Content.assemble((f"{' '.join(keys):<12}", "bold $accent"), text) for text, keys in found[title].items()
        ]
    return lines
