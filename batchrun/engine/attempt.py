"""One attempt of a row: what it takes until its request leaves, and how that is given up.

Theory. An attempt takes five things that belong to others, in this order: a place at its lane (`Pool`), a service tier,
which it may be the one to try (`Tiers`), the most that it can cost (`BudgetGuard`), a slot (`Gate`), and a line in the
journal, which is committed before the first byte leaves. They are taken by `depart`, and all of them are undone by
`cancel`, at any moment and once. How depends on how far it got:

    WAITS      at its lane            what it has so far is given back; its line in the journal says that it never left
    ADMITTED   has a slot             the same
    LEFT       is in flight           the slot is free; the worst case stays charged, for it may have been billed, and the
                                      journal has it as lost
    ANSWERED   came back, not judged  the slot is free, what it cost at worst or is known to have cost stays charged, and the
                                      journal keeps the reply, as one that failed
    OVER       is in the journal      nothing
"""

import asyncio
from dataclasses import dataclass
from enum import IntEnum, auto
from functools import partial

from batchrun.client.senders.hub import Kept
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
"""The end of an attempt that was written down but not sent: nothing about its row is unknown."""


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


class Phase(IntEnum):
    """How far an attempt got."""

    WAITS = auto()
    ADMITTED = auto()
    LEFT = auto()
    ANSWERED = auto()
    OVER = auto()


_WAITS, _ADMITTED, _LEFT, _ANSWERED, _OVER = Phase


class Attempt:
    """The attempt that a row is sent with next, or one that a batch has answered, with its lease and the answer as `exchange`.
    On the loop of the run."""

    __slots__ = (
        "_at", "_begun", "charge", "exchange", "lane", "lease", "number", "permit", "phase", "reservation", "state",
    )  # fmt: skip

    def __init__(
        self,
        services: RowServices,
        state: RowState,
        lane: Lane,
        lease: Lease | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        self._at = services
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
        """Wait until the request may leave and its line in the journal is committed; what this returns leaves then.

        Where only a slot is missing the line is written while it is waited for, so that the request leaves in the very
        turn in which the slot gets free. Raises NeverFits, BudgetReached, GateClosed, HandedBack, ChangedError and
        StorageError; then, as when it is cancelled, everything has been given back.
        """
        state, lane, guard = self.state, self.lane, self._at.guard
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
            pool, held = self._at.pool, self._at.queue.bytes
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
        self._begun = self._at.journal.begin(self.state.row.seq, self.number, worst, tokens, self.lane.id)
        return self._begun

    def unsent(self) -> None:
        """It turned out that nothing has left after all."""
        self.phase = _ADMITTED
        self.cancel()

    def answered(self, exchange: Exchange) -> None:
        """Its answer has come."""
        self.phase, self.exchange = _ANSWERED, exchange
        if self._at.pool.only is None:
            self._at.pool.answered(self.lane)

    def settle(self, judged: Judged) -> None:
        """Charge what the answer says in the place of what was reserved."""
        assert self.reservation is not None
        self.charge, self.reservation = self._at.guard.settle(self.reservation, judged), None

    def end(self, end: End, body: str | None) -> "asyncio.Future[None]":
        """Into the journal; it is over. A sender keeps its answer until that is committed."""
        self.phase = _OVER
        stored = self._at.journal.end(self.state.row.seq, self.number, end, body, self.lease)
        if isinstance(self.exchange, Kept):
            stored.add_done_callback(self.exchange.stored)
        return stored

    def complete(self, end: End, outcome: Outcome, told: partial[None]) -> None:
        """Into the journal, with the outcome of its row; it is over. `told` is called once that is committed."""
        self.phase = _OVER
        assert self.exchange is not None, "it is answered"
        reply = end, self.exchange.body.decode()
        self._at.journal.complete(self.state.row.seq, self.number, reply, outcome, told)

    def cancel(self, said: str = "abandoned while it was in flight") -> None:
        """Give up what it has, as the table above says."""
        at, lane, seq, phase = self._at, self.lane, self.state.row.seq, self.phase
        if phase is _OVER:
            return
        self.phase = _OVER
        if phase is _WAITS:
            at.pool.admitted(lane)
        if phase < _ANSWERED:
            at.pool.answered(lane)
        lane.sending.tiers.released(self.state)
        if self.permit is not None:
            lane.gate.cancel(self.permit)
        if self.reservation is not None:
            if phase < _LEFT:
                at.guard.cancel(self.reservation)
            else:
                at.guard.lose(self.reservation)
                self.charge = Charge(self.reservation.cost, self.reservation.tokens)
        if phase is _LEFT:
            at.journal.lose(seq, self.number, said)
        elif self.exchange is not None:
            status, seconds = self.exchange.status, self.exchange.ended - self.exchange.left
            body = self.exchange.body.decode(errors="replace") if 200 <= status < 300 else None
            cost, tokens, _ = self.charge
            end = End(status, seconds, "internal error", said, cost=cost, charged_tokens=tokens)
            self.end(end, body)
        elif self._begun is not None:
            at.journal.end(seq, self.number, NEVER_LEFT)
