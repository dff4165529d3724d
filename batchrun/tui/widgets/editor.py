"""The prompt editor: a text area that knows the colours of prompt files and shows control characters as pictures."""

import re
from collections.abc import Iterator
from typing import Any

from rich.style import Style
from rich.text import Text
from textual.app import App
from textual.widgets import TextArea
from textual.widgets.text_area import TextAreaTheme

from batchrun.tui import literal
from batchrun.tui.desk import app_of

_THEME = "batchrun"
_ROLE = re.compile(r"[ \t]*#?[ \t]*(?:system|developer|user|assistant)[ \t]*:[ \t]*", re.IGNORECASE)
_FENCE = re.compile(r"(?:---|\+\+\+)[ \t]*")
_KEY = re.compile(r"^(\s*(?:- )?)([\w$-]+)(:)")
_PIECES = re.compile(r"(?P<comment>\{#.*?#\})|(?P<variable>\{\{.*?\}\})|(?P<statement>\{%.*?%\})")


class Editor(TextArea):
    """Edits one prompt file."""

    def on_mount(self) -> None:
        """Colours of the app's theme, also when it changes."""
        self._dress()
        app_of(self).theme_changed_signal.subscribe(self, self._dressed)

    def _dressed(self, _: object) -> None:
        self._dress()

    def _dress(self) -> None:
        self.register_theme(theme_of(app_of(self)))
        self.theme = "css"
        self.theme = _THEME

    def get_line(self, line_index: int) -> Text:
        """A line without anything that a terminal would obey; as many characters as the document has."""
        return Text(literal.one_for_one(self.document.get_line(line_index)), end="", no_wrap=True)

    def _build_highlight_map(self) -> None:
        super()._build_highlight_map()
        for number, start, end, name in highlights(self.document.lines):
            self._highlights[number].append((start, end, name))


def highlights(lines: list[str]) -> Iterator[tuple[int, int, int, str]]:
    """What is coloured: (line, first byte, byte behind the last, name). Offsets are UTF-8 bytes, as TextArea wants."""
    inside = bool(lines) and bool(_FENCE.fullmatch(lines[0]))
    for number, line in enumerate(lines):
        if _FENCE.fullmatch(line) and (inside or number == 0):
            yield number, 0, len(line.encode()), "fence"
            inside = number == 0
        elif inside:
            if found := _KEY.match(line):
                yield number, len(found[1].encode()), len((found[1] + found[2]).encode()), "key"
        elif _ROLE.fullmatch(line):
            yield number, 0, len(line.encode()), "role"
        for piece in _PIECES.finditer(line):
            start = len(line[: piece.start()].encode())
            yield number, start, start + len(piece.group().encode()), str(piece.lastgroup)


def theme_of(app: App[Any]) -> TextAreaTheme:
    """The editor's colours, from the colours of the app."""
    colours = app.theme_variables
    return TextAreaTheme(
        name=_THEME,
        cursor_line_style=Style(bgcolor=colours["surface"]),
        syntax_styles={
            "fence": Style(color=colours["panel-lighten-2"]),
            "key": Style(color=colours["secondary"]),
            "role": Style(color=colours["primary"], bold=True),
            "variable": Style(color=colours["warning"], bold=True),
            "statement": Style(color=colours["accent"]),
            "comment": Style(color=colours["panel-lighten-2"], italic=True),
        },
    )
