"""The panels of the run screen."""

from typing import ClassVar

from textual.content import Content
from textual.widget import Widget

from batchrun.tui.services import RunSnapshot
from batchrun.tui.widgets import paint


class Panel(Widget):
    DEFAULT_CSS = "Panel { height: auto; }"
    ALLOW_SELECT = False
    _snapshot: RunSnapshot | None = None
    _drawn = Content("")

    def on_mount(self) -> None:
        # clickable text keeps its colours
        self.auto_links = False

    def show(self, snapshot: RunSnapshot) -> None:
        self._snapshot = snapshot
        if not self._draw().is_same(self._drawn):
            self.refresh()

    def render(self) -> Content:
        self._drawn = self._draw()
        return self._drawn

    def _draw(self) -> Content:
        if self._snapshot is None:
            return Content("")
        width, height = self.content_size
        lines = self.lines(self._snapshot, width, height)
        return Content("\n").join([line.truncate(width, ellipsis=True) if width > 0 else line for line in lines])

    def lines(self, snapshot: RunSnapshot, width: int, height: int) -> list[Content]:
        raise NotImplementedError


class Heading(Panel):
    def lines(self, snapshot: RunSnapshot, width: int, height: int) -> list[Content]:
        return [paint.heading(snapshot, width)]


class Account(Panel):
    NARROW: ClassVar[int] = 100

    def lines(self, snapshot: RunSnapshot, width: int, height: int) -> list[Content]:
        progress = snapshot.progress
        return [paint.bar(progress, width), paint.account(progress, narrow=width < self.NARROW)]


class Speed(Panel):
    def lines(self, snapshot: RunSnapshot, width: int, height: int) -> list[Content]:
        return paint.speed_lines(snapshot, width, height)


class LimitsPanel(Panel):
    def lines(self, snapshot: RunSnapshot, width: int, height: int) -> list[Content]:
        return paint.limit_lines(snapshot, width, height)


class StatusPanel(Panel):
    def lines(self, snapshot: RunSnapshot, width: int, height: int) -> list[Content]:
        return paint.status_lines(snapshot, width, max(1, height))
