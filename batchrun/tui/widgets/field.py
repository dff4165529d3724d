"""A text field that shows any value safely."""

from rich.highlighter import Highlighter
from rich.text import Text
from textual.widgets import Input

from batchrun.tui import safe_text


class Field(Input):
    """Its value stays unchanged, to the character."""

    DEFAULT_CSS = """
    Field { height: 1; background: $surface; }
    Field > .input--placeholder { color: $foreground-muted; }
    """

    def __init__(self, value: str = "", *, placeholder: str = "", id: str | None = None) -> None:
        super().__init__(
            value, placeholder=placeholder, id=id, compact=True, select_on_focus=False, highlighter=_Literal()
        )
        self.cursor_blink = False


class _Literal(Highlighter):
    def __call__(self, text: str | Text) -> Text:
        plain = text if isinstance(text, str) else text.plain
        return Text(safe_text.one_for_one(plain), no_wrap=True, overflow="ignore", end="")

    def highlight(self, text: Text) -> None:
        """Nothing."""
