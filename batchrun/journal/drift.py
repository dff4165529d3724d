"""An input that is read again, against the journal: what differs, and making the journal follow it.

While the input is what the journal has, row by row, nothing is staged. From the first difference on, the rest goes
into a temporary table, and SQL compares by identity.
"""

import sqlite3
from collections.abc import Callable, Iterable
from itertools import chain

from batchrun.journal import sums
from batchrun.journal.intake import Feed, Params, identify, transaction
from batchrun.journal.records import Drift, IntakeRow

_BATCH = 500  # rows held in memory at once, twice

_STAGE = """
CREATE TEMP TABLE stage (
    position INTEGER PRIMARY KEY, line INTEGER NOT NULL, key TEXT NOT NULL, occurrence INTEGER NOT NULL DEFAULT 0,
    request TEXT NOT NULL, text TEXT NOT NULL
)
"""
_KNOWN = "SELECT position, line, key, request, text FROM rows WHERE position > ? AND position <= ? ORDER BY position"
_SAME_START = """
INSERT INTO temp.stage (position, line, key, request, text)
SELECT position, line, key, request, text FROM rows WHERE position <= ?
"""
_INSERT = "INSERT INTO temp.stage (position, line, key, request, text) VALUES (?, ?, ?, ?, ?)"

_PAIR = "rows JOIN temp.stage ON stage.key = rows.key AND stage.occurrence = rows.occurrence"
_OTHER_REQUEST = "rows.request <> stage.request"
_RETOUCHED = """
rows.request = stage.request AND rows.position IS NOT NULL
AND (rows.position <> stage.position OR rows.line <> stage.line OR rows.text <> stage.text)
"""
_COUNT = f"""
SELECT total({_OTHER_REQUEST}),
       total({_OTHER_REQUEST} AND EXISTS (SELECT 1 FROM outcomes WHERE row = rows.seq AND state = 'done')),
       total(rows.position IS NULL),
       total({_RETOUCHED})
FROM {_PAIR}
"""  # noqa: S608 - made of the conditions above
_ADDED = """
FROM temp.stage WHERE NOT EXISTS
(SELECT 1 FROM rows WHERE rows.key = stage.key AND rows.occurrence = stage.occurrence)
"""
_ABSENT = """
rows.position IS NOT NULL AND NOT EXISTS
(SELECT 1 FROM temp.stage WHERE stage.key = rows.key AND stage.occurrence = rows.occurrence)
"""
_EXAMPLES = f"SELECT stage.line, stage.key FROM {_PAIR} WHERE {_OTHER_REQUEST} ORDER BY stage.position LIMIT 5"  # noqa: S608 - as above

_CHANGED = f"CREATE TEMP TABLE changed AS SELECT rows.seq FROM {_PAIR} WHERE {_OTHER_REQUEST}"  # noqa: S608 - as above
_FOLLOW = (
    """
    UPDATE attempts SET ended = began, seconds = 0, status = 0, cause = 'lost', counted = 0, maybe_paid = 1, cost_other = cost
    WHERE ended IS NULL AND row IN temp.changed
    """,
    "UPDATE attempts SET spent = 1 WHERE spent = 0 AND row IN temp.changed",
    "DELETE FROM outcomes WHERE row IN temp.changed",
    "DELETE FROM twins WHERE row IN temp.changed",
    f"UPDATE rows SET position = NULL WHERE {_ABSENT}",  # noqa: S608 - a condition above
    """
    UPDATE rows SET position = stage.position, line = stage.line, request = stage.request, text = stage.text
    FROM temp.stage
    WHERE stage.key = rows.key AND stage.occurrence = rows.occurrence
      AND (rows.position IS NOT stage.position OR rows.line <> stage.line
           OR rows.request <> stage.request OR rows.text <> stage.text)
    """,
    f"""
    INSERT INTO rows (position, line, key, occurrence, request, text)
    SELECT position, line, key, occurrence, request, text {_ADDED} ORDER BY position
    """,
)
_SKIP = """
INSERT INTO outcomes (row, state, final, cause, message, attempts, finished)
SELECT seq, 'skipped', 1, 'invalid line', ?, 0, ? FROM rows
WHERE position = ? AND NOT EXISTS (SELECT 1 FROM outcomes WHERE row = seq)
"""


class Comparison:
    """One reading of the input against the journal on `connection`; `apply` makes the journal follow it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._skipped: list[tuple[int, str]] = []
        self._staged = False

    def run(self, rows: Iterable[IntakeRow], progress: Callable[[int], None]) -> Drift:
        """Read all rows and count the differences. Raises InputError for duplicate ids."""
        self.discard()
        feed = Feed(rows)
        more = True
        while more:
            before = feed.position
            batch = feed.take(_BATCH)
            more = bool(batch)
            known = self._connection.execute(_KNOWN, (before, feed.position if more else before + 1)).fetchall()
            if batch != known:
                return self._compare(feed, before, batch, progress)
            progress(feed.position)
        return Drift(rows=feed.position)

    def _compare(self, feed: Feed, same: int, batch: list[Params], progress: Callable[[int], None]) -> Drift:
        connection = self._connection
        connection.execute(_STAGE)
        self._staged = True
        connection.execute("BEGIN")
        connection.execute(_SAME_START, (same,))
        rest = iter(lambda: feed.take(_BATCH), [])
        for params in chain([batch], rest):
            connection.executemany(_INSERT, params)
            progress(feed.position)
        identify(connection, "temp.stage", keyed=feed.keyed)
        connection.execute("COMMIT")
        self._skipped = feed.skipped
        return self._count(feed.position)

    def _count(self, rows: int) -> Drift:
        one = self._connection.execute
        changed, done, reappeared, retouched = map(int, one(_COUNT).fetchone())
        return Drift(
            rows=rows,
            changed=changed,
            changed_done=done,
            added=one("SELECT count(*) " + _ADDED).fetchone()[0],
            absent=one("SELECT count(*) FROM rows WHERE " + _ABSENT).fetchone()[0],  # noqa: S608 - a condition above
            reappeared=reappeared,
            retouched=retouched,
            examples=tuple(one(_EXAMPLES).fetchall()),
        )

    def apply(self, now: float, before_commit: Callable[[], None], amend: Callable[[], None]) -> None:
        """Make the journal follow, in one transaction that touches only rows that differ, together with `amend`."""
        with transaction(self._connection, before_commit):
            amend()
            if self._staged:
                self._follow(now)
        self.discard()

    def _follow(self, now: float) -> None:
        self._connection.execute(_CHANGED)
        for statement in _FOLLOW:
            self._connection.execute(statement)
        self._connection.executemany(_SKIP, [(why, now, position) for position, why in self._skipped])
        sums.recount(self._connection).write(self._connection)

    def discard(self) -> None:
        """Forget what was read."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._connection.execute("DROP TABLE IF EXISTS temp.changed")
        self._connection.execute("DROP TABLE IF EXISTS temp.stage")
        self._skipped, self._staged = [], False
