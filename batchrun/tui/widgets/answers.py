"""The rows of an input, and the replies of a try."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from batchrun.display import printable
from batchrun.models import Invalid, Row
from batchrun.tui import safe_text
from batchrun.tui.services import app_of
from batchrun.tui.setup_flags import Head
from batchrun.tui.widgets import paint
from batchrun.tui.widgets.controls import RowTable

if TYPE_CHECKING:
    from batchrun.journal import Record

MOST = 5  # rows of a try
_COLUMNS = 8
_CELL = 60
_ANSWER = 6000


class HeadTable(RowTable):
    DEFAULT_CSS = "HeadTable { height: 1fr; background: $background; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "mark", "Select", id="setup.mark", tooltip="Select the row to try it, or unselect it")
    ]

    class Marked(Message):
        pass

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, cursor_type="row")
        self.marked: set[int] = set()
        self._head: Head | None = None

    def show(self, head: Head | None) -> None:
        if head == self._head:
            return
        self._head = head
        self.marked.clear()
        self.post_message(self.Marked())
        self.clear(columns=True)
        if head is None:
            return
        columns = head.columns[:_COLUMNS]
        self.add_column(" ", key="mark", width=1)
        self.add_column(Text("line", justify="right"), key="line", width=4)
        lines = [self._cells(row, columns) for row in head.rows]
        for place, column in enumerate(columns):
            title = Text(printable(column, 30))
            widest = max(line[place + 2].cell_len for line in [*lines, [title] * (place + 3)] if len(line) > place + 2)
            self.add_column(title, key=str(place), width=widest)
        for position, line in enumerate(lines, 1):
            self.add_row(*line, key=str(position))

    def _cells(self, row: Row | Invalid, columns: tuple[str, ...]) -> list[Text]:
        colours = app_of(self).theme_variables
        line = Text(f"{row.line:>4}", style=colours["foreground-muted"])
        if isinstance(row, Invalid):
            return [Text(""), line, Text(printable(row.reason, 100), style=colours["error"])]
        values = (row.fields.get(column, "") for column in columns)
        return [Text(""), line, *(Text(printable(str(value)[: 2 * _CELL], _CELL), no_wrap=True) for value in values)]

    @property
    def position(self) -> int:
        return self.cursor_row + 1

    @property
    def current(self) -> Row | None:
        """None if the line is invalid."""
        head = self._head
        if head is None or not 0 <= self.cursor_row < len(head.rows):
            return None
        row = head.rows[self.cursor_row]
        return row if isinstance(row, Row) else None

    @property
    def chosen(self) -> tuple[int, ...]:
        return tuple(sorted(self.marked)) or ((self.position,) if self.current is not None else ())

    def action_mark(self) -> None:
        if self.current is None:
            return
        place = self.position
        if place in self.marked:
            self.marked.remove(place)
        elif len(self.marked) < MOST:
            self.marked.add(place)
        else:
            self.notify(f"at most {MOST} rows are tried at a time", severity="warning", timeout=3)
        self.update_cell(
            str(place),
            "mark",
            Text("✓" if place in self.marked else "", style=f"bold {app_of(self).theme_variables['success']}"),
        )
        self.post_message(self.Marked())
        self.action_cursor_down()

    def double_clicked(self) -> None:
        self.action_mark()


class Answers(Static):
    DEFAULT_CSS = "Answers { height: auto; width: 1fr; }"

    def show(self, answers: "Sequence[tuple[Record, str]]", note: str = "") -> None:
        lines: list[Content] = [Content.styled(note, "$accent")] if note else []
        for record, reply in answers:
            lines += [answer_heading(record), safe_text.shown(reply, _ANSWER), Content("")]
        self.update(Content("\n").join(lines))


def answer_heading(record: "Record") -> Content:
    sign, colour = paint.SIGNS[record.state]
    parts: list[paint.Part] = [(f"{sign} line {record.line:,}", f"bold {colour}")]
    parts.append((f"  {printable(record.key, 30)}", paint.DIM))
    if record.seconds is not None:
        parts.append((f"  {record.seconds:.2f} s", paint.DIM))
    if record.input_tokens is not None:
        parts.append((f"  {record.input_tokens:,}+{record.output_tokens or 0:,} tokens", paint.DIM))
    if record.flags:
        parts.append((f"  {', '.join(sorted(record.flags))}", "$warning"))
    return paint.joined(parts)
