"""The states of a sender. Pure."""

from collections.abc import Sequence
from enum import StrEnum
from math import inf
from typing import NamedTuple


class State(StrEnum):
    """STARTING until it has opened every place; READY to be given leases; SUSPECT while it says nothing: it gets none;
    LOST for good, with what it had."""

    STARTING = "starting"
    READY = "ready"
    SUSPECT = "suspect"
    LOST = "lost"


class Beat(NamedTuple):
    """Seconds: between two pings, of silence until it is suspect, and lost, and that it may
    take to start."""

    every: float = 1.0
    suspect: float = 5.0
    lost: float = 30.0
    start: float = 30.0


BEAT = Beat()


def passed(seconds: float, beat: Beat) -> float:
    """The part of the time between two looks that counts as silence: where the driver itself stood still for longer, the
    senders had no driver to write to."""
    return min(seconds, 2 * beat.every)


def stands(state: State, silent: float, *, opened: bool, beat: Beat) -> State:
    """The state of a sender that has said nothing for `silent` seconds; one that is LOST does not come back."""
    if state is State.LOST or silent >= (beat.lost if opened else beat.start):
        return State.LOST
    if not opened:
        return State.STARTING
    return State.SUSPECT if silent >= beat.suspect else State.READY


def pause(failed: int) -> float:
    """Seconds until another sender is started in the place of a lost one; `failed` in succession had completed nothing."""
    return 0.0 if failed == 0 else min(30.0, 2.0 ** (failed - 1))


def shares(loads: Sequence[int], count: int) -> list[int]:
    """How many of `count` leases go to each of the senders that have so many, so that they have equally many then."""
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
    """How far a clock here is from one elsewhere: the smallest delay of what was said there lately, which is all there is of it
    where the two are one. As clocks drift, what is older than two `_WINDOW`s is forgotten."""

    _WINDOW = 60.0

    def __init__(self) -> None:
        self.seconds = 0.0
        self._now = self._before = inf
        self._since = -inf

    def heard(self, delay: float, now: float) -> None:
        """Something that was said there has come: `delay` is the time here less the time that it bears."""
        if now - self._since > self._WINDOW:
            self._before, self._now, self._since = self._now, delay, now
        self._now = min(self._now, delay)
        self.seconds = min(self._now, self._before)
