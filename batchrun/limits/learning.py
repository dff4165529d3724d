"""Learning a rate from refusals alone, and the tokens of a request from what earlier ones used.

A rate is learnt in three stages. *Start*: it doubles every quarter of a second until the first 429. *Search*: from
just under what was admitted then, it grows by some per cent a second, faster the longer nothing happens. *Hold*: after
every further 429 it falls to just under the pace at which the refused request left, and returns along a cubic (as
RFC 9438 does with a window): quickly at first, flat near the pace that was refused, then ever faster beyond it. A
burst of 429s is one fall. The pace grows only while it is what holds requests back.
"""

import math
from collections import deque

_FIRST_PACE = 16.0
_DOUBLES_IN = 0.25
_UNBOUNDED = 20_000.0
_SEARCH_FROM = 0.8
_SEARCH_GROWTH = 0.10
_SEARCH_HASTE = 0.03
_FALL = 0.93
_FALL_AGAIN = 0.92
_PLATEAU = 15.0
_PLATEAU_REQUESTS = 50.0
_MOST_FALLS = 6
_HALVINGS = 3
_LONGEST_STEP = 2.0
_SLOWEST = 1 / 60
_REMEMBERED = 4096
_REMEMBERED_SECONDS = 10.0


class Pace:
    """The learnt rate in requests per second. All times are seconds of the gate's clock."""

    __slots__ = (
        "_admitted",
        "_anchor",
        "_at",
        "_cut_at",
        "_falls",
        "_first",
        "_halved",
        "_scale",
        "_stage",
        "_time",
        "rate",
    )

    def __init__(self, *, start: bool) -> None:
        self.rate = _FIRST_PACE if start else math.inf
        self._stage = "start"
        self._admitted: deque[float] = deque(maxlen=_REMEMBERED)
        self._first = -1.0
        self._at = 0.0
        self._time = 0.0
        self._anchor = math.inf
        self._scale = 1.0
        self._falls = self._halved = 0
        self._cut_at = -math.inf

    @property
    def learnt(self) -> bool:
        """Whether a 429 has shown where the limit is."""
        return self._stage != "start"

    def refresh(self, now: float, binding: bool) -> float:
        """The rate now; `binding` is whether it held requests back since the last call."""
        if self._first < 0:
            self._first = self._at = now
        elapsed, self._at = max(0.0, now - self._at), now
        if self._stage == "start":
            self._start(now)
        elif binding:
            self._time += min(elapsed, _LONGEST_STEP)
            self.rate = max(_SLOWEST, self._search() if self._stage == "search" else self._cubic())
        return self.rate

    def answered(self, left: float) -> None:
        """A request that left then was not refused."""
        self._halved = 0
        if self._stage == "start":
            self._admitted.append(left)

    def refused(self, left: float, pace: float, now: float) -> bool:
        """A request that left then, at that pace, was refused; whether that begins a new burst."""
        if self._stage == "start" and (self.rate != math.inf or pace == math.inf):
            self._begin_search(left, now)
            return True
        if left <= self._cut_at:
            if self._stage == "search" and self._time == 0.0:
                self._begin_search(left, self._cut_at)
            return False
        self._fall(min(pace, self.rate) if pace != math.inf else self.rate, now)
        return True

    def slow_down(self, now: float) -> None:
        """Refused again before anything was answered: half the pace, but the back-off does the rest."""
        self._cut_at = now
        if self._stage != "start" and self._halved < _HALVINGS:
            self._halved += 1
            self._anchor = max(_SLOWEST, self._anchor / 2)
            self._time = 0.0
            self.rate = max(_SLOWEST, self.rate / 2)

    def _start(self, now: float) -> None:
        if self.rate == math.inf:
            return
        doublings = (now - self._first) / _DOUBLES_IN
        self.rate = _FIRST_PACE * 2**doublings if doublings < 12 else math.inf

    def _search(self) -> float:
        t = min(self._time, 60.0)
        return self._anchor * math.exp(_SEARCH_GROWTH * t + _SEARCH_HASTE * t * t)

    def _cubic(self) -> float:
        turns = self._time / (_PLATEAU * self._scale) - 1
        return self._anchor * (1 + (1 - _FALL) * turns**3)

    def _begin_search(self, left: float, now: float) -> None:
        """From what was admitted in the last while before the refused request left; a bucket's depth is not rate."""
        oldest = self._admitted[0] if len(self._admitted) == _REMEMBERED else self._first
        span = min(max((left - self._first) / 4, 0.25), _REMEMBERED_SECONDS, max(left - oldest, 0.05))
        known = sum(left - span <= at <= left for at in self._admitted)
        admitted = max(1.0, known - 1.0) / span
        self._stage = "search"
        self._anchor = self.rate = max(_SLOWEST, _SEARCH_FROM * admitted)
        self._time = 0.0
        self._cut_at = now

    def _fall(self, refused_at: float, now: float) -> None:
        soon = self._stage == "hold" and self._time < _PLATEAU * self._scale / 2
        self._falls = min(self._falls + 1, _MOST_FALLS) if soon else 0
        self._stage = "hold"
        self._anchor = max(_SLOWEST, refused_at * _FALL_AGAIN**self._falls)
        self._scale = max(1.0, _PLATEAU_REQUESTS / (_PLATEAU * self._anchor))
        self._time = 0.0
        self.rate = self._cubic()
        self._cut_at = now


class Estimate:
    """How many tokens a request will use, from what earlier ones of the run used (moving averages)."""

    __slots__ = ("_count", "_output", "_ratio")

    BYTES_PER_TOKEN = 4
    UNKNOWN_OUTPUT = 256.0

    def __init__(self) -> None:
        self._ratio = 1.0
        self._output = self.UNKNOWN_OUTPUT
        self._count = 0

    def of(self, body_bytes: int, output_limit: int | None) -> int:
        """Input by bytes / 4 times the observed ratio; output as observed, at most the request's own limit."""
        output = self._output
        if output_limit is not None and (self._count == 0 or output_limit < output):
            output = output_limit
        return math.ceil(body_bytes / self.BYTES_PER_TOKEN * self._ratio + output)

    def learn(self, body_bytes: int, input_tokens: int, output_tokens: int) -> None:
        """Take in what one reply used."""
        self._count += 1
        weight = max(0.02, 1 / self._count)
        if body_bytes > 0:
            ratio = min(100.0, input_tokens * self.BYTES_PER_TOKEN / body_bytes)
            self._ratio += weight * (ratio - self._ratio)
        self._output += weight * (output_tokens - self._output)
