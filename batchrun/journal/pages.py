"""Pages of rows, limited in bytes, so that memory does not grow with long rows."""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from batchrun.models import Pending

PAGE_BYTES = 4_000_000  # characters of texts and replies after which a page ends

Found = tuple[Any, ...]


class Page(list[Pending]):
    # `full`: it ended at a limit, so more rows may follow.
    def __init__(self, rows: Iterable[Pending], *, full: bool) -> None:
        super().__init__(rows)
        self.full = full


def page(cursor: sqlite3.Cursor, size: Callable[[Found], int]) -> tuple[list[Found], bool]:
    """At least one row; and whether they exceed `PAGE_BYTES`."""
    found: list[Found] = []
    room = PAGE_BYTES
    for row in cursor:
        found.append(row)
        room -= size(row)
        if room <= 0:
            break
    cursor.close()
    return found, room <= 0
