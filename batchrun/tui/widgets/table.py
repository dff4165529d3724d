"""A table of rows for the mouse: a click moves the cursor, a double click selects the row, one on a title sorts."""

from rich.text import Text
from textual import events
from textual.widgets import DataTable


class RowTable(DataTable[Text]):
    """Textual's table selects a row with one click where the cursor is in it, and not with two where it is not."""

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to the row; a second click selects it. A click on a title is left to Textual."""
        row = event.style.meta.get("row", -1)
        if row < 0:
            return
        event.prevent_default()
        event.stop()
        self.move_cursor(row=row)
        if event.chain > 1:
            self.double_clicked()

    def double_clicked(self) -> None:
        """Open the row under the cursor, as Enter does."""
        self.action_select_cursor()
