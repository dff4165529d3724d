"""The rows that still have to be answered, in the order of the input, with what the journal knows of each."""

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import fields
from json import dumps
from typing import Any

from batchrun.journal.queries import sql
from batchrun.journal.records import Lease
from batchrun.models import History, Lent, Outcome, Pending, State, Ticket

_WINDOW = sql("pending_rows")
_ANSWERED = sql("answered_rows")
_FOLLOWING = sql("following_rows")
_LENT = sql("shared_reply")
_FAILED = sql("failed_leaders")
_POSITIONS = sql("pending_positions")
_HISTORY = sql("histories")
_BODIES = sql("reply_bodies")

FRESH = History(0, 0, 0, 0, open=False, reply=None)
EVERYTHING = (1 << 63) - 1


def pending(connection: sqlite3.Connection, after: int, limit: int, until: int | None) -> list[Pending]:
    """At most `limit` rows without an outcome whose position is over `after` and not over `until`.

    Rows that the reply to an equal request answers, or will answer, are not among them.
    """
    last = EVERYTHING if until is None else until
    rows: list[tuple[Any, ...]] = connection.execute(_WINDOW, (after, last, limit)).fetchall()
    known = _histories(connection, [row[0] for row in rows])
    return [
        Pending(seq, position, line, key, text, known.get(seq, FRESH), awaited=bool(awaited))
        for seq, position, line, key, text, awaited in rows
    ]


def answered(connection: sqlite3.Connection, after: int, limit: int) -> list[Pending]:
    """Rows with a seq over `after` and without an outcome that the reply to an equal request answers, at most `limit`."""
    rows: list[tuple[Any, ...]] = connection.execute(_ANSWERED, (after, limit)).fetchall()
    known = _histories(connection, [row[0] for row in rows])
    bodies = _bodies(connection, {reply for *_, reply in rows})
    return [
        Pending(
            *(seq, position, line, key, text),
            known.get(seq, FRESH),
            Lent(twin, number, reply, used_in, used_out, cost, bodies.get(reply, "")),
            bool(awaited),
        )
        for seq, position, line, key, text, awaited, twin, number, used_in, used_out, cost, reply in rows
    ]


def following(connection: sqlite3.Connection, leader: int, source: int, after: int, limit: int) -> list[Pending]:
    """Rows with a seq over `after` that wait for the row `leader`, at most `limit`, with what the row `source` lends."""
    rows: list[tuple[Any, ...]] = connection.execute(_FOLLOWING, (leader, after, limit)).fetchall()
    known = _histories(connection, [row[0] for row in rows])
    found = connection.execute(_LENT, (source,)).fetchone()
    lent = None if found is None else Lent(*found)
    return [
        Pending(seq, position, line, key, text, known.get(seq, FRESH), lent) for seq, position, line, key, text in rows
    ]


def rows_in_batch(connection: sqlite3.Connection, ticket: int, rows: Iterable[int]) -> list[tuple[Pending, Lease]]:
    """Those of these rows whose open attempt is in this ticket, with what is known of them before it."""
    found: list[tuple[Any, ...]] = connection.execute(sql("rows_in_batch"), (dumps(list(rows)), ticket)).fetchall()
    known = _histories(connection, [row[0] for row in found])
    return [
        (
            Pending(seq, position, line, key, text, known[seq]._replace(open=False), awaited=bool(awaited)),
            Lease(seq, number, cost, tokens),
        )
        for seq, position, line, key, text, awaited, number, cost, tokens in found
    ]


def tickets(connection: sqlite3.Connection) -> list[Ticket]:
    """All tickets, in order."""
    names = [item.name for item in fields(Ticket)]
    return [Ticket(**dict(zip(names, found, strict=True))) for found in connection.execute(sql("tickets"))]


def failed(connection: sqlite3.Connection) -> list[tuple[int, Outcome]]:
    """The rows that others wait for though they have failed for good, with their outcomes."""
    found: list[tuple[Any, ...]] = connection.execute(_FAILED).fetchall()
    return [(row, Outcome(State.FAILED, True, cause, message, frozenset(), None)) for row, cause, message in found]


def count_pending(connection: sqlite3.Connection, until: int | None, wanted: Callable[[int], bool]) -> int:
    """How many rows without an outcome have a position that is `wanted` and not over `until`."""
    found = connection.execute(_POSITIONS, (EVERYTHING if until is None else until,))
    return sum(wanted(position) for (position,) in found)


def _histories(connection: sqlite3.Connection, rows: Iterable[int]) -> dict[int, History]:
    found: list[tuple[Any, ...]] = connection.execute(_HISTORY, (dumps(list(rows)),)).fetchall()
    wanted = [reply for *_, reply in found if reply is not None]
    bodies = _bodies(connection, wanted)
    return {
        row: History(number, attempts, deadlines, asks, bool(left), bodies.get(reply))
        for row, number, attempts, deadlines, asks, left, reply in found
    }


def _bodies(connection: sqlite3.Connection, wanted: Iterable[int]) -> dict[int, str]:
    numbers = list(wanted)
    return dict(connection.execute(_BODIES, (dumps(numbers),)).fetchall()) if numbers else {}
