"""Pages of rows: limited in number by the statement, in bytes here, so that memory does not grow with long rows."""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from batchrun.models import Pending

PAGE_BYTES = 4_000_000
"""Characters of texts and replies after which a page ends."""

Found = tuple[Any, ...]


class Page(list[Pending]):
    """Pending rows; `full`: it ended at a limit, so more may follow."""

    def __init__(self, rows: Iterable[Pending], *, full: bool) -> None:
        super().__init__(rows)
        self.full = full


def page(cursor: sqlite3.Cursor, size: Callable[[Found], int]) -> tuple[list[Found], bool]:
    """The cursor's rows until they exceed `PAGE_BYTES`, at least one; and whether they do."""
    found: list[Found] = []
    room = PAGE_BYTES
    for row in cursor:
        found.append(row)
        room -= size(row)
        if room <= 0:
            break
    cursor.close()
    return found, room <= 0
