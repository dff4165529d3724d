"""Lists of rows for a table."""

# No index is kept for them while a run writes: input order is scanned in stretches, another order reads all rows.

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from batchrun.journal.queries import sql
from batchrun.journal.records import Line, Order, Wanted
from batchrun.models import State

STRETCH = 20_000  # rows that one query scans

_PAGE = sql("listed_page")
_CHOSEN = sql("listed_at")
_STATES = {str(state): state for state in State}
_NO_FLAGS: frozenset[str] = frozenset()


def lines(connection: sqlite3.Connection, after: int, limit: int) -> list[Line]:
    return [_line(row) for row in connection.execute(_PAGE, (after, after + limit))]


def lines_at(connection: sqlite3.Connection, positions: Iterable[int]) -> list[Line]:
    order = {position: number for number, position in enumerate(positions)}
    found = [_line(row) for row in connection.execute(_CHOSEN, (json.dumps(list(order)),))]
    return sorted(found, key=lambda line: order[line.position])


def positions(connection: sqlite3.Connection, wanted: Wanted, rows: int) -> Iterator[list[int]]:
    state = None if wanted.state is None else str(wanted.state)
    values: dict[str, Any] = {"state": state, "cause": wanted.cause, "order": str(wanted.order)}
    if wanted.text:
        values["text"] = f"%{_escaped(wanted.text)}%"
    with_text = "_with_text" if wanted.text else ""
    indexed = wanted.state is State.FAILED and not wanted.text
    if wanted.order is Order.ROW and not indexed:
        stretch = sql(f"positions_stretch{with_text}")
        for after in range(0, rows, STRETCH):
            places = {"after": after, "until": after + STRETCH}
            yield [position for (position,) in connection.execute(stretch, values | places)]
    else:
        cursor = connection.execute(sql("positions_of_failures" if indexed else f"positions{with_text}"), values)
        while found := cursor.fetchmany(STRETCH):
            yield [position for (position,) in found]


def _escaped(text: str) -> str:
    for sign in ("\\", "%", "_"):
        text = text.replace(sign, f"\\{sign}")
    return text


def _line(row: Any) -> Line:
    seq, position, line, key, state, permanent, cause, message, flags, *rest = row
    known = _NO_FLAGS if flags is None else frozenset(flags.split(","))
    return Line(seq, position, line, key, _STATES[state], permanent == 1, cause, message, known, *rest)
