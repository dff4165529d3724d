"""Looking through the rows of a journal: which rows, in which order, and what a list shows of them.

No index serves this, so that none has to be kept while a run writes. Rows in the order of the input are found in
stretches, which keeps each query short beside the writer; another order needs all rows at once.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from batchrun.journal.records import Line, Order, Wanted
from batchrun.models import State

STRETCH = 20_000
"""Rows that one query looks through."""

_OPEN = "EXISTS (SELECT 1 FROM attempts WHERE attempts.row = rows.seq AND ended IS NULL)"
_STATE = f"ifnull(o.state, CASE WHEN {_OPEN} THEN 'unknown' ELSE 'pending' END)"
_SAID = """
CASE WHEN o.value IS NOT NULL THEN o.value WHEN json_valid(body) THEN coalesce(
  json_extract(body, '$.choices[0].message.content'), json_extract(body, '$.output[#-1].content[0].text'),
  json_extract(body, '$.choices[0].text'), substr(body, 1, 400)) ELSE body END
"""
_JOINED = "FROM rows LEFT JOIN outcomes AS o ON o.row = rows.seq"
_REPLY = "LEFT JOIN replies ON replies.id = o.reply"
_LINE = f"""
SELECT rows.seq, rows.position, rows.line, rows.key, {_STATE} AS shown, ifnull(o.final, 0), o.cause, o.message, o.flags,
       ifnull(o.attempts, 0), o.seconds, o.input_tokens, o.output_tokens, substr(rows.text, 1, 400), substr({_SAID}, 1, 400)
{_JOINED} {_REPLY}
"""
_BY_PLACE = "WHERE rows.position > ? AND rows.position <= ? ORDER BY rows.position"
_BY_CHOICE = "WHERE rows.position IN (SELECT value FROM json_each(?))"

_TEXT = """
(rows.text LIKE :text ESCAPE '\\' OR rows.key LIKE :text ESCAPE '\\' OR o.message LIKE :text ESCAPE '\\'
 OR o.value LIKE :text ESCAPE '\\' OR body LIKE :text ESCAPE '\\')
"""
_ORDERS = {
    Order.ROW: "rows.position",
    Order.LATENCY: "o.seconds DESC NULLS LAST, rows.position",
    Order.TOKENS: "ifnull(o.input_tokens, 0) + ifnull(o.output_tokens, 0) DESC, rows.position",
}
_STATES = {str(state): state for state in State}
_NO_FLAGS: frozenset[str] = frozenset()


def lines(connection: sqlite3.Connection, after: int, limit: int) -> list[Line]:
    """The rows behind the position `after`, in the order of the input."""
    return [_line(row) for row in connection.execute(_LINE + _BY_PLACE, (after, after + limit))]


def lines_at(connection: sqlite3.Connection, positions: Iterable[int]) -> list[Line]:
    """The rows at these positions, in the order given."""
    order = {position: number for number, position in enumerate(positions)}
    found = [_line(row) for row in connection.execute(_LINE + _BY_CHOICE, (json.dumps(list(order)),))]
    return sorted(found, key=lambda line: order[line.position])


def positions(connection: sqlite3.Connection, wanted: Wanted, rows: int) -> Iterator[list[int]]:
    """The positions of the rows that are wanted, in the wanted order, in lists as they are found."""
    query, values = _query(wanted)
    if wanted.order is Order.ROW and not _indexed(wanted):
        stretch = f"{query} AND rows.position > :after AND rows.position <= :until ORDER BY rows.position"
        for after in range(0, rows, STRETCH):
            places = {"after": after, "until": after + STRETCH}
            yield [position for (position,) in connection.execute(stretch, values | places)]
    else:
        whole = f"{query} ORDER BY {_ORDERS[wanted.order]}"
        cursor = connection.execute(whole, values)
        while found := cursor.fetchmany(STRETCH):
            yield [position for (position,) in found]


def _indexed(wanted: Wanted) -> bool:
    return wanted.state is State.FAILED and not wanted.text


def _query(wanted: Wanted) -> tuple[str, dict[str, Any]]:
    where = ["rows.position IS NOT NULL"]
    values: dict[str, Any] = {}
    if _indexed(wanted):
        where.append("o.state = 'failed' AND o.final IN (0, 1)")
    elif wanted.state is not None:
        where.append(f"{_STATE} = :state")
        values["state"] = str(wanted.state)
    if wanted.cause is not None:
        where.append("o.cause = :cause")
        values["cause"] = wanted.cause
    if wanted.text:
        where.append(_TEXT)
        values["text"] = f"%{_escaped(wanted.text)}%"
    source = f"{_JOINED} {_REPLY}" if wanted.text else _JOINED
    if _indexed(wanted):
        source = "FROM outcomes AS o CROSS JOIN rows ON rows.seq = o.row"
    return f"SELECT rows.position {source} WHERE {' AND '.join(where)}", values


def _escaped(text: str) -> str:
    for sign in ("\\", "%", "_"):
        text = text.replace(sign, f"\\{sign}")
    return text


def _line(row: Any) -> Line:
    seq, position, line, key, state, final, cause, message, flags, *rest = row
    known = _NO_FLAGS if flags is None else frozenset(flags.split(","))
    return Line(seq, position, line, key, _STATES[state], final == 1, cause, message, known, *rest)
