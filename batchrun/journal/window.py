"""The rows that still have to be answered, in the order of the input, with what the journal knows of each."""

import sqlite3
from collections.abc import Callable, Iterable
from json import dumps
from typing import Any

from batchrun.models import History, Pending

_WINDOW = """
SELECT seq, position, line, key, text FROM rows
WHERE position > ? AND position <= ? AND NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.row = rows.seq)
ORDER BY position LIMIT ?
"""
_POSITIONS = """
SELECT position FROM rows
WHERE position <= ? AND NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.row = rows.seq)
"""
_HISTORY = """
SELECT attempts.row, max(number),
       sum(counted AND NOT spent AND ended IS NOT NULL), sum(deadline AND counted AND NOT spent), sum(invalid AND NOT spent),
       ended IS NULL, CASE WHEN spent THEN NULL ELSE reply END
FROM json_each(?) AS wanted CROSS JOIN attempts ON attempts.row = wanted.value
GROUP BY attempts.row
"""  # the two columns outside of an aggregate are those of the attempt with max(number): sqlite.org/lang_select.html
_BODIES = "SELECT replies.id, body FROM json_each(?) AS wanted CROSS JOIN replies ON replies.id = wanted.value"

FRESH = History(0, 0, 0, 0, open=False, reply=None)
EVERYTHING = (1 << 63) - 1


def pending(connection: sqlite3.Connection, after: int, limit: int, until: int | None) -> list[Pending]:
    """At most `limit` rows without an outcome whose position is over `after` and not over `until`."""
    last = EVERYTHING if until is None else until
    rows: list[tuple[Any, ...]] = connection.execute(_WINDOW, (after, last, limit)).fetchall()
    known = _histories(connection, [row[0] for row in rows])
    return [Pending(seq, position, line, key, text, known.get(seq, FRESH)) for seq, position, line, key, text in rows]


def count_pending(connection: sqlite3.Connection, until: int | None, wanted: Callable[[int], bool]) -> int:
    """How many rows without an outcome have a position that is `wanted` and not over `until`."""
    found = connection.execute(_POSITIONS, (EVERYTHING if until is None else until,))
    return sum(wanted(position) for (position,) in found)


def _histories(connection: sqlite3.Connection, rows: Iterable[int]) -> dict[int, History]:
    found: list[tuple[Any, ...]] = connection.execute(_HISTORY, (dumps(list(rows)),)).fetchall()
    wanted = [reply for *_, reply in found if reply is not None]
    bodies: dict[int, str] = dict(connection.execute(_BODIES, (dumps(wanted),)).fetchall()) if wanted else {}
    return {
        row: History(number, attempts, deadlines, asks, bool(left), bodies.get(reply))
        for row, number, attempts, deadlines, asks, left, reply in found
    }
