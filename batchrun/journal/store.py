"""A journal open for writing."""

import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from batchrun import __version__
from batchrun.errors import StorageError
from batchrun.journal import database, duplicates, pending, sums
from batchrun.journal.drift import Comparison
from batchrun.journal.ingest import FirstIntake, transaction
from batchrun.journal.pages import Page
from batchrun.journal.queries import sql
from batchrun.journal.reader import Reader, read_meta
from batchrun.journal.records import (
    Answers,
    Charged,
    Drift,
    End,
    Exchanges,
    IntakeRow,
    Lane,
    Lease,
    Leased,
    Meta,
    Standing,
    Sum,
)  # fmt: skip
from batchrun.journal.texts import texts_of
from batchrun.journal.writer import Done, Told, Writer
from batchrun.models import Outcome, Pending, SharedReply, Ticket, Totals

# Statements that make rows with an outcome pending again, in this order.
_REOPEN_FAILED = ("spend_reopened", "forget_reopened", "keep_reopened", "delete_reopened")
_REJUDGE = ("keep_present", "delete_reply_outcomes")
_RESEND = ("spend_done", "forget_done", "delete_done")  # the attempts are spent; their replies stay with them


class Journal:
    """The caller holds the lock.

    Until `start`, methods work in the calling thread, one at a time. Then, until `stop`, the writer thread has the
    database: methods that return `Done` write, called on the loop's thread; the others read. `Done` is resolved after
    the COMMIT, need not be awaited, and fails with StorageError.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,  # Unix seconds
        faults: Callable[[int], None] | None = None,  # for tests, gets each commit's number
    ) -> None:
        self.path = path
        self._clock = clock
        self._faults = faults
        self._commits = 0
        had_log = database.has_log(path)
        self._connection = database.connect(path, write=True)
        self._identity = database.identity(path)
        self.fallbacks: pending.Fallbacks = frozenset()  # for rows that failed elsewhere; they stay there
        self._read_connection: database.Connection | None = None
        self._read_guard = threading.Lock()  # a caller that was cancelled may have left a thread in `pending`
        self._writer: Writer | None = None
        self._session = 0
        self._comparison = Comparison(self._connection)
        with database.translated(path):
            self._totals = sums.read(self._connection).totals()
        self.doubt = self._settle_killed(had_log)  # a warning to show

    def _settle_killed(self, had_log: bool) -> str | None:
        # A kill leaves a log, unless it was removed, or merged by another SQLite tool.
        with database.translated(self.path, "write"):
            if not database.was_killed(self._connection):
                return None
            if had_log:
                self._connection.execute(sql("end_killed_session"))
                return None
        return (
            f"{self.path}: the last session did not end properly, and {self.path.name}-wal is missing. If the journal was copied or "
            "moved without it, the last replies are lost, and their rows would be sent and billed again."
        )

    @classmethod
    def create(
        cls,
        path: Path,
        meta: Meta,
        *,
        clock: Callable[[], float] = time.time,
        faults: Callable[[int], None] | None = None,
    ) -> Self:
        """Raises RefusedError for an unsuitable directory, StorageError for a full disk."""
        database.create(path, meta.stored() | {"batchrun": __version__, "intake": "begun"})
        return cls(path, clock=clock, faults=faults)

    @classmethod
    def open(
        cls, path: Path, *, clock: Callable[[], float] = time.time, faults: Callable[[int], None] | None = None
    ) -> Self:
        """Raises StorageError where it is missing, damaged or of another version."""
        database.refuse_network(path.parent)
        return cls(path, clock=clock, faults=faults)

    @property
    def meta(self) -> Meta:
        with database.translated(self.path):
            return read_meta(self._reading())

    def amend(self, meta: Meta) -> None:
        with self._writing(), transaction(self._connection, self._before_commit):
            self._put_meta(meta)

    def note(self, name: str, value: str) -> None:
        with self._writing(), transaction(self._connection, self._before_commit):
            self._connection.execute(sql("put_meta"), (f"note.{name}", value))

    @property
    def ingested(self) -> bool:
        with database.translated(self.path):
            return self._reading().execute(sql("is_ingested")).fetchone() is not None

    def ingest(self, rows: Iterable[IntakeRow], progress: Callable[[int], None] = lambda _: None) -> None:
        """Blocks. Raises InputError for duplicate ids, and whatever `rows` raises."""
        with self._writing():
            before, digest = self._before_commit, self.meta.digest
            first = FirstIntake(self._connection, self._clock(), before, digest, texts_of(self.path))
            first.run(rows, progress)
            self._totals = sums.read(self._connection).totals()

    def compare(self, rows: Iterable[IntakeRow], progress: Callable[[int], None] = lambda _: None) -> Drift:
        """The input's differences, for `apply`. Blocks; raises as `ingest`."""
        with self._writing():
            return self._comparison.run(rows, self.meta.digest, progress)

    def apply(self, meta: Meta | None = None) -> None:
        """Update to the compared input in one transaction; changed rows become pending."""
        with self._writing():
            self._comparison.apply(self._clock(), self._before_commit, lambda: meta and self._put_meta(meta))
            self._totals = sums.read(self._connection).totals()

    def discard(self) -> None:
        with self._writing():
            self._comparison.discard()

    def reopen(
        self, *, failed_for_good: bool = False, cause: str | None = None, positions: Sequence[int] | None = None
    ) -> int:
        """Make failed rows pending, permanent failures only if `failed_for_good`; returns how many."""
        places = None if positions is None else json.dumps(list(positions))
        which = {"good": int(failed_for_good), "cause": cause, "positions": places}
        with self._writing(), transaction(self._connection, self._before_commit):
            rows, retryable, post = map(int, self._connection.execute(sql("count_reopened"), which).fetchone())
            for name in _REOPEN_FAILED:
                self._connection.execute(sql(name), which)
            account = sums.read(self._connection)
            account.failed -= rows
            account.retryable -= retryable
            account.failed_post -= post
            sums.write(account, self._connection)
        self._totals = account.totals()
        return rows

    def reopen_replies(self, resent: Sequence[int] | None = None) -> int:
        """Make rows pending whose reply is judged again, or those at `resent` positions; returns how many."""
        names, which = (_REJUDGE, ()) if resent is None else (_RESEND, (json.dumps(list(resent)),))
        with self._writing(), transaction(self._connection, self._before_commit):
            rows = [self._connection.execute(sql(name), which).rowcount for name in names][-1]
            account = sums.recount(self._connection)
            sums.write(account, self._connection)
        self._totals = account.totals()
        return rows

    @property
    def reusing(self) -> Path | None:
        """Its replies are still to be taken, also after a kill."""
        with database.translated(self.path):
            found = self._reading().execute(sql("find_meta"), ("borrowing",)).fetchone()
            return None if found is None else Path(os.path.normpath(self.path.parent / found[0]))

    def note_reuse(self, other: Path | None) -> None:
        """`take_replies` is to come; None: it is done."""
        with self._writing():
            if other is None:
                self._connection.execute(sql("forget_meta"), ("borrowing",))
                return
            place = os.path.relpath(other, self.path.parent)
            self._connection.execute(sql("put_meta"), ("borrowing", place))

    def take_replies(self, other: Path, *, once: bool) -> int:
        Reader.open(other).close()  # whether it is a whole journal
        self.note_reuse(other)
        with self._writing():
            count = duplicates.take_replies(self._connection, other, once=once, before_commit=self._before_commit)
        self.note_reuse(None)
        return count

    def pair(self, *, dedupe: bool, wanted: Callable[[int], bool] | None = None) -> None:
        with self._writing():
            if dedupe or duplicates.has_followers(self._connection):
                with transaction(self._connection, self._before_commit):
                    duplicates.pair(self._connection, dedupe=dedupe, wanted=wanted)

    def pending(
        self, after: int = 0, limit: int = 1000, until: int | None = None, *, form: pending.Form = pending.Form.TEXT
    ) -> Page:
        """Positions in (`after`, `until`]."""
        # Without the rows of `answered` and `following`.
        with self._read_guard, database.translated(self.path):
            return pending.pending(self._reading(), after, limit, until, self.fallbacks, form)

    def answered(self, after: int = 0, limit: int = 1000) -> Page:
        with self._read_guard, database.translated(self.path):
            return pending.answered(self._reading(), after, limit, self.fallbacks)

    def following(self, representative: int, source: int, after: int = 0, limit: int = 1000) -> Page:
        """Rows that wait for `representative`, by seq."""
        with self._read_guard, database.translated(self.path):
            return pending.following(self._reading(), representative, source, after, limit, self.fallbacks)

    def reducible(self, target: int | None = None, after: int = 0, limit: int = 100) -> Page:
        """Reduce rows (`target`, or all) whose parts are done or failed, by seq."""
        with self._read_guard, database.translated(self.path):
            return pending.reducible(self._reading(), target, after, limit, self.fallbacks)

    def failed(self) -> list[tuple[int, Outcome]]:
        """Rows that failed permanently in an earlier session and have followers."""
        with self._read_guard, database.translated(self.path):
            return pending.failed(self._reading())

    def count_pending(self, until: int | None, wanted: Callable[[int], bool]) -> int:
        """Reads all rows up to `until`."""
        with self._read_guard, database.translated(self.path):
            return pending.count_pending(self._reading(), until, wanted)

    @property
    def totals(self) -> Totals:
        """As of the last commit."""
        return self._totals if self._writer is None else self._writer.totals

    @property
    def failure(self) -> StorageError | None:
        return None if self._writer is None else self._writer.failure

    def start(self) -> None:
        """The running loop's writer thread gets the database."""
        with self._writing():
            values = (self._clock(), os.getpid(), socket.gethostname())
            with transaction(self._connection, self._before_commit):
                self._session = self._connection.execute(sql("begin_session"), values).fetchone()[0]
            # In the file itself, so that a log that was lost after a kill can be noticed.
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._writer = Writer(
                self._connection, self.path, self._session, clock=self._clock, before_commit=self._before_commit
            )
        self._writer.start()

    @property
    def charged(self) -> Charged:
        """Absent rows' attempts too; reads every attempt."""
        with database.translated(self.path):
            cost, tokens, requests, excess, tiers = self._reading().execute(sql("charged")).fetchone()
        return Charged(int(cost), int(tokens), requests, excess, frozenset(json.loads(tiers)))

    def lane(self, base_url: str, key_name: str | None, model: str | None, mode: str = "live") -> Lane:
        one = (base_url, key_name, model, mode)
        with self._writing(), transaction(self._connection, self._before_commit):
            found = self._connection.execute(sql("find_lane"), one).fetchone()
            return Lane(*(found or self._connection.execute(sql("add_lane"), one).fetchone()))

    def learn(self, lane: int, learned: str) -> Done:
        return self._running.learn(lane, learned)

    def begin(self, row: int, number: int, cost: int | None = None, tokens: int = 0, lane: int = 1) -> Done:
        """Before sending; closes an open attempt of the row."""
        # `cost` and `tokens` count if no answer comes.
        return (self._writer or self._running).begin(row, number, cost, tokens, lane)

    def begin_page(self, rows: Sequence[int], costs: Sequence[int | None], tokens: Sequence[int], lane: int) -> Done:
        """Only for first attempts of new rows."""
        return self._running.begin_page(rows, costs, tokens, lane)

    def reserve(self, row: int, number: int, cost: int) -> Done:
        """Raise the highest possible cost of an attempt."""
        return self._running.reserve(row, number, cost)

    def plan(self, ticket: Ticket, leases: Sequence[Lease]) -> Done:
        """Before any of the ticket is sent."""
        return self._running.plan(ticket, leases)

    def put_ticket(self, ticket: Ticket) -> Done:
        return self._running.ticket(ticket)

    @property
    def tickets(self) -> list[Ticket]:
        with self._read_guard, database.translated(self.path):
            return pending.tickets(self._reading())

    def in_batch(self, ticket: int | None, rows: Sequence[int]) -> tuple[list[tuple[Pending, Lease]], bool]:
        """Rows with an open attempt in this ticket (None: any); and whether more may follow."""
        with self._read_guard, database.translated(self.path):
            return pending.rows_in_batch(self._reading(), ticket, rows)

    def leased(self, ticket: int | None, rows: Sequence[int]) -> Leased:
        """In order; None: any ticket."""
        with self._read_guard, database.translated(self.path):
            return pending.leased(self._reading(), ticket, rows)

    def places(self, rows: Sequence[int]) -> list[tuple[int, int, str]]:
        """Position, line and key."""
        with self._read_guard, database.translated(self.path):
            return self._reading().execute(sql("places_of_rows"), (json.dumps(rows),)).fetchall()

    def standings(self, rows: Sequence[int]) -> dict[int, Standing]:
        with self._read_guard, database.translated(self.path):
            return pending.standings(self._reading(), rows)

    def leases(self, ticket: int, after: int = 0, limit: int = 1000) -> list[Lease]:
        with self._read_guard, database.translated(self.path):
            return [Lease(*found) for found in self._reading().execute(sql("leases_of_ticket"), (ticket, after, limit))]

    def end(self, row: int, number: int, end: End, body: str | None = None, lease: Lease | None = None) -> Done:
        """`body` is the exact text of a reply."""
        return (self._writer or self._running).end(row, number, end, body, lease)

    def complete(self, row: int, number: int, reply: tuple[End, str], outcome: Outcome, told: Told) -> None:
        """`told` is called after the commit."""
        self._running.complete(row, number, reply, outcome, told)

    def flush(self) -> Done:
        """Done once all before is committed and its callers notified."""
        return self._running.flush()

    def answer(self, answers: Answers, found: Sum, reserved: int, tier: str) -> Done:
        """Accepted replies of a batch with their outcomes; `reserved` in picodollars."""
        return self._running.answer(answers, found, reserved, tier)

    def answer_page(self, answers: Answers, found: Sum, exchanges: Exchanges) -> Done:
        """Of first attempts that were begun by themselves."""
        return self._running.answer_page(answers, found, exchanges)

    def paid_again(self, row: int, ticket: int, end: End) -> Done:
        """A second reply, from a duplicate of its batch."""
        return self._running.paid_again(row, ticket, end)

    def late(self, row: int, number: int, end: End, body: str | None) -> Done:
        """To an attempt that was closed as possibly billed."""
        return self._running.late(row, number, end, body)

    def lost_in(self, ticket: int, rows: Sequence[int]) -> list[tuple[Lease, bool]]:
        """With whether a reply could still answer the row."""
        with self._read_guard, database.translated(self.path):
            found = self._reading().execute(sql("lost_in_ticket"), (json.dumps(list(rows)), ticket)).fetchall()
            return [(Lease(*lease), bool(open_still)) for *lease, open_still in found]

    def lose(self, row: int, number: int, why: str) -> Done:
        """The attempt stays open, the row is unknown."""
        return self._running.lose(row, number, why)

    def finish(self, row: int, outcome: Outcome, reused: SharedReply | None = None) -> Done:
        """Of the row's last attempt, or with the reply `reused`."""
        return (self._writer or self._running).finish(row, outcome, reused)

    def divide(self, row: int, pieces: Sequence[IntakeRow]) -> Done:
        """Ingest pieces of a row's text, which it waits for."""
        return self._running.divide(row, pieces)

    def sample(self, state: str) -> Done:
        return self._running.sample(state)

    def stop(self, exit_code: int | None = None) -> None:
        """Write what is queued and end the session; never raises."""
        writer = self._writer
        if writer is None:
            return
        writer.stop()
        self._writer, self._totals = None, writer.totals
        if writer.failure is None:
            # Everything that matters is committed; a session without an end looks like a kill.
            with suppress(sqlite3.Error, OSError), transaction(self._connection, self._before_commit):
                self._connection.execute(sql("end_session"), (self._clock(), exit_code, self._session))

    def close(self, exit_code: int | None = None) -> None:
        """`stop`, and merge the write-ahead log. Idempotent."""
        self.stop(exit_code)
        with self._read_guard:
            if self._read_connection is not None:
                self._read_connection.close()
                self._read_connection = None
            self._connection.close()

    @property
    def _running(self) -> Writer:
        if self._writer is None:
            raise RuntimeError("the journal is written between start() and stop() only")
        return self._writer

    def _writing(self):
        if self._writer is not None:
            raise RuntimeError("the writer has the database")
        return database.translated(self.path, "write")

    def _reading(self) -> database.Connection:
        # Another connection while the writer has the database.
        if self._writer is None:
            return self._connection
        if self._read_connection is None:
            self._read_connection = database.connect(self.path, write=False)
        return self._read_connection

    def _before_commit(self) -> None:
        # Raises GoneError where the file was deleted: a commit would be lost.
        try:
            in_place = database.identity(self.path) == self._identity
        except OSError:
            in_place = False
        if not in_place:
            raise database.GoneError
        self._commits += 1
        if self._faults is not None:
            self._faults(self._commits)

    def _put_meta(self, meta: Meta) -> None:
        self._connection.executemany(sql("put_meta"), meta.stored().items())
