"""The gate itself: one queue, one waker, and the parts that say whether the first in the queue may leave."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from random import Random

from batchrun.events import Going, Waiting, WaitReason
from batchrun.limits.buckets import MINUTE, HeaderRate, Spacing, TokenBucket, usable
from batchrun.limits.closing import Closing
from batchrun.limits.concurrency import Window
from batchrun.limits.headers import BucketHint, Hints
from batchrun.limits.learning import Estimate, Pace
from batchrun.limits.records import Feedback, GateClosed, GateView, Limits, NeverFits, Overlong, Permit, Throttle
from batchrun.limits.telling import Teller

_TUNED_EVERY = 0.02
"""Seconds for which a rate is taken as constant."""
_TRICKLE = 1.0
"""Seconds between two requests while the provider is down."""
_SCARCE = frozenset({WaitReason.CONCURRENCY, WaitReason.REQUESTS, WaitReason.TOKENS})
_PRESSURE = 5.0
"""So many 429s about tokens (fading over `_PRESSED` seconds) show that a stated limit is not the true one."""
_PRESSED = 5.0
_RECENTLY = 15.0
"""Seconds for which a shortage of tokens explains a 429 that does not say what it is about."""
_SHORTEST = 1e-4
"""Seconds; a timer for less could fire before its time by the clock's own resolution, again and again."""
_ROUNDED = 0.5
"""What the provider may have rounded off `remaining`."""


class Gate:
    """Admits requests, first in first out, as fast as the provider allows. One event loop, no threads."""

    def __init__(
        self,
        limits: Limits,
        *,
        listen: Callable[[Waiting | Going], None],
        clock: Callable[[], float] | None = None,
        random: Random | None = None,
    ) -> None:
        """`clock` gives monotonic seconds, by default the running loop's; `random` draws the jitter."""
        self._limits = limits
        self._clock = clock or asyncio.get_running_loop().time
        now = self._clock()
        self._spacing = Spacing(now)
        self._bucket = TokenBucket(now)
        self._window = Window(limits.cap, limits.fixed)
        self._pace = Pace(start=not limits.fixed)
        self._token_pace = Pace(start=False)
        self._estimate = Estimate()
        self._closing = Closing(random or Random())  # noqa: S311  # jitter, not a secret
        self._teller = Teller(listen)
        self._stated_requests, self._stated_tokens = HeaderRate(), HeaderRate()
        self._queue: deque[tuple[asyncio.Future[Permit], int]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._in_flight = 0
        self._sent, self._sent_tokens = 0, 0.0
        self._heard = -1
        self._paused = self._trickling = self._closed = False
        self._reason: WaitReason | None = None
        self._scarce: WaitReason | None = None
        self._short_of_tokens = -math.inf
        self._until: float | None = None
        self._tokens_refused, self._pressure = -math.inf, 0.0
        self._last = now
        self._tuned = -math.inf
        self._binding = False
        self._tune(now)

    async def admit(self, tokens: int) -> Permit:
        """Wait for a slot, a request and so many tokens, in turn.

        Raises NeverFits when the limit is smaller than the request, GateClosed once `close` was called.
        """
        if self._closed:
            raise GateClosed
        self._check_fits(tokens)
        if not self._queue:
            now = self._clock()
            if self._may_leave(now, tokens):
                return self._grant(now, tokens)
        return await self._wait(tokens)

    def leave(self, permit: Permit) -> None:
        """The request leaves now. Called just before its first byte."""
        now = self._clock()
        permit.left = now
        permit.sent_before = self._sent
        permit.tokens_before = self._sent_tokens
        self._sent += 1
        self._sent_tokens += permit.tokens
        self._spacing.left(now)

    def settle(self, permit: Permit, feedback: Feedback) -> Overlong | None:
        """The exchange is over: free the slot and learn. Tells when the provider announced too long a wait."""
        if not permit.open:
            return None
        permit.open = False
        self._in_flight -= 1
        now = self._clock()
        waited = self._reason if self._queue else None
        self._settle_tokens(permit, feedback)
        self._hear(permit, feedback.hints, now)
        overlong = None
        if feedback.throttle is not None or feedback.hints.looks_like_429:
            overlong = self._refused(permit, feedback, now)
        else:
            self._answered(permit, feedback, waited, now)
        self._pump(now)
        return overlong

    def cancel(self, permit: Permit) -> None:
        """The request never left: everything is given back."""
        if not permit.open:
            return
        permit.open = False
        self._in_flight -= 1
        self._spacing.give_back()
        self._bucket.give(permit.tokens)
        self._pump(self._clock())

    def estimate(self, body_bytes: int, output_limit: int | None) -> int:
        """The tokens a request will probably use, input and output."""
        return self._estimate.of(body_bytes, output_limit)

    def trickle(self, on: bool) -> None:
        """While on, one request a second: the provider is down."""
        if on == self._trickling:
            return
        self._trickling = on
        now = self._clock()
        if not on:
            self._window.restart(now)
        self._pump(now)

    def pause(self) -> None:
        """Admit nothing until `resume`."""
        self._paused = True
        now = self._clock()
        self._teller.held(WaitReason.PAUSED, None, self._last, now)
        self._pump(now)

    def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False
        now = self._clock()
        self._teller.going(now)
        self._pump(now)

    def change(self, limits: Limits) -> None:
        """Other limits from now on; what is in flight stays."""
        now = self._clock()
        self._window.change(limits.cap, limits.fixed, now)
        self._limits = limits
        self._tune(now)
        for future, tokens in self._queue:
            limit = self._token_limit()
            if tokens > limit and not future.done():
                future.set_exception(NeverFits(limit, tokens))
        self._pump(now)

    def close(self) -> None:
        """Admit nothing more; everybody who waits gets GateClosed."""
        self._closed = True
        for future, _ in self._queue:
            if not future.done():
                future.set_exception(GateClosed())
        self._queue.clear()
        self._disarm()

    def view(self) -> GateView:
        """The gate now, for a face."""
        waiting = sum(not future.done() for future, _ in self._queue)
        held = waiting > 0 or self._paused
        spacing, bucket = self._spacing, self._bucket
        known = self._pace.learnt or self._stated_rate() < math.inf
        return GateView(
            in_flight=self._in_flight,
            allowed=self._allowed(),
            cap=self._limits.cap,
            rpm=spacing.rate * MINUTE if known and spacing.rate < math.inf else None,
            tpm=bucket.rate * MINUTE if bucket.rate < math.inf else None,
            requests_fill=_fill(self._stated_requests, spacing.level / spacing.depth) if known else None,
            tokens_fill=_fill(self._stated_tokens, bucket.level / bucket.depth) if bucket.depth else None,
            reason=self._reason if held else None,
            until=self._until if held else None,
            refused_since=self._closing.since,
            waiting=waiting,
        )

    async def _wait(self, tokens: int) -> Permit:
        future: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        self._queue.append((future, tokens))
        if len(self._queue) == 1:
            self._pump(self._clock())
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
        queue = self._queue
        while queue:
            future, tokens = queue[0]
            if not future.done():
                if not self._may_leave(now, tokens):
                    self._hold(now)
                    return
                future.set_result(self._grant(now, tokens))
            queue.popleft()
        if not self._paused:
            self._teller.going(now)

    def _grant(self, now: float, tokens: int) -> Permit:
        self._in_flight += 1
        self._spacing.take()
        self._bucket.take(tokens)
        self._last = now
        self._window.first_left(now)
        full = self._scarce is WaitReason.CONCURRENCY and self._in_flight >= 0.8 * self._window.size
        return Permit(tokens, self._spacing.rate, full, now)

    def _may_leave(self, now: float, tokens: int) -> bool:
        """Whether a request may leave now; else `_reason` and `_until` say why not."""
        if now - self._tuned >= _TUNED_EVERY or now < self._tuned:
            self._tune(now)
        if self._barred(now):
            return False
        self._spacing.refill(now)
        wait = self._spacing.wait()
        if wait > 0:
            self._binding = True
            return self._no(WaitReason.REQUESTS, now + wait)
        self._bucket.refill(now)
        wait = self._bucket.wait(tokens)
        if wait > 0:
            self._short_of_tokens = now
            return self._no(WaitReason.TOKENS, now + wait)
        self._reason = None
        return True

    def _barred(self, now: float) -> bool:
        """Whether nothing at all may leave now, however small."""
        if self._paused:
            return not self._no(WaitReason.PAUSED, None)
        if now < self._closing.until:
            return not self._no(WaitReason.THROTTLED, self._closing.until)
        if self._trickling and now < self._last + _TRICKLE:
            return not self._no(WaitReason.DOWN, self._last + _TRICKLE)
        if self._in_flight >= self._allowed():
            return not self._no(WaitReason.CONCURRENCY, None)
        return False

    def _no(self, reason: WaitReason, until: float | None) -> bool:
        self._reason, self._until = reason, until
        if reason in _SCARCE:
            self._scarce = reason
        return False

    def _allowed(self) -> int:
        return self._limits.cap if self._trickling else int(self._window.size)

    def _hold(self, now: float) -> None:
        reason = self._reason or WaitReason.REQUESTS
        look = self._teller.held(reason, self._until, self._last, now)
        at = look if self._until is None else self._until
        if at is not None:
            self._arm(at, now)

    def _arm(self, at: float, now: float) -> None:
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(max(_SHORTEST, at - now), self._wake)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        self._timer = None
        self._pump(self._clock())

    def _tune(self, now: float) -> None:
        stated = self._stated_rate()
        learnt = self._pace.refresh(now, self._binding and self._pace.rate <= stated)
        tokens = self._token_pace.refresh(now, self._reason is WaitReason.TOKENS)
        self._binding = False
        self._spacing.set_rate(min(stated, learnt) * self._closing.share(now), now)
        self._bucket.set_rate(min(self._stated_token_rate(), tokens), now)
        self._tuned = now

    def _stated_rate(self) -> float:
        own = math.inf if self._limits.rpm is None else self._limits.rpm / MINUTE
        return usable(min(own, self._stated_requests.rate()))

    def _stated_token_rate(self) -> float:
        own = math.inf if self._limits.tpm is None else self._limits.tpm / MINUTE
        return usable(min(own, self._stated_tokens.rate()))

    def _token_limit(self) -> float:
        own = math.inf if self._limits.tpm is None else self._limits.tpm
        return min(own, self._stated_tokens.limit or math.inf)

    def _check_fits(self, tokens: int) -> None:
        limit = self._token_limit()
        if tokens > limit:
            raise NeverFits(limit, tokens)

    def _settle_tokens(self, permit: Permit, feedback: Feedback) -> None:
        if feedback.throttle is not None:
            self._bucket.give(permit.tokens)
        elif feedback.tokens is not None:
            self._bucket.give(permit.tokens - feedback.tokens)
        if feedback.input_tokens is not None and feedback.output_tokens is not None:
            self._estimate.learn(feedback.body_bytes, feedback.input_tokens, feedback.output_tokens)

    def _hear(self, permit: Permit, hints: Hints, now: float) -> None:
        """Believe the headers of the newest request heard so far, less what has left since it left."""
        if permit.sent_before < self._heard or (hints.requests is None and hints.tokens is None):
            return
        self._heard = permit.sent_before
        elapsed = max(0.0, now - permit.left)
        if hints.requests is not None:
            self._stated_requests.learn(hints.requests)
            left = self._sent - permit.sent_before - 1
            self._spacing.refill(now)
            self._spacing.believe(_credit(self._stated_requests, hints.requests, left, elapsed) + _ROUNDED)
        if hints.tokens is not None:
            self._stated_tokens.learn(hints.tokens)
            left = self._sent_tokens - permit.tokens_before - permit.tokens
            self._bucket.refill(now)
            self._bucket.believe(_credit(self._stated_tokens, hints.tokens, left, elapsed))

    def _refused(self, permit: Permit, feedback: Feedback, now: float) -> Overlong | None:
        announced = feedback.hints.retry_after
        throttle = self._kind(feedback, now)
        again = self._closing.bursts > 0
        new = self._closing.refused(permit.left, announced, now)
        if throttle is Throttle.CONCURRENCY or (throttle is Throttle.UNKNOWN and permit.full and self._pace.learnt):
            self._window.refused(permit.left, now)
        elif throttle is Throttle.UNKNOWN and not self._pace.learnt:
            self._window.excuse(now)
        if throttle is not Throttle.CONCURRENCY:
            self._teach(permit, throttle, new and again, now)
        self._tune(now)
        longest = self._limits.max_wait
        if announced is not None and longest is not None and announced > longest:
            return Overlong(announced)
        return None

    def _kind(self, feedback: Feedback, now: float) -> Throttle:
        """What a 429 is about; one that does not say is about tokens if those held requests back just now."""
        throttle = feedback.throttle or Throttle.UNKNOWN
        recently = self._short_of_tokens > now - _RECENTLY
        return Throttle.TOKENS if throttle is Throttle.UNKNOWN and recently and not self._pace.learnt else throttle

    def _teach(self, permit: Permit, throttle: Throttle, again: bool, now: float) -> None:
        """Slow down what was refused, unless it left faster than is stated by now."""
        if throttle is Throttle.TOKENS and self._bucket.rate < math.inf:
            self._bucket.believe(0.0)
            pace, at = self._token_pace, self._bucket.rate
            faded = math.exp((self._tokens_refused - now) / _PRESSED)
            self._pressure, self._tokens_refused = self._pressure * faded + 1, now
            if self._pressure < _PRESSURE:
                return  # estimates are off now and then; only a limit that is lower than it says goes on refusing
        elif permit.pace <= 1.05 * self._stated_rate():
            pace, at = self._pace, permit.pace
        else:
            return
        pace.refused(permit.left, at, now)
        if again:
            pace.slow_down()

    def _answered(self, permit: Permit, feedback: Feedback, waited: WaitReason | None, now: float) -> None:
        self._pace.answered(permit.left)
        if feedback.failed:
            self._window.failed(now)
            return
        self._closing.answered()
        used = waited is not None and self._in_flight + 1 >= self._window.size / 2
        self._window.answered(now, used, waited is WaitReason.CONCURRENCY)


def _credit(stated: HeaderRate, hint: BucketHint, left: float, elapsed: float) -> float:
    return stated.held(hint) - left + elapsed * stated.rate()


def _fill(stated: HeaderRate, own: float) -> float:
    if stated.limit and stated.remaining is not None:
        return min(1.0, stated.remaining / stated.limit)
    return min(1.0, max(0.0, own))
