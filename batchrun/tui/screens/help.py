"""The help: the keys of a screen."""

from collections.abc import Mapping
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Label

from batchrun.tui.screen_lifecycle import LifecycleScreen
from batchrun.tui.services import app_of


class Help(ModalScreen[None]):
    CSS_PATH = "ask.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,f1", "dismiss(None)", "Close")]

    def __init__(self, about: Screen[Any]) -> None:
        super().__init__()
        self._about = about.ABOUT if isinstance(about, LifecycleScreen) else ""
        self._groups = key_groups(about)

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog"):
            yield Label("Keys", classes="question")
            if self._about:
                yield Label(Content(self._about), classes="detail")
            for title, keys in self._groups.items():
                yield Label(title, classes="title")
                for does, pressed in keys.items():
                    with Horizontal(classes="key"):
                        yield Label(Content(" ".join(pressed)), classes="pressed")
                        yield Label(Content(does), classes="does")


def key_groups(about: Screen[Any]) -> dict[str, dict[str, list[str]]]:
    """The keys of a screen by action, in groups: its own groups, this pane, this screen, everywhere."""
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
    last = ("this pane", "this screen", "everywhere")
    order = sorted(found, key=lambda title: last.index(title) if title in last else -1)
    return {title: found[title] for title in order}
