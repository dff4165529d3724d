"""Waits worth an event: on a change of reason, after a second without a departure."""

from collections.abc import Callable
from typing import NamedTuple

from batchrun.events import Resumed, Waiting, WaitReason

WORTH_REPORTING = 1.0  # Seconds without a departure that users may take for a standstill

_AT_ONCE = frozenset({WaitReason.PAUSED, WaitReason.DOWN, WaitReason.LOADING, WaitReason.DOUBT})


class Wait(NamedTuple):
    reason: WaitReason
    until: float | None  # None: unknown
    basis: str | None = None  # the source of the rate
    spaced: bool = False  # requests are spaced
    of_tokens: bool = False  # tokens are short


class WaitReporter:
    __slots__ = ("_emit", "_until", "reported")

    def __init__(self, emit: Callable[[Waiting | Resumed], None]) -> None:
        self._emit = emit
        self.reported: WaitReason | None = None
        self._until: float | None = None

    def sending(self, now: float) -> None:
        """Requests are sent, or none waits."""
        if self.reported is not None:
            self.reported = None
            self._emit(Resumed(now))

    def held(self, wait: Wait, last: float, now: float) -> float | None:
        """Returns when to check again, if ever."""
        reason, until = wait.reason, wait.until
        known = until is not None and reason not in _AT_ONCE
        if known and until is not None and until - now < WORTH_REPORTING and now - last < WORTH_REPORTING:
            self.sending(now)
            return None
        if until is None and now - last < WORTH_REPORTING - 1e-6 and reason not in _AT_ONCE:
            if self.reported is not None:
                self.sending(now)
            return last + WORTH_REPORTING
        if reason is not self.reported or _differs(self._until, until):
            self.reported, self._until = reason, until
            self._emit(Waiting(reason, until, now))
        return None


def _differs(old: float | None, new: float | None) -> bool:
    if old is None or new is None:
        return old is not new
    return abs(new - old) >= WORTH_REPORTING
