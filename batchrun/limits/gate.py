"""One queue, one timer, and the parts that decide whether its first request may be sent."""

import asyncio
import math
from collections.abc import Callable
from random import Random
from typing import Any

from batchrun.events import Resumed, Waiting, WaitReason
from batchrun.limits.concurrency import ConcurrencyLimiter
from batchrun.limits.cooldown import CoolDown
from batchrun.limits.headers import NO_HINTS
from batchrun.limits.in_flight import InFlight
from batchrun.limits.learning import Estimate
from batchrun.limits.queue import Queue
from batchrun.limits.rates import Rates
from batchrun.limits.records import Feedback, GateClosed, GateView, HandedBack, Limits, NeverFits, Permit, Throttle
from batchrun.limits.refusals import Cause, Unnamed
from batchrun.limits.wait_queue import Alarm, Demand, WaitQueue, tokens_of
from batchrun.limits.wait_reporter import Wait, WaitReporter

_SCARCE = frozenset({WaitReason.CONCURRENCY, WaitReason.REQUESTS, WaitReason.TOKENS})
_CONCURRENCY = WaitReason.CONCURRENCY
_FULL = Wait(_CONCURRENCY, None)
_LOOK_AGAIN = 1.0  # Seconds after which a slow rate is read again: it may have grown
# Share of the limit that prepares without a slot: covers a commit's time, and little is uncertain after a kill. The
# latter for senders at a high rate, which return replies in pages.
_READY, _READY_FOR_SENDERS = 1 / 32, 1 / 2
_HURRIED = 1_500.0  # Replies per second above which the loop has no idle slots and works better in groups; senders have idle ones


class Gate:
    """One event loop, no threads."""

    def __init__(
        self,
        limits: Limits,
        *,
        emit: Callable[[Waiting | Resumed], None],
        clock: Callable[[], float] | None = None,  # monotonic seconds
        random: Random | None = None,
        senders: bool = False,  # others make the exchanges
    ) -> None:
        self._limits, self._senders = limits, senders
        self._clock = clock or asyncio.get_running_loop().time
        now = self._clock()
        self._estimate = Estimate()
        self.estimate, self.expected_output = self._estimate.of, self._estimate.expected_output
        self._rates = Rates(limits, self._estimate, now)
        self._window = ConcurrencyLimiter(limits.cap, limits.fixed, limits.most)
        self._unnamed = Unnamed()
        self._cooldown = CoolDown(random or Random())  # noqa: S311  # jitter, not a secret
        self._reporter = WaitReporter(emit)
        self._queue = WaitQueue()
        self._alarm = Alarm(self._wake)
        self._in_flight, self.flights = 0, InFlight()
        self._paused = self._closed = self._recalled = self._first_only = False
        self._plain = True  # not paused, half-open or for first ones only, and no 429 so far: see `_barred`
        self._ready_share = 0  # how many prepare without a slot
        self._half_open_every: float | None = None
        self._half_open_reason, self.down = WaitReason.DOWN, False
        self._reason: WaitReason | None = None
        self._scarce: WaitReason | None = None
        self._until: float | None = None
        self._last = now
        self._tune(now)

    async def admit(self, demand: Demand, *, ready: Callable[[], object] | None = None, first: bool = False) -> Permit:
        """Wait for a slot, a request and `demand` tokens. Raises NeverFits, GateClosed."""
        # `ready` prepares the request, once, when only a slot is missing; with `first` it comes before all others.
        if self._closed:
            raise GateClosed
        if not self._queue.waiters:
            now = self._clock()
            if self._rates.due(now):
                self._tune(now)
            allowed = self._may_leave(now, demand, first)
            if isinstance(allowed, int):
                return self._grant(now, allowed)
        queue = self._queue
        return await self._waited(queue.join_first(tokens_of(demand)) if first else queue.join(demand, ready))

    def leaves(self, permit: Permit) -> bool:
        """Whether it is sent now, unspaced and without a cool-down."""
        now, rates = self._clock(), self._rates
        if rates.spacing.rate != math.inf or self._recalled or now < self._cooldown.until:
            return False
        rates.left(permit, now)
        self.flights.left(permit)
        return True

    async def leave(self, permit: Permit) -> Permit:
        """Wait until it may be sent. Raises GateClosed, after `cancel`."""
        # If the gate has closed meanwhile, it waits again, first in the queue.
        while True:
            now = self._clock()
            if (early := self._rates.spacing.ready(permit.left, now)) > 0:
                now = await self._held(permit, early)
            if self._recalled:
                self.cancel(permit)
                raise GateClosed
            if now >= self._cooldown.until:
                self._rates.left(permit, now)
                self.flights.left(permit)
                return permit
            self._end(permit, now)
            self._rates.release(permit.tokens, now)
            if self._closed:
                raise GateClosed
            permit = await self._waited(self._queue.join_first(permit.tokens))

    def settle(self, permit: Permit, feedback: Feedback) -> float:
        """Returns the Retry-After of a random 429, for this request only."""
        if not permit.open:
            return 0.0
        hints, throttle, failed, usage, size = feedback
        refused = throttle is not None or hints.looks_like_429
        beside, now = self.flights.beside(permit) if refused else 0, self._clock()
        self._end(permit, now)
        rates, alone, tokens = self._rates, 0.0, None if throttle is None else 0
        if usage is not None and throttle is None:
            tokens = usage.input + usage.output
        if usage is not None and size:
            self._estimate.learn(size, usage.input, usage.output)
        rates.settle(permit, tokens, now - permit.left)
        if hints is not NO_HINTS:
            rates.apply(permit, hints, now)
        if refused:
            alone = self._refused(permit, feedback, beside, now)
        else:
            rates.answered(permit)
            if failed and not permit.aside:
                self._window.failed(now)
            elif not permit.aside:
                together = self.flights.replied(permit, now)
                if not self._plain:
                    self._answered_later(permit, together, now)
                waited = self._reason if self._queue.waiters else None
                self._window.answered(permit, together, now, waited, self._in_flight)
        self._pump(now)
        return alone

    def cancel(self, permit: Permit) -> None:
        """Not sent: give all back; abandoned: only the slot."""
        if not permit.open:
            return
        now = self._clock()
        self._end(permit, now)
        if permit.sent_before < 0:
            self._rates.release(permit.tokens, now)
        self._pump(now)

    def set_half_open(self, every: float | None, reason: WaitReason | None = WaitReason.DOWN) -> None:
        """One request per `every` seconds; None ends it."""
        now, down = self._clock(), every is not None and reason is WaitReason.DOWN
        if down and not self.down:
            self.set_aside()
        self.down = down
        if every is None and self._half_open_every is not None:
            self._window.restart(now)
        self._half_open_every, self._half_open_reason = every, reason or WaitReason.DOWN
        self._note_plain()
        self._pump(now)

    def set_aside(self) -> None:
        """Requests in flight no longer count: they preceded an outage."""
        self._in_flight -= self.flights.set_aside(self._clock())

    def set_first_only(self, only: bool) -> None:
        if only is not self._first_only:
            self._first_only = only
            self._note_plain()
            self._pump(self._clock())

    def pause(self) -> None:
        self._paused = True
        self._note_plain()
        now = self._clock()
        self._reporter.held(Wait(WaitReason.PAUSED, None), self._last, now)
        self._pump(now)

    def resume(self) -> None:
        self._paused = False
        self._note_plain()
        now = self._clock()
        self._reporter.sending(now)
        self._pump(now)

    def change(self, limits: Limits) -> None:
        """Requests in flight stay."""
        now = self._clock()
        self._window.change(limits.cap, limits.fixed, now, limits.most)
        self._limits = limits
        self._rates.change(limits)
        self._tune(now)
        self._pump(now)

    def apply_queue(self, queue: Queue | None) -> None:
        """None: no longer reported."""
        self._window.apply_queue(queue, self._in_flight, self._clock())
        self._pump(self._clock())

    @property
    def cap(self) -> int:
        return self._window.cap

    def close(self, *, recall: bool = True) -> None:
        """Raise GateClosed in waiting requests, with `recall` also in admitted ones."""
        self._closed = True
        self._recalled |= recall
        self._queue.dissolve(GateClosed)
        self._alarm.cancel()

    def hand_back(self) -> None:
        self._queue.dissolve(HandedBack)

    @property
    def stated(self) -> tuple[float | None, float | None]:
        """Requests and tokens per minute."""
        return self._rates.stated

    def learned(self) -> dict[str, Any]:
        return {"window": self._window.size, "tokens": self._estimate.kept(), **self._rates.learned()}

    def restore(self, learned: dict[str, Any]) -> None:
        """Raises KeyError, TypeError or ValueError."""
        now = self._clock()
        self._estimate.restore(*learned["tokens"])
        self._rates.restore(learned, now)
        self._window.restore(learned["window"], now)
        self._tune(now)

    def view(self) -> GateView:
        rates, waiting = self._rates, self._queue.waiting
        size, cap = self._in_flight, self._window.cap
        allowed = cap if self._half_open_every is not None else int(self._window.size)
        (rpm, tpm), (requests, tokens) = rates.per_minute(), rates.fills()
        reason, until = (self._reason, self._until) if waiting > 0 or self._paused else (None, None)
        since, basis, quotas = self._cooldown.since, rates.basis, rates.quotas()
        return GateView(size, allowed, cap, rpm, tpm, requests, tokens, reason, until, since, waiting, basis, quotas)

    def _end(self, permit: Permit, now: float) -> None:
        permit.open = False
        self._in_flight -= not permit.aside
        self.flights.ended(permit, now)

    async def _held(self, permit: Permit, seconds: float) -> float:
        spacing = self._rates.spacing
        spacing.held += 1
        try:
            await asyncio.sleep(seconds)
        except BaseException:
            self.cancel(permit)
            raise
        finally:
            spacing.held -= 1
        return self._clock()

    async def _waited(self, future: asyncio.Future[Permit]) -> Permit:
        waiters = self._queue.waiters
        if waiters[0].future is future:
            self._pump(self._clock())
        elif len(waiters) <= self._ready_share and self._reason is _CONCURRENCY:
            self._queue.get_ready(self._ready_share)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.cancel(future.result())
            else:
                future.cancel()
                if not self._closed:
                    self._pump(self._clock())
            raise

    def _pump(self, now: float) -> None:
        if self._rates.due(now):
            self._tune(now)
        waiters = self._queue.waiters
        while waiters:
            future, demand, _, first = waiters[0]
            if not future.done():
                if self._plain and self._in_flight + 1 > self._window.size:
                    self._hold(_FULL, now)
                    return
                try:
                    allowed = self._may_leave(now, demand, first)
                except NeverFits as error:
                    future.set_exception(error)
                else:
                    if isinstance(allowed, Wait):
                        self._hold(allowed, now)
                        return
                    future.set_result(self._grant(now, allowed))
            self._queue.next()
        if not self._paused:
            self._reporter.sending(now)

    def _grant(self, now: float, tokens: int) -> Permit:
        self._in_flight += 1
        self._last, self._reason = now, None
        rates, spacing = self._rates, self._rates.spacing
        spacing.admitted += 1
        if not rates.free:
            rates.take(tokens, now)
        if not self._plain:
            self._cooldown.granted(now)
        if self._in_flight == 1:
            self._window.first_left(now)
        full = self._scarce is _CONCURRENCY and self._in_flight >= 0.8 * self._window.size
        return Permit(tokens, spacing.rate / rates.share, spacing.rate, full, now)

    def _may_leave(self, now: float, demand: Demand, first: bool) -> int | Wait:
        rates, tokens = self._rates, 0
        wait = _FULL if self._in_flight + 1 > self._window.size else None
        if not self._plain:
            wait = self._barred(now, first)
        if rates.free:
            return wait or (demand if isinstance(demand, int) else demand())
        if wait is None or rates.token_limit < math.inf:
            tokens = tokens_of(demand)
            if tokens > rates.token_limit:
                raise NeverFits(rates.token_limit, tokens)
            wait = wait or rates.wait(tokens, now)
        return tokens if wait is None else wait

    def _barred(self, now: float, first: bool) -> Wait | None:
        if self._paused:
            return Wait(WaitReason.PAUSED, None)
        if self._cooldown.until > -math.inf and now < (until := self._cooldown.next(self._last)):
            return Wait(WaitReason.THROTTLED, until)
        if self._half_open_every is not None and now < self._last + self._half_open_every:
            return Wait(self._half_open_reason, self._last + self._half_open_every)
        if self._first_only and not first:
            return Wait(WaitReason.ALIKE, None)
        if self._in_flight + 1 > (self._window.cap if self._half_open_every is not None else self._window.size):
            suspected = self._unnamed.bursts and self._unnamed.suspected is not None
            return Wait(_CONCURRENCY, now + self._cooldown.refusal_seconds) if suspected else _FULL
        return None

    def _hold(self, wait: Wait, now: float) -> None:
        reason, self._until = wait.reason, wait.until
        self._reason = reason
        if reason is _CONCURRENCY:
            if self._ready_share:
                self._queue.get_ready(self._ready_share)
            self._scarce = reason
            if wait is _FULL and self._alarm.timer is not None and self._reporter.reported is None:
                return  # nothing to report
        elif reason in _SCARCE:
            self._scarce = reason
        self._rates.held(wait, now)
        look = self._reporter.held(wait, self._last, now)
        at = look if self._until is None else self._until
        if at is not None:
            self._alarm.set(min(at, now + _LOOK_AGAIN) if reason is WaitReason.REQUESTS else at, now)

    def _wake(self) -> None:
        now = self._clock()
        if self._unnamed.suspected is not None:
            self._let_through(self.flights.standing(now - self._cooldown.refusal_seconds), now)
        self._pump(now)

    def _tune(self, now: float) -> None:
        self._rates.tune(now, self._cooldown.share(now))
        # Not where a rate may hold them back, or where this process has no idle slot.
        share = _READY if self._in_flight <= self._rates.took * _HURRIED else _READY_FOR_SENDERS * self._senders
        self._ready_share = 0 if self._rates.limited else int(self._window.size * share)

    def _note_plain(self) -> None:
        self._plain = not (self._paused or self._first_only or self._half_open_every or self.flights.refusals)

    def _refused(self, permit: Permit, feedback: Feedback, beside: int, now: float) -> float:
        self.flights.refused()
        self._note_plain()
        throttle = self._rates.kind(feedback.throttle, feedback.hints, now)
        announced = feedback.hints.retry_after
        again, alone = self._cooldown.again(permit.left), 0.0
        if (
            throttle is Throttle.UNKNOWN
            and not self._limits.fixed
            and (self._rates.testing is not None or not self._rates.known or self._unnamed.tested(permit))
        ):
            throttle, tested = self._tested(permit, beside, now)
            if tested:
                self._cooldown.refused(permit.left, announced, now)
                return alone
        if self._at_random(permit, throttle, beside, again, now):
            self._cooldown.noticed(now)
            alone = announced or 0.0
        else:
            self._cooldown.refused(permit.left, announced, now)
            if throttle is Throttle.CONCURRENCY:
                self._window.refused(beside, permit.left, now)
            elif again or self._rates.testing is not None or throttle is not Throttle.UNKNOWN:
                pass  # the back-off grows, and the limit learns nothing new
            elif not self._rates.pace.learnt:
                self._window.excuse(now)
            elif permit.full:
                self._window.cut(permit.left, now)
        self._tune(now)
        return alone

    def _tested(self, permit: Permit, beside: int, now: float) -> tuple[Throttle, bool]:
        # The cause so far, and whether the test made the 429.
        cause = self._unnamed.refused(permit, beside, self.flights.oldest, now)
        if cause is Cause.OPEN:
            self._window.suspect(beside)
        self._rates.test(permit.most if cause is Cause.OPEN else None, now)
        if cause is Cause.CONCURRENCY:
            self._rates.forget(now)
            self._window.clear(now)
            return Throttle.CONCURRENCY, False
        if cause is Cause.RATE:
            self._window.clear(now)
        return Throttle.UNKNOWN, self._unnamed.tested(permit)

    def _let_through(self, together: int, now: float) -> None:
        self._unnamed.let_through(together, now)
        if self._unnamed.cause is Cause.RATE:
            self._rates.test(None, now)
            self._window.clear(now)

    def _at_random(self, permit: Permit, throttle: Throttle, beside: int, again: bool, now: float) -> bool:
        if throttle is Throttle.CONCURRENCY:
            return self._window.at_random(beside + 1, permit.left, now) and not again
        known, random = self._rates.noisy, self._rates.refused(permit, throttle, again, now)
        if self._rates.noisy and not known:
            self._window.start_again(now)  # its measurements are worthless: random 429s held the rate down
        return random

    def _answered_later(self, permit: Permit, together: int, now: float) -> None:
        if self._cooldown.since is not None or self._cooldown.bursts:
            self._cooldown.answered(permit.left)
        if self._unnamed.bursts:
            self._let_through(together, now)
