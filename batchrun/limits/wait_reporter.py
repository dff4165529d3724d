"""When a wait is worth an event: on a change of reason, and only when nothing leaves for a second or longer."""

from collections.abc import Callable
from typing import NamedTuple

from batchrun.events import Resumed, Waiting, WaitReason

WORTH_TELLING = 1.0
"""Seconds without a departure that a user may take for a standstill."""

_AT_ONCE = frozenset({WaitReason.PAUSED, WaitReason.DOWN, WaitReason.LOADING, WaitReason.DOUBT})


class Wait(NamedTuple):
    """Why the next request may not leave, and until when, as far as that is known.

    `basis` says where the rate comes from that holds it back, None where none does: `spaced` is whether that is the spacing
    of requests, `of_tokens` whether tokens are short.
    """

    reason: WaitReason
    until: float | None
    basis: str | None = None
    spaced: bool = False
    of_tokens: bool = False


class WaitReporter:
    """Turns what holds the gate back into `Waiting` and `Resumed`, at most one a change."""

    __slots__ = ("_listen", "_until", "told")

    def __init__(self, listen: Callable[[Waiting | Resumed], None]) -> None:
        self._listen = listen
        self.told: WaitReason | None = None
        self._until: float | None = None

    def sending(self, now: float) -> None:
        """Requests are sent, or none waits."""
        if self.told is not None:
            self.told = None
            self._listen(Resumed(now))

    def held(self, wait: Wait, last: float, now: float) -> float | None:
        """The next request is held back; the last one was admitted at `last`.

        Returns when to look again, None when there is nothing left to tell.
        """
        reason, until = wait.reason, wait.until
        known = until is not None and reason not in _AT_ONCE
        if known and until is not None and until - now < WORTH_TELLING and now - last < WORTH_TELLING:
            self.sending(now)
            return None
        if until is None and now - last < WORTH_TELLING - 1e-6 and reason not in _AT_ONCE:
            if self.told is not None:
                self.sending(now)
            return last + WORTH_TELLING
        self._tell(reason, until, now)
        return None

    def _tell(self, reason: WaitReason, until: float | None, now: float) -> None:
        if reason is self.told and not _moved(self._until, until):
            return
        self.told, self._until = reason, until
        self._listen(Waiting(reason, until, now))


def _moved(old: float | None, new: float | None) -> bool:
    if old is None or new is None:
        return old is not new
    return abs(new - old) >= WORTH_TELLING
