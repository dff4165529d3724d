"""Rows of equal requests: which of them is sent, and which are answered by its reply (`--dedupe`, `--reuse`).

Theory. Requests are equal when their hashes are: endpoint and body, to the byte. `pair` settles, at the beginning of a
session and by SQL alone, who sends and who waits, so that each row belongs to exactly one of three streams:

1.  A row whose request was answered already, in this journal, is *lent* that reply and never sent.
2.  Of equal rows that nothing has answered, the first is sent; one whose own reply is here but was not concluded goes
    before others, since it needs no call. The others *wait* for it, and are handed out when it has its outcome.
3.  All other rows are sent as they are.

Only rows that the session is to send take part: a row outside of `--limit` or `--sample` neither leads nor waits. What
is lent is kept, as a reply is; who waits is settled anew by the next session from what the journal has then, but for
rows that waited for one that has failed for good: they go on waiting for it, and are handed out with its failure
(`Journal.failed`) before anything is sent. So nothing that a kill can leave behind needs mending.

`borrow` copies replies to equal requests out of the journal of another run. Each of them answers one row, so that rows
that were repeated to get several replies get several; under `--dedupe` `pair` gives it to all rows of its request.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from batchrun.journal.intake import BATCH, transaction

_ANSWERS = "o.reply IS NOT NULL AND (o.state = 'done' OR o.post)"
_REPLIED = """
(twins.reply IS NOT NULL
 OR (SELECT reply FROM attempts WHERE attempts.row = rows.seq AND NOT spent ORDER BY number DESC LIMIT 1) IS NOT NULL)
"""
_FORGET = "DELETE FROM twins WHERE reply IS NULL"
_FAILED = "state = 'failed' AND final = 1 AND NOT post"
_KEEP_FAILED = (
    # who failed for good may have waited too, for one that failed for now
    f"""
    UPDATE twins SET twin = source FROM (
        SELECT ifnull(twins.twin, o.row) AS leader, max(o.row) AS source
        FROM outcomes AS o LEFT JOIN twins ON twins.row = o.row AND twins.reply IS NULL WHERE {_FAILED} GROUP BY 1
    ) WHERE twin = leader AND reply IS NULL
    """,  # noqa: S608 - the condition above
    f"""
    DELETE FROM twins WHERE reply IS NULL AND (EXISTS (SELECT 1 FROM outcomes AS o WHERE o.row = twins.row)
    OR NOT EXISTS (SELECT 1 FROM outcomes AS o WHERE o.row = twins.twin AND {_FAILED}))
    """,  # noqa: S608 - the condition above
)
_PAIR = f"""
WITH known AS (
  SELECT rows.seq, request, position, CASE WHEN o.row IS NOT NULL THEN 0 WHEN {_REPLIED} THEN 1 ELSE 2 END AS rank
  FROM rows LEFT JOIN outcomes AS o ON o.row = rows.seq LEFT JOIN twins ON twins.row = rows.seq
  WHERE request <> '' AND CASE WHEN o.row IS NOT NULL THEN {_ANSWERS} WHEN position IS NULL THEN 0
                               WHEN twins.row IS NOT NULL AND twins.reply IS NULL THEN 0 ELSE {{wanted}} END
), equal AS (
  SELECT seq, rank, first_value(seq) OVER (PARTITION BY request ORDER BY rank, position) AS leader FROM known
)
INSERT INTO twins (row, twin, reply, number, input_tokens, output_tokens, cost)
SELECT seq, ifnull(o.twin, leader), o.reply, ifnull(o.attempts, 0), o.input_tokens, o.output_tokens,
       iif(o.twin IS NULL, a.cost, o.saved)
FROM equal LEFT JOIN outcomes AS o ON o.row = leader LEFT JOIN attempts AS a ON a.row = o.row AND a.number = o.attempts
WHERE rank = 2 AND seq <> leader
"""  # noqa: S608 - made of the conditions above
KEEP = """
INSERT OR REPLACE INTO twins (row, twin, reply, number, input_tokens, output_tokens, cost)
SELECT row, twin, reply, attempts, input_tokens, output_tokens, saved FROM outcomes
WHERE twin IS NOT NULL AND reply IS NOT NULL AND (state = 'done' OR post)
"""
"""What was lent stays lent where the outcome that rests on it is about to be undone; a condition may follow."""

_OFFERED = """
CREATE TEMP TABLE offered AS
SELECT request, row_number() OVER (PARTITION BY request ORDER BY position IS NULL, position) AS turn, o.reply,
       o.input_tokens, o.output_tokens, iif(o.twin IS NULL, a.cost, o.saved) AS cost
FROM other.outcomes AS o JOIN other.rows ON rows.seq = o.row
LEFT JOIN other.attempts AS a ON a.row = o.row AND a.number = o.attempts
WHERE o.reply IS NOT NULL AND (o.state = 'done' OR o.post)
"""
_ASKED = f"""
CREATE TEMP TABLE asked AS
SELECT rows.seq, request, row_number() OVER (PARTITION BY request ORDER BY (:once AND NOT asks), position) AS turn, asks
FROM (SELECT rows.seq, request, position, o.row IS NULL AND NOT {_REPLIED} AS asks
      FROM rows LEFT JOIN outcomes AS o ON o.row = rows.seq LEFT JOIN twins ON twins.row = rows.seq
      WHERE position IS NOT NULL AND request IN (SELECT request FROM temp.offered)) AS rows
"""  # noqa: S608 - the condition above
_TAKEN = """
CREATE TEMP TABLE taken AS
SELECT seq, (SELECT ifnull(max(id), 0) FROM main.replies) + row_number() OVER (ORDER BY seq) AS id, reply,
       input_tokens, output_tokens, cost
FROM temp.asked JOIN temp.offered USING (request, turn) WHERE asks AND (turn = 1 OR NOT :once)
"""
_COPY = (
    """
    INSERT INTO main.replies (id, row, number, body)
    SELECT taken.id, seq, 0, body FROM temp.taken JOIN other.replies ON replies.id = taken.reply
    WHERE taken.rowid > ? AND taken.rowid <= ?
    """,
    """
    INSERT OR REPLACE INTO twins (row, twin, reply, input_tokens, output_tokens, cost)
    SELECT seq, 0, id, input_tokens, output_tokens, cost FROM temp.taken WHERE taken.rowid > ? AND taken.rowid <= ?
    """,
)
_TEMPORARY = ("offered", "asked", "taken")


def anybody_waits(connection: sqlite3.Connection) -> bool:
    """Whether a row still waits as an earlier session settled it."""
    return connection.execute("SELECT 1 FROM twins WHERE reply IS NULL LIMIT 1").fetchone() is not None


def pair(connection: sqlite3.Connection, *, dedupe: bool, wanted: Callable[[int], bool] | None) -> None:
    """Settle who waits for whom in this session, in the present transaction; without `dedupe` nobody does.

    `wanted` is whether the row at a position is to be sent, None for all. Reads all rows.
    """
    for statement in _KEEP_FAILED if dedupe else (_FORGET,):
        connection.execute(statement)
    connection.execute("PRAGMA cache_size = -16000")  # 16 MB, as at the intake, so that the sort needs few passes
    if dedupe and wanted is None:
        connection.execute(_PAIR.format(wanted="1"))
    elif dedupe and wanted is not None:
        connection.create_function("wanted", 1, wanted)
        connection.execute(_PAIR.format(wanted="wanted(position)"))
    connection.execute("PRAGMA cache_size = -2000")


def borrow(connection: sqlite3.Connection, other: Path, *, once: bool, before_commit: Callable[[], None]) -> int:
    """Lend rows the replies to equal requests in the journal `other`, in transactions of some thousand rows. Returns
    how many.

    With `once` a request is answered once, with the first reply to it. Nothing is lent twice: rows of a request take
    its replies in turn, those that are answered already included.
    """
    connection.execute("ATTACH DATABASE ? AS other", (f"{other.absolute().as_uri()}?mode=ro",))
    try:
        connection.execute(_OFFERED)
        connection.execute("CREATE INDEX temp.offered_request ON offered (request, turn)")
        connection.execute(_ASKED, {"once": once})
        connection.execute(_TAKEN, {"once": once})
        count: int = connection.execute("SELECT ifnull(max(rowid), 0) FROM temp.taken").fetchone()[0]
        for start in range(0, count, BATCH):
            with transaction(connection, before_commit):
                for statement in _COPY:
                    connection.execute(statement, (start, start + BATCH))
        return count
    finally:
        for table in _TEMPORARY:
            connection.execute(f"DROP TABLE IF EXISTS temp.{table}")
        connection.execute("DETACH DATABASE other")
