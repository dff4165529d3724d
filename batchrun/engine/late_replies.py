"""Replies that come after their sender was lost: it was only slow, or could not be reached.

The attempt is journaled as possibly billed, and its row queued again. The reply waits in memory: it answers the row if
no other does, else it was paid again.
"""

from functools import partial
from typing import NamedTuple

from batchrun.client.senders.exchanges import Lost
from batchrun.engine.attempt import RowServices
from batchrun.engine.judge import Charge, Judged, judge
from batchrun.engine.lane import Lane
from batchrun.engine.pending_queue import RowState
from batchrun.journal import End
from batchrun.models import Exchange, Request
from batchrun.pricing import STANDARD
from batchrun.replies import ReplyChecker


class Late(NamedTuple):
    number: int
    charge: Charge
    lane: Lane
    exchange: Exchange
    judged: Judged


class LateReplies:
    def __init__(self, services: RowServices) -> None:
        self._services = services

    def expect(self, state: RowState, lost: Lost, checker: ReplyChecker | None) -> None:
        attempt = state.attempt
        assert attempt is not None
        assert state.request is not None
        expected = attempt.number, attempt.charge, attempt.lane
        lost.late = partial(self._came, state, state.request, checker, expected)

    def _came(
        self,
        state: RowState,
        request: Request,
        checker: ReplyChecker | None,
        expected: tuple[int, Charge, Lane],
        exchange: Exchange,
    ) -> None:
        *_, lane = expected
        judged = judge(request, exchange, checker, lane.meanings, lane.mask)
        if judged.reply is None:
            return
        late = Late(*expected, exchange, judged)
        if state.over or state.late is not None:
            self._record(state, late, wanted=False)
        else:
            state.late = late

    def take(self, state: RowState, late: Late) -> Judged:
        """No other answer, and no attempt in flight."""
        state.late = None
        self._record(state, late, wanted=True)
        state.attempts += 1
        state.number += late.number < state.number  # it is the row's last attempt from here on
        return late.judged

    def over(self, state: RowState) -> None:
        state.over = True
        if state.late is not None:
            self._record(state, state.late, wanted=False)
            state.late = None

    def _record(self, state: RowState, late: Late, *, wanted: bool) -> None:
        guard, (cost, tokens, _) = self._services.guard, late.charge
        charge = guard.settle(guard.adopt(cost, tokens, late.lane.plan.model, STANDARD), late.judged)
        exchange = late.exchange
        end = End(exchange.status, exchange.ended - exchange.left, usage=late.judged.usage, cost=charge.cost)
        end = end._replace(charged_tokens=charge.tokens, bill=charge.bill)
        if not wanted:
            end = end._replace(cause="paid again", message="its sender process was lost", counted=False, invalid=True)
        body = exchange.body.decode() if wanted else None
        self._services.journal.late(state.row.seq, late.number, end, body)
