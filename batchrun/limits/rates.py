"""The rates in force: the lowest of what the user, the answers and the 429s say, for requests and for tokens.

A bucket that holds some seconds of its rate refuses nothing until it is empty, so the pace at which the first requests are
refused says little of its rate. Once it has refused, it holds less than one request and lets through what it refills: the
requests that were let through, over the seconds from the first that left after a refusal to the next refusal, are the most
that its rate can be (`Refill`). What is not used at once a shallow bucket loses, and so does a window that ends, which would
make that quotient too low: it counts only where the first burst was much larger than what it allows in that time, and
where the pace was higher.
"""

import math
from typing import Any

from batchrun.events import WaitReason
from batchrun.limits.buckets import MINUTE, Spacing, TokenBucket
from batchrun.limits.headers import Hints, Stated
from batchrun.limits.inference import Meaning, Sent
from batchrun.limits.learning import Estimate, LearnedRate
from batchrun.limits.records import Limits, Permit, Quota, Throttle
from batchrun.limits.stated import MARGIN, StatedLimit
from batchrun.limits.wait_reporter import Wait

_FEWEST = 4
"""Requests that have to be let through; of fewer one more or less says too much."""
_DEEP = 1.0
"""Seconds of its rate that a bucket has to have held at first."""


class Refill:
    """What was let through since the last refusal. Times are seconds of the gate's clock, rates requests a second."""

    __slots__ = ("_burst", "_let_through", "_pace", "_since", "closed")

    def __init__(self) -> None:
        self.closed = True
        """Whether nothing has left since the last refusal."""
        self._let_through, self._since, self._pace = 0, 0.0, 0.0
        self._burst: tuple[int, float] | None = None  # until the first refusal: requests, and seconds

    def opened(self, let_through: int, pace: float, now: float) -> None:
        """The first request leaves since a refusal, at that pace, after so many were let through."""
        self.closed, self._let_through, self._pace, self._since = False, let_through, pace, now

    def refused(self, let_through: int, left: float) -> float:
        """A request that left then was refused, after so many were let through; the most that the rate can be, inf where
        this does not tell."""
        count, seconds, self.closed = let_through - self._let_through, left - self._since, True
        if self._burst is None:
            self._burst = count, seconds
            return math.inf
        if count < _FEWEST or seconds <= 0.0:
            return math.inf
        most, (burst, lasted) = count / seconds, self._burst
        deep = burst - most * lasted >= most * max(_DEEP, lasted)
        return most if deep and most <= self._pace else math.inf


_TUNED_EVERY = 0.02
"""Seconds for which a rate is taken as constant."""
_HEARD_EVERY = 0.005
"""Seconds from one answer whose limits are believed to the next: hundreds a second tell no more."""
_TIMED = 64
"""Exchanges over which their time is averaged."""
_METERED = 0.25
"""Seconds over which departures are counted, fading, for the rate at which a request left."""
_PRESSURE = 5.0
"""So many 429s about tokens (fading over `_PRESSED` seconds) show that a stated limit is not the true one."""
_PRESSED = 5.0
_RECENTLY = 15.0
"""Seconds for which a shortage of tokens explains a 429 that does not say what it is about."""
_FASTER = 1.05
_UNCONFIRMED = 32
"""Answers after which a limit of an earlier session counts no more, where none of them has stated it."""


STATED, LEARNED = "stated", "learned"


class Rates:
    """Two buckets, what the provider states, and what sets the rates. Times are seconds of the gate's clock."""

    def __init__(self, limits: Limits, estimate: Estimate, now: float) -> None:
        self.spacing = Spacing(now)
        self.bucket = TokenBucket(now)
        self.pace = LearnedRate(start=not limits.fixed)
        self._token_pace = LearnedRate(start=False)
        self._refill = Refill()
        self._stated: dict[str, StatedLimit] = {}
        self._unconfirmed, self._answers = set[str](), 0
        self._estimate = estimate
        self._own = limits
        self._sent, self._sent_tokens, self._refused = 0, 0.0, 0
        self._heard, self._heard_at = -1, -math.inf
        self._leaving, self._left_at = 0.0, now
        self._tuned = -math.inf
        self.share = 1.0
        self.took, self._timed = math.inf, 0
        """Seconds of an exchange, on average."""
        self.basis = self._basis = STATED
        """What the rate in force rests on."""
        self.testing: float | None = None
        """The requests a second at which it is tried whether something else than a rate is what refuses."""
        self._binding = False
        self._short_of_tokens = self._tokens_refused = -math.inf
        self._pressure = 0.0
        self._request_pace = self._tokens_stated = math.inf
        self.token_limit = math.inf
        """Tokens that the user or the provider has stated as a limit; no request can be larger."""

    @property
    def known(self) -> bool:
        """Whether a rate of requests is stated or learnt."""
        return self.pace.learnt or self._request_pace < math.inf

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
        own, refill = self._own, {True: math.inf, False: math.inf}
        for limit in self._stated.values():
            if limit.inference.rate and not limit.inference.budget:
                of_requests = limit.inference.said.kind == "requests"
                rate = limit.inference.rate / self._share_of(limit.inference.said.kind)
                refill[of_requests] = min(refill[of_requests], rate * MINUTE)
        requests = min(refill[True], math.inf if own.rpm is None else own.rpm)
        tokens = min(refill[False], math.inf if own.tpm is None else own.tpm)
        return requests if requests < math.inf else None, tokens if tokens < math.inf else None

    def change(self, limits: Limits) -> None:
        """What the user states from now on; `tune` makes it count."""
        self._own = limits

    def due(self, now: float) -> bool:
        """Whether it is time to `tune`."""
        return now - self._tuned >= _TUNED_EVERY or now < self._tuned

    def tune(self, now: float, share: float) -> None:
        """Set the rates anew; `share` of the rate of requests is to be used after a 429."""
        own = self._own
        requests = math.inf if own.rpm is None else own.rpm / MINUTE * MARGIN
        tokens = math.inf if own.tpm is None else own.tpm / MINUTE * MARGIN
        basis = STATED
        self.token_limit = math.inf if own.tpm is None else own.tpm
        for limit in self._stated.values():
            if limit.doubted(now):
                self.pace.search_from(self._leaving, now)
            kind, pace = limit.inference.said.kind, limit.pace(now)
            if kind == "tokens":
                self.token_limit = min(self.token_limit, limit.inference.said.limit)
            if kind == "requests":
                if pace < requests:
                    requests, basis = pace, limit.basis
            else:
                tokens = min(tokens, pace / self._share_of(kind))
        self.share, self._request_pace, self._tokens_stated = share, requests, tokens
        learnt = self.pace.refresh(now, self._binding and self.pace.rate <= requests, self.took)
        if self.testing is not None:
            learnt, share = max(learnt, self.testing), 1.0
        self._basis = LEARNED if learnt < requests else basis
        learnt_tokens = self._token_pace.refresh(now, self._short_of_tokens >= self._tuned)
        self._binding = False
        self.spacing.set_rate(min(requests, learnt) * share, now)
        self.spacing.stated = requests
        self.bucket.set_rate(min(tokens, learnt_tokens), now)
        self._tuned = now

    def test(self, rate: float | None, now: float) -> None:
        """Let so many a second leave, whatever was learnt: something else may be what refuses; None ends it."""
        if (rate is None) != (self.testing is None):
            self.testing = rate
            self.tune(now, self.share)

    def forget(self, now: float) -> None:
        """What was learnt of the rate was learnt of something else."""
        self.pace = LearnedRate(start=False)
        self.tune(now, self.share)

    def wait(self, tokens: int, now: float) -> Wait | None:
        """What holds a request of so many tokens back; None where no rate does. Changes nothing but the fill of the buckets,
        which follows from the time."""
        if self.spacing.rate < math.inf:
            self.spacing.refill(now)
            wait = self.spacing.wait()
            if wait > 0:
                return Wait(WaitReason.REQUESTS, now + wait, self._basis, spaced=True)
        if self.bucket.rate < math.inf:
            self.bucket.refill(now)
            wait = self.bucket.wait(tokens)
            if wait > 0:
                return Wait(WaitReason.TOKENS, now + wait, STATED, of_tokens=True)
        for limit in self._stated.values():
            kind = limit.inference.said.kind
            wait = limit.wait(1.0 if kind == "requests" else tokens * self._share_of(kind), now)
            if wait > 0:
                return Wait(limit.reason, now + wait, limit.basis, of_tokens=kind != "requests")
        return None

    def held(self, wait: Wait, now: float) -> None:
        """The next request is held back by what `wait` has returned."""
        self._binding |= wait.spaced
        if wait.of_tokens:
            self._short_of_tokens = now
        if wait.basis is not None:
            self.basis = wait.basis

    def take(self, tokens: int, now: float) -> None:
        """A request of so many tokens is admitted."""
        self.spacing.pending += 1
        if self.bucket.rate < math.inf:
            self.bucket.take(tokens)
        for limit in self._stated.values():
            kind = limit.inference.said.kind
            limit.take(1.0 if kind == "requests" else tokens * self._share_of(kind), now)

    def give_back(self, tokens: int, now: float) -> None:
        """It will not leave."""
        self.spacing.give_back()
        self.bucket.give(tokens)
        for limit in self._stated.values():
            kind = limit.inference.said.kind
            limit.take(-1.0 if kind == "requests" else -tokens * self._share_of(kind), now)

    def left(self, permit: Permit, now: float) -> None:
        """The request leaves now."""
        permit.left, spaced = now, permit.spaced
        leaving = self._leaving
        if now > self._left_at:
            leaving *= math.exp((self._left_at - now) / _METERED)
        self._leaving = leaving = leaving + 1 / _METERED
        self._left_at = now
        permit.rate = spaced if spaced < leaving else leaving
        permit.most = spaced if spaced < math.inf else leaving
        permit.sent_before = self._sent
        if self._refill.closed:
            self._refill.opened(self._sent - self._refused, permit.pace, now)
        permit.tokens_before = self._sent_tokens
        self._sent += 1
        self._sent_tokens += permit.tokens
        self.spacing.left(now)

    def hear(self, permit: Permit, said: Hints, now: float) -> None:
        """Believe what the newest request heard so far was told, less what has left since it left."""
        for named in said.named:
            for limit in self._stated.values():
                if (limit.inference.said.kind, limit.inference.said.limit) == (named.kind, named.limit):
                    limit.inference.name(named.window or MINUTE)
        if not said.limits or permit.sent_before < self._heard:
            return
        if now < self._heard_at + _HEARD_EVERY and not said.looks_like_429 and len(said.limits) <= len(self._stated):
            return
        self._heard, self._heard_at = permit.sent_before, now
        pending, tokens = self.spacing.pending, self._estimate.tokens
        for stated in said.limits:
            self._unconfirmed.discard(stated.key)
            limit = self._stated.get(stated.key)
            if limit is None:
                limit = self._stated[stated.key] = StatedLimit(stated, now)
                self._tuned = -math.inf
            elif stated.limit != limit.inference.said.limit:
                self._tuned = -math.inf
            if stated.kind == "requests":
                sent = Sent(
                    permit.sent_before - self._refused, self._sent - permit.sent_before - 1 + pending, 1.0, permit.left
                )
            else:
                share = self._share_of(stated.kind)
                since = self._sent_tokens - permit.tokens_before - permit.tokens + pending * tokens
                unit = tokens * share if self._estimate.settled else math.inf
                sent = Sent(permit.tokens_before * share, since * share, unit, permit.left)
            if limit.hear(stated, sent, now):
                self.pace.search_from(max(self.pace.rate, limit.pace(now) / sent.unit), now)
        self.pace.heard(all(not _used_up(stated) for stated in said.limits), now)

    def time(self, took: float) -> None:
        """An exchange took so many seconds. Of many that leave together the shortest ends first, so it alone says little."""
        if self._timed < _TIMED:
            self._timed += 1
        self.took = took if self._timed == 1 else self.took + (took - self.took) / self._timed

    def settle(self, permit: Permit, tokens: int) -> None:
        """The request has used so many tokens."""
        if self.bucket.rate < math.inf:
            self.bucket.give(permit.tokens - tokens)
        if permit.sent_before >= 0:
            self._sent_tokens += tokens - permit.tokens

    def kind(self, throttle: Throttle | None, said: Hints, now: float) -> Throttle:
        """What a 429 is about.

        One that does not say is about what its headers have none left of, and else about tokens if those held requests
        back just now.
        """
        if throttle not in (None, Throttle.UNKNOWN):
            return throttle
        for stated in said.limits:
            if _used_up(stated):
                return Throttle.REQUESTS if stated.kind == "requests" else Throttle.TOKENS
        recently = self._short_of_tokens > now - _RECENTLY
        return Throttle.TOKENS if recently and not self.pace.learnt else Throttle.UNKNOWN

    def answered(self, permit: Permit) -> None:
        """Something other than a 429 came back."""
        if self._unconfirmed:
            self._answers += 1
            if self._answers >= _UNCONFIRMED:
                for key in self._unconfirmed:
                    del self._stated[key]
                self._unconfirmed.clear()
                self._tuned = -math.inf
        left, rate, spaced = permit.left, permit.rate, permit.spaced
        self.pace.answered(left, rate, spaced)
        if self._tokens_stated < math.inf:  # else no 429 is about them
            self._token_pace.answered(left, rate, spaced)

    def refused(self, permit: Permit, throttle: Throttle, again: bool, now: float) -> bool:
        """Slow down what was refused, unless what the provider states explains it; whether it was but noise.

        `again` is whether nothing but 429s has come since the last burst of them.
        """
        self._refused += 1
        explained = self._explained(permit, throttle, now)
        pace, at = self.pace, permit.pace
        if throttle is Throttle.TOKENS and self._tokens_stated < math.inf:
            self.bucket.believe(0.0)
            if not self._pressed(now):
                return False  # estimates are off now and then; only a lower limit than it says goes on refusing
            pace, at = self._token_pace, self.bucket.rate
            random = pace.noisy and pace.at_random(permit.left, at, permit.most, now, again=again)
        elif permit.pace > _FASTER * self._request_pace:
            return False  # it left faster than is stated by now
        else:
            random = pace.at_random(permit.left, at, permit.most, now, again=again)
        if random and not again:
            return True
        if explained and not self._pressed(now):
            return False
        most = self._refill.refused(permit.sent_before + 1 - self._refused, permit.left)
        if again:
            pace.slow_down(now)
        else:
            pace.refused(permit.left, at, permit.spaced, now, most if pace is self.pace else math.inf)
        return False

    def fills(self) -> tuple[float | None, float | None]:
        """What is left of the requests and of the tokens, 0..1, None where no limit is known."""
        requests, tokens = self._fill(of_requests=True), self._fill(of_requests=False)
        if requests is None and self.known:
            requests = min(1.0, max(0.0, self.spacing.level / self.spacing.depth))
        if tokens is None and self.bucket.depth:
            tokens = min(1.0, max(0.0, self.bucket.level / self.bucket.depth))
        return requests, tokens

    def per_minute(self) -> tuple[float | None, float | None]:
        """The rates of requests and of tokens in force, None where none is known."""
        requests, tokens = self.stated
        if self.known and self.spacing.rate < math.inf:
            requests = self.spacing.rate * MINUTE
        if self.bucket.rate < math.inf:
            tokens = self.bucket.rate * MINUTE
        return requests, tokens

    def quotas(self) -> tuple[Quota, ...]:
        """The limits for an hour or longer."""
        return tuple(quota for limit in self._stated.values() if (quota := limit.quota) is not None)

    def learned(self) -> dict[str, Any]:
        """What another session can begin with, as JSON values: `go_on` takes it."""
        limits: list[dict[str, Any]] = []
        for limit in self._stated.values():
            stated = limit.inference.said._replace(remaining=None, reset=None)._asdict()
            known = {"meaning": limit.inference.meaning.value, "rate": limit.inference.rate, "spaced": limit.spaced}
            limits.append({"stated": stated, **known})
        pace = self.pace.rate if self.pace.learnt else self._leaving
        return {"pace": pace, "learnt": self.pace.learnt, "limits": limits}

    def go_on(self, learned: dict[str, Any], now: float) -> None:
        """Begin with what an earlier session learned."""
        for kept in learned["limits"]:
            limit = self._stated[kept["stated"]["key"]] = StatedLimit(Stated(**kept["stated"]), now)
            limit.inference.go_on(Meaning(kept["meaning"]), kept["rate"])
            limit.spaced = kept["spaced"]
            self._unconfirmed.add(kept["stated"]["key"])
        if self.pace.rate < math.inf:
            self.pace.go_on(learned["pace"], now, learnt=learned["learnt"])
        self._tuned = -math.inf

    def _explained(self, permit: Permit, throttle: Throttle, now: float) -> bool:
        """Whether a stated limit has no room for what was refused. One that has is not in force as it shows."""
        explained = False
        for limit in self._stated.values():
            requests = limit.inference.said.kind == "requests"
            if throttle is (Throttle.TOKENS if requests else Throttle.REQUESTS):
                continue
            amount = 1.0 if requests else permit.tokens * self._share_of(limit.inference.said.kind)
            if limit.level(now) >= amount:
                limit.refused(permit.most * amount, now)
            else:
                explained = True
        self.tune(now, self.share)
        return explained

    def _share_of(self, kind: str) -> float:
        """What of a request's tokens are of that kind."""
        return self._estimate.share(kind) if kind in ("input", "output") else 1.0

    def _fill(self, *, of_requests: bool) -> float | None:
        said = (limit.inference.said for limit in self._stated.values() if not limit.inference.budget)
        fills = [
            of.remaining / of.limit
            for of in said
            if of.remaining is not None and (of.kind == "requests") is of_requests
        ]
        return min(fills, default=None)

    def _pressed(self, now: float) -> bool:
        faded = math.exp((self._tokens_refused - now) / _PRESSED)
        self._pressure, self._tokens_refused = self._pressure * faded + 1, now
        return self._pressure >= _PRESSURE


def _used_up(said: Stated) -> bool:
    """Whether the provider says that it would not let one more through."""
    return said.remaining is not None and said.remaining < 1
