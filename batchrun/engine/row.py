"""Performs the steps of `row_path`. Facts are journaled before they are emitted; a bug fails one row, not the run."""

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from batchrun import retry
from batchrun.client import UnsentError
from batchrun.client.senders.exchanges import Kept, Lost
from batchrun.engine.attempt import Attempt, RowServices
from batchrun.engine.budget_guard import BudgetReached
from batchrun.engine.judge import Judged, counted, end_of, failure, judge_body
from batchrun.engine.lane import Lane
from batchrun.engine.late_replies import LateReplies
from batchrun.engine.pending_queue import RowState
from batchrun.engine.row_files import LeftOut, restored
from batchrun.engine.row_path import Guard, Source, Step, Unsent, first_step, next_step
from batchrun.engine.run_result import RunResult, Stop
from batchrun.engine.segment_checks import RowChecks
from batchrun.engine.snapshots import Completed, attempt_ended, row_finished, rows_completed
from batchrun.engine.splitting import pieces_of, whole_of
from batchrun.errors import ExitCode, StorageError, UnreadableError
from batchrun.events import AttemptStarted, Emit, RowDivided, RowLost
from batchrun.journal import IntakeRow
from batchrun.limits import GateClosed, HandedBack, NeverFits
from batchrun.media import ChangedError
from batchrun.models import JUST_DONE, Exchange, Flag, Outcome, Parts, Pending, Request, State, made
from batchrun.plan import Plan
from batchrun.plan.blanks import copied
from batchrun.plan.reducing import Reduction
from batchrun.prompts import with_correction, with_larger_limit
from batchrun.replies import ReplyChecker
from batchrun.retry import AskAgain, Done, GiveUp, Health, Policy, RetryIn, StopRun, Tries, Verdict

if TYPE_CHECKING:
    from batchrun.engine.batch_rows import BatchRows

log = logging.getLogger(__name__)
_LIVE = Source.LIVE

_LONG = 512  # Characters of a row's text from which it is let go once it is rendered
MOST_HELD = 1000  # Failures held back at most: more that are not alike are caused by their rows


class RowRunner:
    def __init__(self, plan: Plan, services: RowServices, *, emit: Emit, stop: Stop) -> None:
        self._plan = plan
        self._services = services
        self._emit = emit
        self.stop = stop
        self._loop = asyncio.get_running_loop()
        tries = plan.max_attempts, plan.schema_retries, plan.give_up_after, plan.max_wait
        self._policy = Policy(*tries, plan.fail_on, plan.retry_truncated)
        self.held: list[tuple[RowState, GiveUp]] = []
        self._late = LateReplies(services)
        self.batch_rows: BatchRows | None = None
        self.left_out = LeftOut()
        self._blanks, self._reduction = copied(plan), Reduction(plan)
        self._folder, self._reduces = services.journal.path.parent, plan.reduce is not None
        self._needs_text = bool(plan.post) or isinstance(services.checker, RowChecks)
        self._blank = JUST_DONE._replace(value="{}" if plan.output_fields else '""')
        self.in_flight = 0  # Requests in flight; the gate also counts those about to be sent
        self._completed: list[Completed] = []
        self.completing = 0  # Rows whose reply and outcome are handed over and not committed yet
        self.throttled = self.retries = 0

    async def go(self, state: RowState, came: Exchange | None = None) -> None:  # noqa: PLR0912  steps, errors
        """`came` answers its attempt, which was sent in a page."""
        state.handed_on = False
        try:
            step, request = first_step(state, reduces=self._reduces), state.request
            if request is None and step in (Step.SEND, Step.JUDGE) and (request := self.rendered(state.row)) is None:
                step = Step.FINISH_BLANK
            match step:
                case _ if came is not None:
                    await self._answered(state, came)
                case Step.SEND if request is not None:
                    await self._send(state, request)
                case Step.JUDGE if request is not None:
                    await self._judge_kept(state, request)
                case Step.PUT_TOGETHER if state.row.parts is not None:
                    await self._put_together(state, state.row.parts)
                case _:  # alike, or blank
                    await self._finish(state, state.shared_outcome or self._blank)
        except UnreadableError as error:
            self.stop_unread(error)
        except (StorageError, GateClosed):
            raise
        except HandedBack:
            await self._unsent(state, Unsent.HANDED_BACK)
        except ChangedError as error:
            self.left_out.add(state.row, str(error))
            await self._unsent(state, Unsent.FILE_CHANGED)
        except Exception as error:
            log.exception("line %s: internal error", state.row.line)
            message = f"internal error: {type(error).__name__}: {error}"
            if state.handed_on:
                self.stop_for(message)
            else:
                if state.attempt is not None:
                    state.attempt.cancel(message)
                await self._finish(state, failure(GiveUp("internal error", message, permanent=False)))

    def rendered(self, row: Pending) -> Request | None:
        """None for a row left blank."""
        if row.ready is not None:
            return row.ready.request(row.encoded)
        found = restored(row, self._folder)
        if self._blanks.columns and self._blanks.is_blank(found.fields):
            return None
        return self._services.renderer.render(found if row.parts is None else self._reduction.filled(found, row.parts))

    async def _put_together(self, state: RowState, parts: Parts) -> None:
        judged, outcome = whole_of(self._reduction, parts, restored(state.row, self._folder).fields)
        if not await self._services.post.put(state, judged, outcome, None):
            await self._finish(state, outcome)

    async def _judge_kept(self, state: RowState, request: Request) -> None:
        row = state.row
        body = row.history.reply if row.reused is None else row.reused.body
        judged = judge_body(request, body or "", self.checker(state))
        history = row.history._replace(reply=None)  # judged once; from here on it is sent
        state.row, state.reused, state.request = row._replace(history=history, reused=None), row.reused, request
        await self.conclude(state, request, judged, None)

    async def _send(self, state: RowState, request: Request) -> None:
        state.reused, state.request = None, request
        if not self._needs_text and (len(state.row.text) > _LONG or state.row.encoded):
            state.row = state.row._replace(text="", encoded=b"")
        if state.late is not None:
            await self.conclude(state, request, self._late.take(state, state.late), None)
            return
        held, pool = self._services.queue.bytes, self._services.pool
        size = request.size if request.files else len(request.body)
        if size + len(state.row.text) > state.counted:  # more than rows had on the average
            held.holds(state, size)
        if self.batch_rows is not None and self.batch_rows.sending:
            await self.batch_rows.send(state, request)
            return
        if state.gave_up is not None and not pool.has_fallback:
            await self._finish(state, failure(state.gave_up))
            return
        lane = state.lane = pool.only or await pool.lane_for(state)
        spelled, attempt = lane.spelled(request), Attempt(self._services, state, lane)
        state.attempt = attempt
        try:
            sent = await attempt.depart(spelled)
        except NeverFits as error:
            await self._unsent(state, Unsent.TOO_LARGE, GiveUp("request too large", str(error), permanent=True))
            return
        except BudgetReached as error:
            await self._unsent(state, Unsent.NO_BUDGET, StopRun(str(error), None))
            raise GateClosed from error
        row = state.row
        self._emit(made(AttemptStarted, (row.seq, row.line, attempt.number, self._loop.time())))
        self.in_flight += 1
        try:
            exchange = await lane.send(state, sent)
        except asyncio.CancelledError:
            attempt.cancel()
            self._emit(RowLost(row.seq, row.line, self._loop.time(), attempt.charge.cost))
            raise
        except UnsentError as error:
            attempt.unsent()
            raise HandedBack from error
        except UnreadableError:
            attempt.unsent()
            raise
        finally:
            self.in_flight -= 1
        await self._answered(state, exchange, sent)

    async def _answered(self, state: RowState, exchange: Exchange, sent: Request | None = None) -> None:
        attempt, request = state.attempt, state.request
        assert attempt is not None and request is not None  # noqa: PT018  both were set before it was sent
        attempt.answered(exchange)
        self._services.queue.bytes.holds(state, request.size, len(exchange.body))
        judged, alone = attempt.lane.receive(state, sent or request, exchange, self.checker(state))
        attempt.settle(judged)
        await self.conclude(state, request, judged, exchange, alone)

    async def _unsent(self, state: RowState, why: Unsent, verdict: GiveUp | StopRun | None = None) -> None:
        step = next_step(why, Source.LIVE, lambda guard: self._holds(guard, state, verdict))
        if step is Step.STOP and verdict is not None:
            drain = max(self._plan.drain, self._plan.timeout)  # what is in flight may give back a part of the budget
            self.stop(RunResult(ExitCode.BUDGET, verdict.message), drain=drain)
        elif isinstance(verdict, GiveUp):
            await self._fail(state, step, verdict)
        elif step is Step.LEAVE:
            self._services.queue.finished(state)
        else:
            self._put_back(state, 0.0)

    def _lane_of(self, state: RowState) -> Lane:
        return state.lane or self._services.pool.lanes_for(state)[0]

    def checker(self, state: RowState) -> ReplyChecker | None:
        checker = self._services.checker
        return checker.of(state.row) if checker is not None and isinstance(checker, RowChecks) else checker

    async def conclude(
        self, state: RowState, request: Request, judged: Judged, exchange: Exchange | None, alone: float = 0.0
    ) -> None:
        """`exchange` is None for a stored reply; `alone` is its Retry-After in seconds."""
        answer, pool = judged.answer, self._services.pool
        lane, source, live = state.lane or pool.first, _LIVE, exchange is not None and not state.from_batch
        health = lane.health
        if live:
            if lane.seeks_probe:
                await self._probe_ahead(state, lane)
            if answer.unremarkable and pool.only is not None:  # nearly every answer, whatever else is known
                await self._done(state, source, lane, judged, retry.DONE, exchange)
                return
        elif exchange is None:
            source = Source.KEPT if pool.first.client is not None else Source.UNSENDING
        else:  # all lines of a batch are there at once, and no call is spared by doubting them
            source, health = Source.BATCH, Health(fitted=True)
        before = state.attempts, state.deadlines, state.asks
        tries = Tries(*before) if exchange is None else counted(*before, answer)
        verdict = retry.decide(answer, tries, health, self._policy, self._loop.time())
        if isinstance(verdict, RetryIn):
            verdict = verdict._replace(seconds=max(verdict.seconds, alone))
        if live and pool.only is None:
            verdict = pool.judged(state, lane, answer, verdict)
            self._requeue_closed(lane)
        if state.late is not None and not isinstance(verdict, Done | StopRun):
            verdict = RetryIn(0.0, counts=False)  # it need not be sent again
        if type(verdict) is Done:
            await self._done(state, source, lane, judged, verdict, exchange)
        else:
            stored = None if exchange is None else self._record(state, lane, judged, exchange, verdict)
            await self._perform(state, source, request, judged, verdict, stored)

    async def _probe_ahead(self, state: RowState, lane: Lane) -> None:
        """Try a row from far ahead; without one, this one decides."""
        lane.seeks_probe = False
        lane.probe = await self._services.queue.take_from_ahead(lane)
        if lane.probe is None:
            lane.health.confirmed = state.elsewhere = True

    def _record(
        self, state: RowState, lane: Lane, judged: Judged, exchange: Exchange, verdict: Verdict
    ) -> "asyncio.Future[None]":
        attempt, paid, again = state.attempt, judged.reply is not None, isinstance(verdict, RetryIn | AskAgain)
        assert attempt is not None
        end = end_of(judged, exchange, verdict, lane.mask, attempt.charge)
        stored = attempt.end(end, exchange.body.decode() if paid else None)
        if isinstance(exchange, Lost):
            self._late.expect(state, exchange, self.checker(state))
        state.attempt = None
        if end.counted and not end.throttled:
            state.attempts += 1
            state.deadlines += end.deadline
        state.asks += end.invalid
        if end.throttled:
            self.throttled += 1
        elif again:
            self.retries += 1
        self._emit(attempt_ended(state, end, self._loop.time(), paid=paid, retry=again))
        lane.update_probing()
        return stored

    def _complete(  # noqa: PLR0913, PLR0917  what came, and what it means
        self, state: RowState, lane: Lane, judged: Judged, exchange: Exchange, verdict: Done, outcome: Outcome
    ) -> None:
        """One commit for attempt and row: the path of nearly every row."""
        attempt = state.attempt
        assert attempt is not None
        end = end_of(judged, exchange, verdict, lane.mask, attempt.charge)
        state.attempt, state.handed_on = None, True
        self.completing += 1
        attempt.complete(end, outcome, partial(self._note_completed, made(Completed, (state, end, outcome, exchange))))
        lane.update_probing()

    def _holds(self, guard: Guard, state: RowState, verdict: Verdict | None) -> bool:
        match guard:
            case Guard.POSTS:
                return bool(self._plan.post) and state.row.target is None
            case Guard.IN_DOUBT:
                return len(self.held) < MOST_HELD and self._lane_of(state).health.in_doubt(state.row.seq)
            case Guard.CUT_OFF:
                return isinstance(verdict, GiveUp) and verdict.cause == Flag.TRUNCATED and bool(self._pieces(state))
            case Guard.HAS_FALLBACK:
                return isinstance(verdict, GiveUp) and self._services.pool.can_fall_back(state, verdict)
            case Guard.FITS_ELSEWHERE:
                return self._services.pool.others(self._lane_of(state), state)
            case Guard.TRIES_LEFT:
                return state.attempts + 1 < self._plan.max_attempts

    def _pieces(self, state: RowState) -> list[IntakeRow]:
        if self._services.pool.first.client is None:
            return []
        return pieces_of(self._plan, self._services.renderer, state.row, self._services.journal.meta.digest)

    async def _perform(  # noqa: PLR0913, PLR0917  what came, what follows, and what is stored of it
        self,
        state: RowState,
        source: Source,
        request: Request,
        judged: Judged,
        verdict: Verdict,
        stored: "asyncio.Future[None] | None",
    ) -> None:
        step = next_step(type(verdict), source, lambda guard: self._holds(guard, state, verdict))
        match verdict:
            case RetryIn(seconds=seconds) if step is Step.PUT_BACK:
                self._put_back(state, seconds)
            case AskAgain(complaint=complaint, more_room=more) if step is Step.ASK:
                reply = judged.reply.text if judged.reply is not None else None
                if more:  # one that an earlier process has asked again is made from the row anew
                    request = with_larger_limit(request, 1 if stored is not None else max(1, state.asks))
                elif reply:
                    request = with_correction(request, reply, complaint, check=judged.answer.check)
                state.first_request, state.request = state.first_request or state.request, request
                self._put_back(state, 0.0)
            case RetryIn() | AskAgain() | Done():
                self.leave(state, step)
            case GiveUp():
                await self._fail(state, step, verdict)
            case StopRun(message=message, hint=hint):
                ending = RunResult(ExitCode.STOPPED, message, hint)
                if step is Step.STOP_LATER and self.batch_rows is not None:
                    self.batch_rows.stop(state, ending)
                else:
                    self.held.clear()
                    self.stop(ending, drain=self._plan.drain)

    async def _done(  # noqa: PLR0913, PLR0917  what came, and what it means
        self, state: RowState, source: Source, lane: Lane, judged: Judged, verdict: Done, exchange: Exchange | None
    ) -> None:
        step = Step.FINISH  # what the table has for a run without post-processing
        if self._plan.post:
            step = next_step(Done, source, lambda guard: self._holds(guard, state, None))
        self._late.over(state)
        answer = judged.answer
        plain = not answer.flags and judged.value is None
        outcome = JUST_DONE if plain else Outcome(State.DONE, True, None, None, answer.flags, judged.value)
        if step is Step.FINISH and source is _LIVE and exchange is not None and not answer.flags:
            self._complete(state, lane, judged, exchange, verdict, outcome)
        else:
            stored = None if exchange is None else self._record(state, lane, judged, exchange, verdict)
            if step is Step.FINISH or not await self._services.post.put(state, judged, outcome, stored):
                await self._finish(state, outcome)
        if answer.flags:
            lane.report_unknown_finish(judged)
        if self.held and lane.health.undoubted:
            await self.flush_held()

    def leave(self, state: RowState, step: Step) -> None:
        if step is Step.LEAVE_PENDING and self.batch_rows is not None:
            self.batch_rows.leave_pending(state)
        else:
            self._services.queue.finished(state)

    async def give_up(self, state: RowState, verdict: GiveUp) -> None:
        source = Source.BATCH if state.from_batch else Source.LIVE
        await self._fail(state, next_step(GiveUp, source, lambda guard: self._holds(guard, state, verdict)), verdict)

    async def _fail(self, state: RowState, step: Step, verdict: GiveUp) -> None:
        match step:
            case Step.DIVIDE:
                pieces = self._pieces(state)
                state.handed_on, state.request = True, None
                await self._services.journal.divide(state.row.seq, pieces)
                self._emit(RowDivided(state.row.seq, state.row.line, len(pieces), self._loop.time()))
                self._services.queue.reduce(state.row.seq)
                self._services.queue.finished(state)
            case Step.HOLD:
                state.handed_on = True
                if self._services.pool.only is not None:
                    state.request, state.row = None, state.row._replace(text="")
                self.held.append((state, verdict))
                self._services.queue.finished(state)
            case Step.ELSEWHERE:
                state.failed_at |= {self._lane_of(state).number}
                self._put_back(state, 0.0)
            case Step.FALL_BACK:
                self._services.pool.fall_back(state, verdict)
                self._put_back(state, 0.0)
            case _:
                await self._finish(state, failure(state.gave_up or verdict))

    def _requeue_closed(self, lane: Lane) -> None:
        if lane.closed is None or not self.held:
            return
        states = [state for state, _ in self.held if state.lane is lane]
        self.held = [(state, verdict) for state, verdict in self.held if state.lane is not lane]
        for state in states:
            state.attempts = state.deadlines = 0
            state.failed_at |= {lane.number}
            self._services.queue.enter(state)
            self._put_back(state, 0.0)

    def _put_back(self, state: RowState, seconds: float) -> None:
        state.handed_on = True
        self._services.queue.put_back(state, seconds)

    async def _finish(self, state: RowState, outcome: Outcome, *, out: bool = True) -> None:
        """`out`: the queue counts the row as handed out."""
        state.handed_on = True
        self._late.over(state)
        await self._services.journal.finish(state.row.seq, outcome, state.reused)
        self._emit(row_finished(state, outcome, self._loop.time()))
        self._services.queue.ended(state, outcome)
        if out:
            self._services.queue.finished(state)

    def _note_completed(self, completed: Completed) -> None:
        if not self._completed:
            self._loop.call_soon(self._report_completed)  # once all of this commit are noted
        self._completed.append(completed)

    def _report_completed(self) -> None:
        completed, self._completed = self._completed, []
        self.completing -= len(completed)
        try:
            event, queue = rows_completed(completed, self._loop.time()), self._services.queue
            for each in (event,) if self._services.pool.only is not None else event.each():
                self._emit(each)
            for state, _, outcome, exchange in completed:
                if isinstance(exchange, Kept):
                    exchange.stored()
                queue.ended(state, outcome)
                queue.finished(state)
        except Exception as error:
            log.exception("line %s: internal error", completed[0].state.row.line)
            self.stop_for(f"internal error: {type(error).__name__}: {error}")

    def stop_unread(self, error: UnreadableError) -> None:
        """Its row stays pending."""
        self.stop(RunResult(error.exit_code, error.message, error.hint), drain=self._plan.drain)

    def stop_for(self, bug: str) -> None:
        self.stop(RunResult(ExitCode.UNEXPECTED, bug, "this is a bug in batchrun"), drain=self._plan.drain)

    async def flush_held(self) -> None:
        held, self.held = self.held, []
        for state, verdict in held:
            if self._services.pool.can_fall_back(state, verdict):
                self._services.pool.fall_back(state, verdict)
                self._services.queue.enter(state)
                self._put_back(state, 0.0)
            else:
                await self._finish(state, failure(state.gave_up or verdict), out=False)
