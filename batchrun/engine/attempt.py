"""One attempt of a row. `depart` acquires, in this order: a place at a lane (`Pool`), a service tier (`Tiers`), the
worst-case cost (`BudgetGuard`), a slot (`Gate`), and a journal entry, committed before the first byte is sent. `cancel`
releases them, by phase:

    WAITS      at its lane            all is released; the entry says that nothing was sent
    ADMITTED   has a slot             the same
    LEFT       in flight              slot released; worst case stays charged; journaled as lost
    ANSWERED   answered, not judged   slot released; cost stays charged; the reply is journaled as failed
    OVER       in the journal         nothing
"""

import asyncio
from dataclasses import dataclass
from enum import IntEnum, auto
from functools import partial

from batchrun.client.senders.exchanges import Kept
from batchrun.engine.budget_guard import UNCHARGED, BudgetGuard, Reservation
from batchrun.engine.judge import Charge, Judged
from batchrun.engine.lane import Lane
from batchrun.engine.pending_queue import PendingQueue, RowState
from batchrun.engine.pool import Pool
from batchrun.engine.post_processing import PostProcessing
from batchrun.engine.row_files import with_content
from batchrun.engine.segment_checks import RowChecks
from batchrun.journal import End, Journal, Lease
from batchrun.limits import Permit
from batchrun.models import Exchange, Outcome, Request
from batchrun.prompts import Renderer
from batchrun.replies import Checker

NEVER_LEFT = End(0, 0.0, "stopped before it left", counted=False)


@dataclass(frozen=True, slots=True)
class RowServices:
    queue: PendingQueue
    renderer: Renderer
    checker: Checker | RowChecks | None
    pool: Pool
    guard: BudgetGuard
    journal: Journal
    post: PostProcessing


class Phase(IntEnum):
    WAITS = auto()
    ADMITTED = auto()
    LEFT = auto()
    ANSWERED = auto()
    OVER = auto()


_WAITS, _ADMITTED, _LEFT, _ANSWERED, _OVER = Phase


class Attempt:
    """`lease` and `exchange` are of a batch."""

    __slots__ = (
        "_begun", "_services", "charge", "exchange", "lane", "lease", "number", "permit", "phase", "reservation", "state",
    )  # fmt: skip

    def __init__(
        self,
        services: RowServices,
        state: RowState,
        lane: Lane,
        lease: Lease | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        self._services = services
        self.state = state
        self.lane = lane
        self.lease = lease
        self.number = 0 if lease is None else lease.number
        self.phase = _WAITS if exchange is None else _ANSWERED
        self.reservation: Reservation | None = None
        self.charge = UNCHARGED
        self.exchange = exchange
        self.permit: Permit | None = None
        self._begun: asyncio.Future[None] | None = None

    async def depart(self, request: Request) -> Request:
        """Returns what is sent.

        Raises NeverFits, BudgetReached, GateClosed, HandedBack, ChangedError, StorageError, after releasing all.
        """
        state, lane, guard = self.state, self.lane, self._services.guard
        gate, sending = lane.gate, lane.sending
        try:
            tier = state.tier = None
            if sending.tiers.known:
                state.tier = await sending.tiers.chosen(state)
                tier = sending.priced(state)
            self.number = state.number = state.number + 1
            reserved = self.reservation = guard.at_once(request, tier, lane.prices)
            demand = partial(gate.estimate, request.weight, request.output_limit)
            ready = None if reserved is None else self._begin
            self.permit = await gate.admit(demand, ready=ready, first=state.elsewhere)
            self.phase = _ADMITTED
            pool, held = self._services.pool, self._services.queue.bytes
            if pool.only is None:
                pool.admitted(lane)
            if not held.leaves(state):
                await held.leave(state)
            if reserved is None:
                self.reservation = await guard.reserve(request, (state.row.seq, self.number), tier, lane.prices)
            await (self._begun or self._begin())
            if not gate.leaves(self.permit):
                self.permit = await gate.leave(self.permit)
            sent = sending.sent(state, request)
            sent = await with_content(sent) if sent.files else sent
        except BaseException:
            self.cancel()
            raise
        self.phase = _LEFT
        return sent

    def _begin(self) -> "asyncio.Future[None]":
        assert self.reservation is not None
        worst, tokens = self.reservation.cost, self.reservation.tokens
        self._begun = self._services.journal.begin(self.state.row.seq, self.number, worst, tokens, self.lane.id)
        return self._begun

    def sent_in_page(self, permit: Permit, reservation: Reservation) -> None:
        self.number, self.phase, self.permit, self.reservation = 1, _LEFT, permit, reservation
        self._begun = asyncio.get_running_loop().create_future()

    def unsent(self) -> None:
        self.phase = _ADMITTED
        self.cancel()

    def answered(self, exchange: Exchange) -> None:
        self.phase, self.exchange = _ANSWERED, exchange
        if self._services.pool.only is None:
            self._services.pool.answered(self.lane)

    def settle(self, judged: Judged) -> None:
        assert self.reservation is not None
        self.charge, self.reservation = self._services.guard.settle(self.reservation, judged), None

    def end(self, end: End, body: str | None) -> "asyncio.Future[None]":
        """A sender keeps its answer until this is committed."""
        self.phase = _OVER
        stored = self._services.journal.end(self.state.row.seq, self.number, end, body, self.lease)
        if isinstance(self.exchange, Kept):
            stored.add_done_callback(self.exchange.stored)
        return stored

    def complete(self, end: End, outcome: Outcome, completed: partial[None]) -> None:
        self.phase = _OVER
        assert self.exchange is not None, "it is answered"
        reply = end, self.exchange.body.decode()
        self._services.journal.complete(self.state.row.seq, self.number, reply, outcome, completed)

    def cancel(self, message: str = "abandoned while it was in flight") -> None:
        services, lane, seq, phase = self._services, self.lane, self.state.row.seq, self.phase
        if phase is _OVER:
            return
        self.phase = _OVER
        if phase is _WAITS:
            services.pool.admitted(lane)
        if phase < _ANSWERED:
            services.pool.answered(lane)
        lane.sending.tiers.released(self.state)
        if self.permit is not None:
            lane.gate.cancel(self.permit)
        if self.reservation is not None:
            if phase < _LEFT:
                services.guard.cancel(self.reservation)
            else:
                services.guard.lose(self.reservation)
                self.charge = Charge(self.reservation.cost, self.reservation.tokens)
        if phase is _LEFT:
            services.journal.lose(seq, self.number, message)
        elif self.exchange is not None:
            status, seconds = self.exchange.status, self.exchange.ended - self.exchange.left
            body = self.exchange.body.decode(errors="replace") if 200 <= status < 300 else None
            cost, tokens, _ = self.charge
            end = End(status, seconds, "internal error", message, cost=cost, charged_tokens=tokens)
            self.end(end, body)
        elif self._begun is not None:
            services.journal.end(seq, self.number, NEVER_LEFT)
