"""One endpoint, key and model, with its client, limits, health, prices and parameter names."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from batchrun.client import Client
from batchrun.engine.budget_guard import Prices, served
from batchrun.engine.judge import Judged, feedback, judge
from batchrun.engine.monitors import FEWEST, Cuts, Outage, Probing, QueueWatch, probing_of
from batchrun.engine.pending_queue import RowState
from batchrun.engine.run_result import RunResult
from batchrun.engine.sending import Sending
from batchrun.events import Emit, LaneState, Notice, Resumed, Waiting, WaitReason
from batchrun.journal import Lane as Record
from batchrun.limits import Gate, Permit
from batchrun.models import Exchange, Fault, Flag, Request
from batchrun.plan import Plan
from batchrun.replies import ReplyChecker
from batchrun.retry import Answer, Health, Meaning, Meanings

if TYPE_CHECKING:
    from batchrun.client.senders.hub import Hub

UNSENT = 5.0  # Seconds for which others wait at the gate for a probe that has no slot
MOST_UNKNOWN = 5  # Unknown finish reasons that are reported
MOST_REFUSALS = 20  # Refusals of one row in succession, with other statuses than 429, that use no attempt
_LATELY = 32  # Replies over which the rate is measured
_SAID_BY_THE_PROVIDER = frozenset(
    {WaitReason.THROTTLED, WaitReason.DOWN, WaitReason.LOADING, WaitReason.DOUBT, WaitReason.QUOTA}
)


@dataclass(frozen=True, slots=True)
class Member:
    """The run's plan for one endpoint, key and model."""

    plan: Plan
    client: Client | None
    record: Record | None = None
    name: str = ""
    quota: str | None = None  # Members of one share a limiter
    unreachable: str | None = None  # Why
    instead: tuple[bytes, bytes] | None = None  # The start of the run's bodies, and its own for another model name
    fallback: bool = False  # Gets only rows that failed elsewhere
    hub: "Hub | None" = None


class Closed(NamedTuple):
    ending: RunResult  # If there is no other lane
    again: float  # Loop time
    pause: float


class Lane:
    def __init__(  # noqa: PLR0913  what a lane is, and who hears of it
        self,
        member: Member,
        gate: Gate,
        *,
        emit: Emit,
        rows_left: Callable[[], int],
        fitted: bool = False,  # A reply of an earlier session was valid
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
        self.unreachable = member.unreachable
        self.fallback = member.fallback
        self.health = Health(fitted=fitted)
        self.outage = None if member.client is None else Outage(gate, member.client, gone=self.gone)
        self.queue = QueueWatch(gate, member.client) if member.client and _is_asked(member) else None
        self.meanings = Meanings(plan.dialect, plan.answers)
        self.prices = Prices(plan, expected=gate.expected_output)
        self.sending = Sending(plan, emit=emit, rows_left=rows_left, as_rendered=member.instead is None)
        self.last_error = ""  # The provider's last refusal or failure
        self.seeks_probe = False  # Rows fail alike, and one from far ahead is to be tried
        self.probe: RowState | None = None  # That row, until its verdict
        self._probing_ahead = self.holds = False  # It is sought or tried; all others wait at the gate meanwhile
        self._unsent_probe: asyncio.TimerHandle | None = None
        self._shares_gate = member.quota is not None
        self.queued = self.assigned = 0  # Rows given to it without a slot; rows given to it without an answer
        self.took = 0.0  # Seconds of a successful exchange (moving average)
        self._busy_since = 0.0
        self._answered: deque[float] = deque(maxlen=_LATELY)
        self.closed: Closed | None = None
        self.waits: Waiting | None = None
        self._state = LaneState.OPEN
        self._on_change = changed
        self._fitted = fitted
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._cuts = Cuts()
        self._unknown: set[str] = set()
        self._probing: Probing | None = None
        self._instead = member.instead
        self._learned = None if member.record is None else member.record.learned
        self._restore()

    def _restore(self) -> None:
        if self._learned is not None:
            with contextlib.suppress(KeyError, TypeError, ValueError):  # another version may keep it in another way
                learned = json.loads(self._learned)
                self.gate.restore(learned["limits"])
                self.health.passed.update(map(Meaning, learned["passed"]))

    def learned_json(self) -> str | None:
        """None if unchanged."""
        learned = json.dumps({"limits": self.gate.learned(), "passed": sorted(self.health.passed)})
        if learned == self._learned:
            return None
        self._learned = learned
        return learned

    def spelled(self, request: Request) -> Request:
        if self._instead is None or not bytes(request.body).startswith(self._instead[0]):
            return request
        before, here = self._instead
        return request._replace(body=here + bytes(request.body)[len(before) :], named=None)

    def send(self, state: RowState, sent: Request) -> Coroutine[Any, Any, Exchange]:
        assert self.client is not None
        timeout = self.plan.timeout if state.tier is None else self.sending.timeout(state)
        return self.client.send(sent, timeout=timeout)

    def assign_row(self) -> None:
        if not self.assigned:
            self._busy_since = self._loop.time()
            self._answered.clear()
        self.assigned += 1
        self.queued += 1

    def rate(self, now: float) -> float:
        """Rows per second lately; 0 if unknown."""
        since = self._answered[0] if len(self._answered) == _LATELY else self._busy_since
        return len(self._answered) / (now - since) if self._answered and now > since else 0.0

    def receive(
        self, state: RowState, sent: Request, exchange: Exchange, checker: ReplyChecker | None
    ) -> tuple[Judged, float]:
        """Also returns the row's own Retry-After in seconds."""
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
        accepted = judged.reply is not None
        if not accepted or state.tier is not None or state.marks:
            judged = self.sending.receive(state, judged, seconds)
        if accepted:
            state.refusals = 0
            self.took += (seconds - self.took) * (1 / 16 if self.took else 1)
            self._answered.append(ended)
        else:
            judged = self._refused(state, permit, judged)
            answer = judged.answer
            if answer.throttled or answer.down or answer.meaning is Meaning.LOADING:
                self.last_error = answer.message
        self._observe(state, judged.answer)  # before its slot is free: only a row that comes first may be to take it
        if not accepted:
            answer = judged.answer
            if answer.meaning is Meaning.NO_CAPACITY or answer.fault is Fault.LOST:
                self.gate.cancel(permit)  # it says nothing of other tiers, or of the provider
                return judged, 0.0
        usage = judged.usage
        if usage is not None and usage.input >= FEWEST and (cut := self._cuts.look(sent, usage.input)) is not None:
            self._notice(cut)
        return judged, self.gate.settle(permit, feedback(judged, request.weight))

    def receive_page(self, ended: list[float], seconds: float, sizes: Iterable[int], given: list[int]) -> None:
        """Accepted replies: ends, average seconds, body bytes (0: it has files), input tokens."""
        weight = min(1.0, len(ended) / 16) if self.took else 1.0
        self.took += (seconds - self.took) * weight
        self._answered.extend(ended)
        if max(given) >= FEWEST:
            for size, tokens in zip(sizes, given, strict=True):
                if size and tokens >= FEWEST and (cut := self._cuts.look_at(size, tokens)) is not None:
                    self._notice(cut)

    def _refused(self, state: RowState, permit: Permit, judged: Judged) -> Judged:
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

    def _observe(self, state: RowState, answer: Answer) -> None:
        self.health.observe(answer, state.row.seq, self._loop.time(), elsewhere=state.elsewhere)
        if self.health.alike_rows or self._probing_ahead:
            self._hold_others()
        if (
            answer.fault is not None
            and answer.fault is Fault.REFUSED
            and self.health.succeeded
            and self.outage is not None
        ):
            self.outage.refused()

    def _hold_others(self) -> None:
        """Rows fail alike: try one from far ahead, and let no other leave until its verdict."""
        doubtful = self.health.doubtful
        if doubtful and not self._probing_ahead:
            self.seeks_probe = self._probing_ahead = True
        self._hold(self._probing_ahead and (doubtful or self.health.all_alike))

    def end_probe(self, state: RowState) -> None:
        state.elsewhere = self.seeks_probe = self._probing_ahead = False
        self.probe = None
        self._hold(False)

    def _hold(self, holds: bool) -> None:
        if holds is self.holds or self._shares_gate:
            return
        self.holds = holds
        if self._unsent_probe is not None:
            self._unsent_probe.cancel()
        self._unsent_probe = self._loop.call_later(UNSENT, self._hold_no_longer) if holds else None
        self.gate.set_first_only(holds)

    def _hold_no_longer(self) -> None:
        attempt = None if self.probe is None else self.probe.attempt
        if attempt is None or attempt.permit is None:
            self._hold(False)

    def report_unknown_finish(self, judged: Judged) -> None:
        word = judged.reply.finish if judged.reply is not None and Flag.ODD in judged.answer.flags else None
        if word is not None and word not in self._unknown and len(self._unknown) < MOST_UNKNOWN:
            self._unknown.add(word)
            self._notice(f"unknown finish reason {word[:60]!r}: such replies are flagged odd")

    def update_probing(self) -> None:
        health = self.health
        if health.well and self._probing is None:
            return
        probing = probing_of(health)
        down = probing is not None and probing.reason is WaitReason.DOWN
        if probing != self._probing:
            before, self._probing = self._probing, probing
            self.gate.set_half_open(probing and probing.every, probing and probing.reason)
            if down and self.outage is not None:
                self.outage.start()
            message = "the provider answers again" if probing is None else probing.message
            if before is None or message != before.message:
                self._notice(message)
            self._report_state()
        elif down and self.outage is not None:
            self.outage.renew()

    def gone(self) -> None:
        self.health.unreachable(self._loop.time())
        self.update_probing()

    @property
    def state(self) -> LaneState:
        if self.closed is not None:
            return LaneState.CLOSED
        return LaneState.OPEN if self._probing is None else LaneState.DOWN

    @property
    def reason(self) -> str:
        if self.closed is not None:
            return self.closed.ending.message or ""
        return "" if self._probing is None else self._probing.message

    def close(self, ending: RunResult, pause: float) -> None:
        """Send only single rows, after `pause` seconds."""
        if self.closed is None:
            self._notice(f"its rows go to other lanes: {ending.message}")
        self.closed = Closed(ending, self._loop.time() + pause, pause)
        passed = self.health.passed
        self.health = Health(fitted=self._fitted)
        self.health.passed |= passed
        self.update_probing()
        self._report_state()
        self._hold(False)

    def reopen(self) -> None:
        if self.closed is not None:
            self.closed = None
            self._notice("answers again")
            self._report_state()

    def _report_state(self) -> None:
        if self._state is not self.state:
            self._state = self.state
            self._on_change(self)

    def _notice(self, message: str) -> None:
        self._emit(Notice(f"{self.name}: {message}" if self.name else message, self._loop.time()))

    def explained(self, event: Waiting | Resumed) -> Waiting | Resumed:
        if isinstance(event, Waiting) and event.reason in _SAID_BY_THE_PROVIDER:
            return event._replace(said=self.last_error)
        return event


def _is_asked(member: Member) -> bool:
    # Lanes of one quota are not one server.
    plan, client = member.plan, member.client
    if client is None or member.quota is not None or plan.simulated:
        return False
    return plan.queue_gauges == "on" or (plan.queue_gauges == "auto" and client.is_own_server)
