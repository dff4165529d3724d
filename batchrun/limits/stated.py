"""One limit as the provider states it: what it means (`inference`) and how much remains.

`remaining` counts less what was sent since, plus the refill. Without a known refill, one request is sent when `reset`
is over.

A bucket (FULL, REFILL) may be emptied at once. If requests are refused although it has room, they are spaced at its
refill. If `remaining` then stays near the limit, the cause was another and spacing ends; the next test lasts twice as
long. A named window or known end is spaced from the start.
"""

import math

from batchrun.events import WaitReason
from batchrun.limits.headers import Stated
from batchrun.limits.inference import Inference, Meaning, Sent
from batchrun.limits.records import Quota

MARGIN = 0.995  # Share of a stated rate that is used, so that a provider's bucket emptied by jitter refills
_CHECK_AFTER = 30.0  # Seconds of spacing before the first check whether the limit binds
_NEAR = 0.75  # Share of the limit from which `remaining` is near it
_LOOK = 1.0  # Seconds until one request is sent where no time is known
_SOON = 0.05


class StatedLimit:
    """One limit and its level, in its unit. Times are the gate's clock."""

    __slots__ = (
        "_at",
        "_check_after",
        "_end",
        "_level",
        "_opens",
        "_refused_at",
        "_reset",
        "_spaced_since",
        "inference",
        "spaced",
    )

    def __init__(self, stated: Stated, now: float) -> None:
        self.inference = Inference(stated)
        self._at, self._level = now, math.inf
        self._opens, self._end, self._reset = now, now, _LOOK
        self.spaced = False
        self._spaced_since = now
        self._refused_at = 0.0
        self._check_after = _CHECK_AFTER

    def apply(self, stated: Stated, sent: Sent, now: float) -> bool:
        """Apply an answer; whether it explains earlier unexplained refusals."""
        known = self.inference.rate is not None
        self.inference.learn(stated, sent, now)
        if stated.remaining is not None:
            self._believe(stated, stated.remaining, sent, now)
        return self.spaced and not known and (self.inference.rate or math.inf) <= self._refused_at

    def _believe(self, stated: Stated, held: float, sent: Sent, now: float) -> None:
        rate = self.inference.rate or 0.0
        if self.inference.meaning is Meaning.FULL and held < 1.0 and stated.reset is not None:
            held = min(0.0, self.inference.depth - stated.reset * rate)
        # Some state what was left on arrival, some on departure: the lower of both where the refill is known.
        held += min(0.0, max(0.0, now - sent.left) * rate - sent.since) if rate else -sent.since / 2
        self._level, self._at = held, now
        self._end = now + (stated.reset or 0.0)
        self._reset = _LOOK if stated.reset is None else max(_SOON, stated.reset)
        self._opens = now + self._reset

    def refused(self, at: float, now: float) -> None:
        """Refused although this limit had room, at that many units per second."""
        self._refused_at = at
        if not self.spaced:
            self.spaced, self._spaced_since = True, now

    def doubted(self, now: float) -> bool:
        """Whether spacing has just ended because there was room all the time."""
        if not self.spaced or not self.inference.inferred or now - self._spaced_since < self._check_after:
            return False
        left = self.inference.stated.remaining
        if left is None or left < _NEAR * self.inference.stated.limit or self.inference.rate is None:
            self._spaced_since = now
            return False
        self.spaced = False
        self._check_after *= 2
        return True

    def pace(self, now: float) -> float:
        """Units per second to send; inf if the limit sets no rate."""
        inference = self.inference
        match inference.meaning:
            case _ if inference.budget:
                return math.inf
            case Meaning.NAMED:
                return MARGIN * (inference.rate or math.inf)
            case Meaning.END:
                seconds = self._end - now
                return max(1.0, self.level(now)) / seconds if seconds > _LOOK else math.inf
            case Meaning.FULL | Meaning.REFILL:
                return MARGIN * (inference.rate or math.inf) if self.spaced else math.inf
            case Meaning.UNKNOWN:
                return math.inf

    @property
    def basis(self) -> str:
        """The source of the limit's rate."""
        return "inferred" if self.inference.inferred else "stated"

    @property
    def quota(self) -> Quota | None:
        """The limit, if it is per hour or longer."""
        stated, window = self.inference.stated, self.inference.window
        if not self.inference.budget or stated.remaining is None or window is None:
            return None
        return Quota(stated.key, stated.kind, stated.limit, stated.remaining, round(window, 0))

    @property
    def reason(self) -> WaitReason:
        """The reason for a wait for this limit."""
        if self.inference.budget:
            return WaitReason.QUOTA
        return WaitReason.REQUESTS if self.inference.stated.kind == "requests" else WaitReason.TOKENS

    def level(self, now: float) -> float:
        """What remains now."""
        if self._level < self.inference.stated.limit:
            elapsed = max(0.0, now - self._at)
            if self.inference.rate:
                self._level = min(self.inference.stated.limit, self._level + elapsed * self.inference.rate)
            elif self.inference.meaning is Meaning.END and now >= self._end:
                self._level = self.inference.stated.limit
            self._at = now
        return self._level

    def wait(self, amount: float, now: float) -> float:
        """Seconds until that much may be sent."""
        short = min(amount, self.inference.stated.limit) - self.level(now)
        if short <= 1e-9:
            return 0.0
        if self.inference.rate:
            return short / self.inference.rate
        return max(0.0, self._opens - now)

    def take(self, amount: float, now: float) -> None:
        """That much is sent now."""
        if self._level < amount and not self.inference.rate:
            self._opens = now + self._reset
        self._level -= amount
