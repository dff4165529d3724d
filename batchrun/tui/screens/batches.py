"""The batches of a run, and the commands that end them."""

import asyncio
import time
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Label, Static

from batchrun.errors import StorageError
from batchrun.journal import Reader
from batchrun.plan import plan_from_json
from batchrun.report import words
from batchrun.report.batch_pages import batches, lines

EVERY = 2.0  # seconds


class BatchesScreen(ModalScreen[None]):
    """`named` is the run's name in a command."""

    CSS_PATH = "pick.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,b", "dismiss(None)", "Close")]

    def __init__(self, journal: Path, named: str) -> None:
        super().__init__()
        self._journal = journal
        self._named = named

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide"):
            yield Label("Batches", classes="question")
            with VerticalScroll():
                yield Static(id="batches")

    async def on_mount(self) -> None:
        self.set_interval(EVERY, self._reread)
        await self._reread()

    async def _reread(self) -> None:
        self.query_one("#batches", Static).update(Content(await asyncio.to_thread(self._text)))

    def _text(self) -> str:
        try:
            with Reader.open(self._journal) as reader:
                found, totals = batches(reader, plan_from_json(reader.meta.plan)), reader.totals
        except StorageError as error:
            return error.message
        if not found:
            return "no batches in this run; --batch sends rows in batches"
        commands = f"batchrun batches {self._named} cancel | finish-live"
        return "\n".join([*lines(found, time.time()), "", words.account(totals), "", f"to end them: {commands}"])
