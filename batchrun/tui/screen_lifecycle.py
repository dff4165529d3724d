"""Closes apps and screens at any moment without work on widgets that are gone.

Textual stops mounting wherever it is when the app ends, takes screens that are not shown apart widget by widget while
they still handle messages, and cancels what a screen has begun (`@work`) only after its widgets. Whatever asks for a
widget meanwhile, ours or Textual's own, fails with a traceback. Here

* an app ends once everything that is being mounted stands;
* each screen goes as a whole: first its messages end, then its work, then its widgets;
* a key that comes twice closes what is over a main screen, never the main screen: an app without one cannot go on.
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
"""Screens that always stand: Textual's own blank one, and a main screen."""
STAND = 10.0
"""Seconds for what is being mounted; it needs a moment, and no defect in it keeps the app."""


class LifecycleApp(App[int]):
    """An app that ends only after mounting is complete and screens are closed one by one."""

    def exit(self, result: int | None = None, return_code: int = 0, message: RenderableType | None = None) -> None:
        """End, behind the messages that are here already."""
        super().exit(result, return_code, message)
        self._exit = False  # which would stop all mounting at once

    def pop_screen(self) -> AwaitComplete:
        """Close what is over the main screen; nothing where nothing is: Textual closes whichever screen is shown."""
        return super().pop_screen() if len(self.screen_stack) > MAIN else AwaitComplete.nothing()

    async def _process_messages_loop(self) -> None:
        await super()._process_messages_loop()
        await self._stand()

    async def _shutdown(self) -> None:
        await self._stand()
        await super()._shutdown()

    async def _stand(self) -> None:
        """Wait until every widget is mounted. Where the app does not run any more, none will be."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STAND):
                while self._running and not all(map(_stands, list(self._registry))):  # noqa: ASYNC110  no event is told
                    await asyncio.sleep(0.01)

    async def _close_all(self) -> None:
        self.workers.cancel_all()
        for node in list(self._registry):
            if isinstance(node, Screen):
                await cast("Widget", node).remove()
        await super()._close_all()


def _stands(node: DOMNode) -> bool:
    return not isinstance(node, Widget) or node.is_mounted


class LifecycleScreen(Screen[None]):
    """A screen whose work ends before its widgets go, also when it alone is closed.

    One that reads in the background what its keys act on sets `known` once it is read, and acts through `once_known`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known = asyncio.Event()

    def once_known(self, act: Callable[[], None]) -> None:
        """Do what a key asks for: at once, or as soon as what it acts on has been read, in the order of the keys."""
        if self.known.is_set():
            act()
            return

        async def later() -> None:
            await self.known.wait()
            if self.is_current:
                act()

        self.run_worker(later(), group="once-known")

    async def _message_loop_exit(self) -> None:
        self.workers.cancel_node(self)  # pyright: ignore[reportUnknownMemberType]  Textual leaves results open
        self.let_go()
        await super()._message_loop_exit()

    KEY_GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Titles of the help over the keys, by their ids, that stand below them."""
    ABOUT: ClassVar[str] = ""
    """What a reader of the help has to know first."""

    def idle_keys(self) -> Collection[str]:
        """The ids of keys without effect at the moment; the footer omits them."""
        return ()

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        """The keys; those that do nothing now still say so when they are pressed."""
        idle = self.idle_keys()
        return {
            key: active._replace(binding=replace(active.binding, show=False)) if active.binding.id in idle else active
            for key, active in super().active_bindings.items()
        }

    def let_go(self) -> None:
        """Called once at the end, while the widgets are there."""
