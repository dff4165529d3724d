"""Which lane a row goes to: pure, from what waits and how the lanes stand to leases, or to why there is none.

A row goes where it is answered soonest: where the wait for its turn and an exchange take the least time. A lane that is
free takes rows although another is faster, as long as there are more rows left than the faster ones would have answered
by then; so the last rows do not wait for the slowest lane. Rows whose requests begin alike go to the lane that has that
beginning in its cache, where that has room; nothing stands still for it.
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from batchrun.events import WaitReason

_CLEARLY = 1.3
"""Times the rows that are left, for which a lane is not needed."""


class Policy(StrEnum):
    """What is preferred where several lanes could take a row."""

    SOONEST = "soonest"
    CHEAPEST = "cheapest"
    PRIMARY = "primary"


class LaneView(NamedTuple):
    """A lane at one moment. `open` is whether it takes rows at all, `trying` whether only single ones, to see whether it
    answers again; `room` how many it takes now. `wait` are the seconds until the next row would leave, `seconds` those of an
    exchange, `rate` the rows it answers in a second, `load` the share of its slots in use; `rank` is its place in the order that
    the policy prefers, the lowest first. `reason` and `until` say what holds its next row back."""

    open: bool = True
    trying: bool = False
    room: int = 0
    wait: float = 0.0
    seconds: float = 0.0
    rate: float = 0.0
    load: float = 0.0
    rank: float = 0.0
    reason: WaitReason | None = None
    until: float | None = None

    @property
    def finish(self) -> float:
        """Seconds in which a row that it is given now is answered."""
        return self.wait + self.seconds


class RowView(NamedTuple):
    """A row that waits. `failed_at` are lanes that failed under it, `only` the ones that it may go to, None for all,
    `cached_at` those that have the beginning of its request in a cache."""

    failed_at: frozenset[int] = frozenset()
    only: frozenset[int] | None = None
    cached_at: frozenset[int] = frozenset()


class Wait(NamedTuple):
    """No row can go to a lane now, and until when as far as that is known (the loop's time)."""

    reason: WaitReason
    until: float | None


def assign(rows: Sequence[RowView], lanes: Sequence[LaneView], left: int) -> list[tuple[int, int]] | Wait:
    """The leases to give now, as (row, lane), or why there is none. `left` rows have no answer and are not under way."""
    now = list(lanes)
    leases: list[tuple[int, int]] = []
    put_off: list[int] = []
    order = list(enumerate(rows))
    for number, row in order:
        if not any(view.room > 0 for view in now):
            break
        if (lane := _lane_for(row, now, left - len(leases), cached=True)) is not None:
            leases.append((number, lane))
            now[lane] = _given(now[lane])
        elif row.cached_at:
            put_off.append(number)
    for number in put_off:
        if (lane := _lane_for(rows[number], now, left - len(leases), cached=False)) is not None:
            leases.append((number, lane))
            now[lane] = _given(now[lane])
    return leases or _why(lanes)


def _lane_for(row: RowView, lanes: Sequence[LaneView], left: int, *, cached: bool) -> int | None:
    """The lane that a row goes to now; with `cached` it waits for one that has the beginning of its request."""
    allowed = eligible(row, lanes)
    held = row.cached_at & frozenset(allowed) if cached else None
    found = [number for number in held or allowed if lanes[number].room > 0]
    faster = sorted((lanes[number] for number in allowed), key=lambda view: view.finish)
    found = [number for number in found if helps(lanes[number], faster, left)]
    return min(found, key=lambda number: (lanes[number].finish, lanes[number].load, number), default=None)


def eligible(row: RowView, lanes: Sequence[LaneView]) -> list[int]:
    """The lanes that a row may go to: of those that are open the ones that the policy prefers, and those where it has not
    failed before others."""
    found = [n for n, view in enumerate(lanes) if view.open and (row.only is None or n in row.only)]
    found = [n for n in found if n not in row.failed_at] or found
    ranks = [lanes[n].rank for n in found if not lanes[n].trying] or [lanes[n].rank for n in found]
    return [n for n in found if lanes[n].rank <= min(ranks)]


def helps(lane: LaneView, lanes: Sequence[LaneView], left: int) -> bool:
    """Whether the rows left are all answered no later if this lane takes one: not where faster ones are through with them
    before it has answered."""
    faster = [view for view in lanes if view.finish < lane.finish and not view.trying]
    rate = sum(view.rate for view in faster)
    if not rate:
        return True
    return lane.finish <= left / rate + min(view.finish for view in faster)


def to_recall(lanes: Sequence[LaneView], waiting: Sequence[int], left: int, *, spare: bool) -> list[int]:
    """The lanes that give back the rows which wait there (`waiting`: how many): where others will be through with all that are
    left before, or are idle and answer sooner, with room to `spare` (no other row waits). Clearly so: a row that is moved
    is begun again."""
    idle = [n for n, view in enumerate(lanes) if view.open and not view.trying and view.room > 0 and not view.wait]
    recalled: list[int] = []
    for number, (view, count) in enumerate(zip(lanes, waiting, strict=True)):
        if not count:
            continue
        others = [n for n, other in enumerate(lanes) if other.open and other.rank <= view.rank and n != number]
        sooner = min((lanes[n].finish for n in others if n in idle), default=math.inf)
        slow = spare and view.finish > 2 * sooner
        if slow or not helps(view, [lanes[n] for n in others], int(_CLEARLY * left) + 1):
            recalled.append(number)
    return recalled


def _given(view: LaneView) -> LaneView:
    wait = view.wait + (1 / view.rate if view.wait and view.rate else 0.0)
    return view._replace(room=view.room - 1, wait=wait, load=view.load + 1e-3)


def _why(lanes: Sequence[LaneView]) -> Wait:
    """What holds back the lane that takes a row first."""
    held = [view for view in lanes if view.open and view.reason is not None] or [view for view in lanes if view.reason]
    if not held:
        return Wait(WaitReason.CONCURRENCY, None)
    first = min(held, key=lambda view: math.inf if view.until is None else view.until)
    return Wait(first.reason or WaitReason.CONCURRENCY, first.until)
