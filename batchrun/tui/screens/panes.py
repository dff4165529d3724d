"""A screen of panes: side by side on a wide screen, else one at a time behind tabs."""

from collections.abc import Mapping
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.widgets import Tab, Tabs

from batchrun.tui.screen_lifecycle import LifecycleScreen

MOVING: list[BindingType] = [
    Binding("alt+left", "border(-1, 0)", "Border left", show=False, id="pane.left", tooltip="Move the border between panes to the left"),
    Binding("alt+right", "border(1, 0)", "Border right", show=False, id="pane.right", tooltip="Move the border between panes to the right"),
    Binding("alt+up", "border(0, -1)", "Border up", show=False, id="pane.up", tooltip="Move the border between panes up"),
    Binding("alt+down", "border(0, 1)", "Border down", show=False, id="pane.down", tooltip="Move the border between panes down"),
]  # fmt: skip


class PanedScreen(LifecycleScreen):
    """The pane NAME is the widget with this id, its tab is `tab-NAME` in `#tabs`.

    The chosen pane has the class `-chosen`, its screen `-at-NAME`.
    """

    PANES: ClassVar[Mapping[str, str]] = {}

    def tabs(self) -> Tabs:
        return Tabs(*(Tab(title, id=f"tab-{name}") for name, title in self.PANES.items()), id="tabs")

    def on_mount(self) -> None:
        for name, title in self.PANES.items():
            self.query_one(f"#{name}").border_title = title

    def focused_in(self, name: str) -> str:
        return f"#{name}"

    def show_pane(self, name: str) -> None:
        self.query_one("#tabs", Tabs).active = f"tab-{name}"

    def action_pane(self, by: int = 1) -> None:
        names = list(self.PANES)
        current = (self.query_one("#tabs", Tabs).active or f"tab-{names[0]}").removeprefix("tab-")
        self.show_pane(names[(names.index(current) + by) % len(names)])

    def action_go_pane(self, place: int) -> None:
        self.show_pane(list(self.PANES)[place])

    @on(Tabs.TabActivated, "#tabs")
    def _pane_chosen(self, event: Tabs.TabActivated) -> None:
        chosen = str(event.tab.id).removeprefix("tab-")
        for name in self.PANES:
            self.query_one(f"#{name}").set_class(name == chosen, "-chosen")
            self.set_class(name == chosen, f"-at-{name}")
        if self.is_current:
            self.query_one(self.focused_in(chosen)).focus(scroll_visible=False)
