"""Pages of rows: bounded in number by the statement, and in bytes here, so that memory does not grow with long rows."""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from batchrun.models import Pending

PAGE_BYTES = 4_000_000
"""Characters of texts and replies after which a page ends."""

Found = tuple[Any, ...]


class Page(list[Pending]):
    """Rows that are still to be answered; `full` is whether the page ended for want of room, so that more may follow."""

    def __init__(self, rows: Iterable[Pending], *, full: bool) -> None:
        super().__init__(rows)
        self.full = full


def page(cursor: sqlite3.Cursor, size: Callable[[Found], int]) -> tuple[list[Found], bool]:
    """What the cursor finds until it is larger than `PAGE_BYTES` together, one row at least; and whether it is."""
    found: list[Found] = []
    room = PAGE_BYTES
    for row in cursor:
        found.append(row)
        room -= size(row)
        if room <= 0:
            break
    cursor.close()
    return found, room <= 0
