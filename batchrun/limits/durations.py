"""How long replies take, and when the last one came: what refusals and lost connections are told by."""

import math
from collections import deque

_REMEMBERED = 512
"""Replies."""
_WEIGHT = 1 / 16
"""Of one reply in the average."""
_STALE_LEAST = 10.0
_STALE = 3.0
"""Seconds, and times what a slow reply takes, after which none having come means that none may come."""


class ReplyTimes:
    """What the latest replies took. Times are seconds of the gate's clock."""

    __slots__ = ("_average", "_last", "_recent")

    def __init__(self) -> None:
        self._average = math.nan
        self._last = -math.inf
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)

    def replied(self, took: float, now: float) -> None:
        """A reply came after so many seconds."""
        self._average = took if not self._recent else self._average + _WEIGHT * (took - self._average)
        self._recent.append(took)
        self._last = now

    def average(self, now: float) -> float | None:
        """What replies take of late; None where none has come for longer than a slow one takes."""
        return self._average if self._recent and now - self._last <= self.overdue else None

    @property
    def usual(self) -> float | None:
        """Seconds that replies took on average; None where there has been none."""
        return self._average if self._recent else None

    @property
    def slow(self) -> float | None:
        """Seconds that a slow reply takes, their 99th percentile; None where there is none."""
        ordered = sorted(self._recent)
        return ordered[int(0.99 * (len(ordered) - 1))] if ordered else None

    @property
    def overdue(self) -> float:
        """Seconds after which an attempt has taken much longer than replies do: 10, or 3 times a slow one."""
        return max(_STALE_LEAST, _STALE * (self.slow or 0.0))
