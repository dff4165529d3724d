"""The panels of the run screen: each draws one aspect of a snapshot, and only when what it draws has changed."""

from typing import ClassVar

from textual.content import Content
from textual.widget import Widget

from batchrun.tui.services import RunSnapshot
from batchrun.tui.widgets import paint


class Panel(Widget):
    """Lines of text made from a snapshot."""

    DEFAULT_CSS = "Panel { height: auto; }"
    ALLOW_SELECT = False
    _snapshot: RunSnapshot | None = None
    _drawn = Content("")

    def on_mount(self) -> None:
        """What can be clicked keeps its colours; it is underlined under the pointer."""
        self.auto_links = False

    def show(self, snapshot: RunSnapshot) -> None:
        """Take the snapshot in; painted at the next refresh, if anything looks different by it."""
        self._snapshot = snapshot
        if not self._draw().is_same(self._drawn):
            self.refresh()

    def render(self) -> Content:
        """The text of the panel."""
        self._drawn = self._draw()
        return self._drawn

    def _draw(self) -> Content:
        if self._snapshot is None:
            return Content("")
        width, height = self.content_size
        return Content("\n").join([_cut(line, width) for line in self.lines(self._snapshot, width, height)])

    def lines(self, snapshot: RunSnapshot, width: int, height: int) -> list[Content]:
        """The lines of the panel."""
        raise NotImplementedError


def _cut(line: Content, width: int) -> Content:
    return line.truncate(width, ellipsis=True) if width > 0 else line


class Heading(Panel):
    """What runs, where, in which phase."""

    def lines(self, snapshot: RunSnapshot, width: int, height: int) -> list[Content]:
        return [paint.heading(snapshot, width)]


class Account(Panel):
    """Every row in exactly one place: a bar, and the numbers."""

    NARROW: ClassVar[int] = 100

    def lines(self, snapshot: RunSnapshot, width: int, height: int) -> list[Content]:
        progress = snapshot.progress
        return [paint.bar(progress, width), paint.account(progress, narrow=width < self.NARROW)]


class Speed(Panel):
    """How fast, how long, how much."""

    def lines(self, snapshot: RunSnapshot, width: int, height: int) -> list[Content]:
        return paint.speed_lines(snapshot, width, height)


class LimitsPanel(Panel):
    """How much is allowed, and how much of it is used."""

    def lines(self, snapshot: RunSnapshot, width: int, height: int) -> list[Content]:
        return paint.limit_lines(snapshot, width, height)


class Why(Panel):
    """Why it waits and until when; errors by cause."""

    def lines(self, snapshot: RunSnapshot, width: int, height: int) -> list[Content]:
        return paint.why_lines(snapshot, width, max(1, height))
