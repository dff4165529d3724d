"""A lane: one endpoint, key and model, with its own client, limits, health, prices and spelling.

What answers say of a provider is gathered here, over all rows that were sent there. On the loop of the run, no threads.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from batchrun.client import Client
from batchrun.client.senders.hub import Hub
from batchrun.engine.budget_guard import Prices, served
from batchrun.engine.judge import Judged, feedback, judge
from batchrun.engine.outage import Outage, Probing, probing_of
from batchrun.engine.pending_queue import RowState
from batchrun.engine.prompt_truncation import FEWEST, Cuts
from batchrun.engine.queue_watch import QueueWatch
from batchrun.engine.run_result import RunResult
from batchrun.engine.sending import Sending
from batchrun.events import Emit, LaneState, Notice, Resumed, Waiting, WaitReason
from batchrun.journal import Lane as Record
from batchrun.limits import Gate, Permit
from batchrun.models import Exchange, Fault, Flag, Request
from batchrun.plan import Plan
from batchrun.replies import ReplyChecker
from batchrun.retry import Answer, Health, Meaning, Meanings

MOST_ODD = 5
"""Finish reasons that are not known and are named."""
MOST_REFUSALS = 20
"""Refusals of one row in a row by other statuses than 429 that cost it nothing."""
_LATELY = 32
"""Replies whose times tell how many come in a second."""
_SAID_BY_THE_PROVIDER = frozenset(
    {WaitReason.THROTTLED, WaitReason.DOWN, WaitReason.LOADING, WaitReason.DOUBT, WaitReason.QUOTA}
)


@dataclass(frozen=True, slots=True)
class Member:
    """A place where requests can be sent: the run's plan with this endpoint, key and model in it, and the client for it.

    Without a `client` nothing is sent. `record` is the lane in the journal; `name` is what users call it. Members of one
    `quota` share a limiter. `ill` is why it cannot be reached at the start. `instead` are the beginning of the bodies of
    the run, and what stands in its place here, where the model has another name. A `fallback` gets only rows that have failed elsewhere.
    `hub` has the senders that make the exchanges, where they are not made in this process.
    """

    plan: Plan
    client: Client | None
    record: Record | None = None
    name: str = ""
    quota: str | None = None
    ill: str | None = None
    instead: tuple[bytes, bytes] | None = None
    fallback: bool = False
    hub: Hub | None = None


class Closed(NamedTuple):
    """A lane that answers no row: how a run with no other lane would end, and when it is tried again (the loop's time),
    `pause` seconds after it failed."""

    ending: RunResult
    again: float
    pause: float


class Lane:
    """Sends the requests of rows to one member, as fast as `gate` lets it.

    `fitted` is whether a reply of an earlier session fitted; `changed` hears when the lane's state is another.
    """

    def __init__(  # noqa: PLR0913  what a lane is, and who hears of it
        self,
        member: Member,
        gate: Gate,
        *,
        emit: Emit,
        rows_left: Callable[[], int],
        fitted: bool = False,
        number: int = 0,
        changed: Callable[["Lane"], None] = lambda _: None,
    ) -> None:
        self.number = number
        self.name = member.name
        self.id = 1 if member.record is None else member.record.id
        self.plan = plan = member.plan
        self.client = member.client
        self.mask = str if member.client is None else member.client.mask
        self.gate = gate
        self.record = member.record
        self.ill = member.ill
        self.fallback = member.fallback
        self.health = Health(fitted=fitted)
        self.outage = None if member.client is None else Outage(gate, member.client, gone=self.gone)
        self.queue = QueueWatch(gate, member.client) if member.client and _is_asked(member) else None
        self.meanings = Meanings(plan.dialect, plan.answers)
        self.prices = Prices(plan, expected=lambda: gate.estimate(0, None))
        self.sending = Sending(plan, emit=emit, rows_left=rows_left, as_rendered=member.instead is None)
        self.said = ""
        """By the provider, when it last refused for want of a rate or failed."""
        self.looks_elsewhere = False
        self.looking = asyncio.Lock()
        self.bound = self.given = 0
        """Rows that were given to it and have no slot yet; those that were given and are not answered."""
        self.took = 0.0
        """Seconds of an exchange that brought a reply, lately."""
        self._busy_since = 0.0
        self._answered: deque[float] = deque(maxlen=_LATELY)
        self.closed: Closed | None = None
        self.waits: Waiting | None = None
        self._state = LaneState.OPEN
        self._hears = changed
        self._fitted = fitted
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._cuts = Cuts()
        self._odd: set[str] = set()
        self._probing: Probing | None = None
        self._instead = member.instead
        self._learned = None if member.record is None else member.record.learned
        self._go_on()

    def _go_on(self) -> None:
        """Begin with what earlier sessions learned."""
        if self._learned is not None:
            with contextlib.suppress(KeyError, TypeError, ValueError):  # another version may keep it in another way
                learned = json.loads(self._learned)
                self.gate.go_on(learned["limits"])
                self.health.passed.update(map(Meaning, learned["passed"]))

    def news(self) -> str | None:
        """What the next session can begin with, as JSON; None where that is what it was."""
        learned = json.dumps({"limits": self.gate.learned(), "passed": sorted(self.health.passed)})
        if learned == self._learned:
            return None
        self._learned = learned
        return learned

    def spelled(self, request: Request) -> Request:
        """The request with the model's name at this lane."""
        if self._instead is None or not request.body.startswith(self._instead[0]):
            return request
        before, here = self._instead
        return request._replace(body=here + request.body[len(before) :], named=None)

    def send(self, state: RowState, sent: Request) -> Coroutine[Any, Any, Exchange]:
        """What comes back for a request that is as it is sent here."""
        assert self.client is not None
        timeout = self.plan.timeout if state.tier is None else self.sending.timeout(state)
        return self.client.send(sent, timeout=timeout)

    def give(self) -> None:
        """A row is given to it. What it answers in a second is measured anew after it was idle."""
        if not self.given:
            self._busy_since = self._loop.time()
            self._answered.clear()
        self.given += 1
        self.bound += 1

    def rate(self, now: float) -> float:
        """Rows that it answers in a second, lately; 0 where that is not known."""
        since = self._answered[0] if len(self._answered) == _LATELY else self._busy_since
        return len(self._answered) / (now - since) if self._answered and now > since else 0.0

    def heard(
        self, state: RowState, sent: Request, exchange: Exchange, checker: ReplyChecker | None
    ) -> tuple[Judged, float]:
        """What came back, understood, and the slot given back; with the seconds that a 429 has announced and that the gate
        leaves to this row alone."""
        request, attempt = state.request, state.attempt
        assert request is not None, "it was sent"
        assert attempt is not None, "it was sent"
        permit, reservation = attempt.permit, attempt.reservation
        assert permit is not None, "it was admitted"
        judged = judge(request, exchange, checker, self.meanings, self.mask)
        if reservation is not None and reservation.tier is not None:
            judged = served(judged, reservation.tier)
        ended = exchange.ended
        seconds = ended - exchange.left
        accepted = judged.answer.accepted
        if not accepted or state.tier is not None or state.marks:
            judged = self.sending.heard(state, judged, seconds)
        if accepted:
            state.refusals = 0
            self.took += (seconds - self.took) * (1 / 16 if self.took else 1)
            self._answered.append(ended)
        else:
            judged = self._refused(state, permit, judged)
            answer = judged.answer
            if answer.throttled or answer.down or answer.meaning is Meaning.LOADING:
                self.said = answer.message
            if answer.meaning is Meaning.NO_CAPACITY or answer.fault is Fault.LOST:
                self.gate.cancel(permit)  # it says nothing of other tiers, or of the provider
                return judged, 0.0
        usage = judged.usage
        if usage is not None and usage.input >= FEWEST and (cut := self._cuts.look(sent, usage.input)) is not None:
            self._notice(cut)
        return judged, self.gate.settle(permit, feedback(judged, request.weight))

    def _refused(self, state: RowState, permit: Permit, judged: Judged) -> Judged:
        """An answer without a reply as a 429 if it was the refusal of a busy server in another status.

        One row is refused so only so often in a row: what always refuses it is not that the server is busy.
        """
        answer = judged.answer
        overloaded = answer.meaning is Meaning.OVERLOADED
        busy = overloaded or answer.meaning in (None, Meaning.PASSES)
        if answer.throttled or not busy:
            state.refusals = 0
            return judged
        flights, now = self.gate.flights, self._loop.time()
        if state.refusals >= MOST_REFUSALS or not flights.turned_away(
            permit, answer.status, judged.hints, overloaded, now
        ):
            return judged
        state.refusals += 1
        return judged._replace(answer=answer._replace(disguised=True))

    def observe(self, state: RowState, answer: Answer) -> None:
        """What the answer to a live request says of the provider."""
        self.health.observe(answer, state.row.seq, self._loop.time(), elsewhere=state.elsewhere)
        if (
            answer.fault is not None
            and answer.fault is Fault.REFUSED
            and self.health.succeeded
            and self.outage is not None
        ):
            self.outage.refused()

    def tell_of_odd(self, judged: Judged) -> None:
        """Name an unknown finish reason, once."""
        word = judged.reply.finish if judged.reply is not None and Flag.ODD in judged.answer.flags else None
        if word is not None and word not in self._odd and len(self._odd) < MOST_ODD:
            self._odd.add(word)
            self._notice(f"a reply ended for a reason that is not known, {word[:60]!r}: such replies are flagged odd")

    def mind_the_breaker(self) -> None:
        """Send single requests while the provider is down, loads its model, or may have refused permanently."""
        health = self.health
        well = health.doubt is None and health.loading_since is None and health.opened_at is None
        if well and self._probing is None:
            return
        probing = probing_of(health)
        down = probing is not None and probing.reason is WaitReason.DOWN
        if probing != self._probing:
            before, self._probing = self._probing, probing
            self.gate.trickle(probing and probing.every, probing and probing.reason)
            if down and self.outage is not None:
                self.outage.began()
            said = "the provider answers again" if probing is None else probing.said
            if before is None or said != before.said:
                self._notice(said)
            self._stands()
        elif down and self.outage is not None:
            self.outage.goes_on()

    def gone(self) -> None:
        """The provider accepts no connections."""
        self.health.unreachable(self._loop.time())
        self.mind_the_breaker()

    @property
    def state(self) -> LaneState:
        """How it stands."""
        if self.closed is not None:
            return LaneState.CLOSED
        return LaneState.OPEN if self._probing is None else LaneState.DOWN

    @property
    def reason(self) -> str:
        """Why it is not open; empty where it is."""
        if self.closed is not None:
            return self.closed.ending.message or ""
        return "" if self._probing is None else self._probing.said

    def close(self, ending: RunResult, pause: float) -> None:
        """Send nothing but a single row after `pause` seconds: it would be refused. What it met so far says no more of the
        lane that is tried then."""
        if self.closed is None:
            self._notice(f"its rows go to the other lanes: {ending.message}")
        self.closed = Closed(ending, self._loop.time() + pause, pause)
        passed = self.health.passed
        self.health = Health(fitted=self._fitted)
        self.health.passed |= passed
        self.mind_the_breaker()
        self._stands()

    def reopen(self) -> None:
        """It has answered the row that it was tried with."""
        if self.closed is not None:
            self.closed = None
            self._notice("answers again")
            self._stands()

    def _stands(self) -> None:
        if self._state is not self.state:
            self._state = self.state
            self._hears(self)

    def _notice(self, said: str) -> None:
        self._emit(Notice(f"{self.name}: {said}" if self.name else said, self._loop.time()))

    def explained(self, event: Waiting | Resumed) -> Waiting | Resumed:
        """What its gate tells, with the sentence of the provider where that is why it holds requests back."""
        if isinstance(event, Waiting) and event.reason in _SAID_BY_THE_PROVIDER:
            return replace(event, said=self.said)
        return event


def _is_asked(member: Member) -> bool:
    """Whether a server is asked for its queue. Lanes of one quota have one limit in flight, and are not one server."""
    plan, client = member.plan, member.client
    if client is None or member.quota is not None or plan.simulated:
        return False
    return plan.queue_gauges == "on" or (plan.queue_gauges == "auto" and client.is_own_server)
