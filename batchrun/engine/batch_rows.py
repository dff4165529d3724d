"""Rows that go by batches: into a chunk, and on with what came back. What an answer means is decided as for live rows."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from batchrun import retry
from batchrun.engine.attempt import Attempt, RowServices
from batchrun.engine.batch_lines import BatchLines
from batchrun.engine.batch_results import Brought
from batchrun.engine.batches import Batches
from batchrun.engine.budget_guard import BATCH, BudgetReached, named_in, served
from batchrun.engine.judge import Judged, inputs_of, judge, judge_body
from batchrun.engine.pending_queue import RowState
from batchrun.engine.result_reader import Line, ReplyReader
from batchrun.engine.row import RowRunner
from batchrun.engine.row_files import restored
from batchrun.engine.row_path import Source, Step, next_step
from batchrun.engine.run_result import RunResult
from batchrun.engine.segment_checks import RowChecks
from batchrun.engine.snapshots import rows_answered
from batchrun.errors import ExitCode, RefusedError
from batchrun.events import Emit, RowsAnswered
from batchrun.journal import Answers, End, Lease, Leased, Sum, chosen, columns
from batchrun.lanes.executor import Came, Completion
from batchrun.lanes.states import weight_of
from batchrun.limits import GateClosed
from batchrun.models import Endpoint, Exchange, Kind, Pending, Request, Ticket
from batchrun.plan import Plan
from batchrun.plan.reducing import Reduction
from batchrun.replies import ReplyChecker
from batchrun.retry import GiveUp, Next

TOGETHER = 256
"""Rows that go into a chunk at once, at most."""


class BatchRows:
    """Between a run's rows and its batches. On the loop of the run."""

    def __init__(self, plan: Plan, services: RowServices, runner: RowRunner, batches: Batches, *, emit: Emit) -> None:
        self._plan = plan
        self._at = services
        self._runner = runner
        self._batches = batches
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._lines = BatchLines(plan, batches.tell)
        self._request: Request | None = None
        self._stored: tuple[asyncio.Future[None], RowsAnswered] | None = None

    @property
    def sending(self) -> bool:
        """Whether rows go into batches now; else they are sent live."""
        return self._batches.sending

    async def put_all(self, rows: list[Pending]) -> list[Pending]:
        """Rows into chunks, without a step of their own where there is nothing else to them; the others."""
        if not self.sending:
            return rows
        left: list[Pending] = []
        for start in range(0, len(rows), TOGETHER):
            some = rows[start : start + TOGETHER]
            put = await self._batches.add_all(self._requests(some))
            left += [row for row in some if row.seq not in put]
        return left

    def _requests(self, rows: list[Pending]) -> Iterator[tuple[int, int, Request]]:
        """Rows, the numbers of their attempts and their requests as lines have them, of those that are sent as they are."""
        for row in rows:
            if row.reused is not None or row.parts is not None or retry.go_on(row.history) is not Next.SEND:
                continue
            try:
                request = self._runner.rendered(row)
            except Exception:  # noqa: BLE001, S112  its own way meets it again, and says so
                continue
            if request is not None:
                yield row.seq, row.history.number + 1, self._lines.line(request)

    async def send_all(self, states: list[RowState]) -> None:
        """Rows that were handed out, likewise; what `put_all` leaves goes its own way."""
        first = [state.row for state in states if state.request is None and state.number == state.row.history.number]
        put = {row.seq for row in first} - {row.seq for row in await self.put_all(first)}
        others: list[RowState] = []
        for state in states:
            if state.row.seq in put:
                self._at.queue.finished(state)
            else:
                others.append(state)
        ended = await asyncio.gather(*map(self._runner.go, others), return_exceptions=True)
        for error in filter(None, ended):
            raise error

    async def send(self, state: RowState, request: Request) -> None:
        """The row goes into a chunk; from here on the journal alone knows of it, until its answer comes (`take`)."""
        try:
            await self._batches.add(state.row.seq, state.number + 1, self._lines.line(request))
        except RefusedError as error:
            said = f"{error.message} {error.hint or ''}".strip()
            await self._runner.give_up(state, GiveUp("not for batches", said, permanent=True))
        except BudgetReached as error:
            self._runner.stop(RunResult(ExitCode.BUDGET, str(error)), drain=self._plan.drain)
            raise GateClosed from error
        else:
            self._at.queue.finished(state)

    async def reader(self, ticket: Ticket) -> ReplyReader | None:
        """What reads replies for `accept`; None where what they are worth depends on the text of their rows, or something waits for
        them."""
        plan, checker, journal = self._plan, self._at.checker, self._at.journal
        if plan.kind is not Kind.ROWS or plan.post or isinstance(checker, RowChecks) or not ticket.model:
            return None
        if self._request is None:  # all rows of a prompt have the same limits
            leases = await asyncio.to_thread(journal.leases, ticket.id, 0, 1)
            rows, _ = await asyncio.to_thread(journal.in_batch, ticket.id, [lease.row for lease in leases])
            with suppress(Exception):  # its own way meets it again, and says so
                self._request = self._runner.rendered(rows[0][0])
        return None if self._request is None else self._reader_of(self._request, checker, ticket.model)

    def _reader_of(self, request: Request, checker: ReplyChecker | None, model: str) -> ReplyReader:
        alike = request.endpoint, request.output_limit, inputs_of(request)
        return ReplyReader(*alike, checker, *self._at.guard.batch_rates(model))

    async def accept(self, ticket: Ticket, where: int | None, answers: Answers) -> list[Completion]:
        """Replies that answer their rows as they are, as `reader` has found, nearly all; those for which there is more to decide.
        `where` is the ticket that rows must be in, None for any.

        They go into the journal together; `told` waits for them.
        """
        if not answers.rows:
            return []
        leased, left = await asyncio.to_thread(self._at.journal.leased, where, answers.rows), list[Completion]()
        if any(leased.waits) or (leased.rows, leased.numbers) != (answers.rows, answers.numbers):
            leased, answers, left = matched(leased, answers)
        await self._store(ticket, leased, answers)
        return left

    async def take(self, ticket: Ticket, came: Sequence[Brought]) -> None:
        """What else a batch brought for its rows: decided as the answers to requests of their own are."""
        others: list[Brought] = []
        leased, answers = list[tuple[Any, ...]](), list[Line]()
        for row, lease, completion in came:
            answer = self._accepted(ticket, row, completion)
            if answer is None:
                others.append((row, lease, completion))
            else:
                leased.append((*lease, 0))
                answers.append(answer)
        await self._store(ticket, columns(Leased, leased), columns(Answers, answers))
        # Together, so that their outcomes share commits.
        await asyncio.gather(*(self._take(*each) for each in others))

    async def _store(self, ticket: Ticket, leased: Leased, answers: Answers) -> None:
        """Replies that are accepted as they are, of these attempts; their tokens tell those of later requests."""
        if not answers.rows:
            return
        answers = self._at.guard.settle_all(leased, answers)
        tokens = zip(answers.input_tokens, answers.cached_tokens, strict=True)
        stated = [given for given, cached in tokens if given is not None and not cached]
        self._batches.tokens.learn(round(weight_of(ticket) * len(stated) / max(1, ticket.rows)), sum(stated))
        found = Sum.of(answers)
        stored = self._at.journal.answer(answers, found, sum(filter(None, leased.costs)), BATCH)
        await self.told()
        places = partial(self._at.journal.places, answers.rows)
        self._stored = stored, rows_answered(answers, found, self._loop.time(), places)

    async def told(self) -> None:
        """Wait until replies that were taken together are committed, and tell of them."""
        if self._stored is not None:
            (stored, event), self._stored = self._stored, None
            await stored
            self._emit(event)

    def _accepted(self, ticket: Ticket, row: Pending, completion: Completion) -> Line | None:
        """The line of `Answers` that the reply to a row is, by the text of the row; None where there is more to decide."""
        waits = row.awaited or row.target is not None or row.parts is not None or bool(self._plan.post)
        if completion.data is None or waits or not ticket.model:
            return None
        try:
            if self._plan.kind is not Kind.ROWS or self._request is None:
                self._request = self._at.renderer.render(restored(row, self._at.journal.path.parent))
            checker = self._at.checker
            checker = checker.of(row) if isinstance(checker, RowChecks) else checker
        except Exception:  # noqa: BLE001  its own way meets it again, and says so
            return None
        read = self._reader_of(self._request, checker, ticket.model)
        return read(completion.seq, completion.number, completion.body, completion.data)

    async def _take(self, row: Pending, lease: Lease, completion: Completion) -> None:
        """What a batch brought for a row by itself."""
        state = RowState.of(row)
        self._at.queue.enter(state)
        state.number, state.from_batch = lease.number, True
        if completion.came in (Came.GONE, Came.UNSENT, Came.LOST):
            await self._without_answer(state, lease, completion)
            return
        found = restored(row, self._at.journal.path.parent)
        request = self._at.renderer.render(Reduction(self._plan).filled(found, row.parts))
        now = self._loop.time()
        exchange = Exchange(completion.status, {}, completion.body, now, now, None, "", True)
        lane = self._at.pool.first
        state.attempt = Attempt(self._at, state, lane, lease, exchange)
        judged = self._lines.heard(judge(request, exchange, self._runner.checker(state), lane.meanings, lane.mask))
        state.attempt.reservation = self._at.guard.adopt(lease.cost, lease.tokens, named_in(request).model, BATCH)
        judged = served(judged, BATCH)
        if judged.usage is not None and not judged.usage.cached:
            self._batches.tokens.learn(request.weight, judged.usage.input)
        state.attempt.settle(judged)
        await self._runner.conclude(state, request, judged, exchange)

    async def again(self, seq: int, ticket: Ticket, completion: Completion) -> None:
        """A reply for a row that has one: it is paid for, and only counted."""
        _, end = self._charged(ticket, Lease(seq, 0, 0, 0), completion)
        await self._at.journal.paid_again(seq, ticket.id, _paid_again(ticket, end))

    async def late(self, ticket: Ticket, lease: Lease, completion: Completion, *, wanted: bool) -> bool:
        """A reply of a batch that was given up. It answers its row where that is `wanted`, else it was paid again; whether it
        is one at all."""
        judged, end = self._charged(ticket, lease, completion)
        if judged.reply is None:
            return False
        body = completion.body.decode() if wanted else None
        await self._at.journal.late(lease.row, lease.number, end if wanted else _paid_again(ticket, end), body)
        return True

    def _charged(self, ticket: Ticket, lease: Lease, completion: Completion) -> tuple[Judged, End]:
        """What a reply of a batch is and costs, in the place of what its lease was charged."""
        judged = judge_body(Request(Endpoint(ticket.endpoint), b"", None), completion.body.decode(), None)
        judged = served(judged, BATCH)
        charge = self._at.guard.settle(self._at.guard.adopt(lease.cost, lease.tokens, ticket.model, BATCH), judged)
        end = End(completion.status, 0.0, usage=judged.usage, cost=charge.cost, charged_tokens=charge.tokens)
        return judged, end._replace(bill=charge.bill)

    async def _without_answer(self, state: RowState, lease: Lease, completion: Completion) -> None:
        """A row that its batch did not answer is pending again, or has failed, retryable, where its attempts are used up."""
        lost = completion.came is Came.LOST
        end = End(
            0,
            0.0,
            "lost in a batch" if lost else "not processed",
            completion.message,
            counted=lost,
            possibly_billed=lost,
        )
        if lost:
            end = end._replace(cost=lease.cost, charged_tokens=lease.tokens)
        else:
            self._at.guard.give_back(lease.cost, lease.tokens)
        self._at.journal.end(lease.row, lease.number, end, None, lease)
        tries_left = state.attempts + 1 < self._plan.max_attempts
        if next_step(completion.came, Source.BATCH, lambda _: tries_left) is Step.FAIL:
            await self._runner.give_up(state, GiveUp("lost in a batch", completion.message, permanent=False))
        else:
            self.leave_pending(state)

    def stop(self, state: RowState, ending: RunResult) -> None:
        """A line says that no other will fare better: the run stops once all lines are taken in, and its row is pending."""
        self._batches.ends.stops = self._batches.ends.stops or ending
        self.leave_pending(state)

    def leave_pending(self, state: RowState) -> None:
        """The row stays pending in the journal, and is handed out again from there."""
        self._at.queue.finished(state)
        self._batches.ends.left_pending = True


def matched(leased: Leased, answers: Answers) -> tuple[Leased, Answers, list[Completion]]:
    """The attempts that are answered where nothing waits for their rows, their answers, and the other answers."""
    attempts = zip(leased.rows, leased.numbers, leased.waits, strict=True)
    places = {(row, number): place for place, (row, number, waits) in enumerate(attempts) if not waits}
    found = [places.get(each) for each in zip(answers.rows, answers.numbers, strict=True)]
    replies = zip(answers.rows, answers.numbers, answers.bodies, found, strict=True)
    others = [
        Completion(row, number, Came.REPLY, 200, body.encode()) for row, number, body, place in replies if place is None
    ]
    mine = [at for at, place in enumerate(found) if place is not None]
    return chosen(leased, [place for place in found if place is not None]), chosen(answers, mine), others


def _paid_again(ticket: Ticket, end: End) -> End:
    said = f"in batch {ticket.remote}"
    return end._replace(cause="paid again", message=said, counted=False, invalid=True)
