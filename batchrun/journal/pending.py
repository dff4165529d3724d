"""The rows that still have to be answered, with their history."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from enum import Enum, auto
from itertools import takewhile
from json import dumps, loads
from typing import Any

from batchrun.journal.database import Connection
from batchrun.journal.pages import Found, Page, page
from batchrun.journal.queries import sql
from batchrun.journal.records import Lease, Leased, Standing
from batchrun.models import FRESH, History, Outcome, Parts, Pending, Ready, SharedReply, State, Ticket, made

_PENDING, _PENDING_LONG = sql("pending_rows"), sql("pending_long_rows")
_ANSWERED = sql("answered_rows")
_FOLLOWING = sql("following_rows")
_REDUCIBLE = sql("reduce_rows")
_REUSED = sql("shared_reply")
_FAILED = sql("failed_representatives")
_POSITIONS = sql("pending_positions")
_HISTORY = sql("histories")
_TRIED = sql("any_attempt")
_AT_FALLBACKS = sql("histories_at_fallbacks")
_CAUSES = sql("causes_before_fallbacks")
_BODIES = sql("reply_bodies")

_PART_FAILED = "a part of the text failed: "
EVERYTHING = (1 << 63) - 1
Fallbacks = frozenset[int]  # lanes (lanes.id) for rows that have failed elsewhere
# cause and message of a row that was handed to a fallback without an attempt
_FAILED_ELSEWHERE = "failed before the fallback", "it could not be sent there"


class Form(Enum):
    """How the rows have long texts."""

    TEXT = auto()
    ENCODED = auto()  # as bytes, which spares two copies
    READY = auto()  # as the request, where it is a part of the text
    PLACED = auto()  # the same, as its place in the file


_OF_REQUESTS = frozenset({Form.READY, Form.PLACED})


def pending(  # noqa: PLR0913, PLR0917  the range, and what else a row needs
    connection: Connection,
    after: int,
    limit: int,
    until: int | None,
    fallbacks: Fallbacks = frozenset(),
    form: Form = Form.TEXT,
) -> Page:
    last = EVERYTHING if until is None else until
    cursor = connection.execute(_PENDING if form is Form.TEXT else _PENDING_LONG, (after, last, limit))
    rows, full = page(cursor, _placed_length if form is Form.PLACED else _pending_length)
    known, count = _histories(connection, [row[0] for row in rows], fallbacks)
    found: list[Pending] = []
    for seq, position, line, key, text, files, target, awaited, at, size, described in rows[:count]:
        encoded, ready = b"", None
        if at is not None:
            if described and form in _OF_REQUESTS:
                ready = Ready(*loads(described))
                at, size = at + ready.start, ready.size  # noqa: PLW2901  the part that is needed
            if ready is not None and form is Form.PLACED:
                encoded = connection.texts.place(at, size, ready.base64)
            else:
                encoded = connection.texts.read(at, size)
        history = known.get(seq, FRESH)
        found.append(
            made(
                Pending,
                (seq, position, line, key, text, history, None, awaited == 1, target, None, files, encoded, ready),
            )
        )
    return Page(found, full=full or len(rows) == limit or count < len(rows))


def answered(connection: sqlite3.Connection, after: int, limit: int, fallbacks: Fallbacks) -> Page:
    rows, full = page(connection.execute(_ANSWERED, (after, limit)), _length)
    known, count = _histories(connection, [row[0] for row in rows], fallbacks)
    bodies, cut = _bodies(connection, dict.fromkeys(reply for *_, reply in rows[:count]))
    whole = list(takewhile(lambda row: row[-1] in bodies, rows[:count])) if cut else rows[:count]
    found = [
        Pending(
            *(seq, position, line, key, text),
            known.get(seq, FRESH),
            SharedReply(representative, number, reply, used_in, used_out, cost, bodies.get(reply, "")),
            bool(awaited),
            target,
            files=files,
        )
        for seq, position, line, key, text, files, target, awaited, representative, number, used_in, used_out, cost, reply in whole
    ]
    return Page(found, full=full or len(rows) == limit or len(whole) < len(rows))


def following(  # noqa: PLR0913, PLR0917  a page of one group
    connection: sqlite3.Connection, representative: int, source: int, after: int, limit: int, fallbacks: Fallbacks
) -> Page:
    rows, full = page(connection.execute(_FOLLOWING, (representative, after, limit)), _length)
    known, count = _histories(connection, [row[0] for row in rows], fallbacks)
    given = connection.execute(_REUSED, (source,)).fetchone()
    reused = None if given is None else SharedReply(*given)
    found = [
        Pending(seq, position, line, key, text, known.get(seq, FRESH), reused, target=target, files=files)
        for seq, position, line, key, text, files, target in rows[:count]
    ]
    return Page(found, full=full or len(rows) == limit or count < len(rows))


def reducible(connection: sqlite3.Connection, target: int | None, after: int, limit: int, fallbacks: Fallbacks) -> Page:
    wanted = {"target": target, "after": after, "limit": limit}
    rows, full = page(connection.execute(_REDUCIBLE, wanted), _length)
    known, count = _histories(connection, [row[0] for row in rows], fallbacks)
    found = [
        Pending(
            *(seq, position, line, key, text),
            known.get(seq, FRESH),
            target=above,
            parts=parts(connection, seq),
        )
        for seq, position, line, key, text, _, above in rows[:count]
    ]
    return Page(found, full=full or len(rows) == limit or count < len(rows))


def parts(connection: sqlite3.Connection, row: int) -> Parts | None:
    """A reduce row's parts, or their first failure; None for other rows."""
    failed = connection.execute(sql("failed_part"), (row,)).fetchone()
    if failed is not None:
        permanent, cause, message = failed
        message = f"{_PART_FAILED}{(message or cause or '').removeprefix(_PART_FAILED)}"
        return Parts((), Outcome(State.FAILED, bool(permanent), cause, message, frozenset(), None))
    found: list[tuple[int, str | None, str | None]] = connection.execute(sql("parts_of_row"), (row,)).fetchall()
    awaited = sum(missing for missing, _, _ in found)
    return Parts(tuple((value, body) for _, value, body in found), awaited=awaited) if found else None


def rows_in_batch(
    connection: sqlite3.Connection, ticket: int | None, rows: Iterable[int]
) -> tuple[list[tuple[Pending, Lease]], bool]:
    found, full = page(connection.execute(sql("rows_in_batch"), (dumps(sorted(rows)), ticket)), _length)
    # Nearly all rows have no attempt but the one in the batch.
    tried = [at for at, row in enumerate(found) if row[9]]
    known, count = _histories(connection, [found[at][0] for at in tried])
    most = len(found) if count == len(tried) else tried[count]  # as far as their replies have room
    leased = [
        (
            Pending(
                *(seq, position, line, key, text),
                known[seq]._replace(open=False) if seq in known else FRESH._replace(number=number),
                None,
                bool(awaited),
                target,
                parts(connection, seq) if reduced else None,
                files,
            ),
            Lease(seq, number, cost, tokens),
        )
        for seq, position, line, key, text, files, target, awaited, reduced, _, number, cost, tokens in found[:most]
    ]
    return leased, full or most < len(found)


def leased(connection: sqlite3.Connection, ticket: int | None, rows: Iterable[int]) -> Leased:
    import orjson  # noqa: PLC0415  only batches need it; listing runs does not

    (found,) = connection.execute(sql("leased_rows"), (dumps(list(rows)), ticket)).fetchone()
    return Leased(*orjson.loads(found))


def standings(connection: sqlite3.Connection, rows: Iterable[int]) -> dict[int, Standing]:
    wanted = dumps(list(rows))
    answers: dict[int, list[tuple[str | None, str | None]]] = {}
    for row, body, excerpt in connection.execute(sql("answers_of_rows"), (wanted,)):
        answers.setdefault(row, []).append((body, excerpt))
    return {
        row: Standing(position, State(state), number, tuple(answers.get(row, ())))
        for row, position, state, number in connection.execute(sql("standings"), (wanted,))
    }


def tickets(connection: sqlite3.Connection) -> list[Ticket]:
    names = [item.name for item in fields(Ticket)]
    return [Ticket(**dict(zip(names, found, strict=True))) for found in connection.execute(sql("tickets"))]


def failed(connection: sqlite3.Connection) -> list[tuple[int, Outcome]]:
    found: list[tuple[Any, ...]] = connection.execute(_FAILED).fetchall()
    return [(row, Outcome(State.FAILED, True, cause, message, frozenset(), None)) for row, cause, message in found]


def count_pending(connection: sqlite3.Connection, until: int | None, wanted: Callable[[int], bool]) -> int:
    found = connection.execute(_POSITIONS, (EVERYTHING if until is None else until,))
    return sum(wanted(position) for (position,) in found)


def _pending_length(row: Found) -> int:
    return len(row[4]) + (row[9] or 0)


def _placed_length(row: Found) -> int:
    return len(row[4]) + (0 if row[10] else row[9] or 0)


def _length(row: Found) -> int:
    return len(row[4])


def _histories(
    connection: sqlite3.Connection, rows: Sequence[int], fallbacks: Fallbacks = frozenset()
) -> tuple[dict[int, History], int]:
    # Of the first of these rows, as many as have room in a page; and their number.
    if not rows or connection.execute(_TRIED, (min(rows), max(rows))).fetchone() is None:
        return {}, len(rows)
    found: list[Found] = connection.execute(_HISTORY, (dumps(rows),)).fetchall()
    replies = {row: reply for row, *_, reply, _ in found if reply is not None}
    bodies, cut = _bodies(connection, [replies[row] for row in rows if row in replies])
    missing = (at for at, row in enumerate(rows) if cut and row in replies and replies[row] not in bodies)
    count = next(missing, len(rows))
    known = {
        row: History(number, attempts, deadlines, asks, bool(left), bodies.get(reply))
        for row, number, attempts, deadlines, asks, left, reply, _ in found
    }
    handed = [row for row, *_, lane in found if lane in fallbacks]
    return known | _at_fallbacks(connection, known, handed, fallbacks), count


def _at_fallbacks(
    connection: sqlite3.Connection, known: dict[int, History], rows: Sequence[int], fallbacks: Fallbacks
) -> dict[int, History]:
    # The attempts there, and the earlier cause.
    if not rows:
        return {}
    wanted = {"rows": dumps(rows), "fallbacks": dumps(sorted(fallbacks))}
    causes = {row: (cause, message) for row, _, cause, message in connection.execute(_CAUSES, wanted)}
    return {
        row: known[row]._replace(
            attempts=attempts, deadlines=deadlines, asks=asks, gave_up=causes.get(row) or _FAILED_ELSEWHERE
        )
        for row, attempts, deadlines, asks in connection.execute(_AT_FALLBACKS, wanted)
    }


def _bodies(connection: sqlite3.Connection, wanted: Iterable[int]) -> tuple[dict[int, str], bool]:
    # By number, and whether the page is full, so that the last may be missing.
    numbers = list(wanted)
    if not numbers:
        return {}, False
    found, full = page(connection.execute(_BODIES, (dumps(numbers),)), lambda row: len(row[1]))
    return dict(found), full
