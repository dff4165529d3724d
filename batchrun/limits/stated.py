"""One limit as the provider states it: what it means (`inference`), and how much of it is left for us now.

`remaining` is believed less what has left since the request left that it answers, and more by what has refilled
meanwhile. Where the refill is not known, it is all that leaves until the next answer; where it is nothing, one request is
let through when `reset` is over.

A limit that shows a bucket (FULL, REFILL) may be emptied at once. Where requests are refused although it has room, it is
in force over shorter times than it shows: from then on what leaves is spaced at its refill. If `remaining` stays near
the limit then for some time, the refusals were about something else, and spacing ends; each time this happens it is
tried for twice as long. A window that is named or whose end is known is spaced from the start.
"""

import math

from batchrun.events import WaitReason
from batchrun.limits.headers import Stated
from batchrun.limits.inference import Inference, Meaning, Sent
from batchrun.limits.records import Quota

MARGIN = 0.995
"""Share of a stated rate that is used, so that a bucket of the provider that ran empty by jitter fills again."""
_PATIENCE = 30.0
"""Seconds of spacing after which it is asked whether the limit is what binds, the first time."""
_NEAR = 0.75
"""Share of the limit from which `remaining` is near it."""
_LOOK = 1.0
"""Seconds until one is let through where nothing says when."""
_SOON = 0.05


class StatedLimit:
    """One limit, and its level. Amounts are in its unit, times seconds of the gate's clock."""

    __slots__ = (
        "_at",
        "_end",
        "_level",
        "_opens",
        "_patience",
        "_refused_at",
        "_reset",
        "_spaced_since",
        "inference",
        "spaced",
    )

    def __init__(self, said: Stated, now: float) -> None:
        self.inference = Inference(said)
        self._at, self._level = now, math.inf
        self._opens, self._end, self._reset = now, now, _LOOK
        self.spaced = False
        self._spaced_since = now
        self._refused_at = 0.0
        self._patience = _PATIENCE

    def hear(self, said: Stated, sent: Sent, now: float) -> bool:
        """An answer to a request that left as `sent` says states this.

        Returns whether this explains refusals that nothing explained when they came.
        """
        known = self.inference.rate is not None
        self.inference.learn(said, sent, now)
        if said.remaining is not None:
            self._believe(said, said.remaining, sent, now)
        return self.spaced and not known and (self.inference.rate or math.inf) <= self._refused_at

    def _believe(self, said: Stated, held: float, sent: Sent, now: float) -> None:
        rate = self.inference.rate or 0.0
        if self.inference.meaning is Meaning.FULL and held < 1.0 and said.reset is not None:
            held = min(0.0, self.inference.depth - said.reset * rate)
        # Some state what was left on arrival, some on departure: the lower of both where the refill is known.
        held += min(0.0, max(0.0, now - sent.left) * rate - sent.since) if rate else -sent.since / 2
        self._level, self._at = held, now
        self._end = now + (said.reset or 0.0)
        self._reset = _LOOK if said.reset is None else max(_SOON, said.reset)
        self._opens = now + self._reset

    def refused(self, at: float, now: float) -> None:
        """Something was refused that this limit had room for, when so many units a second left."""
        self._refused_at = at
        if not self.spaced:
            self.spaced, self._spaced_since = True, now

    def doubted(self, now: float) -> bool:
        """Whether spacing has just ended, since there was plenty of room all the time."""
        if not self.spaced or not self.inference.inferred or now - self._spaced_since < self._patience:
            return False
        left = self.inference.said.remaining
        if left is None or left < _NEAR * self.inference.said.limit or self.inference.rate is None:
            self._spaced_since = now
            return False
        self.spaced = False
        self._patience *= 2
        return True

    def pace(self, now: float) -> float:
        """The units a second at which to leave; inf where the limit says nothing of it."""
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
        """What is known of the limit rests on this."""
        return "inferred" if self.inference.inferred else "stated"

    @property
    def quota(self) -> Quota | None:
        """The limit where it is for an hour or longer."""
        said, window = self.inference.said, self.inference.window
        if not self.inference.budget or said.remaining is None or window is None:
            return None
        return Quota(said.key, said.kind, said.limit, said.remaining, round(window, 0))

    @property
    def reason(self) -> WaitReason:
        """What a request waits for that this limit holds back."""
        if self.inference.budget:
            return WaitReason.QUOTA
        return WaitReason.REQUESTS if self.inference.said.kind == "requests" else WaitReason.TOKENS

    def level(self, now: float) -> float:
        """What is left now."""
        if self._level < self.inference.said.limit:
            elapsed = max(0.0, now - self._at)
            if self.inference.rate:
                self._level = min(self.inference.said.limit, self._level + elapsed * self.inference.rate)
            elif self.inference.meaning is Meaning.END and now >= self._end:
                self._level = self.inference.said.limit
            self._at = now
        return self._level

    def wait(self, amount: float, now: float) -> float:
        """Seconds until so much may leave; 0 for now."""
        short = min(amount, self.inference.said.limit) - self.level(now)
        if short <= 1e-9:
            return 0.0
        if self.inference.rate:
            return short / self.inference.rate
        return max(0.0, self._opens - now)

    def take(self, amount: float, now: float) -> None:
        """So much leaves now."""
        if self._level < amount and not self.inference.rate:
            self._opens = now + self._reset
        self._level -= amount
