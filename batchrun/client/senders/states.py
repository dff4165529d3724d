"""The states of a sender. Pure."""

from collections.abc import Sequence
from enum import StrEnum
from math import inf
from typing import NamedTuple


class State(StrEnum):
    # STARTING until every place is open; LOST for good
    STARTING = "starting"
    READY = "ready"
    SUSPECT = "suspect"
    LOST = "lost"


class Beat(NamedTuple):
    # seconds
    every: float = 1.0  # between pings
    suspect: float = 5.0  # of silence until SUSPECT
    lost: float = 30.0  # of silence until LOST
    start: float = 30.0  # until LOST where it does not start


BEAT = Beat()


def counted_silence(seconds: float, beat: Beat) -> float:
    # at most two pings: the driver may have been suspended
    return min(seconds, 2 * beat.every)


def next_state(state: State, silent: float, *, opened: bool, beat: Beat) -> State:
    if state is State.LOST or silent >= (beat.lost if opened else beat.start):
        return State.LOST
    if not opened:
        return State.STARTING
    return State.SUSPECT if silent >= beat.suspect else State.READY


def pause(failed: int) -> float:
    """Seconds until a lost sender is replaced."""
    return 0.0 if failed == 0 else min(30.0, 2.0 ** (failed - 1))


def shares(loads: Sequence[int], count: int) -> list[int]:
    """How to distribute leases so that senders have equally many."""
    found = [0] * len(loads)
    order = sorted(range(len(loads)), key=loads.__getitem__)
    for having in range(len(order), 0, -1):  # those that have most get none where the others do not reach them
        level, more = divmod(count + sum(loads[place] for place in order[:having]), having)
        if loads[order[having - 1]] <= level:
            for rank, place in enumerate(order[:having]):
                found[place] = level - loads[place] + (rank < more)
            break
    return found


class Offset:
    """Of another clock: the smallest recent delay, as clocks drift."""

    _WINDOW = 60.0

    def __init__(self) -> None:
        self.seconds = 0.0
        self._now = self._before = inf
        self._since = -inf

    def update(self, delay: float, now: float) -> None:
        if now - self._since > self._WINDOW:
            self._before, self._now, self._since = self._now, delay, now
        self._now = min(self._now, delay)
        self.seconds = min(self._now, self._before)
