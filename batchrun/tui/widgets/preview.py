"""The preview of the row under the cursor."""

import json
from collections.abc import Sequence
from typing import Any, cast

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from batchrun import replies
from batchrun.journal import Record
from batchrun.models import State
from batchrun.report import row_text
from batchrun.report.words import MARK
from batchrun.tui import safe_text
from batchrun.tui.widgets.answers import answer_heading

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
