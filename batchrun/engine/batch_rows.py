"""Puts rows into chunks, and concludes them as live rows are."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from batchrun import retry
from batchrun.engine.attempt import Attempt, RowServices
from batchrun.engine.batch_results import Returned
from batchrun.engine.batches import Batches
from batchrun.engine.budget_guard import BATCH, BudgetReached, named_in, served
from batchrun.engine.chunks import BatchLines
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
from batchrun.lanes.executor import Completion, CompletionKind
from batchrun.lanes.states import weight_of
from batchrun.limits import GateClosed
from batchrun.models import Endpoint, Exchange, Kind, Pending, Request, Ticket
from batchrun.plan import Plan
from batchrun.plan.reducing import Reduction
from batchrun.replies import ReplyChecker
from batchrun.retry import GiveUp, Next


class BatchRows:
    together = 256  # Rows put into a chunk at once, at most

    def __init__(self, plan: Plan, services: RowServices, runner: RowRunner, batches: Batches, *, emit: Emit) -> None:
        self._plan = plan
        self._services = services
        self._runner = runner
        self._batches = batches
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._lines = BatchLines(plan, batches.notify)
        self._request: Request | None = None
        self._stored: tuple[asyncio.Future[None], RowsAnswered] | None = None
        ends = batches.ends
        ends.reader, ends.accept, ends.take, ends.flush = self.reader, self.accept, self.take, self.flush
        ends.again, ends.late = self.again, self.late

    @property
    def sending(self) -> bool:
        return self._batches.sending

    async def put_all(self, rows: list[Pending]) -> list[Pending]:
        """Returns rows that need other steps."""
        if not self.sending:
            return rows
        left: list[Pending] = []
        for start in range(0, len(rows), self.together):
            some = rows[start : start + self.together]
            put = await self._batches.add_all(self._requests(some))
            left += [row for row in some if row.seq not in put]
        return left

    def _requests(self, rows: list[Pending]) -> Iterator[tuple[int, int, Request]]:
        for row in rows:
            if row.reused is not None or row.parts is not None or retry.resume_step(row.history) is not Next.SEND:
                continue
            try:
                request = self._runner.rendered(row)
            except Exception:  # noqa: BLE001, S112  the row's own steps raise it again and report it
                continue
            if request is not None:
                yield row.seq, row.history.number + 1, self._lines.line(request)

    async def send_all(self, states: list[RowState]) -> None:
        first = [state.row for state in states if state.request is None and state.number == state.row.history.number]
        put = {row.seq for row in first} - {row.seq for row in await self.put_all(first)}
        others: list[RowState] = []
        for state in states:
            if state.row.seq in put:
                self._services.queue.finished(state)
            else:
                others.append(state)
        ended = await asyncio.gather(*map(self._runner.go, others), return_exceptions=True)
        for error in filter(None, ended):
            raise error

    async def send(self, state: RowState, request: Request) -> None:
        try:
            await self._batches.add(state.row.seq, state.number + 1, self._lines.line(request))
        except RefusedError as error:
            message = f"{error.message} {error.hint or ''}".strip()
            await self._runner.give_up(state, GiveUp("not for batches", message, permanent=True))
        except BudgetReached as error:
            self._runner.stop(RunResult(ExitCode.BUDGET, str(error)), drain=self._plan.drain)
            raise GateClosed from error
        else:
            self._services.queue.finished(state)

    async def reader(self, ticket: Ticket) -> ReplyReader | None:
        """None where more than the reply decides."""
        plan, checker, journal = self._plan, self._services.checker, self._services.journal
        if plan.kind is not Kind.ROWS or plan.post or isinstance(checker, RowChecks) or not ticket.model:
            return None
        if self._request is None:  # all rows of a prompt have the same limits
            leases = await asyncio.to_thread(journal.leases, ticket.id, 0, 1)
            rows, _ = await asyncio.to_thread(journal.in_batch, ticket.id, [lease.row for lease in leases])
            with suppress(Exception):  # the row's own steps raise it again and report it
                self._request = self._runner.rendered(rows[0][0])
        return None if self._request is None else self._reader_of(self._request, checker, ticket.model)

    def _reader_of(self, request: Request, checker: ReplyChecker | None, model: str) -> ReplyReader:
        alike = request.endpoint, request.output_limit, inputs_of(request)
        return ReplyReader(*alike, checker, *self._services.guard.batch_rates(model))

    async def accept(self, ticket: Ticket, where: int | None, answers: Answers) -> list[Completion]:
        """One commit (`flush` waits); returns those with more to decide."""
        if not answers.rows:
            return []
        leased, left = await asyncio.to_thread(self._services.journal.leased, where, answers.rows), list[Completion]()
        if any(leased.waits) or (leased.rows, leased.numbers) != (answers.rows, answers.numbers):
            leased, answers, left = matched(leased, answers)
        await self._store(ticket, leased, answers)
        return left

    async def take(self, ticket: Ticket, came: Sequence[Returned]) -> None:
        others: list[Returned] = []
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
        if not answers.rows:
            return
        answers = self._services.guard.settle_all(leased, answers)
        tokens = zip(answers.input_tokens, answers.cached_tokens, strict=True)
        stated = [given for given, cached in tokens if given is not None and not cached]
        self._batches.tokens.learn(round(weight_of(ticket) * len(stated) / max(1, ticket.rows)), sum(stated))
        found = Sum.of(answers)
        stored = self._services.journal.answer(answers, found, sum(filter(None, leased.costs)), BATCH)
        await self.flush()
        places = partial(self._services.journal.places, answers.rows)
        self._stored = stored, rows_answered(answers, found, self._loop.time(), places)

    async def flush(self) -> None:
        if self._stored is not None:
            (stored, event), self._stored = self._stored, None
            await stored
            self._emit(event)

    def _accepted(self, ticket: Ticket, row: Pending, completion: Completion) -> Line | None:
        waits = row.awaited or row.target is not None or row.parts is not None or bool(self._plan.post)
        if completion.data is None or waits or not ticket.model:
            return None
        try:
            if self._plan.kind is not Kind.ROWS or self._request is None:
                self._request = self._services.renderer.render(restored(row, self._services.journal.path.parent))
            checker = self._services.checker
            checker = checker.of(row) if isinstance(checker, RowChecks) else checker
        except Exception:  # noqa: BLE001  the row's own steps raise it again and report it
            return None
        read = self._reader_of(self._request, checker, ticket.model)
        return read(completion.seq, completion.number, completion.body, completion.data)

    async def _take(self, row: Pending, lease: Lease, completion: Completion) -> None:
        state = RowState.of(row)
        self._services.queue.enter(state)
        state.number, state.from_batch = lease.number, True
        if completion.kind in (CompletionKind.GONE, CompletionKind.UNSENT, CompletionKind.LOST):
            await self._without_answer(state, lease, completion)
            return
        found = restored(row, self._services.journal.path.parent)
        request = self._services.renderer.render(Reduction(self._plan).filled(found, row.parts))
        now = self._loop.time()
        exchange = Exchange(completion.status, {}, completion.body, now, now, None, "", True)
        lane = self._services.pool.first
        state.attempt = Attempt(self._services, state, lane, lease, exchange)
        judged = self._lines.receive(judge(request, exchange, self._runner.checker(state), lane.meanings, lane.mask))
        state.attempt.reservation = self._services.guard.adopt(lease.cost, lease.tokens, named_in(request).model, BATCH)
        judged = served(judged, BATCH)
        if judged.usage is not None and not judged.usage.cached:
            self._batches.tokens.learn(request.weight, judged.usage.input)
        state.attempt.settle(judged)
        await self._runner.conclude(state, request, judged, exchange)

    async def again(self, seq: int, ticket: Ticket, completion: Completion) -> None:
        _, end = self._charged(ticket, Lease(seq, 0, 0, 0), completion)
        await self._services.journal.paid_again(seq, ticket.id, _paid_again(ticket, end))

    async def late(self, ticket: Ticket, lease: Lease, completion: Completion, *, wanted: bool) -> bool:
        judged, end = self._charged(ticket, lease, completion)
        if judged.reply is None:
            return False
        body = completion.body.decode() if wanted else None
        await self._services.journal.late(lease.row, lease.number, end if wanted else _paid_again(ticket, end), body)
        return True

    def _charged(self, ticket: Ticket, lease: Lease, completion: Completion) -> tuple[Judged, End]:
        judged = judge_body(Request(Endpoint(ticket.endpoint), b"", None), completion.body.decode(), None)
        judged = served(judged, BATCH)
        charge = self._services.guard.settle(
            self._services.guard.adopt(lease.cost, lease.tokens, ticket.model, BATCH), judged
        )
        end = End(completion.status, 0.0, usage=judged.usage, cost=charge.cost, charged_tokens=charge.tokens)
        return judged, end._replace(bill=charge.bill)

    async def _without_answer(self, state: RowState, lease: Lease, completion: Completion) -> None:
        lost = completion.kind is CompletionKind.LOST
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
            self._services.guard.refund(lease.cost, lease.tokens)
        self._services.journal.end(lease.row, lease.number, end, None, lease)
        tries_left = state.attempts + 1 < self._plan.max_attempts
        if next_step(completion.kind, Source.BATCH, lambda _: tries_left) is Step.FAIL:
            await self._runner.give_up(state, GiveUp("lost in a batch", completion.message, permanent=False))
        else:
            self.leave_pending(state)

    def stop(self, state: RowState, ending: RunResult) -> None:
        """Stop once all lines are ingested."""
        self._batches.ends.stops = self._batches.ends.stops or ending
        self.leave_pending(state)

    def leave_pending(self, state: RowState) -> None:
        """The row is handed out again from the journal."""
        self._services.queue.finished(state)
        self._batches.ends.left_pending = True


def matched(leased: Leased, answers: Answers) -> tuple[Leased, Answers, list[Completion]]:
    """Leases of rows for which nothing waits, their answers, and the rest."""
    attempts = zip(leased.rows, leased.numbers, leased.waits, strict=True)
    places = {(row, number): place for place, (row, number, waits) in enumerate(attempts) if not waits}
    found = [places.get(each) for each in zip(answers.rows, answers.numbers, strict=True)]
    replies = zip(answers.rows, answers.numbers, answers.bodies, found, strict=True)
    others = [
        Completion(row, number, CompletionKind.REPLY, 200, body.encode())
        for row, number, body, place in replies
        if place is None
    ]
    mine = [at for at, place in enumerate(found) if place is not None]
    return chosen(leased, [place for place in found if place is not None]), chosen(answers, mine), others


def _paid_again(ticket: Ticket, end: End) -> End:
    message = f"in batch {ticket.remote}"
    return end._replace(cause="paid again", message=message, counted=False, invalid=True)
