"""The lowest of the user's, the stated and the learned rates, for requests and tokens."""

import math
from typing import Any

from batchrun.events import WaitReason
from batchrun.limits.buckets import MINUTE, Spacing, TokenBucket
from batchrun.limits.headers import Hints, Stated
from batchrun.limits.learning import Estimate, LearnedRate
from batchrun.limits.records import Limits, Permit, Quota, Throttle
from batchrun.limits.stated import MARGIN, Meaning, Sent, StatedLimit
from batchrun.limits.wait_reporter import Wait

_FEWEST = 4  # Requests let through; with fewer, one more or less matters too much.
_DEEP = 1.0  # Seconds of its rate that a bucket must have held at first.


class Refill:
    """What was let through since the last refusal."""

    # It counts only after a much larger first burst: shallow buckets lose what is unused.

    __slots__ = ("_burst", "_let_through", "_pace", "_since", "closed")

    def __init__(self) -> None:
        self.closed = True  # nothing was sent since the last refusal
        self._let_through, self._since, self._pace = 0, 0.0, 0.0
        self._burst: tuple[int, float] | None = None  # until the first refusal: requests, and seconds

    def opened(self, let_through: int, pace: float, now: float) -> None:
        # After a refusal; `let_through` counts all before.
        self.closed, self._let_through, self._pace, self._since = False, let_through, pace, now

    def refused(self, let_through: int, left: float) -> float:
        """The most that the rate can be."""
        count, seconds, self.closed = let_through - self._let_through, left - self._since, True
        if self._burst is None:
            self._burst = count, seconds
            return math.inf
        if count < _FEWEST or seconds <= 0.0:
            return math.inf
        most, (burst, lasted) = count / seconds, self._burst
        deep = burst - most * lasted >= most * max(_DEEP, lasted)
        return most if deep and most <= self._pace else math.inf


_TUNED_EVERY = 0.02  # Seconds for which a rate is taken as constant.
_APPLY_EVERY = 0.005  # Seconds between answers whose headers are applied.
_TIMED = 64  # Exchanges over which their time is averaged
_METERED = 0.25  # Seconds over which the departure rate is averaged (fading).
_ONE_METERED = 1 / _METERED  # One departure as a rate
_PRESSURE = 5.0  # 429s about tokens that disprove a stated limit, fading over `_PRESSED` seconds
_PRESSED = 5.0
_RECENTLY = 15.0  # Seconds for which a shortage of tokens explains a 429 of unknown cause
_FASTER = 1.05
_UNCONFIRMED = 32  # Answers after which a limit of an earlier session counts no more, where none of them has stated it


STATED, LEARNED = "stated", "learned"


class Rates:
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
        self._sent_tokens, self._refused = 0.0, 0
        self._applied, self._applied_at = -1, -math.inf
        self._leaving, self._left_at = 0.0, now
        self._tuned = -math.inf
        self.share = 1.0
        self.took, self._timed = math.inf, 0  # average seconds of an exchange
        self.basis = self._basis = STATED  # of the rate in force
        self.testing: float | None = None  # requests per second during a test for another cause than a rate
        self._binding = False
        self._short_of_tokens = self._tokens_refused = -math.inf
        self._pressure = 0.0
        self._request_pace = self._tokens_stated = math.inf
        self.token_limit = math.inf  # stated tokens; no request can be larger
        self.limited = True  # a rate is in force
        self.free = False  # none is, and no limit stated

    @property
    def known(self) -> bool:
        return self.pace.learnt or self._request_pace < math.inf

    @property
    def noisy(self) -> bool:
        return self.pace.noisy or self._token_pace.noisy

    @property
    def stated(self) -> tuple[float | None, float | None]:
        own, refill = self._own, {True: math.inf, False: math.inf}
        for limit in self._stated.values():
            if limit.inference.rate and not limit.inference.budget:
                of_requests = limit.inference.stated.kind == "requests"
                rate = limit.inference.rate / self._share_of(limit.inference.stated.kind)
                refill[of_requests] = min(refill[of_requests], rate * MINUTE)
        requests = min(refill[True], math.inf if own.rpm is None else own.rpm)
        tokens = min(refill[False], math.inf if own.tpm is None else own.tpm)
        return requests if requests < math.inf else None, tokens if tokens < math.inf else None

    def change(self, limits: Limits) -> None:
        """`tune` applies them."""
        self._own = limits

    def due(self, now: float) -> bool:
        return now - self._tuned >= _TUNED_EVERY or now < self._tuned

    def tune(self, now: float, share: float) -> None:
        own = self._own
        requests = math.inf if own.rpm is None else own.rpm / MINUTE * MARGIN
        tokens = math.inf if own.tpm is None else own.tpm / MINUTE * MARGIN
        basis = STATED
        self.token_limit = math.inf if own.tpm is None else own.tpm
        for limit in self._stated.values():
            if limit.doubted(now):
                self.pace.search_from(self._leaving, now)
            kind, pace = limit.inference.stated.kind, limit.pace(now)
            if kind == "tokens":
                self.token_limit = min(self.token_limit, limit.inference.stated.limit)
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
        self.limited = self.spacing.rate < math.inf or self.bucket.rate < math.inf
        self._tuned, self.free = now, not (self.limited or self._stated)

    def test(self, rate: float | None, now: float) -> None:
        """To test for another cause."""
        if (rate is None) != (self.testing is None):
            self.testing = rate
            self.tune(now, self.share)

    def forget(self, now: float) -> None:
        """Something else had refused."""
        self.pace = LearnedRate(start=False)
        self.tune(now, self.share)

    def wait(self, tokens: int, now: float) -> Wait | None:
        """Only refills buckets."""
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
            kind = limit.inference.stated.kind
            wait = limit.wait(1.0 if kind == "requests" else tokens * self._share_of(kind), now)
            if wait > 0:
                return Wait(limit.reason, now + wait, limit.basis, of_tokens=kind != "requests")
        return None

    def held(self, wait: Wait, now: float) -> None:
        self._binding |= wait.spaced
        if wait.of_tokens:
            self._short_of_tokens = now
        if wait.basis is not None:
            self.basis = wait.basis

    def take(self, tokens: int, now: float) -> None:
        """Only where a rate is in force or a limit stated."""
        self.bucket.take(tokens)
        for limit in self._stated.values():
            kind = limit.inference.stated.kind
            limit.take(1.0 if kind == "requests" else tokens * self._share_of(kind), now)

    def release(self, tokens: int, now: float) -> None:
        """An admitted request will not be sent."""
        self.spacing.release()
        self.bucket.give(tokens)
        for limit in self._stated.values():
            kind = limit.inference.stated.kind
            limit.take(-1.0 if kind == "requests" else -tokens * self._share_of(kind), now)

    def left(self, permit: Permit, now: float) -> None:
        spacing, leaving = self.spacing, self._leaving
        if now > self._left_at:
            leaving *= math.exp((self._left_at - now) / _METERED)
            self._left_at = now
        self._leaving = permit.leaving = leaving + _ONE_METERED * permit.count
        permit.left, permit.sent_before, permit.tokens_before = now, spacing.sent, self._sent_tokens
        if self._refill.closed:
            self._refill.opened(spacing.sent - self._refused, permit.pace, now)
        self._sent_tokens += permit.tokens
        if self.limited:
            spacing.left(now, permit.count)
        else:
            spacing.sent += permit.count

    def apply(self, permit: Permit, hints: Hints, now: float) -> None:
        """Only for the newest request."""
        for named in hints.named:
            for limit in self._stated.values():
                if (limit.inference.stated.kind, limit.inference.stated.limit) == (named.kind, named.limit):
                    limit.inference.name(named.window or MINUTE)
        if not hints.limits or permit.sent_before < self._applied:
            return
        if (
            now < self._applied_at + _APPLY_EVERY
            and not hints.looks_like_429
            and len(hints.limits) <= len(self._stated)
        ):
            return
        self._applied, self._applied_at = permit.sent_before, now
        pending, tokens = self.spacing.pending, self._estimate.tokens
        for stated in hints.limits:
            self._unconfirmed.discard(stated.key)
            limit = self._stated.get(stated.key)
            if limit is None:
                limit = self._stated[stated.key] = StatedLimit(stated, now)
                self._tuned, self.free = -math.inf, False
            elif stated.limit != limit.inference.stated.limit:
                self._tuned = -math.inf
            if stated.kind == "requests":
                sent = Sent(
                    permit.sent_before - self._refused,
                    self.spacing.admitted - permit.sent_before - 1,
                    1.0,
                    permit.left,
                )
            else:
                share = self._share_of(stated.kind)
                since = self._sent_tokens - permit.tokens_before - permit.tokens + pending * tokens
                unit = tokens * share if self._estimate.settled else math.inf
                sent = Sent(permit.tokens_before * share, since * share, unit, permit.left)
            if limit.apply(stated, sent, now):
                self.pace.search_from(max(self.pace.rate, limit.pace(now) / sent.unit), now)
        self.pace.note_room(all(not _used_up(stated) for stated in hints.limits), now)

    def settle(self, permit: Permit, tokens: int | None, took: float) -> None:
        if self._timed < _TIMED:  # the first to end of many is the shortest, so it counts little
            self._timed += 1
            if self._timed == 1:
                self.took = took
        self.took += (took - self.took) / self._timed
        if tokens is not None:
            unused = permit.tokens - tokens
            if not self.free:
                self.bucket.give(unused)
            self._sent_tokens -= unused

    def kind(self, throttle: Throttle | None, hints: Hints, now: float) -> Throttle:
        # As the 429 says, else by its headers, else tokens if they were short.
        if throttle not in (None, Throttle.UNKNOWN):
            return throttle
        for stated in hints.limits:
            if _used_up(stated):
                return Throttle.REQUESTS if stated.kind == "requests" else Throttle.TOKENS
        recently = self._short_of_tokens > now - _RECENTLY
        return Throttle.TOKENS if recently and not self.pace.learnt else Throttle.UNKNOWN

    def answered(self, permit: Permit, count: int = 1) -> None:
        self.pace.answered(permit, count)
        if self.free:
            return
        if self._unconfirmed:
            self._answers += count
            if self._answers >= _UNCONFIRMED:
                for key in self._unconfirmed:
                    del self._stated[key]
                self._unconfirmed.clear()
                self._tuned = -math.inf
        if self._tokens_stated < math.inf:  # else no 429 is about them
            self._token_pace.answered(permit, count)

    def refused(self, permit: Permit, throttle: Throttle, again: bool, now: float) -> bool:
        """Whether it was random. `again`: only 429s since."""
        self._refused += 1
        explained = self._explained(permit, throttle, now)
        pace, at = self.pace, permit.pace
        if throttle is Throttle.TOKENS and self._tokens_stated < math.inf:
            self.bucket.believe(0.0)
            if not self._pressed(now):
                return False  # estimates are off now and then; only a limit lower than stated keeps refusing
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
        """Requests and tokens, 0..1."""
        requests, tokens = self._fill(of_requests=True), self._fill(of_requests=False)
        if requests is None and self.known:
            requests = min(1.0, max(0.0, self.spacing.level / self.spacing.depth))
        if tokens is None and self.bucket.depth:
            tokens = min(1.0, max(0.0, self.bucket.level / self.bucket.depth))
        return requests, tokens

    def per_minute(self) -> tuple[float | None, float | None]:
        requests, tokens = self.stated
        if self.known and self.spacing.rate < math.inf:
            requests = self.spacing.rate * MINUTE
        if self.bucket.rate < math.inf:
            tokens = self.bucket.rate * MINUTE
        return requests, tokens

    def quotas(self) -> tuple[Quota, ...]:
        return tuple(quota for limit in self._stated.values() if (quota := limit.quota) is not None)

    def learned(self) -> dict[str, Any]:
        limits: list[dict[str, Any]] = []
        for limit in self._stated.values():
            stated = limit.inference.stated._replace(remaining=None, reset=None)._asdict()
            known = {"meaning": limit.inference.meaning.value, "rate": limit.inference.rate, "spaced": limit.spaced}
            limits.append({"stated": stated, **known})
        pace = self.pace.rate if self.pace.learnt else self._leaving
        return {"pace": pace, "learnt": self.pace.learnt, "limits": limits}

    def restore(self, learned: dict[str, Any], now: float) -> None:
        for kept in learned["limits"]:
            limit = self._stated[kept["stated"]["key"]] = StatedLimit(Stated(**kept["stated"]), now)
            limit.inference.restore(Meaning(kept["meaning"]), kept["rate"])
            limit.spaced = kept["spaced"]
            self._unconfirmed.add(kept["stated"]["key"])
        if self.pace.rate < math.inf:
            self.pace.restore(learned["pace"], now, learnt=learned["learnt"])
        self._tuned = -math.inf

    def _explained(self, permit: Permit, throttle: Throttle, now: float) -> bool:
        # A stated limit has no room; one with room is stricter than it shows.
        explained = False
        for limit in self._stated.values():
            requests = limit.inference.stated.kind == "requests"
            if throttle is (Throttle.TOKENS if requests else Throttle.REQUESTS):
                continue
            amount = 1.0 if requests else permit.tokens * self._share_of(limit.inference.stated.kind)
            if limit.level(now) >= amount:
                limit.refused(permit.most * amount, now)
            else:
                explained = True
        self.tune(now, self.share)
        return explained

    def _share_of(self, kind: str) -> float:
        return self._estimate.share(kind) if kind in ("input", "output") else 1.0

    def _fill(self, *, of_requests: bool) -> float | None:
        stated = (limit.inference.stated for limit in self._stated.values() if not limit.inference.budget)
        fills = [
            of.remaining / of.limit
            for of in stated
            if of.remaining is not None and (of.kind == "requests") is of_requests
        ]
        return min(fills, default=None)

    def _pressed(self, now: float) -> bool:
        faded = math.exp((self._tokens_refused - now) / _PRESSED)
        self._pressure, self._tokens_refused = self._pressure * faded + 1, now
        return self._pressure >= _PRESSURE


def _used_up(stated: Stated) -> bool:
    return stated.remaining is not None and stated.remaining < 1
