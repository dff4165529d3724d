"""Closes apps and screens without work on widgets that no longer exist; makes screens of panes.

Textual stops mounting when the app ends, takes hidden screens apart while they handle messages, and cancels workers
after their widgets; whatever queries a widget meanwhile fails. Here an app ends once everything is mounted, and a
screen closes its messages, then its workers, then its widgets. A key pressed twice never closes a main screen: an app
without one cannot continue.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import ClassVar, cast

from rich.console import RenderableType
from textual import on
from textual.app import App
from textual.await_complete import AwaitComplete
from textual.binding import ActiveBinding, Binding, BindingType
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Tab, Tabs

MAIN = 2
MOUNT_TIMEOUT = 10.0


class LifecycleApp(App[int]):
    def exit(self, result: int | None = None, return_code: int = 0, message: RenderableType | None = None) -> None:
        super().exit(result, return_code, message)
        self._exit = False  # which would stop all mounting at once

    def pop_screen(self) -> AwaitComplete:
        # Textual would close any screen
        return super().pop_screen() if len(self.screen_stack) > MAIN else AwaitComplete.nothing()

    async def _process_messages_loop(self) -> None:
        await super()._process_messages_loop()
        await self._wait_until_mounted()

    async def _shutdown(self) -> None:
        await self._wait_until_mounted()
        await super()._shutdown()

    async def _wait_until_mounted(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MOUNT_TIMEOUT):
                while self._running and any(  # noqa: ASYNC110  there is no event to wait for
                    isinstance(node, Widget) and not node.is_mounted for node in list(self._registry)
                ):
                    await asyncio.sleep(0.01)

    async def _close_all(self) -> None:
        self.workers.cancel_all()
        for node in list(self._registry):
            if isinstance(node, Screen):
                await cast("Widget", node).remove()
        await super()._close_all()


class LifecycleScreen(Screen[None]):
    """`loaded` is set after reading in the background; keys that need the data use `once_loaded`."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded = asyncio.Event()

    def once_loaded(self, act: Callable[[], None]) -> None:
        if self.loaded.is_set():
            act()
            return

        async def later() -> None:
            while not self.loaded.is_set():  # an earlier key may have begun to read again
                await self.loaded.wait()
            if self.is_current:
                act()

        self.run_worker(later(), group="once-loaded")

    async def _message_loop_exit(self) -> None:
        self.workers.cancel_node(self)  # pyright: ignore[reportUnknownMemberType]  Textual leaves results open
        self.release()
        await super()._message_loop_exit()

    KEY_GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    ABOUT: ClassVar[str] = ""

    def idle_keys(self) -> Collection[str]:
        """Ids of keys without effect now; the footer omits them."""
        return ()

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        """Idle keys stay active and explain themselves."""
        idle = self.idle_keys()
        return {
            key: active._replace(binding=replace(active.binding, show=False)) if active.binding.id in idle else active
            for key, active in super().active_bindings.items()
        }

    def release(self) -> None: ...


MOVING: list[BindingType] = [
    Binding("alt+left", "border(-1, 0)", "Border left", show=False, id="pane.left", tooltip="Move the border between panes to the left"),
    Binding("alt+right", "border(1, 0)", "Border right", show=False, id="pane.right", tooltip="Move the border between panes to the right"),
    Binding("alt+up", "border(0, -1)", "Border up", show=False, id="pane.up", tooltip="Move the border between panes up"),
    Binding("alt+down", "border(0, 1)", "Border down", show=False, id="pane.down", tooltip="Move the border between panes down"),
]  # fmt: skip


class PanedScreen(LifecycleScreen):
    """The pane NAME is the widget with this id, its tab `tab-NAME` in `#tabs`. The chosen pane has the class `-chosen`,
    its screen `-at-NAME`.
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
        self._choose(name)  # at once: the tab's message comes after keys and after a focus that is set next

    def action_pane(self, by: int = 1) -> None:
        names = list(self.PANES)
        current = (self.query_one("#tabs", Tabs).active or f"tab-{names[0]}").removeprefix("tab-")
        self.show_pane(names[(names.index(current) + by) % len(names)])

    def action_go_pane(self, place: int) -> None:
        self.show_pane(list(self.PANES)[place])

    @on(Tabs.TabActivated, "#tabs")
    def _pane_chosen(self) -> None:
        chosen = self.query_one("#tabs", Tabs).active.removeprefix("tab-")
        if not self.has_class(f"-at-{chosen}"):
            self._choose(chosen)

    def _choose(self, chosen: str) -> None:
        for name in self.PANES:
            self.query_one(f"#{name}").set_class(name == chosen, "-chosen")
            self.set_class(name == chosen, f"-at-{name}")
        if self.is_current:
            self.query_one(self.focused_in(chosen)).focus(scroll_visible=False)
