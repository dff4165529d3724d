"""The rates in force: the lowest of what the user, the headers and the 429s say, for requests and for tokens."""

import math

from batchrun.events import WaitReason
from batchrun.limits.buckets import MINUTE, HeaderRate, Spacing, TokenBucket, usable
from batchrun.limits.headers import BucketHint, Hints
from batchrun.limits.learning import Pace
from batchrun.limits.records import Limits, Permit, Throttle

_TUNED_EVERY = 0.02
"""Seconds for which a rate is taken as constant."""
_METERED = 0.25
"""Seconds over which departures are counted, fading, for the rate at which a request left."""
_ROUNDED = 0.5
"""What the provider may have rounded off `remaining`."""
_PRESSURE = 5.0
"""So many 429s about tokens (fading over `_PRESSED` seconds) show that a stated limit is not the true one."""
_PRESSED = 5.0
_RECENTLY = 15.0
"""Seconds for which a shortage of tokens explains a 429 that does not say what it is about."""
_FASTER = 1.05


class Rates:
    """Two buckets and what sets their rates. Times are seconds of the gate's clock."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.spacing = Spacing(now)
        self.bucket = TokenBucket(now)
        self.pace = Pace(start=not limits.fixed)
        self._token_pace = Pace(start=False)
        self._requests, self._tokens = HeaderRate(), HeaderRate()
        self._own = limits
        self._sent, self._sent_tokens = 0, 0.0
        self._heard = -1
        self._leaving, self._left_at = 0.0, now
        self._tuned = -math.inf
        self._share = 1.0
        self._binding = False
        self._short_of_tokens = self._tokens_refused = -math.inf
        self._pressure = 0.0

    @property
    def known(self) -> bool:
        """Whether a rate of requests is stated or learnt."""
        return self.pace.learnt or self._stated() < math.inf

    @property
    def limited(self) -> bool:
        """Whether any rate is in force."""
        return self.spacing.rate < math.inf or self.bucket.rate < math.inf

    @property
    def noisy(self) -> bool:
        """Whether 429s come at random."""
        return self.pace.noisy or self._token_pace.noisy

    @property
    def stated(self) -> tuple[float | None, float | None]:
        """Requests and tokens per minute that the user or the provider has stated."""
        requests, tokens = self._stated() * MINUTE, self.token_limit
        return requests if requests < math.inf else None, tokens if tokens < math.inf else None

    @property
    def token_limit(self) -> float:
        """Tokens per minute that are stated; no request can be larger."""
        own = math.inf if self._own.tpm is None else self._own.tpm
        return min(own, self._tokens.limit or math.inf)

    def change(self, limits: Limits) -> None:
        """What the user states from now on; `tune` makes it count."""
        self._own = limits

    def due(self, now: float) -> bool:
        """Whether it is time to `tune`."""
        return now - self._tuned >= _TUNED_EVERY or now < self._tuned

    def tune(self, now: float, share: float) -> None:
        """Set the rates anew; `share` of the rate of requests is to be used after a 429."""
        stated = self._stated()
        self._share = share
        learnt = self.pace.refresh(now, self._binding and self.pace.rate <= stated)
        tokens = self._token_pace.refresh(now, self._short_of_tokens >= self._tuned)
        self._binding = False
        self.spacing.set_rate(min(stated, learnt) * share, now)
        self.spacing.stated = stated
        self.bucket.set_rate(min(self._stated_tokens(), tokens), now)
        self._tuned = now

    @property
    def whole(self) -> float:
        """The rate of requests, had there been no 429 just now."""
        return self.spacing.rate / self._share

    def wait(self, tokens: int, now: float) -> tuple[WaitReason, float] | None:
        """What holds a request of so many tokens back, and until when."""
        self.spacing.refill(now)
        wait = self.spacing.wait()
        if wait > 0:
            self._binding = True
            return WaitReason.REQUESTS, now + wait
        self.bucket.refill(now)
        wait = self.bucket.wait(tokens)
        if wait > 0:
            self._short_of_tokens = now
            return WaitReason.TOKENS, now + wait
        return None

    def left(self, permit: Permit, now: float) -> None:
        """The request leaves now."""
        permit.left = now
        faded = math.exp(min(0.0, self._left_at - now) / _METERED)
        self._leaving = self._leaving * faded + 1 / _METERED
        self._left_at = now
        permit.rate = min(permit.spaced, self._leaving)
        permit.most = permit.spaced if permit.spaced < math.inf else self._leaving
        permit.sent_before = self._sent
        permit.tokens_before = self._sent_tokens
        self._sent += 1
        self._sent_tokens += permit.tokens
        self.spacing.left(now)

    def hear(self, permit: Permit, said: Hints, now: float) -> None:
        """Believe the headers of the newest request heard so far, less what has left since it left."""
        if permit.sent_before < self._heard or (said.requests is None and said.tokens is None):
            return
        self._heard = permit.sent_before
        elapsed = max(0.0, now - permit.left)
        before = self._requests.limit, self._tokens.limit
        if said.requests is not None:
            if said.requests.remaining is not None:
                self.pace.heard(not _used_up(said.requests), now)
            self._requests.learn(said.requests)
            left = self._sent - permit.sent_before - 1
            self.spacing.refill(now)
            self.spacing.believe(_credit(self._requests, said.requests, left, elapsed) + _ROUNDED)
        if said.tokens is not None:
            self._tokens.learn(said.tokens)
            left = self._sent_tokens - permit.tokens_before - permit.tokens
            self.bucket.refill(now)
            self.bucket.believe(_credit(self._tokens, said.tokens, left, elapsed))
        if before != (self._requests.limit, self._tokens.limit):
            self._tuned = -math.inf

    def kind(self, throttle: Throttle | None, said: Hints, now: float) -> Throttle:
        """What a 429 is about.

        One that does not say is about requests if its headers leave none, and else about tokens if those held requests
        back just now.
        """
        if throttle not in (None, Throttle.UNKNOWN):
            return throttle
        if said.requests is not None and _used_up(said.requests):
            return Throttle.REQUESTS
        recently = self._short_of_tokens > now - _RECENTLY
        return Throttle.TOKENS if recently and not self.pace.learnt else Throttle.UNKNOWN

    def answered(self, permit: Permit) -> None:
        """Something other than a 429 came back."""
        self.pace.answered(permit.left, permit.rate, permit.spaced)
        self._token_pace.answered(permit.left, permit.rate, permit.spaced)

    def refused(self, permit: Permit, throttle: Throttle, again: bool, now: float) -> bool:
        """Slow down what was refused, unless it left faster than is stated by now; whether it was but noise.

        `again` is whether nothing but 429s has come since the last burst of them.
        """
        if throttle is Throttle.TOKENS and self.bucket.rate < math.inf:
            self.bucket.believe(0.0)
            if not self._pressed(now):
                return False  # estimates are off now and then; only a lower limit than it says goes on refusing
            pace, at = self._token_pace, self.bucket.rate
            random = pace.noisy and pace.at_random(permit.left, at, permit.most, now)
        elif permit.pace <= _FASTER * self._stated():
            pace, at = self.pace, permit.pace
            random = pace.at_random(permit.left, at, permit.most, now)
        else:
            return False
        if random and not again:
            return True
        if again:
            pace.slow_down(now)
        else:
            pace.refused(permit.left, at, permit.spaced, now)
        return False

    def fills(self) -> tuple[float | None, float | None]:
        """What is left of the requests and of the tokens, 0..1, None where no limit is known."""
        requests = _fill(self._requests, self.spacing.level / self.spacing.depth) if self.known else None
        tokens = _fill(self._tokens, self.bucket.level / self.bucket.depth) if self.bucket.depth else None
        return requests, tokens

    def per_minute(self) -> tuple[float | None, float | None]:
        """The rates of requests and of tokens in force, None where none is known."""
        requests = self.spacing.rate * MINUTE if self.known and self.spacing.rate < math.inf else None
        return requests, self.bucket.rate * MINUTE if self.bucket.rate < math.inf else None

    def _pressed(self, now: float) -> bool:
        faded = math.exp((self._tokens_refused - now) / _PRESSED)
        self._pressure, self._tokens_refused = self._pressure * faded + 1, now
        return self._pressure >= _PRESSURE

    def _stated(self) -> float:
        own = math.inf if self._own.rpm is None else self._own.rpm / MINUTE
        return usable(min(own, self._requests.rate()))

    def _stated_tokens(self) -> float:
        own = math.inf if self._own.tpm is None else self._own.tpm / MINUTE
        return usable(min(own, self._tokens.rate()))


def _used_up(hint: BucketHint) -> bool:
    """Whether the provider says that it would not let one more through."""
    return hint.remaining is not None and hint.remaining < 1


def _credit(stated: HeaderRate, hint: BucketHint, left: float, elapsed: float) -> float:
    return stated.held(hint) - left + elapsed * stated.rate()


def _fill(stated: HeaderRate, own: float) -> float:
    if stated.limit and stated.remaining is not None:
        return min(1.0, stated.remaining / stated.limit)
    return min(1.0, max(0.0, own))
