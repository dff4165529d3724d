"""The start page."""

import asyncio
import importlib
from typing import TYPE_CHECKING, ClassVar, cast

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Footer, OptionList, Static
from textual.widgets.option_list import Option

from batchrun.display import printable
from batchrun.tui.replay import Replay
from batchrun.tui.screen_lifecycle import LifecycleScreen
from batchrun.tui.services import app_of, services
from batchrun.tui.widgets.controls import TitleBar

if TYPE_CHECKING:
    from batchrun.tui.overview import Item, Overview

TRY = "try"
_TITLES = {"runs": "recent runs", "prompts": "prompts", "inputs": "input files here"}
_EMPTY = {
    "runs": "none yet",
    "prompts": "none found: put a .prompty file into ./prompts",
    "inputs": "none: start batchrun in a directory with a .jsonl, .csv, .xlsx or .txt file",
}


class StartList(OptionList):
    def action_select(self) -> None:
        cast("StartScreen", self.screen).once_loaded(super().action_select)


class StartScreen(LifecycleScreen):
    CSS_PATH = "start.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "try", "Try without a key", id="start.try", tooltip="Set up what is under the cursor with simulated replies"),
        Binding("n", "app.show('setup')", "New run", id="start.new", tooltip="An empty setup"),
        Binding("r", "go('runs')", "Recent runs", show=False, id="start.runs", tooltip="Go to the recent runs"),
        Binding("p", "go('prompts')", "Prompts", id="start.prompts", tooltip="Go to the prompts"),
        Binding("i", "go('inputs')", "Inputs", id="start.inputs", tooltip="Go to the input files"),
    ]  # fmt: skip

    class Chosen(Message):
        def __init__(self, **fields: str) -> None:
            super().__init__()
            self.fields = fields

    def __init__(self) -> None:
        super().__init__()
        self._found: Overview | None = None

    def compose(self) -> ComposeResult:
        yield TitleBar("start")
        line = Content.assemble(
            ("Run one prompt over many rows.  ", "bold"),
            ("Enter opens what is under the cursor.", "$foreground-muted"),
        )
        yield Static(line, id="heading")
        yield StartList(id="list", compact=True)
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()

    def on_screen_resume(self) -> None:
        self._read()

    @work(exclusive=True)
    async def _read(self) -> None:
        module = await asyncio.to_thread(importlib.import_module, "batchrun.tui.overview")
        found = await asyncio.to_thread(module.overview, services(self).runs_dir)
        if found != self._found:
            kind, item = self._current
            self._found = found
            self._fill(found)
            names = [other.name for other in getattr(found, kind, ())]
            if item is not None and item.name in names:
                listed = self.query_one(OptionList)
                listed.highlighted = listed.get_option_index(f"{kind}:{names.index(item.name)}")
        self.loaded.set()

    @property
    def _current(self) -> "tuple[str, Item | None]":
        """The kind and the item under the cursor."""
        option = self.query_one(OptionList).highlighted_option
        kind, _, number = ("" if option is None else option.id or "").partition(":")
        return kind, getattr(self._found, kind)[int(number)] if number else None

    def _fill(self, found: "Overview") -> None:
        listed = self.query_one(OptionList)
        listed.clear_options()
        line = Content.assemble(
            ("Try it without a key", "bold"), ("  simulated replies, costs nothing", "$foreground-muted")
        )
        listed.add_option(Option(line, id=TRY))
        for kind, title in _TITLES.items():
            items: tuple[Item, ...] = getattr(found, kind)
            head = Content.assemble("\n", (title, "bold $primary"), (f"  {kind[0]}", "$foreground-muted"))
            listed.add_option(Option(head, disabled=True))
            for number, item in enumerate(items):
                name = Content.assemble(
                    (f"{printable(item.name, 24):<24}  ", "bold"),
                    (printable(item.description, 160), "$foreground-muted"),
                )
                listed.add_option(Option(name, id=f"{kind}:{number}"))
            if not items:
                listed.add_option(Option(Content.styled(_EMPTY[kind], "$foreground-muted"), disabled=True))
        listed.highlighted = 0

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        kind, _, number = (event.option.id or "").partition(":")
        if kind == TRY:
            self.action_try()
            return
        item: Item = getattr(self._found, kind)[int(number)]
        if item.run is not None:
            services(self).show_run(Replay(item.run))
        else:
            fields = {kind.removesuffix("s"): item.name}
            inputs = () if self._found is None else self._found.inputs
            if len(inputs) == 1:
                fields["input"] = inputs[0].name
            self.post_message(self.Chosen(**fields))

    def action_try(self) -> None:
        self.once_loaded(self._try)

    def _try(self) -> None:
        found, (kind, item) = self._found, self._current
        if found is None:
            return
        fields = {"profile": "sim"}
        for name in ("prompts", "inputs"):
            items: tuple[Item, ...] = getattr(found, name)
            if items:
                fields[name.removesuffix("s")] = item.name if item is not None and kind == name else items[0].name
        self.post_message(self.Chosen(**fields))

    def action_go(self, kind: str) -> None:
        self.once_loaded(lambda: self._go(kind))

    def _go(self, kind: str) -> None:
        listed = self.query_one(OptionList)
        if getattr(self._found, kind):
            listed.highlighted = listed.get_option_index(f"{kind}:0")
        else:
            app_of(self).bell()
