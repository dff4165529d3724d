"""A table of all rows of a run, of which only visible pages are read."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar, cast

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Static

from batchrun import replies
from batchrun.display import printable
from batchrun.errors import StorageError
from batchrun.journal import Line, Order, Record, Wanted
from batchrun.models import State
from batchrun.report import row_text
from batchrun.report.words import MARK
from batchrun.tui import safe_text
from batchrun.tui.journal_rows import JournalRows
from batchrun.tui.widgets import paint
from batchrun.tui.widgets.answers import answer_heading
from batchrun.tui.widgets.columns import Column, columns_of, fitted, trouble

PAGE = 200  # rows read at a time
PAGES = 16  # kept
_CLASSES = {
    State.DONE: "done",
    State.FAILED: "failed",
    State.SKIPPED: "odd",
    State.UNKNOWN: "odd",
    State.IN_FLIGHT: "flying",
    State.IN_BATCH: "flying",
    State.PENDING: "dim",
}


class Outcomes(ScrollView, can_focus=True):
    """The cursor is a row number."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *("outcomes--done", "outcomes--failed", "outcomes--odd", "outcomes--flying", "outcomes--dim"),
        *("outcomes--cursor", "outcomes--head"),
    }
    DEFAULT_CSS = """
    Outcomes { height: 1fr; background: $background; overflow-x: hidden; overflow-y: scroll; }
    Outcomes > .outcomes--done { color: $success; }
    Outcomes > .outcomes--failed { color: $error; }
    Outcomes > .outcomes--odd { color: $warning; }
    Outcomes > .outcomes--flying { color: $accent; }
    Outcomes > .outcomes--dim { color: $foreground-muted; }
    Outcomes > .outcomes--head { color: $foreground-muted; text-style: bold; background: $surface; }
    Outcomes > .outcomes--cursor { background: $block-cursor-blurred-background; }
    Outcomes:focus > .outcomes--cursor { background: $primary-muted; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("down,j", "move(1)", "down", show=False),
        Binding("pageup", "turn(-1)", "page up", show=False),
        Binding("pagedown", "turn(1)", "page down", show=False),
        Binding("home,g", "move_to(0)", "first", show=False),
        Binding("end,G", "last", "last", show=False),
        Binding("enter", "open", "Open", id="row.open"),
    ]
    ALLOW_SELECT = False
    cursor = reactive(0, repaint=True)

    class Moved(Message):
        pass

    class SortWanted(Message):
        def __init__(self, order: Order) -> None:
            super().__init__()
            self.order = order

    class FilterWanted(Message):
        pass

    class Opened(Message):
        def __init__(self, line: Line) -> None:
            super().__init__()
            self.line = line

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.live = False
        self.order = Order.ROW
        self.columns = columns_of(None)
        self._journal_rows: JournalRows | None = None
        self._listed = Wanted()
        self._pages: OrderedDict[int, list[Line]] = OrderedDict()
        self._old: dict[int, list[Line]] = {}
        self._requested: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._rereads = 0
        self._changed = asyncio.Event()

    def show(self, journal_rows: JournalRows | None) -> None:
        self._journal_rows, self._listed = journal_rows, Wanted()
        self._pages.clear()
        self._old.clear()
        self.found()

    def watch_cursor(self) -> None:
        self.post_message(self.Moved())

    def found(self) -> None:
        """The cursor stays on its row, wherever that is now."""
        total, line, rows = self.total, self.current, self._journal_rows
        self.virtual_size = Size(self.size.width, total + 1)
        number = None if line is None or rows is None else rows.number_of(line.position)
        self.cursor = min(self.cursor, max(0, total - 1))
        if number is not None and number != self.cursor:
            self.forget()  # other rows have these numbers now
            self.action_move_to(number)
        self._wake()
        self.refresh()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def reread(self) -> None:
        if self._journal_rows is not None and self._journal_rows.listed != self._listed:
            self._listed = self._journal_rows.listed
            self.forget()
        self._rereads += 1
        self._old.update(self._pages)
        self._pages.clear()
        self.refresh()

    def forget(self) -> None:
        self._rereads += 1
        self._pages.clear()
        self._old.clear()
        self.refresh()

    @property
    def total(self) -> int:
        return 0 if self._journal_rows is None else self._journal_rows.total

    @property
    def current(self) -> Line | None:
        return self._at(self.cursor)

    async def reached(self) -> Line | None:
        """Waits until the list and the row have been read."""
        rows = self._journal_rows
        while rows is not None and rows is self._journal_rows:
            if rows.counted and ((line := self.current) is not None or not self._reading):
                return line
            await self._changed.wait()
        return None

    @property
    def _reading(self) -> bool:
        return self.cursor < self.total and self.cursor // PAGE not in self._pages

    def _at(self, number: int) -> Line | None:
        page, place = divmod(number, PAGE)
        lines = self._pages.get(page)
        if lines is None:
            self._request(page)
            lines = self._old.get(page, [])
        return lines[place] if place < len(lines) else None

    def _request(self, page: int) -> None:
        if page in self._requested or self._journal_rows is None or page * PAGE >= self.total:
            return
        self._requested.add(page)
        task = asyncio.get_running_loop().create_task(self._read(self._journal_rows, page))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(self, journal_rows: JournalRows, page: int) -> None:
        listed, rereads = journal_rows.listed, self._rereads
        try:
            lines = await journal_rows.page(page * PAGE, PAGE)
        except StorageError:
            lines = []
        finally:
            self._requested.discard(page)
        if journal_rows is not self._journal_rows:
            return
        if listed != journal_rows.listed:
            self._wake()
            self.refresh()
            return
        self._old.pop(page, None)
        if rereads == self._rereads:
            self._pages[page] = lines
        else:  # the rows may have changed since: it is read again, and shown until then
            self._old[page] = lines
        while len(self._pages) > PAGES:
            self._pages.popitem(last=False)
        if self.cursor // PAGE == page:
            self.post_message(self.Moved())
        self._wake()
        self.refresh()

    def on_resize(self, event: events.Resize) -> None:
        self.virtual_size = Size(event.size.width, self.total + 1)

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        columns = fitted(self.columns, width, self.order)
        if y == 0:
            style = self.get_component_rich_style("outcomes--head")
            sorted_by = None if self.order is Order.ROW else self.order
            titles = [(f"▼{c.title}" if sorted_by and c.order is sorted_by else c.title, c.right) for c, _ in columns]
            first, *rest = [
                _cell(text, room, right=right) for (text, right), (_, room) in zip(titles, columns, strict=True)
            ]
            return Strip([Segment(" ".join([f" {first[:-1]}", *rest]), style)], width)
        number = round(self.scroll_offset.y) + y - 1
        if number >= self.total:
            return Strip.blank(width, self.rich_style)
        line = self._at(number)
        style = self.rich_style
        if number == self.cursor:
            style += self.get_component_rich_style("outcomes--cursor")
        if line is None:
            return Strip([Segment(set_cell_size("   …", width), style)], width)
        return self._strip(line, columns, style, width)

    def _strip(self, line: Line, columns: list[tuple[Column, int]], style: Style, width: int) -> Strip:
        if line.state is State.UNKNOWN and self.live:
            line = line._replace(state=State.IN_FLIGHT)
        sign, name = paint.SIGNS[line.state][0], f"outcomes--{_CLASSES[line.state]}"
        colour = Style(color=self.get_component_rich_style(name, partial=True).color)
        dim = Style(color=self.get_component_rich_style("outcomes--dim", partial=True).color)
        (_, first), *rest = columns
        segments = [Segment(_cell(f" {sign} {columns[0][0].text(line)}", first, right=False), style + colour)]
        reason = trouble(line)
        replies = [room for column, room in rest if column.about == "reply"]
        for column, room in rest:
            if reason is not None and column.about == "reply":  # why there is none, over the room of all its fields
                if replies:
                    room_of_all = sum(replies) + len(replies) - 1
                    text = _cell(printable(reason, max(1, room_of_all)), room_of_all, right=False)
                    segments.append(Segment(f" {text}", style + colour))
                    replies = []
                continue
            text = printable(column.text(line), max(1, room))
            own = Style() if column.about == "reply" else dim
            segments.append(Segment(" " + _cell(text, room, right=column.right), style + own))
        return Strip(segments).adjust_cell_length(width, style)

    def action_move(self, by: int) -> None:
        self.action_move_to(self.cursor + by)

    def action_turn(self, by: int) -> None:
        self.action_move(by * max(1, self.size.height - 2))

    def action_last(self) -> None:
        self.action_move_to(self.total - 1)

    def action_move_to(self, number: int) -> None:
        self.cursor = max(0, min(number, self.total - 1))
        top, room = round(self.scroll_offset.y), max(1, self.size.height - 1)
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, force=True)
        elif self.cursor >= top + room:
            self.scroll_to(y=self.cursor - room + 1, animate=False, force=True)

    def action_open(self) -> None:
        self.run_worker(self._open(), group="open", exclusive=True)

    async def _open(self) -> None:
        if (line := await self.reached()) is not None and self.screen.is_current:
            self.post_message(self.Opened(line))

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            self._title_clicked(event.x)
            return
        number = round(self.scroll_offset.y) + event.y - 1
        if number < self.total:
            self.action_move_to(number)
            if event.chain > 1:
                self.action_open()

    def _title_clicked(self, x: int) -> None:
        end = 0
        for column, width in fitted(self.columns, self.scrollable_content_region.width, self.order):
            end += width + 1
            if x < end:
                if column.order is not None:
                    self.post_message(self.SortWanted(column.order))
                elif column.title == "state":
                    self.post_message(self.FilterWanted())
                return


def _cell(text: str, width: int, *, right: bool) -> str:
    room = cell_len(text)
    if room > width:
        return set_cell_size(text, max(0, width - 1)) + "…"
    return " " * (width - room) + text if right else text + " " * (width - room)


CUT = 20_000  # characters


class RowPreview(VerticalScroll, can_focus=False):
    DEFAULT_CSS = "RowPreview Static { width: 1fr; height: auto; }"

    def compose(self) -> ComposeResult:
        yield Static("", id="preview-text")

    def show(self, record: Record | None, fields: Sequence[str]) -> None:
        parts: list[Content] = []
        if record is not None:
            parts = [answer_heading(record)]
            parts += [safe_text.shown(f"{MARK}source\n{source_text(record.text, fields)}", CUT), Content("")]
            parts += [safe_text.shown(f"{MARK}{'error' if record.state is State.FAILED else 'reply'}", CUT)]
            parts += [safe_text.shown(reply_text(record), CUT)]
        self.query_one("#preview-text", Static).update(Content("\n").join(parts))
        self.scroll_home(animate=False)


def source_text(text: str, fields: Sequence[str] = ()) -> str:
    try:
        row: Any = json.loads(text)
    except ValueError:
        return text
    if not isinstance(row, dict):
        return str(row)  # the whole line, where it is no row
    found = cast("dict[str, Any]", row)
    return _members({name: found[name] for name in fields if name in found} or found)


def reply_text(record: Record) -> str:
    if record.value is not None:
        value: Any = json.loads(record.value)
        if isinstance(value, dict) and value:
            return _members(cast("dict[str, Any]", value))
        if isinstance(value, str):
            return value
    text_of_reply = row_text.reply_text(record)
    thinking = replies.thinking_of(record.body or "")
    return text_of_reply if thinking is None else f"{text_of_reply}\n\n{MARK}thinking\n{thinking}"


def _members(found: dict[str, Any]) -> str:
    lines = [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2))
        for name, value in found.items()
    ]
    if len(lines) == 1:
        return lines[0][1]
    return "\n".join(
        f"{name}:\n  {value}" if "\n" in value or len(value) > 60 else f"{name}: {value}" for name, value in lines
    )
