"""The prompt editor."""

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.app import App
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.strip import Strip
from textual.widgets import Static, TextArea
from textual.widgets.text_area import TextAreaTheme

from batchrun.tui import safe_text
from batchrun.tui.services import app_of

_THEME = "batchrun"
_ROLE = re.compile(r"[ \t]*#?[ \t]*(?:system|developer|user|assistant)[ \t]*:[ \t]*", re.IGNORECASE)
_FENCE = re.compile(r"(?:---|\+\+\+)[ \t]*")
_KEY = re.compile(r"^(\s*(?:- )?)([\w$-]+)(:)")
_VALUE = re.compile(r"""[ ]+("[^"]*"|'[^']*'|-?\d[\d.eE+-]*|true|false|null)(?=\s*(?:\s#.*)?$)""")
_COMMENT = re.compile(r"(?:^|\s)(#.*)$")
_PIECES = re.compile(r"(?P<comment>\{#.*?#\})|(?P<variable>\{\{.*?\}\})|(?P<statement>\{%.*?%\})")
_FILTER = re.compile(r"\|\s*(\w+)")


class Editor(TextArea):
    DEFAULT_CSS = """
    Editor .text-area--gutter { color: $foreground-muted; }
    Editor .text-area--cursor-gutter { color: $foreground; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+z,super+z", "undo", "Undo", show=False, id="editor.undo", tooltip="Undo the last change"),
        Binding("ctrl+y,super+y", "redo", "Redo", show=False, id="editor.redo", tooltip="Redo the change"),
        Binding("ctrl+home", "start", "First line", show=False, id="editor.start", tooltip="Go to the first line"),
        Binding("ctrl+end", "end", "Last line", show=False, id="editor.end", tooltip="Go to the last line"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__("", id=id, show_line_numbers=True, compact=True, soft_wrap=True)
        self._error: int | None = None

    def on_mount(self) -> None:
        self._apply_theme()
        app_of(self).theme_changed_signal.subscribe(self, self._apply_theme)

    def _apply_theme(self, _: object = None) -> None:
        self.register_theme(theme_of(app_of(self)))
        self.theme = "css"
        self.theme = _THEME

    def mark(self, line: int | None) -> None:
        if line != self._error:
            self._error = line
            self._line_cache.clear()  # pyright: ignore[reportUnknownMemberType]  Textual leaves its keys open
            self.refresh()

    def go_to(self, line: int) -> None:
        row = min(max(1, line), self.document.line_count) - 1
        text = self.document.get_line(row)
        self.move_cursor((row, len(text) - len(text.lstrip())), center=True)

    def on_resize(self) -> None:
        self.call_after_refresh(self.scroll_cursor_visible)

    def action_start(self) -> None:
        self.move_cursor((0, 0))

    def action_end(self) -> None:
        self.move_cursor(self.document.end)

    def get_line(self, line_index: int) -> Text:
        # has as many characters as in the document
        return Text(safe_text.one_for_one(self.document.get_line(line_index)), end="", no_wrap=True)

    def _build_highlight_map(self) -> None:
        super()._build_highlight_map()
        for number, start, end, name in highlights(self.document.lines):
            self._highlights[number].append((start, end, name))

    def _render_line(self, y: int) -> Strip:
        strip = super()._render_line(y)
        at = y + self.scroll_offset.y
        where = self.wrapped_document._offset_to_line_info  # pyright: ignore[reportPrivateUsage]  as TextArea itself
        if self._error is None or at >= len(where) or where[at] != (self._error - 1, 0):
            return strip
        width = self.gutter_width
        gutter = f"{self._error:>{width - 2}}✗ "
        style = Style(color=app_of(self).theme_variables["error"], bold=True)
        return Strip.join([Strip([Segment(gutter, style)], width), strip.crop(width)])


class PromptStatus(Static):
    DEFAULT_CSS = "PromptStatus { height: auto; max-height: 3; }"
    ALLOW_SELECT = False

    class Clicked(Message):
        pass

    def show(self, text: Content) -> None:
        self.update(text)

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.post_message(self.Clicked())


def highlights(lines: list[str]) -> Iterator[tuple[int, int, int, str]]:
    """(line, first byte, end byte, name) in UTF-8 bytes, as TextArea wants."""
    inside = bool(lines) and bool(_FENCE.fullmatch(lines[0]))
    for number, line in enumerate(lines):
        if _FENCE.fullmatch(line) and (inside or number == 0):
            yield number, 0, len(line.encode()), "fence"
            inside = number == 0
        elif inside:
            at = 0
            if found := _KEY.match(line):
                yield number, *_bytes(line, found.start(2), found.end(3)), "key"
                at = found.end(3)
            if value := _VALUE.match(line, at):
                yield number, *_bytes(line, *value.span(1)), "value"
                at = value.end()
            if comment := _COMMENT.search(line, at):
                yield number, *_bytes(line, *comment.span(1)), "comment"
        elif _ROLE.fullmatch(line):
            yield number, 0, len(line.encode()), "role"
        for piece in _PIECES.finditer(line):
            yield number, *_bytes(line, *piece.span()), str(piece.lastgroup)
            for used in _FILTER.finditer(line, *piece.span()) if piece.lastgroup == "variable" else ():
                yield number, *_bytes(line, *used.span(1)), "statement"


def _bytes(line: str, start: int, end: int) -> tuple[int, int]:
    first = len(line[:start].encode())
    return first, first + len(line[start:end].encode())


def theme_of(app: App[Any]) -> TextAreaTheme:
    colours = app.theme_variables
    return TextAreaTheme(
        name=_THEME,
        cursor_line_style=Style(bgcolor=colours["surface"]),
        syntax_styles={
            "fence": Style(color=colours["foreground-muted"]),
            "key": Style(color=colours["secondary"]),
            "value": Style(color=colours["success"]),
            "role": Style(color=colours["primary"], bold=True),
            "variable": Style(color=colours["warning"], bold=True),
            "statement": Style(color=colours["accent"]),
            "comment": Style(color=colours["foreground-muted"], italic=True),
        },
    )
