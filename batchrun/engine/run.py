"""The run: a bounded pool of workers performs the steps of rows (`row`)."""

import asyncio
import gc
import logging
import math
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from batchrun import retry
from batchrun.engine.assignment import Policy
from batchrun.engine.attempt import RowServices
from batchrun.engine.batch_mode import BatchMode
from batchrun.engine.budget_guard import BudgetGuard
from batchrun.engine.lane import Member
from batchrun.engine.pending_queue import AHEAD, Followers, PendingQueue
from batchrun.engine.pool import Pool
from batchrun.engine.post_processing import PostProcessing
from batchrun.engine.row import RowRunner
from batchrun.engine.row_files import text_form
from batchrun.engine.run_result import RunResult
from batchrun.engine.segment_checks import RowChecks
from batchrun.engine.selection import at_places, selection
from batchrun.engine.sending import groups_of
from batchrun.engine.snapshots import Session, limits_event, sample_of
from batchrun.errors import BatchrunError, ExitCode, StorageError
from batchrun.events import Draining, Emit, Notice, Resumed, Waiting, WaitReason
from batchrun.journal import Journal
from batchrun.limits import GateClosed, GateView, Limits
from batchrun.models import Pending
from batchrun.plan import Plan
from batchrun.prompts import Renderer
from batchrun.replies import Checker
from batchrun.retry import Next

if TYPE_CHECKING:
    from batchrun.client.senders.hub import Hub
    from batchrun.engine.batches import Batches, Batching
    from batchrun.engine.row_pages import RowPages

log = logging.getLogger(__name__)

FIRST = 128  # Rows fetched at once before the first reply, where others can be sent in pages
TICK = 0.25  # Seconds between polls of the gate
SAMPLE_EVERY = 5.0  # Seconds between samples of the run's state in the journal
EARLY = frozenset({ExitCode.INTERRUPTED, ExitCode.BUDGET})  # Ends that count as success if no row is left by then
_NO_SENDER = RunResult(
    ExitCode.STOPPED, "no sender process was ready within --give-up-after", "resume with --processes 1"
)
# Ends from outside, which may shorten the wait for requests in flight
SIGNALLED = frozenset({ExitCode.HANGUP, ExitCode.INTERRUPTED, ExitCode.TERMINATED})


class Run:
    """Create it inside its loop. Failures are in the result of `run`, not raised.

    `emit` is called in order and returns at once. Without clients in `members` stored replies are processed only.
    """

    def __init__(  # noqa: PLR0913  the four parts, what is to be done with them, and the reporters
        self,
        plan: Plan,
        journal: Journal,
        members: Sequence[Member],
        renderer: Renderer,
        *,
        checker: Checker | RowChecks | None,
        emit: Emit,
        only: tuple[int, ...] | None = None,
        secrets: tuple[str, ...] = (),
        batching: "Batching | None" = None,
    ) -> None:
        self._plan, self._renderer = plan, renderer
        self._only = only
        self._sends = members[0].client is not None
        self._selected = selection(plan, journal.totals.rows, only) if self._sends else None
        self._journal = journal
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._pool = Pool(members, journal, emit=emit, policy=Policy(plan.pool_policy))
        self._guard = BudgetGuard(plan, journal, expected=lambda: self._pool.first.gate.estimate(0, None))
        groups = groups_of(plan) if self._sends else None
        self._hub = members[0].hub
        self._form = text_form(plan, checker, alone=self._sends and groups is None and batching is None, hub=self._hub)
        rows, most = plan.limit or journal.totals.rows, plan.max_bytes_in_flight
        self._queue = PendingQueue(self._fetch, self._fetch_followers, rows, groups, most_bytes=most)
        self._post = PostProcessing(plan, journal, self._queue, secrets=secrets, emit=emit, failed=self._fail)
        services = RowServices(self._queue, renderer, checker, self._pool, self._guard, journal, self._post)
        self._runner = RowRunner(plan, services, emit=emit, stop=self.stop)
        self._batches = None if batching is None else self._batches_of(batching, services, grouped=groups is not None)
        self._pages = None if self._hub is None or groups or batching else self._pages_of(services, self._hub)
        self._ending: RunResult | None = None
        self._drained = math.inf
        self._worker_tasks: set[asyncio.Task[None]] = set()
        self._working, self._waits, self.paused = 0, False, False
        self._view: GateView | None = None
        self._quotas_reported: set[str] = set()

    def _batches_of(self, batching: "Batching", services: RowServices, *, grouped: bool) -> "Batches":
        from batchrun.engine.batch_rows import BatchRows  # noqa: PLC0415  only a run with batches pays for it
        from batchrun.engine.batches import Batches  # noqa: PLC0415  likewise

        stop = partial(self.stop, drain=self._plan.drain)
        batches = Batches(batching, self._journal, self._guard, emit=self._emit, stop=stop)
        rows = self._runner.batch_rows = BatchRows(self._plan, services, self._runner, batches, emit=self._emit)
        self._queue.direct = None if grouped else rows.put_all
        return batches

    def _pages_of(self, services: RowServices, hub: "Hub") -> "RowPages | None":
        from batchrun.engine.row_pages import RowPages  # noqa: PLC0415  only a run with senders pays for it

        parts = self._plan, services, self._runner, hub
        pages = RowPages.of(*parts, emit=self._emit, failed=self._fail)
        self._queue.direct = pages and pages.put_all
        return pages

    async def run(self) -> RunResult:
        gc.freeze()  # what is there now lives as long as the run, and each full collection of it would take 50 ms
        beside = [each for lane in self._pool.lanes for each in (lane.outage, lane.queue) if each is not None]
        side = [self._loop.create_task(work) for work in (self._watch(), *(each.watch() for each in beside))]
        timer = None
        if self._plan.stop_after is not None:
            timer = self._loop.call_later(self._plan.stop_after, self._time_is_up)
        try:
            if self._hub is not None:
                self._hub.subscribe(self._emit)
            await self._post.start()
            self._pool.start()
            self._queue.recall(await asyncio.to_thread(self._journal.failed))
            if self._plan.reduce is not None or self._plan.split is not None:
                self._queue.reduce()
            await (self._send_all() if self._batches is None else self._send_with_batches(self._batches))
            await self._post.drain()
            while self._runner.completing:
                await self._journal.flush()
            self._sample(self._pool.view())  # the final state
        except StorageError as error:
            self._fail(error)
        finally:
            if timer is not None:
                timer.cancel()
            self._close()
            await _cancelled(side)
            await self._post.close()
            gc.unfreeze()
        ending = self._ending or RunResult(ExitCode.OK)
        if ending.exit_code in EARLY and not ending.hasty and not await asyncio.to_thread(self._rows_left):
            message = ending.message or ending.exit_code.name.lower()
            return RunResult(
                ExitCode.OK,
                notes=(*self._post.notes, f"{message} while the last rows were in flight; all of them have finished"),
            )
        return self._explained(ending)

    def _rows_left(self) -> int:
        totals, wanted = self._journal.totals, self._selected
        if wanted is None or not totals.pending:
            return totals.pending + totals.unknown + totals.in_batches
        return self._journal.count_pending(self._plan.limit, wanted)

    async def _send_all(self) -> None:
        more = True
        while more:
            self._start_workers()
            while self._worker_tasks:
                await asyncio.gather(*self._worker_tasks, return_exceptions=True)
            if self._pages is not None:
                await self._pages.drained()
            if self._ending is not None:
                return
            await self._runner.flush_held()
            more = self._queue.more

    async def _send_with_batches(self, batches: "Batches") -> None:
        from batchrun.engine.finish_by import FinishBy  # noqa: PLC0415  only a run with batches pays for it

        await batches.import_parts()
        await batches.read_late()
        carrying = self._loop.create_task(batches.carry())
        sends = batches.batch_mode is not BatchMode.CANCEL
        detaches = self._plan.batch_detach and batches.batch_mode is BatchMode.RESUME
        if batches.batch_mode in (BatchMode.CANCEL, BatchMode.FINISH_LIVE):
            await batches.end_early()
        if detaches:
            batches.poll_now()
        finishing = FinishBy(self._plan, self._journal, self._renderer, batches, chosen=self._chosen, emit=self._emit)
        await finishing.start()
        await finishing.report_price()
        beside = [carrying, self._loop.create_task(finishing.watch())]
        try:
            while True:
                if sends:
                    await self._send_all()
                if self._ending is not None:
                    return
                if sends and batches.ends.left_pending:
                    batches.ends.left_pending = False
                    few = self._journal.totals.pending < self._plan.batch_min
                    is_tail = few and self._plan.batch_tail == "live"
                    batches.sending = batches.may_send and not is_tail
                    await finishing.report_price()
                    self._queue.restart()
                    continue
                await batches.close_chunks()
                if detaches and not batches.ends_early:
                    await batches.quiet()
                    settled = False
                else:
                    settled = await batches.next_settled()
                if not (settled or (sends and (batches.ends.left_pending or self._queue.more))):
                    break
            if batches.open and self._ending is None:
                self._ending = RunResult(ExitCode.WAITING, "the provider is still processing the batches")
        finally:
            batches.close()
            if carrying.done():
                carrying.result()
            await _cancelled(beside)

    def _explained(self, ending: RunResult) -> RunResult:
        left = self._runner.left_out
        ending = ending._replace(notes=(*self._post.notes, *left.notes), left_out=len(left))
        if ending.exit_code is not ExitCode.BUDGET or self._guard.reached is None:
            return ending
        message, hint = self._guard.final_message(self._journal.totals)
        return ending._replace(message=message, hint=hint)

    def _close(self) -> None:
        # Requests with a reservation are still sent when the budget is used up.
        self._queue.close()
        if self._pages is not None:
            self._pages.close()
        if self._batches is not None:
            self._batches.halt()
        self._pool.close(recall=self._ending is None or self._ending.exit_code is not ExitCode.BUDGET)
        self._guard.close()
        if self._hub is not None:
            self._hub.recall()

    def stop(self, ending: RunResult, *, drain: float) -> None:
        """Abandon what is in flight after `drain` seconds.

        The first ending stands; a later signal can shorten the wait.
        """
        now = self._loop.time()
        if self._ending is None:
            self._ending = ending
            self._close()
        elif ending.exit_code not in SIGNALLED or now + drain >= self._drained:
            return
        self._drained = now + drain
        in_flight = self._runner.in_flight
        post = self._post.end_soon() if ending.exit_code in SIGNALLED else 0
        if in_flight or post:
            message = ending.message or ending.exit_code.name.lower()
            self._emit(Draining(in_flight, self._drained, message, now, post))
        self._loop.call_later(drain, self.abandon)

    def abandon(self) -> None:
        """Rows in flight become unknown."""
        for worker in self._worker_tasks:
            worker.cancel()
        if self._pages is not None:
            self._pages.abandon()
        self._post.abandon()

    def leave(self) -> None:
        """Finish a stop at once, without output."""
        if self._ending is not None:
            self._ending = self._ending._replace(hasty=True)
            self.abandon()

    @property
    def ending(self) -> RunResult | None:
        return self._ending

    def pause(self) -> None:
        self.paused = True
        self._pool.pause()

    def resume(self) -> None:
        self.paused = False
        self._pool.resume()

    def change(self, limits: Limits) -> None:
        self._pool.change(limits)
        self._start_workers()

    @property
    def view(self) -> GateView:
        return self._pool.view()

    @property
    def in_flight(self) -> int:
        return self._runner.in_flight

    @property
    def stated(self) -> tuple[float | None, float | None]:
        """Requests and tokens per minute."""
        return self._pool.stated

    @property
    def limits(self) -> Limits:
        return self._pool.limits

    def _start_workers(self) -> None:
        """No more than there are rows without an outcome."""
        totals = self._journal.totals
        most = min(self._pool.workers, max(1, totals.pending + totals.unknown))
        while self._working < most:
            self._working += 1
            worker = self._loop.create_task(self._work())
            self._worker_tasks.add(worker)
            worker.add_done_callback(self._worker_tasks.discard)

    async def _fetch(self, after: int) -> tuple[list[Pending], int | None]:
        if self._only is not None:
            rows = await asyncio.to_thread(at_places, self._journal.pending, self._only, after)
            return rows, rows[-1].position if rows.full else None
        until = self._plan.limit if self._sends else None
        # in pages are those after the first reply
        few = self._pages is not None and not self._pool.first.health.succeeded
        most = min(FIRST, AHEAD) if few else AHEAD
        rows = await asyncio.to_thread(self._journal.pending, after, most, until, form=self._form)
        last = rows[-1].position if rows.full else None
        if not self._sends:
            return [row for row in rows if retry.resume_step(row.history) is Next.JUDGE], last
        return self._chosen(rows), last

    async def _fetch_followers(self, followers: Followers) -> tuple[list[Pending], int | None]:
        if followers.reduces:
            rows = await asyncio.to_thread(self._journal.reducible, followers.target, followers.after)
        elif followers.representative is None:
            rows = await asyncio.to_thread(self._journal.answered, followers.after, AHEAD)
        else:
            places = followers.representative, followers.source, followers.after
            rows = await asyncio.to_thread(self._journal.following, *places, AHEAD)
        last = rows[-1].seq if rows.full else None
        if followers.reduces and self._sends and self._plan.split is not None:
            return list(rows), last  # pieces are behind all rows of the input
        if followers.reduces and not self._sends:
            return [row for row in rows if retry.resume_step(row.history) is Next.JUDGE], last
        return self._chosen(rows), last

    def _chosen(self, rows: list[Pending]) -> list[Pending]:
        wanted = self._selected
        return rows if wanted is None else [row for row in rows if wanted(row.position)]

    async def _work(self) -> None:
        """Ends when the queue is drained or the pool shrunk."""
        try:
            queue, runner = self._queue, self._runner
            while (self._working <= self._pool.workers or queue.has_first) and (
                state := queue.take() or await queue.next()
            ) is not None:
                if (rows := runner.batch_rows) is not None and rows.sending:
                    await rows.send_all(states := [state, *islice(iter(queue.take, None), rows.together)])
                    queue.released(*states)
                    del states
                else:
                    await runner.go(state)
                    queue.released(state)
                    if state.elsewhere and state.lane is not None:
                        state.lane.end_probe(state)
                del state  # its bodies must not live until the next row comes
        except GateClosed:
            pass
        except StorageError as error:
            self._fail(error)
        except Exception as error:
            log.exception("a worker: internal error")
            message = f"internal error: {type(error).__name__}: {error}"
            self.stop(RunResult(ExitCode.UNEXPECTED, message, "this is a bug in batchrun"), drain=self._plan.drain)
        finally:
            self._working -= 1

    async def _watch(self) -> None:
        """Also detects a failed journal that no write waits for."""
        next_sample = self._loop.time()
        while self._journal.failure is None:
            now, view = self._loop.time(), self._pool.view()
            self._pool.schedule()
            self._pool.count_workers()
            if self._working and self._ending is None:
                self._start_workers()  # the caps rose, or there are more rows: pieces of a text, rows of an ended batch
            if view != self._view:
                self._view = view
                self._emit(limits_event(view, now))
            self._post.report()
            self._watch_quotas(view, now)
            self._report_wait(view, now)
            if self._hub is not None and self._hub.none_for(now) >= self._plan.give_up_after:
                self.stop(_NO_SENDER, drain=self._plan.drain)
            if now >= next_sample:
                next_sample = now + SAMPLE_EVERY
                self._sample(view)
            await asyncio.sleep(TICK)
        await asyncio.sleep(TICK)  # what was committed before is emitted first
        self._fail(self._journal.failure)

    def _sample(self, view: GateView) -> None:
        session = Session(self._runner.in_flight, self._runner.throttled, self._runner.retries)
        self._journal.sample(sample_of(view, self._journal, session))
        self._pool.keep_learned()

    def _watch_quotas(self, view: GateView, now: float) -> None:
        rows = self._journal.totals.pending
        for quota in view.quotas:
            if quota.kind == "requests" and quota.remaining < rows and quota.name not in self._quotas_reported:
                self._quotas_reported.add(quota.name)
                self._emit(Notice(f"{quota}; {rows:,} rows remain, so the run will wait when it is used up", now))
        longest = self._plan.max_wait
        if view.reason is WaitReason.QUOTA and longest is not None and (view.until or now) - now > longest:
            message = "the provider's quota is used up, and its wait is longer than --max-wait allows"
            ending = RunResult(ExitCode.STOPPED, message, "resume the run when the quota is renewed")
            self.stop(ending, drain=self._plan.drain)

    def _report_wait(self, view: GateView, now: float) -> None:
        due = self._queue.next_due if not view.in_flight else None
        if due is not None and due > now:
            self._waits = True
            self._emit(Waiting(WaitReason.RETRIES, due, now))
        elif (senders := self._hub is not None and self._hub.none_for(now) and self._runner.in_flight) or (
            self._queue.lacks_bytes and (self._queue.bytes.lacking or not view.waiting)
        ):
            self._waits = True
            self._emit(Waiting(WaitReason.SENDERS if senders else WaitReason.BYTES, None, now))
        elif self._waits:
            self._waits = False
            self._emit(Resumed(now))

    def _time_is_up(self) -> None:
        self.stop(RunResult(ExitCode.BUDGET, "the time limit of --stop-after is reached"), drain=self._plan.drain)

    def _fail(self, error: BatchrunError) -> None:
        # No reply can be stored without the journal.
        self._ending = RunResult(error.exit_code, error.message, error.hint)
        self._close()
        self.abandon()


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
