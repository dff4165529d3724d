"""The path of one row: from the window through gate, budget guard, journal and client to its outcome.

It reads top to bottom in `_send` and `_conclude`. What an answer means is decided by `retry`, when a request may leave
by `limits`; this module performs the verdicts, writes each fact to the journal, and only then emits it.

A failure is held back as long as it may turn out to be the run's: before anything has succeeded, and until a request that
left after it has. If it is, the rows stay pending.
"""

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from batchrun import retry
from batchrun.client import UnsentError
from batchrun.engine.budget_guard import BudgetGuard, BudgetReached, Reservation
from batchrun.engine.judge import Charge, Judged, counted, end_of, failure, judge_body
from batchrun.engine.lane import Lane
from batchrun.engine.pending_queue import PendingQueue, RowState
from batchrun.engine.pool import Pool
from batchrun.engine.post_processing import PostProcessing
from batchrun.engine.row_files import LeftOut, restored, with_content
from batchrun.engine.run_result import RunResult
from batchrun.engine.segment_checks import RowChecks
from batchrun.engine.snapshots import attempt_ended, row_finished
from batchrun.engine.splitting import pieces_of, whole_of
from batchrun.errors import ExitCode, StorageError
from batchrun.events import AttemptStarted, Emit, RowDivided, RowLost
from batchrun.journal import End, Journal
from batchrun.limits import GateClosed, HandedBack, NeverFits, Permit
from batchrun.media import ChangedError
from batchrun.models import JUST_DONE, Exchange, Flag, Outcome, Parts, Pending, Request, State
from batchrun.plan import Plan
from batchrun.plan.blanks import copied
from batchrun.plan.reducing import Reduction
from batchrun.prompts import Renderer, ask_again, more_room
from batchrun.replies import Checker, ReplyChecker
from batchrun.retry import AskAgain, Done, GiveUp, Health, Next, Policy, RetryIn, StopRun, Tries, Verdict

if TYPE_CHECKING:
    from batchrun.engine.batch_rows import BatchRows

log = logging.getLogger(__name__)

MOST_HELD = 1000
"""Failures that are held back at most: so many that are not alike are about their rows."""
NEVER_LEFT = End(0, 0.0, "stopped before it left", counted=False)
"""The end of an attempt that was written down but not sent: nothing about its row is unknown."""


class Stop(Protocol):
    """Ends the run: nothing new leaves, and what is in flight is awaited for `drain` seconds."""

    def __call__(self, ending: RunResult, *, drain: float) -> None: ...


@dataclass(frozen=True, slots=True)
class RowServices:
    """What a row passes."""

    queue: PendingQueue
    renderer: Renderer
    checker: Checker | RowChecks | None
    pool: Pool
    guard: BudgetGuard
    journal: Journal
    post: PostProcessing


class RowRunner:
    """Takes one row after the other as far as it gets: to its outcome, back into the window, or to the end of the run.

    On the loop of the run, no threads.
    """

    def __init__(self, plan: Plan, services: RowServices, *, emit: Emit, stop: Stop) -> None:
        self._plan = plan
        self._at = services
        self._emit = emit
        self.stop = stop
        self._loop = asyncio.get_running_loop()
        self._policy = Policy(
            plan.max_attempts,
            plan.schema_retries,
            plan.give_up_after,
            plan.max_wait,
            plan.fail_on,
            plan.retry_truncated,
        )
        self._held: list[tuple[RowState, GiveUp]] = []
        self.batch_rows: BatchRows | None = None
        self.left_out = LeftOut()
        self._blanks, self._reduction = copied(plan), Reduction(plan)
        self._folder = services.journal.path.parent
        self._needs_text = bool(plan.post) or isinstance(services.checker, RowChecks)
        self._blank_value = "{}" if plan.output_fields else '""'
        self.in_flight = 0
        """Requests that have left and whose answer is awaited; the gate also counts those that are about to leave."""
        self.throttled = self.retries = 0

    async def go(self, state: RowState) -> None:
        """The border that nothing foreign crosses: a bug costs a row, not the run. A row that was already handed on
        is not judged twice; then the run stops."""
        state.handed_on = False
        try:
            if state.given is not None:
                await self._finish(state, state.given)
            elif (request := state.request) is not None:
                await self._send(state, request)
            elif state.row.parts is not None and self._plan.reduce is None:
                await self._put_together(state, state.row.parts)
            elif (request := self.rendered(state)) is None:
                await self._finish(state, Outcome(State.DONE, True, None, None, frozenset(), self._blank_value))
            elif retry.go_on(state.row.history, reused=state.row.reused is not None) is Next.SEND:
                await self._send(state, request)
            else:
                await self._judge_kept(state, request)
        except (StorageError, GateClosed):
            raise
        except HandedBack:
            self._put_back(state, 0.0)
        except ChangedError as error:
            self.left_out.add(state.row, str(error))
            self._at.queue.finished(state)
        except Exception as error:
            log.exception("line %s: internal error", state.row.line)
            said = f"internal error: {type(error).__name__}: {error}"
            if state.handed_on:
                self.stop(RunResult(ExitCode.UNEXPECTED, said, "this is a bug in batchrun"), drain=self._plan.drain)
            else:
                self._clear_up(state, said)
                await self._finish(state, failure(GiveUp("internal error", said, final=False)))

    def _clear_up(self, state: RowState, said: str) -> None:
        """After a bug: free the slot, and keep what came back."""
        if state.permit is not None:
            self._lane_of(state).gate.cancel(state.permit)
        if state.reservation is not None:
            self._at.guard.lose(state.reservation)
            state.charge, state.reservation = Charge(state.reservation.cost, state.reservation.tokens), None
        if state.exchange is not None:
            exchange, state.exchange = state.exchange, None
            body = exchange.body.decode(errors="replace") if 200 <= exchange.status < 300 else None
            cost, tokens, _ = state.charge
            seconds = exchange.ended - exchange.left
            end = End(exchange.status, seconds, "internal error", said, cost=cost, charged_tokens=tokens)
            self._at.journal.end(state.row.seq, state.number, end, body)

    def rendered(self, state: RowState) -> Request | None:
        """The request of a row, None for one that is left blank. The journal keeps the row and not the body, since
        rendering is deterministic."""
        found = restored(state.row, self._folder)
        if self._blanks.columns and self._blanks.is_blank(found.fields):
            return None
        return self._at.renderer.render(self._reduction.filled(found, state.row.parts))

    async def _put_together(self, state: RowState, parts: Parts) -> None:
        """A text that was divided is done without a request once its pieces are."""
        judged, outcome = whole_of(self._reduction, parts, restored(state.row, self._folder).fields)
        if not await self._at.post.put(state, judged, outcome, None):
            await self._finish(state, outcome)

    async def _judge_kept(self, state: RowState, request: Request) -> None:
        """Judge the reply that the journal has, or that an equal request lends."""
        row = state.row
        body = row.history.reply if row.reused is None else row.reused.body
        judged = judge_body(request, body or "", self.checker(state))
        history = row.history._replace(reply=None)  # judged once; from here on it is sent
        state.row, state.reused = row._replace(history=history, reused=None), row.reused
        await self.conclude(state, request, judged, None)

    async def _send(self, state: RowState, request: Request) -> None:
        state.reused, state.request = None, request
        if not self._needs_text and state.row.text:
            state.row = Pending(*state.row[:4], "", *state.row[5:])  # a third of the time of `_replace`
        self._at.queue.holds(state, request.size)
        if self.batch_rows is not None and self.batch_rows.sending:
            await self.batch_rows.send(state, request)
            return
        if state.gave_up is not None and not self._at.pool.has_fallback:
            await self._finish(state, failure(state.gave_up))
            return
        state.lane = lane = self._at.pool.only or await self._at.pool.lane_for(state)
        spelled, tiers = lane.spelled(request), lane.sending.tiers
        try:
            state.tier = await tiers.chosen(state) if tiers.known else None
            permit, sent = await self._departed(state, lane, spelled)
        except NeverFits as error:
            if self._at.pool.others(lane, state):
                state.failed_at |= {lane.number}
                self._put_back(state, 0.0)
                return
            await self.give_up(state, GiveUp("request too large", str(error), final=True))
            return
        seq, reservation = state.row.seq, state.reservation
        assert reservation is not None
        self._emit(AttemptStarted(seq, state.row.line, state.number, self._loop.time()))
        self.in_flight += 1
        try:
            exchange = await lane.send(state, sent)
        except asyncio.CancelledError:
            lane.sending.tiers.released(state)
            lane.gate.cancel(permit)
            self._at.guard.lose(reservation)
            self._at.journal.lose(seq, state.number, "abandoned while it was in flight")
            self._emit(RowLost(seq, state.row.line, self._loop.time(), reservation.cost))
            raise
        except UnsentError as error:
            self._never_left(state, lane, permit)
            raise HandedBack from error
        finally:
            self.in_flight -= 1
            self._at.pool.answered(lane)
        state.exchange = exchange
        self._at.queue.holds(state, request.size, len(exchange.body))
        judged, alone = lane.heard(state, sent, exchange, self.checker(state))
        state.reservation, state.charge = None, self._at.guard.settle(reservation, judged)
        await self.conclude(state, request, judged, exchange, alone)

    def _lane_of(self, state: RowState) -> Lane:
        """Where the row was sent; for one that was not, the first lane stands."""
        return state.lane or self._at.pool.first

    def checker(self, state: RowState) -> ReplyChecker | None:
        """What the reply of a row is checked against."""
        checker = self._at.checker
        return checker.of(state.row) if isinstance(checker, RowChecks) else checker

    async def _departed(self, state: RowState, lane: Lane, request: Request) -> tuple[Permit, Request]:
        """Wait until the request may leave and its attempt is committed; what this returns leaves then.

        Where only a slot is missing the attempt is begun while it is waited for, so that the request leaves in the
        very turn in which the slot gets free.
        """
        gate, demand = lane.gate, partial(lane.gate.estimate, request.weight, request.output_limit)
        state.number += 1
        state.reservation, state.begun = self._at.guard.at_once(request, lane.sending.priced(state), lane.prices), None
        permit = None
        try:
            ready = state.reservation and partial(self._begin, state, lane, state.reservation)
            try:
                permit = state.permit = await gate.admit(demand, ready=ready, first=state.elsewhere)
            finally:
                self._at.pool.admitted(lane)
            state.reservation = state.reservation or await self._reserved(state, lane, request, permit)
            await (state.begun or self._begin(state, lane, state.reservation))
            permit = state.permit = await gate.leave(permit)
            sent = lane.sending.sent(state, request)
            sent = await with_content(sent) if sent.files else sent
        except BaseException:
            self._at.pool.answered(lane)
            self._never_left(state, lane, permit)
            raise
        return permit, sent

    def _begin(self, state: RowState, lane: Lane, reservation: Reservation) -> "asyncio.Future[None]":
        state.begun = self._at.journal.begin(state.row.seq, state.number, reservation.cost, reservation.tokens, lane.id)
        return state.begun

    def _never_left(self, state: RowState, lane: Lane, permit: Permit | None) -> None:
        lane.sending.tiers.released(state)
        if permit is not None:
            lane.gate.cancel(permit)
        if state.reservation is not None:
            self._at.guard.cancel(state.reservation)
            state.reservation = None
        if state.begun is not None:
            self._at.journal.end(state.row.seq, state.number, NEVER_LEFT)

    async def _reserved(self, state: RowState, lane: Lane, request: Request, permit: Permit) -> Reservation:
        """What the request may cost at worst, taken out of the budget; a budget that is used up ends the run."""
        try:
            return await self._at.guard.reserve(
                request, (state.row.seq, state.number), lane.sending.priced(state), lane.prices
            )
        except BudgetReached as error:
            lane.gate.cancel(permit)
            self.stop(RunResult(ExitCode.BUDGET, str(error)), drain=max(self._plan.drain, self._plan.timeout))
            raise GateClosed from error
        except BaseException:
            lane.gate.cancel(permit)
            raise

    async def conclude(
        self, state: RowState, request: Request, judged: Judged, exchange: Exchange | None, alone: float = 0.0
    ) -> None:
        """Decide and perform. `exchange` is None for a reply that an earlier process recorded.

        `alone` is the wait in seconds that a 429 has announced and that the gate leaves to this row.
        """
        answer, lane = judged.answer, self._lane_of(state)
        # All lines of a batch are there at once, and no call is spared by doubting them.
        health = lane.health if state.lease is None else Health(fitted=True)
        if exchange is None:
            tries = Tries(state.attempts, state.deadlines, state.asks)
        else:
            tries = counted(state.attempts, state.deadlines, state.asks, answer)
        if exchange is not None and state.lease is None:
            lane.observe(state, answer)
            if state.elsewhere or lane.health.doubtful:
                await self._look_elsewhere(state, lane)
        verdict = retry.decide(answer, tries, health, self._policy, self._loop.time())
        if isinstance(verdict, RetryIn):
            verdict = verdict._replace(seconds=max(verdict.seconds, alone))
        if self._at.pool.only is None and exchange is not None and state.lease is None:
            verdict = self._at.pool.judged(state, lane, answer, verdict)
            self._take_back(lane)
        stored = None if exchange is None else self._record(state, lane, judged, exchange, verdict)
        await self._perform(state, request, judged, verdict, stored)

    async def _look_elsewhere(self, state: RowState, lane: Lane) -> None:
        """Where rows fail alike, have one tried that is likely to be different; one at a time."""
        if state.elsewhere:
            state.elsewhere = lane.looks_elsewhere = False
        if lane.health.doubtful and not lane.looks_elsewhere:
            lane.looks_elsewhere = True
            if not await self._at.queue.take_elsewhere(lane):
                lane.looks_elsewhere, lane.health.confirmed = False, True

    def _record(
        self, state: RowState, lane: Lane, judged: Judged, exchange: Exchange, verdict: Verdict
    ) -> "asyncio.Future[None]":
        """Into the journal's queue first, then told; the outcome that follows is committed after it."""
        end = end_of(judged, exchange, verdict, lane.mask, state.charge)
        body = exchange.body.decode() if judged.reply is not None else None
        stored = self._at.journal.end(state.row.seq, state.number, end, body, state.lease)
        state.exchange = None
        if end.counted and not end.throttled:
            state.attempts += 1
            state.deadlines += end.deadline
        state.asks += end.invalid
        event = attempt_ended(state, judged, end, verdict, self._loop.time())
        self.throttled += event.throttled
        self.retries += event.retry and not event.throttled
        self._emit(event)
        lane.mind_the_breaker()
        return stored

    async def _perform(
        self, state: RowState, request: Request, judged: Judged, verdict: Verdict, stored: "asyncio.Future[None] | None"
    ) -> None:
        match verdict:
            case Done():
                if judged.answer.flags:
                    self._lane_of(state).tell_of_odd(judged)
                plain = not judged.answer.flags and judged.value is None
                outcome = (
                    JUST_DONE if plain else Outcome(State.DONE, True, None, None, judged.answer.flags, judged.value)
                )
                posts = self._plan.post and state.row.target is None
                if not (posts and await self._at.post.put(state, judged, outcome, stored)):
                    await self._finish(state, outcome)
                if self._held and self._lane_of(state).health.undoubted:
                    await self.flush_held()
            case RetryIn() | AskAgain() if state.lease is not None and self.batch_rows is not None:
                self.batch_rows.leave_pending(state)
            case RetryIn() | AskAgain() if self._at.pool.first.client is None:
                self._at.queue.finished(state)  # nothing is sent: the row stays as it is
            case RetryIn(seconds=seconds):
                self._put_back(state, seconds)
            case AskAgain(complaint=complaint, more_room=more):
                said = judged.reply.text if judged.reply is not None else None
                if more:  # one that an earlier process has asked again is made from the row anew
                    request = more_room(request, 1 if stored is not None else max(1, state.asks))
                elif said:
                    request = ask_again(request, said, complaint, check=judged.answer.check)
                state.first_request, state.request = state.first_request or state.request, request
                self._put_back(state, 0.0)
            case GiveUp():
                await self.give_up(state, verdict)
            case StopRun(message=message, hint=hint):
                self._stop_for(state, RunResult(ExitCode.STOPPED, message, hint))

    async def _divided(self, state: RowState) -> bool:
        """Whether a text whose reply was cut off is sent once more in pieces, which it waits for."""
        if self._at.pool.first.client is None or not (pieces := pieces_of(self._plan, self._at.renderer, state.row)):
            return False
        state.handed_on, state.request = True, None
        await self._at.journal.divide(state.row.seq, pieces)
        self._emit(RowDivided(state.row.seq, state.row.line, len(pieces), self._loop.time()))
        self._at.queue.reduce(state.row.seq)
        self._at.queue.finished(state)
        return True

    def _stop_for(self, state: RowState, ending: RunResult) -> None:
        """An answer ends the run: at once, or where it came in a batch once the others are taken in."""
        if state.lease is not None and self.batch_rows is not None:
            return self.batch_rows.stop(state, ending)
        self._held.clear()
        return self.stop(ending, drain=self._plan.drain)

    async def give_up(self, state: RowState, verdict: GiveUp) -> None:
        if verdict.cause == Flag.TRUNCATED and await self._divided(state):
            return
        if (
            state.lease is not None
            or not self._lane_of(state).health.in_doubt(state.row.seq)
            or len(self._held) >= MOST_HELD
        ):
            if self._at.pool.falls_back(state, verdict):
                self._put_back(state, 0.0)
            else:
                await self._finish(state, failure(state.gave_up or verdict))
        else:
            state.handed_on = True
            if self._at.pool.only is not None:
                state.request, state.row = None, state.row._replace(text="")
            self._held.append((state, verdict))
            self._at.queue.finished(state)

    def _take_back(self, lane: Lane) -> None:
        """Failures that were held back since they might be the lane's, and are: other lanes get their rows."""
        if lane.closed is None or not self._held:
            return
        theirs = [state for state, _ in self._held if state.lane is lane]
        self._held = [(state, verdict) for state, verdict in self._held if state.lane is not lane]
        for state in theirs:
            state.attempts = state.deadlines = 0
            state.failed_at |= {lane.number}
            self._at.queue.enter(state)
            self._put_back(state, 0.0)

    def _put_back(self, state: RowState, seconds: float) -> None:
        state.handed_on = True
        self._at.queue.put_back(state, seconds)

    async def _finish(self, state: RowState, outcome: Outcome, *, out: bool = True) -> None:
        """Into the journal, then told; `out` is whether the window counts the row as handed out."""
        state.handed_on = True
        await self._at.journal.finish(state.row.seq, outcome, state.reused)
        self._emit(row_finished(state, outcome, self._loop.time()))
        self._at.queue.ended(state, outcome)
        if out:
            self._at.queue.finished(state)

    async def flush_held(self) -> None:
        """Failures that might have been the run's stand after all."""
        held, self._held = self._held, []
        for state, verdict in held:
            if self._at.pool.falls_back(state, verdict):
                self._at.queue.enter(state)
                self._put_back(state, 0.0)
            else:
                await self._finish(state, failure(state.gave_up or verdict), out=False)
