"""The thread that writes during a run; `Journal` documents the operations.

The loop hands over the operations of one turn together, as each hand-over may wake the thread to fight for the
interpreter. The thread writes what has gathered in one transaction, and resolves its futures after the COMMIT.
Meanwhile the next group gathers, so commits grow with the load. A failed commit ends the writer: its and all later
futures fail with StorageError, in order.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from itertools import repeat
from operator import attrgetter
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from batchrun.account import NAMES, Account, count_answered, count_attempt, count_outcome
from batchrun.errors import StorageError
from batchrun.journal import sums
from batchrun.journal.database import storage_error
from batchrun.journal.group import NEVER, Group, Last, storable
from batchrun.journal.queries import sql
from batchrun.journal.records import Answers, End, Exchanges, IntakeRow, Lease, Sum
from batchrun.models import Outcome, SharedReply, Ticket, Totals, made

GROUP = 512

Done = asyncio.Future[None]
Told = partial[None]  # called on the loop after a commit, not after a failed one; raises nothing
Apply = Callable[[Group], None]
Turn = list[tuple[Done | Told, Apply]]  # the operations of one turn of the loop

_OPEN = sql("open_attempts")
_LAST = sql("last_attempt")
_NO_TOKENS = (None, None)


class OpenAttempt(NamedTuple):
    number: int
    cost: int | None
    tokens: int


_opened, _cost = partial(made, OpenAttempt), attrgetter("cost")


class Writer:
    """Owns `connection` from `start` to `stop`."""

    # Operations are called on the loop's thread; the thread calls `before_commit` before each commit.

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        session: int,
        *,
        clock: Callable[[], float],
        before_commit: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._path = path
        self._session = session
        self._clock = clock
        self._before_commit = before_commit
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Turn | None] = SimpleQueue()
        self._turn: Turn = []
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self.failure: StorageError | None = None
        self.sums = sums.read(connection)
        self._committed: Totals | tuple[int, ...] = self.sums.totals()
        self._open: dict[int, OpenAttempt] = {
            row: OpenAttempt(*left) for row, *left in connection.execute(_OPEN).fetchall()
        }
        self._last: dict[int, Last] = {}
        self._reply: int = connection.execute(sql("last_reply")).fetchone()[0]

    @property
    def totals(self) -> Totals:
        """As of the last commit."""
        # Made when read, as most commits are followed by another.
        if not isinstance(committed := self._committed, Totals):
            self._committed = committed = Totals(**dict(zip(NAMES, committed, strict=True)))
        return committed

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._hand_over()
        self._queue.put(None)
        self._thread.join()

    def begin(self, row: int, number: int, cost: int | None, tokens: int, lane: int) -> Done:
        now = self._clock()

        def apply(group: Group) -> None:
            if row in self._open:
                self._close_open(group, row, now)
            group.begun.append((row, number, self._session, now, cost, tokens, lane))
            self._open[row] = made(OpenAttempt, (number, cost, tokens))

        return self._put(apply)

    def begin_page(self, rows: Sequence[int], costs: Sequence[int | None], tokens: Sequence[int], lane: int) -> Done:
        now = self._clock()

        def apply(group: Group) -> None:
            group.begun += zip(rows, repeat(1), repeat(self._session), repeat(now), costs, tokens, repeat(lane))
            opened = map(_opened, zip(repeat(1), costs, tokens, strict=False))
            self._open.update(zip(rows, opened, strict=True))

        return self._put(apply)

    def reserve(self, row: int, number: int, cost: int) -> Done:
        def apply(group: Group) -> None:
            left = self._open.get(row)
            if left is not None and left.number == number:
                self._open[row] = left._replace(cost=cost)
                self.sums.cost_reserved += cost - (left.cost or 0)
                group.reserved.append((cost, row, number))

        return self._put(apply)

    def plan(self, ticket: Ticket, leases: Sequence[Lease]) -> Done:
        now = self._clock()

        def apply(group: Group) -> None:
            for lease in leases:
                self._close_open(group, lease.row, now)
                handed = lease.row, lease.number, self._session, now, lease.cost, lease.tokens
                group.batched.append((*handed, ticket.id, ticket.lane))
                self.sums.cost_reserved += lease.cost or 0
            self.sums.attempts += len(leases)
            self.sums.in_batches += len(leases)
            self._put_ticket(group, ticket)

        return self._put(apply)

    def ticket(self, ticket: Ticket) -> Done:
        return self._put(lambda group: self._put_ticket(group, ticket))

    def _put_ticket(self, group: Group, ticket: Ticket) -> None:
        values = [getattr(ticket, item.name) for item in fields(ticket)]
        group.tickets.append(tuple(storable(value) if isinstance(value, str) else value for value in values))

    def end(self, row: int, number: int, end: End, body: str | None, lease: Lease | None = None) -> Done:
        now = self._clock()

        def apply(group: Group) -> None:
            self._last[row] = self._end(group, now, (row, number), end, body=body, lease=lease)

        return self._put(apply)

    def complete(self, row: int, number: int, reply: tuple[End, str], outcome: Outcome, told: Told) -> None:
        now, (end, body) = self._clock(), reply

        def apply(group: Group) -> None:
            if self._last:
                self._last.pop(row, None)
            group.ended_cost += self._open.pop(row).cost or 0
            self._reply = reply = self._reply + 1
            group.replies.append((reply, row, number, body))
            group.end((row, number, self._session), now, end, reply)
            group.completed.append(end)
            given, output = _NO_TOKENS if end.usage is None else end.usage[:2]
            group.finish(row, now, made(Last, (number, reply, end.seconds, given, output)), outcome, None)

        if not self._turn:
            self._loop.call_soon(self._hand_over)
        self._turn.append((told, apply))

    def flush(self) -> Done:
        return self._put(lambda _: None)

    def answer(self, answers: Answers, found: Sum, reserved: int, tier: str) -> Done:
        now, count = self._clock(), len(answers.rows)

        def apply(group: Group) -> None:
            group.answer(now, self._reply, answers, tier)
            self._reply += count
            self.sums.in_batches -= count
            self.sums.cost_reserved -= reserved
            _count_answered(self.sums, count, found)

        return self._put(apply)

    def answer_page(self, answers: Answers, found: Sum, exchanges: Exchanges) -> Done:
        now, count = self._clock(), len(answers.rows)

        def apply(group: Group) -> None:
            group.answer_page(now, self._session, self._reply, answers, exchanges)
            self._reply += count
            self.sums.unknown -= count
            self.sums.cost_reserved -= sum(filter(None, map(_cost, map(self._open.pop, answers.rows))))
            _count_answered(self.sums, count, found)

        return self._put(apply)

    def _end(  # noqa: PLR0913  an attempt and how it ended
        self, group: Group, now: float, attempt: tuple[int, int], end: End, *, body: str | None, lease: Lease | None
    ) -> Last:
        # Returns what an outcome copies from the ended attempt (row, number).
        row, number = attempt
        left = self._open.get(row)
        if lease is not None:
            self.sums.in_batches -= 1
            self.sums.cost_reserved -= lease.cost or 0
        elif left is not None and left.number == number:
            del self._open[row]
            self.sums.unknown -= 1
            self.sums.cost_reserved -= left.cost or 0
        reply = None if body is None else self._add_reply(group, row, number, body)
        group.end((row, number, self._session), now, end, reply)
        self._count(end, paid=reply is not None)
        given, output = _NO_TOKENS if end.usage is None else end.usage[:2]
        return made(Last, (number, reply, end.seconds, given, output))

    def paid_again(self, row: int, ticket: int, end: End) -> Done:
        now = self._clock()

        def apply(group: Group) -> None:
            if self._connection.execute(sql("is_attempt"), (row, -ticket)).fetchone() is None:
                group.end((row, -ticket, self._session), now, end, None)
                self.sums.attempts += 1
                self._count(end, paid=False)

        return self._put(apply)

    def late(self, row: int, number: int, end: End, body: str | None) -> Done:
        now = self._clock()

        def apply(group: Group) -> None:
            found = self._connection.execute(sql("lost_attempt"), (row, number)).fetchone()
            if found is None:
                return
            account, cost = self.sums, found[0]
            account.possibly_billed -= 1
            account.unpriced -= cost is None
            account.cost -= cost or 0
            account.cost_other -= cost or 0
            account.cost_possibly_billed -= cost or 0
            at = number if body is None else self._answered_late(row, number)
            reply = None if body is None else self._add_reply(group, row, at, body)
            group.end((row, at, self._session), now, end, reply)
            if reply is not None:
                self._last[row] = Last(at, reply, end.seconds, *(_NO_TOKENS if end.usage is None else end.usage[:2]))
            self._count(end, paid=reply is not None)

        return self._put(apply)

    def _answered_late(self, row: int, number: int) -> int:
        # As later failures no longer matter, the attempt becomes the last; returns its number.
        failure = self._connection.execute(sql("fail_no_more"), (row,)).fetchone()
        if failure is not None:
            self.sums.failed -= 1
            self.sums.retryable -= not failure[0]
        moved = self._connection.execute(sql("make_last"), (row, number)).fetchone()
        return number if moved is None else moved[0]

    def lose(self, row: int, number: int, why: str) -> Done:
        return self._put(lambda group: group.notes.append(("lost", storable(why), row, number)))

    def finish(self, row: int, outcome: Outcome, reused: SharedReply | None) -> Done:
        now = self._clock()

        def apply(group: Group) -> None:
            if row in self._open:
                self._close_open(group, row, now)
            last = self._last.pop(row, None)
            if reused is not None:
                last = Last(reused.number, reused.reply, None, reused.input_tokens, reused.output_tokens)
            group.finish(row, now, last or self._last_attempt(row), outcome, reused)
            count_outcome(self.sums, outcome, None if reused is None else (reused.tokens, reused.cost))

        return self._put(apply)

    def divide(self, row: int, pieces: Sequence[IntakeRow]) -> Done:
        def apply(_: Group) -> None:
            for piece in pieces:
                values = {name: getattr(piece, name) for name in ("line", "key", "request", "text")}
                (seq,) = self._connection.execute(sql("add_piece"), values).fetchone()
                self._connection.execute(sql("add_piece_of"), (seq, row))
            self.sums.rows += len(pieces)

        return self._put(apply)

    def sample(self, state: str) -> Done:
        now = self._clock()
        return self._put(lambda group: group.samples.append((now, storable(state))))

    def learn(self, lane: int, learned: str) -> Done:
        return self._put(lambda group: group.learned.append((storable(learned), lane)))

    def _put(self, apply: Apply) -> Done:
        future: Done = self._loop.create_future()
        if not self._turn:
            self._loop.call_soon(self._hand_over)
        self._turn.append((future, apply))
        return future

    def _hand_over(self) -> None:
        turn, self._turn = self._turn, []
        for start in range(0, len(turn), GROUP):
            self._queue.put(turn[start : start + GROUP])

    def _close_open(self, group: Group, row: int, now: float) -> None:
        # A killed process left this attempt open; it may have been billed.
        left = self._open.pop(row, None)
        if left is None:
            return
        charged: Any = {"cost": left.cost, "charged_tokens": left.tokens}
        lost = End(0, 0.0, "lost", "no answer is known", counted=False, possibly_billed=True, **charged)
        group.end((row, left.number, self._session), now, lost, None)
        self._last[row] = Last(left.number, None, None, None, None)
        self.sums.unknown -= 1
        self.sums.cost_reserved -= left.cost or 0
        self._count(lost, paid=False)

    def _add_reply(self, group: Group, row: int, number: int, body: str) -> int:
        self._reply += 1
        group.replies.append((self._reply, row, number, body))
        return self._reply

    def _last_attempt(self, row: int) -> Last:
        # Of an earlier session, whose reply is judged now.
        found = self._connection.execute(_LAST, (row,)).fetchone()
        return NEVER if found is None else Last(*found)

    def _count_group(self, group: Group) -> None:
        account, begun, completed = self.sums, len(group.begun), len(group.completed)
        account.attempts += begun
        account.unknown += begun - completed
        account.cost_reserved += sum(cost for *_, cost, _, _ in group.begun if cost) - group.ended_cost
        if completed:
            _count_answered(account, completed, Sum.of_ends(group.completed))

    def _count(self, end: End, *, paid: bool) -> None:
        stated = end.status, end.usage, end.cost, end.bill
        count_attempt(self.sums, *stated, paid=paid, invalid=end.invalid, possibly_billed=end.possibly_billed)

    def _run(self) -> None:
        more = True
        while more:
            taken, more = self._gather()
            if taken and self.failure is None:
                self._commit(taken)
            self._notify([future for future, _ in taken])
            del taken  # whom it tells holds rows with their requests, which must not stay until the next group comes

    def _gather(self) -> tuple[Turn, bool]:
        # Waits for one turn and adds what else has come; and whether more may come.
        taken: Turn = []
        turn = self._queue.get()
        try:
            while turn is not None:
                taken += turn
                if len(taken) >= GROUP:
                    return taken, True
                turn = self._queue.get_nowait()
        except Empty:
            return taken, True
        return taken, False

    def _commit(self, taken: Turn) -> None:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            group = Group()
            for _, apply in taken:
                apply(group)
            group.write(connection)
            self._count_group(group)
            values = sums.write(self.sums, connection)
            self._before_commit()
            connection.execute("COMMIT")
            self._committed = values
        except Exception as error:  # noqa: BLE001 - whatever ends this thread has to reach those who wait for it
            self.failure = storage_error(self._path, error, "write")
            _roll_back(connection)

    def _notify(self, futures: list[Done | Told]) -> None:
        if not futures:
            return
        try:
            self._loop.call_soon_threadsafe(_resolve, futures, self.failure)
        except RuntimeError:
            return  # the loop is closed: no future is left to resolve


def _count_answered(account: Account, rows: int, found: Sum) -> None:
    without_usage, unpriced = rows - found.stated, rows - found.priced
    count_answered(account, rows, found.usage, found.cost, found.bill, without_usage=without_usage, unpriced=unpriced)


def _roll_back(connection: sqlite3.Connection) -> None:
    if not connection.in_transaction:
        return
    try:
        connection.execute("ROLLBACK")
    except sqlite3.Error:
        return  # SQLite rolls back when the file is opened again


def _resolve(futures: list[Done | Told], failure: StorageError | None) -> None:
    for future in futures:
        if isinstance(future, partial):
            if failure is None:
                future()
        elif future.done():
            continue  # who waited was cancelled
        elif failure is None:
            future.set_result(None)
        else:
            future.set_exception(StorageError(failure.message, failure.hint))
            future.exception()  # it may never be awaited
