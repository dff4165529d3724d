"""Comparing an input that is read again with the journal."""

# Rows are staged in a temporary table from the first difference on; SQL compares them by identity.

import sqlite3
from collections.abc import Callable, Iterable
from itertools import chain, starmap, zip_longest
from operator import eq

from batchrun.journal import sums
from batchrun.journal.ingest import STAGED, Feed, Params, identify, transaction
from batchrun.journal.queries import sql
from batchrun.journal.records import Drift, IntakeRow

_BATCH = 500  # rows held in memory at once, twice

_KNOWN = sql("known_rows")
_STAGE_ROW = sql("stage_row")
# They update the journal, in this order.
_FOLLOW = (
    "lose_changed",
    "spend_changed",
    "delete_changed_outcomes",
    "delete_changed_shared",
    "mark_absent",
    "move_rows",
    "change_texts",
    "add_rows",
)


class Comparison:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._skipped: list[tuple[int, str]] = []
        self._parts: list[tuple[int, int]] = []
        self._staged = False

    def run(self, rows: Iterable[IntakeRow], digest: str, progress: Callable[[int], None]) -> Drift:
        """Raises InputError for duplicate ids."""
        # `digest` is the kind of digests.
        self.discard()
        feed = Feed(rows, digest)
        more = True
        while more:
            before = feed.position
            batch = feed.take(_BATCH)
            more = bool(batch)
            known = self._connection.execute(_KNOWN, (before, feed.position if more else before + 1))
            same = all(starmap(eq, zip_longest(batch, known)))  # a row at a time: those of the journal may be longer
            known.close()
            if not same:
                return self._compare(feed, before, batch, digest, progress)
            progress(feed.position)
        return Drift(rows=feed.position)

    def _compare(
        self, feed: Feed, same: int, batch: list[Params], digest: str, progress: Callable[[int], None]
    ) -> Drift:
        connection = self._connection
        connection.execute(sql("create_stage"))
        self._staged = True
        connection.execute("BEGIN")
        connection.execute(sql("stage_known_rows"), (same,))
        rest = iter(lambda: feed.take(_BATCH), [])
        for params in chain([batch], rest):
            connection.executemany(_STAGE_ROW, params)
            progress(feed.position)
        identify(connection, STAGED, digest, keyed=feed.keyed)
        connection.execute("COMMIT")
        self._skipped, self._parts = feed.skipped, feed.parts
        return self._count(feed.position)

    def _count(self, rows: int) -> Drift:
        one = self._connection.execute
        changed, done, reappeared, retouched = map(int, one(sql("count_differences")).fetchone())
        return Drift(
            rows=rows,
            changed=changed,
            changed_done=done,
            added=one(sql("count_added")).fetchone()[0],
            absent=one(sql("count_absent")).fetchone()[0],
            reappeared=reappeared,
            retouched=retouched,
            in_batches=one(sql("count_in_batches")).fetchone()[0],
            examples=tuple(one(sql("changed_examples")).fetchall()),
        )

    def apply(self, now: float, before_commit: Callable[[], None], amend: Callable[[], None]) -> None:
        """Rows and `amend` in one transaction."""
        with transaction(self._connection, before_commit):
            amend()
            if self._staged:
                self._follow(now)
        self.discard()

    def _follow(self, now: float) -> None:
        self._connection.execute(sql("create_changed"))
        for name in _FOLLOW:
            self._connection.execute(sql(name))
        self._connection.executemany(sql("skip_new_row"), [(why, now, position) for position, why in self._skipped])
        for name in ("leave_pieces", "forget_pieces", "move_pieces", "clear_reductions"):
            self._connection.execute(sql(name))
        self._connection.executemany(sql("follow_reduction"), self._parts)
        sums.write(sums.recount(self._connection), self._connection)

    def discard(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._connection.execute(sql("drop_changed"))
        self._connection.execute(sql("drop_stage"))
        self._skipped, self._parts, self._staged = [], [], False
