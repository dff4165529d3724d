"""Closes apps and screens without work on widgets that no longer exist.

Textual stops mounting when the app ends, takes hidden screens apart while they handle messages, and cancels workers
after their widgets; whatever queries a widget meanwhile fails with a traceback. Here

* an app ends once everything is mounted;
* each screen closes as a whole: first its messages, then its workers, then its widgets;
* a key pressed twice never closes a main screen: an app without one cannot continue.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import ClassVar, cast

from rich.console import RenderableType
from textual.app import App
from textual.await_complete import AwaitComplete
from textual.binding import ActiveBinding
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widget import Widget

MAIN = 2
"""Screens that always exist: Textual's blank one, and a main screen."""
MOUNT_TIMEOUT = 10.0
"""Seconds to wait for mounting."""


class LifecycleApp(App[int]):
    def exit(self, result: int | None = None, return_code: int = 0, message: RenderableType | None = None) -> None:
        """End after the messages that are queued."""
        super().exit(result, return_code, message)
        self._exit = False  # which would stop all mounting at once

    def pop_screen(self) -> AwaitComplete:
        """Close what is above the main screen; Textual would close any screen."""
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
                while self._running and not all(_is_mounted(node) for node in list(self._registry)):  # noqa: ASYNC110  there is no event to wait for
                    await asyncio.sleep(0.01)

    async def _close_all(self) -> None:
        self.workers.cancel_all()
        for node in list(self._registry):
            if isinstance(node, Screen):
                await cast("Widget", node).remove()
        await super()._close_all()


def _is_mounted(node: DOMNode) -> bool:
    return not isinstance(node, Widget) or node.is_mounted


class LifecycleScreen(Screen[None]):
    """A screen whose workers end before its widgets.

    A screen that reads in the background sets `loaded` when done; keys that need the data act through `once_loaded`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loaded = asyncio.Event()

    def once_loaded(self, act: Callable[[], None]) -> None:
        """Act at once, or as soon as the data has been read, in the order of the keys."""
        if self.loaded.is_set():
            act()
            return

        async def later() -> None:
            await self.loaded.wait()
            if self.is_current:
                act()

        self.run_worker(later(), group="once-loaded")

    async def _message_loop_exit(self) -> None:
        self.workers.cancel_node(self)  # pyright: ignore[reportUnknownMemberType]  Textual leaves results open
        self.release()
        await super()._message_loop_exit()

    KEY_GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Titles of the help, with the ids of their keys."""
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

    def release(self) -> None:
        """Called once at the end, before the widgets are removed."""
