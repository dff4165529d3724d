"""The lanes of a run and its queue of rows. One loop, no threads.

Rows wait here until `assign` gives them to a lane, and only a few at its gate.
"""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

from batchrun.engine.assignment import LaneView, Policy, RowView, Wait, assign, to_recall
from batchrun.engine.lane import Lane, Member
from batchrun.engine.pending_queue import RowState
from batchrun.engine.prefixes import Prefix
from batchrun.engine.run_result import RunResult
from batchrun.errors import ExitCode
from batchrun.events import Emit, LaneChanged, LaneState, Resumed, Waiting, WaitReason
from batchrun.journal import Journal
from batchrun.limits import Gate, GateClosed, GateView, HandedBack, Limits, PageGate
from batchrun.models import Fault
from batchrun.retry import Answer, GiveUp, RetryIn, StopRun, Verdict

NEXT = 1.0  # Rows that wait at a lane's gate per slot, beside one: it then sees that its limit holds rows back
MOST_AT_ONCE = 8  # Rows given to a lane in one pass; its gate sees only then how many its rate limits allow
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 960.0  # Seconds until a closed lane is tried again; doubled with each failure
FIRST_PAUSE_AWAY = 5.0  # For a lane that cannot be reached, where a try costs nothing
SLOW = 5.0  # Seconds added to the estimate of a lane that is down: the last rows do not go there
MOST_IN_FLIGHT = 1_024  # Requests in flight at a server that reports an empty queue, where the user sets no cap
SCANNED = 64  # Rows considered beyond those that lanes have room for


class _Waiter(NamedTuple):
    state: RowState
    future: asyncio.Future[Lane]


def limits_of(member: Member) -> Limits:
    plan = member.plan
    most = None if plan.concurrency_chosen else MOST_IN_FLIGHT
    return Limits(plan.concurrency, plan.concurrency_fixed, plan.rpm, plan.tpm, most)


class Pool:
    def __init__(
        self,
        members: Sequence[Member],
        journal: Journal,
        *,
        emit: Emit,
        policy: Policy = Policy.SOONEST,
    ) -> None:
        self._emit = emit
        self._journal = journal
        self._policy = policy
        self._loop = asyncio.get_running_loop()
        self.limits = limits_of(members[0])
        self._gates: dict[str, Gate] = {}
        self.lanes = tuple(self._lane(number, member) for number, member in enumerate(members))
        self.first = self.lanes[0]
        self.only = self.first if len(self.lanes) == 1 else None  # The lane of a run with one: its gate is the queue
        self._fallbacks = [lane for lane in self.lanes if lane.fallback]
        journal.fallbacks = frozenset(lane.id for lane in self._fallbacks if lane.record is not None)
        self._queue: deque[_Waiter] = deque()
        self._cached_at: WeakKeyDictionary[Prefix, frozenset[int]] = WeakKeyDictionary()
        self._due: asyncio.Handle | None = None
        self._closed = self._reported = False
        self.workers = 0  # Rows handled at once: twice the caps, so that as many are ready as are in flight
        self.count_workers()

    def _lane(self, number: int, member: Member) -> Lane:
        shared = self._gates.get(member.quota or "")
        senders = member.hub is not None

        def report(event: Waiting | Resumed) -> None:
            self._report_wait(lane, event)

        kind = PageGate if senders else Gate
        gate = shared or kind(limits_of(member), emit=report, senders=senders)
        if member.quota:
            self._gates[member.quota] = gate
        if member.client is not None and senders:
            member.client.space(lambda: gate.stated != (None, None))
        lane = Lane(
            member,
            gate,
            emit=self._emit,
            rows_left=lambda: self._journal.totals.pending,
            fitted=self._journal.totals.done > 0,
            number=number,
            changed=self._changed,
        )
        return lane

    def start(self) -> None:
        for lane in self.lanes:
            if self.only is None and lane.unreachable is not None:
                lane.close(RunResult(ExitCode.STOPPED, lane.unreachable), FIRST_PAUSE_AWAY)

    async def lane_for(self, state: RowState) -> Lane:
        """Raises GateClosed after `close`."""
        if self._closed:
            raise GateClosed
        if state.elsewhere and state.lane is not None and state.lane.closed is None:
            state.lane.assign_row()
            return state.lane
        waiter = _Waiter(state, self._loop.create_future())
        (self._queue.appendleft if state.failed_at else self._queue.append)(waiter)
        self.schedule()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self.admitted(waiter.future.result())
                self.answered(waiter.future.result())
            raise

    def admitted(self, lane: Lane) -> None:
        if self.only is None:
            lane.queued -= 1
            self.schedule()

    def answered(self, lane: Lane) -> None:
        if self.only is None:
            lane.assigned -= 1
            self.schedule()

    def schedule(self) -> None:
        if self._due is None and self.only is None:
            self._due = self._loop.call_soon(self._assign)

    def _assign(self) -> None:
        self._due = None
        if self._closed:
            return
        while self._queue and self._queue[0].future.done():
            self._queue.popleft()
        now = self._loop.time()
        views = [self._view(lane, now) for lane in self.lanes]
        left = self._journal.totals.pending
        for number in to_recall(views, [lane.queued for lane in self.lanes], left, spare=not self._queue):
            self.lanes[number].gate.hand_back()
        if not self._queue:
            return
        most = sum(max(0, view.room) for view in views) + SCANNED
        waiters = [self._queue[place] for place in range(min(most, len(self._queue)))]
        given = assign([self._row(waiter.state) for waiter in waiters], views, left)
        if isinstance(given, Wait):
            return
        taken: set[int] = set()
        for place, number in given:
            taken.add(place)
            self._give(waiters[place], self.lanes[number])
        for place in sorted(taken, reverse=True):
            del self._queue[place]

    def _give(self, waiter: _Waiter, lane: Lane) -> None:
        if waiter.future.done():
            return
        if waiter.state.shared:
            prefix = waiter.state.shared[-1]
            self._cached_at[prefix] = self._cached_at.get(prefix, frozenset()) | {lane.number}
        lane.assign_row()
        waiter.future.set_result(lane)

    def _row(self, state: RowState) -> RowView:
        cached = self._cached_at.get(state.shared[-1], frozenset()) if state.shared else frozenset[int]()
        only = frozenset(lane.number for lane in self.lanes_for(state)) if self._fallbacks else None
        return RowView(state.failed_at, only, cached)

    def _view(self, lane: Lane, now: float) -> LaneView:
        rank = self._rank(lane)
        if lane.closed is not None:
            due = now >= lane.closed.again
            return LaneView(
                open=due, trying=True, room=1 - lane.assigned if due else 0, seconds=SLOW, rank=rank,
                reason=WaitReason.DOWN, until=lane.closed.again,
            )  # fmt: skip
        view = lane.gate.view()
        rate = lane.rate(now)
        took = max(lane.took, lane.gate.flights.quiet_for(now) if lane.assigned else 0.0)
        took = max(took, (lane.assigned - lane.queued) / rate) if rate else took
        if lane.state is not LaneState.OPEN:
            trying = LaneView(trying=True, room=1 - lane.queued, seconds=took + SLOW, rate=rate, rank=rank)
            return trying._replace(reason=view.reason, until=view.until)
        few = 1 + int(view.allowed * NEXT)
        free = 0 if view.waiting else max(0, view.allowed - view.in_flight - lane.queued)
        wait = 0.0
        if view.until is not None:
            wait = max(0.0, view.until - now)
        elif not free and rate:
            wait = (1 + lane.queued) / rate
        room = 0 if lane.holds else few + min(free, MOST_AT_ONCE) - (0 if free else lane.queued)
        load = (view.in_flight + lane.queued) / max(1, view.allowed)
        return LaneView(
            room=room,
            wait=wait,
            seconds=took if lane.took else 0.0,
            rate=rate,
            load=load,
            rank=rank,
            reason=view.reason,
            until=view.until,
        )

    def _rank(self, lane: Lane) -> float:
        if self._policy is Policy.PRIMARY:
            return lane.number
        return lane.prices.typical(lane.plan.model) if self._policy is Policy.CHEAPEST else 0.0

    def judged(self, state: RowState, lane: Lane, answer: Answer, verdict: Verdict) -> Verdict:
        """A row that one lane cannot answer goes to another without using an attempt. Without a lane the run stops."""
        closed = lane.closed
        tried = closed is not None and answer.left >= closed.again
        if tried and (answer.accepted or answer.of_the_row):
            lane.reopen()
        stops = verdict if isinstance(verdict, StopRun) else None
        if stops is None and answer.down and (tried or (answer.fault is Fault.REFUSED and not lane.health.succeeded)):
            stops = StopRun(f"no answer: {answer.message}", "resume with the command below when it is back")
        if closed is not None and isinstance(verdict, GiveUp) and not (answer.accepted or answer.of_the_row):
            stops = StopRun(closed.ending.message or "", closed.ending.hint)
        if stops is not None:
            if closed is None or tried:
                first = FIRST_PAUSE if answer.status else FIRST_PAUSE_AWAY
                pause = first if closed is None else min(LONGEST_PAUSE, max(first, 2 * closed.pause))
                lane.close(RunResult(ExitCode.STOPPED, *stops), pause)
            left = any(other.closed is None for other in self.lanes_for(state))
            if not left and state.gave_up is not None:
                return state.gave_up
            return RetryIn(0.0, counts=False) if left else StopRun(self._reasons, stops.hint)
        if answer.fault is Fault.REFUSED:
            lane.gone()
        lane_failed = answer.down and answer.fault is not Fault.DEADLINE and not isinstance(verdict, StopRun)
        if lane_failed and lane.number not in state.failed_at and self.others(lane, state):
            state.failed_at |= {lane.number}
            return RetryIn(0.0, counts=False)
        return verdict

    def lanes_for(self, state: RowState) -> Sequence[Lane]:
        """The fallback after the row's own failure, else all others."""
        return self._fallbacks if state.gave_up is not None else [lane for lane in self.lanes if not lane.fallback]

    def can_fall_back(self, state: RowState, verdict: GiveUp) -> bool:
        known = state.first_request is not None or state.request is not None
        return verdict.permanent and state.gave_up is None and known and self.has_fallback

    def fall_back(self, state: RowState, verdict: GiveUp) -> None:
        """`verdict` stands if the row fails there too."""
        state.gave_up, state.request, state.failed_at = verdict, state.first_request or state.request, frozenset()
        state.attempts = state.deadlines = state.asks = state.refusals = 0

    @property
    def has_fallback(self) -> bool:
        return any(lane.closed is None for lane in self._fallbacks)

    @property
    def _reasons(self) -> str:
        closed = [(lane.name, lane.closed) for lane in self.lanes if not lane.fallback]
        reasons = [(name, why.ending.message or "") for name, why in closed if why is not None]
        same = {message for _, message in reasons}
        return reasons[0][1] if len(same) == 1 else "; ".join(f"{name}: {message}" for name, message in reasons)

    def others(self, lane: Lane, state: RowState) -> bool:
        """Whether another lane can take the row."""
        return any(
            other is not lane and other.state is LaneState.OPEN and other.number not in state.failed_at
            for other in self.lanes_for(state)
        )

    def _changed(self, lane: Lane) -> None:
        if self.only is None:
            self._emit(
                LaneChanged(lane.name, lane.state, lane.reason, lane.closed and lane.closed.again, self._loop.time())
            )
            if lane.state is not LaneState.OPEN:
                lane.gate.hand_back()
            if lane.fallback and lane.closed is not None:
                # Rows that wait for the closed fallback are handed out again, to fail.
                for waiter in self._queue:
                    if waiter.state.gave_up is not None and not waiter.future.done():
                        waiter.future.set_exception(HandedBack())
                self._queue = deque(waiter for waiter in self._queue if not waiter.future.done())
            self.schedule()

    def count_workers(self) -> None:
        self.workers = 2 * sum(lane.gate.cap for lane in self.lanes)

    def close(self, *, recall: bool) -> None:
        """`recall` as for `Gate.close`."""
        self._closed = True
        for waiter in self._queue:
            if not waiter.future.done():
                waiter.future.set_exception(GateClosed())
        self._queue.clear()
        for lane in self.lanes:
            lane.gate.close(recall=recall)
            lane.sending.close()

    def pause(self) -> None:
        for lane in self.lanes:
            lane.gate.pause()

    def resume(self) -> None:
        for lane in self.lanes:
            lane.gate.resume()

    def change(self, limits: Limits) -> None:
        self.limits = limits
        for lane in self.lanes:
            lane.gate.change(limits)
        self.count_workers()
        self.schedule()

    def view(self) -> GateView:
        """All gates as one; waiting only if all wait."""
        if self.only is not None:
            return self.only.gate.view()
        views = [gate.view() for gate in dict.fromkeys(lane.gate for lane in self.lanes)]
        held = [view for view in views if view.reason is not None]
        first = min(held, key=lambda view: math.inf if view.until is None else view.until, default=None)
        all_held = first is not None and len(held) == len(views)
        return GateView(
            in_flight=sum(view.in_flight for view in views),
            allowed=sum(view.allowed for view in views),
            cap=sum(view.cap for view in views),
            rpm=_sum([view.rpm for view in views]),
            tpm=_sum([view.tpm for view in views]),
            requests_fill=None,
            tokens_fill=None,
            reason=first.reason if first is not None and all_held else None,
            until=first.until if first is not None and all_held else None,
            refused_since=None,
            waiting=len(self._queue) + sum(view.waiting for view in views),
            quotas=tuple(quota for view in views for quota in view.quotas),
        )

    @property
    def stated(self) -> tuple[float | None, float | None]:
        """Per minute; None unless all lanes state them."""
        if self.only is not None:
            return self.only.gate.stated
        stated = [gate.stated for gate in dict.fromkeys(lane.gate for lane in self.lanes)]
        return _sum([requests for requests, _ in stated]), _sum([tokens for _, tokens in stated])

    def keep_learned(self) -> None:
        if self._journal.totals.replies:
            for lane in self.lanes:
                if lane.record is not None and (learned := lane.learned_json()) is not None:
                    self._journal.learn(lane.record.id, learned)

    def _report_wait(self, lane: Lane, event: Waiting | Resumed) -> None:
        lane.waits = event if isinstance(event, Waiting) else None
        if self.only is not None:
            self._emit(lane.explained(event))
            return
        open_ = [each for each in self.lanes if each.closed is None and not each.fallback]
        waits = [each.waits for each in open_ if each.waits is not None]
        if waits and len(waits) == len(open_):
            self._reported = True
            first = min(waits, key=lambda wait: math.inf if wait.until is None else wait.until)
            self._emit(first)
        elif self._reported:
            self._reported = False
            self._emit(Resumed(self._loop.time()))


def _sum(rates: list[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known and len(known) == len(rates) else None
