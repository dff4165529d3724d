"""How many requests may be in flight at once."""

import math
from enum import Enum

from batchrun.events import WaitReason
from batchrun.limits.queue import Queue
from batchrun.limits.random_429s import Random429Detector
from batchrun.limits.records import Permit

START = 16  # Requests in flight at first
_CUT = 0.8  # What a 429 leaves of the limit
_REGROWTH = 0.05  # Share by which it grows per round afterwards
_PAYS_IN_START = 1.2  # The same as `_PAYS_UP`, per round of slow start
_PAYS_UP = 1.2  # Completions per second, relative to the smaller limit, for which a larger one is kept
_LOSES_DOWN = 0.93  # Completions per second, relative to the larger limit, below which a smaller one is rejected
_HEADROOM = 1.1  # Factor on the result of Little's law, for the pauses between
_SAMPLE = 32  # Answers measured at least
_FEW = 2.0  # So few overload no provider; trying fewer would cost more than it could show
_ALONE = 4  # First requests, which show the time of an exchange on an idle server
_HOLD_SECONDS = 10.0  # Until a failed try is repeated, doubling
_LONGEST_HOLD = 600.0
_REFUSED_REST = 5.0  # Seconds below a refused size, doubling
_LONGEST_REFUSED_REST = 60.0
_OUTGROWN = 1.1  # Share of a refused size, plus one, beyond which its refusal is outdated
_FEW_MORE = 0.25  # Share (at least one request) by which a suspected limit is exceeded as a test
_ONE = 1.2  # Every limit admits one at a time
_SPARE = 1 / 8  # Share of what a server runs (at least one) that waits there, so that a freed slot is taken at once
_ROOM = 1.25  # Growth at each poll without waiting requests
_STRAYS_AT_MOST = 0.15  # Share of requests that may be refused at random
_CLEARLY = 0.9  # Share of a proven number below which no limit explains a 429; providers count slightly differently


class _Stage(Enum):
    START = "slow start"
    MEASURE = "measuring the window in force"
    DOWN = "trying a smaller window"
    UP = "trying a larger window"
    HOLD = "resting"
    REFUSED = "under a size that was refused"
    QUEUE = "as the server's queue says"


class ConcurrencyLimiter:
    __slots__ = (
        "_alone", "_at_cap_pays", "_best", "_bound", "_count", "_cut_at", "_frozen", "_good", "_hold", "_least",
        "_most", "_queued", "_random_429s", "_rate", "_refused", "_rest_for", "_since", "_skip", "_stage", "_suspected",
        "_target", "_until", "_withheld", "cap", "fixed", "size",
    )  # fmt: skip

    def __init__(self, cap: int, fixed: bool, most: int | None = None) -> None:
        self.cap = cap
        self.fixed = fixed
        self._most = most or cap
        self._queued = False
        self.size: float = cap if fixed else min(cap, START)
        self._random_429s = Random429Detector(
            certain=_ONE, clear=_CLEARLY, depth=(0.0, 0.0), strays_at_most=_STRAYS_AT_MOST
        )
        self._stage = _Stage.START
        self._rate = 0.0
        self._best = 0.0
        self._good: float = self.size
        self._hold = _HOLD_SECONDS
        self._until = 0.0
        self._refused = self._rest_for = self._suspected = 0.0
        self._cut_at = -1.0
        self._at_cap_pays = False
        self._frozen = 0
        self._since = -1.0
        self._withheld = 0
        self._alone: list[float] = []
        self._least = math.inf
        self._begin(-1.0, skip=False)

    def change(self, cap: int, fixed: bool, now: float, most: int | None = None) -> None:
        self.fixed = fixed
        self._most = most or cap
        if fixed:
            self.size = cap
        elif cap < self.size:
            self.size = cap
            self._rest(now)
        elif self.size == self.cap and cap > self.cap:
            self._start(self.size, now)
        self.cap = cap

    def restore(self, size: float, now: float) -> None:
        if not self.fixed:
            self._start(min(float(self.cap), max(1.0, size)), now)

    def restart(self, now: float) -> None:
        if not self.fixed:
            self._start(min(self.cap, START), now)

    def answered(  # noqa: PLR0913  what shows how many are enough
        self, permit: Permit, together: int, now: float, waited: WaitReason | None, flying: int, *, count: int = 1
    ) -> None:
        """`waited`: why the next request waits, beside `flying` in flight."""
        self._random_429s.answered(permit.flying, permit.left, count)
        self._random_429s.proves(together)
        if not self.fixed:
            for _ in range(count):
                self._answered(permit, now, waited, flying)

    def _answered(self, permit: Permit, now: float, waited: WaitReason | None, flying: int) -> None:
        if self._since < 0:
            self._since = now
        if self._frozen > 0:
            self._frozen -= 1
            return
        if self._stage is _Stage.QUEUE:
            return
        bound = waited is WaitReason.CONCURRENCY  # as measuring requires; slow start requires half the limit in use
        if not (bound if self._stage is not _Stage.START else flying + 1 >= self.size / 2):
            self._void(now)
            return
        self._count += 1
        self._bound += bound
        self._least = min(self._least, now - permit.left)
        if permit.flying <= _ALONE and len(self._alone) < _ALONE:
            self._alone.append(now - permit.left)
        if self._stage is _Stage.START:
            if self._count < _PAYS_IN_START * self._rate * (now - self._since):
                self._withheld += 1  # this round completes no more a second than the last one, so far
            else:
                self.size = min(self.cap, self.size + 1)
        if self._count >= self._target:
            self._round_over(now)

    def apply_queue(self, queue: Queue | None, flying: int, now: float) -> None:
        # `flying` are ours; the queue is that of all clients.
        if self.fixed or self._stage is _Stage.REFUSED:
            return
        if queue is None:
            self._queued = False
            if self._stage is _Stage.QUEUE:
                self._start(self.size, now)
            return
        waits = queue.waiting > 0
        if waits and self._queued and queue.running:
            self.size = min(self.cap, math.ceil(queue.running + max(1.0, queue.running * _SPARE)))
            self._stage = _Stage.QUEUE
        elif not waits and flying >= int(self.size):
            if self.size >= self.cap and self.cap < self._most:
                self.cap, self._until = min(self._most, 2 * self.cap), now
            if self._stage is _Stage.QUEUE:
                self.size = min(self.cap, int(self.size * _ROOM) + 1)
        self._queued = waits

    def failed(self, now: float) -> None:
        """No growth for a round."""
        self._frozen = int(self.size)
        self._void(now)

    def at_random(self, flying: int, left: float, now: float) -> bool:
        known = self._random_429s.share
        random = self._random_429s.refused(flying, left)
        if self._random_429s.share and not known:
            self.start_again(now)
        return random

    def start_again(self, now: float) -> None:
        """Random 429s have held the limit back."""
        if not self.fixed:
            self._start(min(self.cap, max(self._refused, self.size, START)), now)

    def suspect(self, beside: int) -> None:
        """Send a few more as a test, until `clear`."""
        if not self._suspected:
            self._suspected = self.size
        self.size = min(self.size, beside + max(1.0, _FEW_MORE * beside))

    def clear(self, now: float) -> None:
        if self._suspected:
            self._start(self._suspected, now)
            self._suspected = 0.0

    def refused(self, beside: int, left: float, now: float) -> None:
        """A later refusal of the burst may lower the size."""
        if self.fixed:
            return
        if left <= self._cut_at:
            if self._stage is _Stage.REFUSED:
                self.size = min(self.size, max(1.0, beside))
                self._refused = min(self._refused, self.size + 1)
            return
        self._give_way(beside + 1, beside, now)

    def cut(self, left: float, now: float) -> None:
        """A 429 that the limit may have caused."""
        if not self.fixed and left > self._cut_at:
            self._give_way(self.size, self.size * _CUT, now)

    def _give_way(self, refused: float, size: float, now: float) -> None:
        again = self._stage is _Stage.REFUSED
        self._rest_for = min(_LONGEST_REFUSED_REST, self._rest_for * 2 or _REFUSED_REST) if again else 0.0
        self._refused = refused
        self.size = min(float(self.cap), max(1.0, size))
        self._cut_at = now
        self._stage = _Stage.REFUSED
        self._until = now + self._rest_for
        self._begin(now, skip=False)

    def excuse(self, now: float) -> None:
        """Requests sent until now were refused for their rate."""
        self._cut_at = now

    def first_left(self, now: float) -> None:
        if self._since < 0:
            self._since = now

    def _start(self, size: float, now: float) -> None:
        self.size = size
        self._stage = _Stage.START
        self._rate = 0.0
        self._begin(now, skip=False)

    def _begin(self, now: float, *, skip: bool) -> None:
        size = max(1, int(self.size))
        self._count = self._bound = 0
        self._skip = skip
        self._since = now
        self._withheld = 0
        self._target = size if skip or self._stage is _Stage.START else size * max(1, -(-_SAMPLE // size))

    def _void(self, now: float) -> None:
        if self._stage in (_Stage.DOWN, _Stage.UP):
            self.size = self._good
            self._rest(now)
        elif self._stage is _Stage.START:
            self._rate = 0.0
            self._begin(now, skip=False)
        else:
            self._begin(now, skip=True)

    def _round_over(self, now: float) -> None:
        if self._skip:
            self._begin(now, skip=False)
            return
        rate = self._count / max(now - self._since, 1e-6)
        match self._stage:
            case _Stage.START:
                self._start_over(rate, now)
            case _Stage.MEASURE:
                self._best = rate
                self._try(_Stage.DOWN, self.size / 2, now)
            case _Stage.DOWN:
                self._down_over(rate, now)
            case _Stage.UP:
                self._up_over(rate, now)
            case _Stage.HOLD:
                self._hold_over(rate, now)
            case _Stage.REFUSED:
                self._refused_over(now)
            case _Stage.QUEUE:
                pass

    def _start_over(self, rate: float, now: float) -> None:
        if 2 * self._bound < self._count:
            rate = 0.0  # something else held requests back: the round shows nothing about the window
        if rate and self._rate and rate < _PAYS_IN_START * self._rate:
            self.size = self._knee(self._good, rate / self._rate)
            self._best = max(rate, self._rate)
            self._measure(now)
        elif self.size >= self.cap:
            self._at_cap_pays = bool(self._rate)
            self._best = rate
            self._rest(now)
        else:
            self._good = self._target
            self._rate = rate
            self.size = min(self.cap, self.size + self._withheld)
            self._begin(now, skip=False)

    def _measure(self, now: float) -> None:
        # By Little's law the server needs as many requests as it completes during one; more only queue there.
        enough = math.ceil(self._best * sum(self._alone) / max(1, len(self._alone)) * _HEADROOM)
        if self._alone and enough < self.size:
            self._try(_Stage.DOWN, enough, now)
            return
        self._stage = _Stage.MEASURE
        self._begin(now, skip=True)

    def _try(self, stage: _Stage, size: float, now: float) -> None:
        self._good = self.size
        self.size = min(float(self.cap), float(int(size)))
        if stage is _Stage.DOWN:  # fewer than the fastest exchange allows would complete less
            fewest = _FEW if self._least == math.inf else max(_FEW, math.ceil(self._best * self._least * _HEADROOM))
            self.size = min(self._good, max(self.size, fewest))
        if self.size == self._good:
            self._rest(now)
            return
        self._stage = stage
        self._begin(now, skip=True)

    def _down_over(self, rate: float, now: float) -> None:
        if rate < _LOSES_DOWN * self._best:
            self._hold = min(_LONGEST_HOLD, self._hold * 2)
            self.size = min(self._good, self._knee(self.size, self._best / rate))
            self._rest(now)
            return
        self._best = max(self._best, rate)
        self._hold = _HOLD_SECONDS
        self._try(_Stage.DOWN, self.size / 2, now)

    def _up_over(self, rate: float, now: float) -> None:
        if rate < _PAYS_UP * self._best:
            self.size = (
                min(self.size, self._knee(self._good, rate / self._best)) if rate > 1.05 * self._best else self._good
            )
            self._hold = min(_LONGEST_HOLD, self._hold * 2)
            self._rest(now)
            return
        self._best = rate
        self._hold = _HOLD_SECONDS
        self._try(_Stage.UP, self.size * 1.5 + 0.5, now)

    def _knee(self, size: float, gain: float) -> float:
        return min(float(self.cap), float(math.ceil(size * max(1.0, gain) * _HEADROOM)))

    def _rest(self, now: float) -> None:
        self._stage = _Stage.HOLD
        self._until = now + self._hold
        self._begin(now, skip=True)

    def _hold_over(self, rate: float, now: float) -> None:
        self._best = rate
        if now < self._until:
            self._begin(now, skip=False)
        elif self.size < self.cap:
            self._try(_Stage.UP, self.size * 1.5 + 0.5, now)
        elif self._at_cap_pays:
            self._rest(now)
        else:
            self._try(_Stage.DOWN, self.size * 0.75, now)

    def _refused_over(self, now: float) -> None:
        if self.size + 1 < self._refused * 0.95 or now >= self._until:
            self.size = min(float(self.cap), self.size + max(1.0, _REGROWTH * self.size))
        if self.size > _OUTGROWN * self._refused + 1:
            self._start(self.size, now)
        else:
            self._begin(now, skip=False)
