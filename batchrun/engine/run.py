"""The run: a bounded crew of workers takes rows from the window through gate, journal and client to their outcome.

A worker's way with one row reads top to bottom in `_send` and `_conclude`. What an answer means is decided by `retry`,
when a request may leave by `limits`; this module performs the verdicts, writes each fact to the journal, and only then
emits it. There is never a task per input row, and no worker sleeps for a retry.

Ends: every row handled; a fatal verdict, the user, or the clock stops the run (no new request leaves, those in flight
are awaited up to a limit); or the journal fails (everything is abandoned at once). A failure before anything has
succeeded is held back, since it may turn out to be everybody's: then the rows stay pending.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from batchrun import retry
from batchrun.client import Client
from batchrun.engine.judge import Judged, counted, end_of, failure, feedback, judge, judge_body
from batchrun.engine.picture import attempt_ended, limits_event, sample_of
from batchrun.engine.posting import Posting
from batchrun.engine.till import BudgetReached, Charge, Hold, Till
from batchrun.engine.window import AHEAD, Job, Window, at_places, in_sample
from batchrun.errors import BatchrunError, ExitCode, StorageError
from batchrun.events import (
    AttemptStarted,
    Draining,
    Event,
    Going,
    Notice,
    RowFinished,
    RowLost,
    Waiting,
    WaitReason,
)
from batchrun.journal import End, Journal
from batchrun.limits import Gate, GateClosed, GateView, Limits, NeverFits, Permit
from batchrun.models import Exchange, Outcome, Pending, Request, State
from batchrun.plan import Plan
from batchrun.prompts import Renderer, ask_again
from batchrun.replies import Checker
from batchrun.retry import AskAgain, Done, GiveUp, Health, Next, Policy, RetryIn, StopRun, Tries, Verdict
from batchrun.rows import restore

log = logging.getLogger(__name__)

TICK = 0.25
"""Seconds between looks at the gate for the faces."""
SAMPLE_EVERY = 5.0
"""Seconds between samples of the run's state in the journal."""

NEVER_LEFT = End(0, 0.0, "stopped before it left", counted=False)
"""The end of an attempt that was written down but not sent: nothing about its row is unknown."""

Emit = Callable[[Event], None]


class Ending(NamedTuple):
    """Why the run is over; after a `hasty` end no output is written."""

    exit_code: ExitCode
    message: str | None = None
    hint: str | None = None
    hasty: bool = False
    notes: tuple[str, ...] = ()


class Run:
    """One run over the pending rows of a journal. Make it inside the loop that runs it.

    `emit` is called in order, on the loop, and returns at once. Raises nothing for failures of rows, provider or
    journal: `run` returns how it ended. Without a `client` nothing is sent: the run judges and post-processes the
    replies that the journal has, and leaves the other rows alone. `secrets` are kept from post-processing.
    """

    def __init__(  # noqa: PLR0913  the four parts, what is to be done with them, and who hears of it
        self,
        plan: Plan,
        journal: Journal,
        client: Client | None,
        renderer: Renderer,
        *,
        checker: Checker | None,
        emit: Emit,
        only: tuple[int, ...] | None = None,
        secrets: tuple[str, ...] = (),
    ) -> None:
        self._plan = plan
        self._only = only
        self._journal = journal
        self._client = client
        self._renderer = renderer
        self._checker = checker
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._limits = Limits(plan.concurrency, plan.concurrency_fixed, plan.rpm, plan.tpm)
        self._gate = Gate(self._limits, listen=emit)
        self._till = Till(plan, journal, expected=lambda: self._gate.estimate(0, None))
        self._window = Window(self._fetch)
        self._health = Health()
        self._policy = Policy(plan.max_attempts, plan.schema_retries, plan.give_up_after, plan.max_wait, plan.fail_on)
        self._held: list[tuple[Job, GiveUp]] = []
        self._ending: Ending | None = None
        self._crew: set[asyncio.Task[None]] = set()
        self._manned = 0
        self._view: GateView | None = None
        self._down = False
        self._waits_for_retries = False
        out, failed = self._window.finished, self._fail
        self._posting = Posting(plan, journal, secrets=secrets, emit=emit, finished=out, failed=failed)

    async def run(self) -> Ending:
        """Send until every row has its outcome or something ends the run."""
        side = [self._loop.create_task(self._watch())]
        timer = None
        if self._plan.stop_after is not None:
            timer = self._loop.call_later(self._plan.stop_after, self._time_is_up)
        try:
            await self._posting.start()
            self._man()
            while self._crew:
                await asyncio.gather(*self._crew, return_exceptions=True)
            if self._ending is None or self._ending.exit_code is not ExitCode.STOPPED:
                await self._flush_held()
            await self._posting.drain()
        except StorageError as error:
            self._fail(error)
        finally:
            if timer is not None:
                timer.cancel()
            self._close()
            await _cancelled(side)
            await self._posting.close()
        return self._explained(self._ending or Ending(ExitCode.OK))

    def _explained(self, ending: Ending) -> Ending:
        """The ending, with what is known when all is over."""
        ending = ending._replace(notes=self._posting.notes)
        if ending.exit_code is not ExitCode.BUDGET or self._till.reached is None:
            return ending
        message, hint = self._till.last_word(self._journal.totals)
        return ending._replace(message=message, hint=hint)

    def _close(self) -> None:
        self._window.close()
        self._gate.close()
        self._till.close()

    def stop(self, ending: Ending, *, drain: float) -> None:
        """Send nothing new; await what is in flight for `drain` seconds, then abandon it. The first ending stands."""
        if self._ending is not None:
            return
        self._ending = ending
        self._close()
        in_flight, now = self._gate.view().in_flight, self._loop.time()
        if in_flight:
            self._emit(Draining(in_flight, now + drain, ending.message or ending.exit_code.name.lower(), now))
        self._loop.call_later(drain, self.abandon)

    def abandon(self) -> None:
        """Give up what is in flight: its rows become unknown, and going on sends them again."""
        for worker in self._crew:
            worker.cancel()
        self._posting.abandon()

    def leave(self) -> None:
        """End the stop that is under way at once: abandon what is in flight and write no output."""
        if self._ending is not None:
            self._ending = self._ending._replace(hasty=True)
            self.abandon()

    def pause(self) -> None:
        """Let nothing leave until `resume`."""
        self._gate.pause()

    def resume(self) -> None:
        """Let requests leave again."""
        self._gate.resume()

    def change(self, limits: Limits) -> None:
        """Hold the run to other limits from now on."""
        self._limits = limits
        self._gate.change(limits)
        self._man()

    @property
    def stated(self) -> tuple[float | None, float | None]:
        """Requests and tokens per minute that the user or the provider has stated."""
        return self._gate.stated

    @property
    def limits(self) -> Limits:
        """The limits that the user has set."""
        return self._limits

    def _man(self) -> None:
        """Bring the crew up to twice the cap: while one half is in flight, the other stands ready at the gate."""
        while self._manned < 2 * self._limits.cap:
            self._manned += 1
            worker = self._loop.create_task(self._work())
            self._crew.add(worker)
            worker.add_done_callback(self._crew.discard)

    async def _fetch(self, after: int) -> tuple[list[Pending], int | None]:
        if self._only is not None:
            return await asyncio.to_thread(at_places, self._journal.pending, self._only), None
        until = self._plan.limit if self._client is not None else None
        rows = await asyncio.to_thread(self._journal.pending, after, AHEAD, until)
        last = rows[-1].position if len(rows) == AHEAD else None
        if self._client is None:
            return [row for row in rows if retry.go_on(row.history) is Next.JUDGE], last
        sample, total = self._plan.sample, self._journal.totals.rows
        if sample is not None:
            rows = [row for row in rows if in_sample(row.position, sample, total)]
        return rows, last

    async def _work(self) -> None:
        """One worker of the crew. It goes home when the rows are done or the crew has become too large."""
        try:
            while self._manned <= 2 * self._limits.cap and (job := await self._window.next()) is not None:
                await self._go(job)
        except GateClosed:
            pass
        except StorageError as error:
            self._fail(error)
        finally:
            self._manned -= 1

    async def _go(self, job: Job) -> None:
        """The border that nothing foreign crosses: a bug costs a row, not the run. A row that was already handed on
        is not judged twice; then the run stops."""
        job.handed_on = False
        try:
            await self._advance(job)
        except (StorageError, GateClosed):
            raise
        except Exception as error:
            log.exception("row %s: internal error", job.row.line)
            said = f"internal error: {type(error).__name__}: {error}"
            if job.handed_on:
                self.stop(Ending(ExitCode.UNEXPECTED, said, "this is a bug in batchrun"), drain=self._plan.drain)
            else:
                self._clear_up(job, said)
                await self._finish(job, failure(GiveUp("internal error", said, final=False)))

    def _clear_up(self, job: Job, said: str) -> None:
        """After a bug: free the slot, and keep what came back."""
        if job.permit is not None:
            self._gate.cancel(job.permit)
        if job.hold is not None:
            self._till.lose(job.hold)
            job.charge, job.hold = Charge(job.hold.cost, job.hold.tokens), None
        if job.exchange is not None:
            exchange, job.exchange = job.exchange, None
            body = exchange.body.decode(errors="replace") if exchange.status == 200 else None
            cost, tokens = job.charge
            seconds = exchange.ended - exchange.left
            end = End(exchange.status, seconds, "internal error", said, cost=cost, charged_tokens=tokens)
            self._journal.end(job.row.seq, job.number, end, body)

    async def _advance(self, job: Job) -> None:
        """Rendering is deterministic, so the journal keeps the row and not the body."""
        row, request = job.row, job.request
        if request is not None:
            await self._send(job, request)
            return
        request = self._renderer.render(restore(row.line, row.key, row.text))
        if retry.go_on(row.history) is Next.SEND:
            await self._send(job, request)
        else:
            judged = judge_body(request.endpoint, row.history.reply or "", self._checker)
            job.row = row._replace(history=row.history._replace(reply=None))  # judged once; from here on it is sent
            await self._conclude(job, request, judged, None)

    async def _send(self, job: Job, request: Request) -> None:
        assert self._client is not None
        try:
            permit = await self._gate.admit(partial(self._gate.estimate, len(request.body), request.output_limit))
            job.permit = permit
        except NeverFits as error:
            await self._give_up(job, GiveUp("request too large", str(error), final=True))
            return
        hold = job.hold = await self._reserved(request, permit)
        seq, job.number = job.row.seq, job.number + 1
        try:
            await self._journal.begin(seq, job.number, hold.cost, hold.tokens)
            permit = job.permit = await self._gate.confirm(permit)
        except BaseException:
            self._gate.cancel(permit)
            self._till.cancel(hold)
            self._journal.end(seq, job.number, NEVER_LEFT)
            raise
        self._gate.leave(permit)
        self._emit(AttemptStarted(seq, job.number, self._loop.time()))
        try:
            exchange = await self._client.send(request, timeout=self._plan.timeout)
        except asyncio.CancelledError:
            self._gate.cancel(permit)
            self._till.lose(hold)
            self._journal.lose(seq, job.number, "abandoned while it was in flight")
            self._emit(RowLost(seq, self._loop.time(), hold.cost))
            raise
        job.exchange = exchange
        judged = judge(request.endpoint, exchange, self._checker, self._client.mask)
        self._gate.settle(permit, feedback(judged, len(request.body)))
        job.hold, job.charge = None, self._till.settle(hold, judged)
        await self._conclude(job, request, judged, exchange)

    async def _reserved(self, request: Request, permit: Permit) -> Hold:
        """What the request may cost at worst, taken out of the budget; a budget that is used up ends the run."""
        try:
            return await self._till.hold(request)
        except BudgetReached as error:
            self._gate.cancel(permit)
            self.stop(Ending(ExitCode.BUDGET, str(error)), drain=max(self._plan.drain, self._plan.timeout))
            raise GateClosed from error
        except BaseException:
            self._gate.cancel(permit)
            raise

    async def _conclude(self, job: Job, request: Request, judged: Judged, exchange: Exchange | None) -> None:
        """Decide and perform. `exchange` is None for a reply that an earlier process recorded."""
        answer = judged.answer
        tries = Tries(job.attempts, job.deadlines, job.asks)
        if exchange is not None:
            tries = counted(tries, answer)
            self._health.observe(answer, job.row.seq, self._loop.time())
        verdict = retry.decide(answer, tries, self._health, self._policy, self._loop.time())
        stored = None if exchange is None else self._record(job, judged, exchange, verdict)
        await self._perform(job, request, judged, verdict, stored)

    def _record(self, job: Job, judged: Judged, exchange: Exchange, verdict: Verdict) -> "asyncio.Future[None]":
        """Into the journal's queue first, then told; the outcome that follows is committed after it."""
        assert self._client is not None
        cost, tokens = job.charge
        end = end_of(judged, exchange, verdict, self._client.mask)
        end = end._replace(cost=cost, charged_tokens=tokens)
        body = exchange.body.decode() if judged.reply is not None else None
        stored = self._journal.end(job.row.seq, job.number, end, body)
        job.exchange = None
        if end.counted and not end.throttled:
            job.attempts += 1
            job.deadlines += end.deadline
        job.asks += end.invalid
        self._emit(attempt_ended(job, judged, end, verdict, self._loop.time()))
        self._mind_the_breaker()
        return stored

    async def _perform(
        self, job: Job, request: Request, judged: Judged, verdict: Verdict, stored: "asyncio.Future[None] | None"
    ) -> None:
        match verdict:
            case Done():
                outcome = Outcome(State.DONE, True, None, None, judged.answer.flags, judged.value)
                if not await self._posting.put(job, judged, outcome, stored):
                    await self._finish(job, outcome)
                if self._held and self._health.succeeded:
                    await self._flush_held()
            case RetryIn() | AskAgain() if self._client is None:
                self._window.finished()  # nothing is sent: the row stays as it is
            case RetryIn(seconds=seconds):
                self._put_back(job, seconds)
            case AskAgain(complaint=complaint):
                text = judged.reply.text if judged.reply is not None else None
                job.request = ask_again(request, text or "", complaint)
                self._put_back(job, 0.0)
            case GiveUp():
                await self._give_up(job, verdict)
            case StopRun(message=message, hint=hint):
                self._held.clear()
                self.stop(Ending(ExitCode.STOPPED, message, hint), drain=self._plan.drain)

    async def _give_up(self, job: Job, verdict: GiveUp) -> None:
        if self._health.succeeded:
            await self._finish(job, failure(verdict))
        else:
            job.handed_on = True
            self._held.append((job, verdict))
            self._window.finished()

    def _put_back(self, job: Job, seconds: float) -> None:
        job.handed_on = True
        self._window.put_back(job, seconds)

    async def _finish(self, job: Job, outcome: Outcome) -> None:
        job.handed_on = True
        await self._write(job, outcome)
        self._window.finished()

    async def _write(self, job: Job, outcome: Outcome) -> None:
        await self._journal.finish(job.row.seq, outcome)
        row = job.row
        self._emit(RowFinished(row.seq, row.position, row.key, self._loop.time(), outcome))

    async def _flush_held(self) -> None:
        """Failures from before the first success stand after all."""
        held, self._held = self._held, []
        for job, verdict in held:
            await self._write(job, failure(verdict))

    def _mind_the_breaker(self) -> None:
        down = self._health.breaker_open
        if down != self._down:
            self._down = down
            self._gate.trickle(down)
            now = self._loop.time()
            said = "the provider is down: one try a second" if down else "the provider answers again"
            self._emit(Notice(said, now))

    async def _watch(self) -> None:
        """What changes without an event of its own: the gate, waits for retries, and the samples in the journal."""
        next_sample = self._loop.time()
        while True:
            now, view = self._loop.time(), self._gate.view()
            if view != self._view:
                self._view = view
                self._emit(limits_event(view, now))
            self._posting.tell()
            self._tell_waiting_for_retries(view, now)
            if now >= next_sample:
                next_sample = now + SAMPLE_EVERY
                self._journal.sample(sample_of(view, self._journal))
            await asyncio.sleep(TICK)

    def _tell_waiting_for_retries(self, view: GateView, now: float) -> None:
        due = self._window.next_due if not view.in_flight else None
        if due is not None and due > now:
            self._waits_for_retries = True
            self._emit(Waiting(WaitReason.RETRIES, due, now))
        elif self._waits_for_retries:
            self._waits_for_retries = False
            self._emit(Going(now))

    def _time_is_up(self) -> None:
        self.stop(Ending(ExitCode.BUDGET, "the time of --stop-after is over"), drain=self._plan.drain)

    def _fail(self, error: BatchrunError) -> None:
        """The journal cannot be written: nothing that comes back could be kept, so nothing more is awaited."""
        self._ending = Ending(error.exit_code, error.message, error.hint)
        self._close()
        self.abandon()


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
