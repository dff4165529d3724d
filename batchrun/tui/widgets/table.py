"""A table for the mouse: a click moves the cursor, a double click opens the row, a click on a title sorts."""

from rich.text import Text
from textual import events
from textual.widgets import DataTable


class RowTable(DataTable[Text]):
    """Textual's table opens a row on one click if the cursor is there, and not on a double click elsewhere."""

    def on_click(self, event: events.Click) -> None:
        row = event.style.meta.get("row", -1)
        if row < 0:
            return
        event.prevent_default()
        event.stop()
        self.move_cursor(row=row)
        if event.chain > 1:
            self.double_clicked()

    def double_clicked(self) -> None:
        self.action_select_cursor()
