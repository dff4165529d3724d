"""Assigns rows to lanes. Pure.

A row goes where wait plus exchange are shortest. A slower lane takes rows only if the faster ones would not finish the
rest sooner.
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from batchrun.events import WaitReason

_CLEARLY = 1.3  # Factor on the rows left, so that rows are recalled only where the gain is clear


class Policy(StrEnum):
    SOONEST = "soonest"
    CHEAPEST = "cheapest"
    PRIMARY = "primary"


class LaneView(NamedTuple):
    """Times are in seconds."""

    open: bool = True
    trying: bool = False  # Takes single rows as a probe
    room: int = 0  # For rows
    wait: float = 0.0  # Until the next is sent
    seconds: float = 0.0  # Of an exchange
    rate: float = 0.0  # Rows per second
    load: float = 0.0  # Share of slots
    rank: float = 0.0  # By policy, lowest first
    reason: WaitReason | None = None
    until: float | None = None

    @property
    def finish(self) -> float:
        return self.wait + self.seconds


class RowView(NamedTuple):
    failed_at: frozenset[int] = frozenset()
    only: frozenset[int] | None = None  # These lanes (None: all)
    cached_at: frozenset[int] = frozenset()  # Lanes that have its prefix: preferred while there is room


class Wait(NamedTuple):
    reason: WaitReason
    until: float | None  # Loop time


def assign(rows: Sequence[RowView], lanes: Sequence[LaneView], left: int) -> list[tuple[int, int]] | Wait:
    """(Row, lane) pairs; `left` rows are unassigned."""
    now = list(lanes)
    leases: list[tuple[int, int]] = []
    put_off: list[int] = []
    order = list(enumerate(rows))
    for number, row in order:
        if not any(view.room > 0 for view in now):
            break
        if (lane := _lane_for(row, now, left - len(leases), cached=True)) is not None:
            leases.append((number, lane))
            now[lane] = _with_lease(now[lane])
        elif row.cached_at:
            put_off.append(number)
    for number in put_off:
        if (lane := _lane_for(rows[number], now, left - len(leases), cached=False)) is not None:
            leases.append((number, lane))
            now[lane] = _with_lease(now[lane])
    return leases or _wait_of(lanes)


def _lane_for(row: RowView, lanes: Sequence[LaneView], left: int, *, cached: bool) -> int | None:
    allowed = eligible(row, lanes)
    held = row.cached_at & frozenset(allowed) if cached else None
    found = [number for number in held or allowed if lanes[number].room > 0]
    faster = sorted((lanes[number] for number in allowed), key=lambda view: view.finish)
    found = [number for number in found if helps(lanes[number], faster, left)]
    return min(found, key=lambda number: (lanes[number].finish, lanes[number].load, number), default=None)


def eligible(row: RowView, lanes: Sequence[LaneView]) -> list[int]:
    found = [n for n, view in enumerate(lanes) if view.open and (row.only is None or n in row.only)]
    found = [n for n in found if n not in row.failed_at] or found
    ranks = [lanes[n].rank for n in found if not lanes[n].trying] or [lanes[n].rank for n in found]
    return [n for n in found if lanes[n].rank <= min(ranks)]


def helps(lane: LaneView, lanes: Sequence[LaneView], left: int) -> bool:
    """Whether all rows finish no later."""
    faster = [view for view in lanes if view.finish < lane.finish and not view.trying]
    rate = sum(view.rate for view in faster)
    if not rate:
        return True
    return lane.finish <= left / rate + min(view.finish for view in faster)


def to_recall(lanes: Sequence[LaneView], waiting: Sequence[int], left: int, *, spare: bool) -> list[int]:
    """Lanes whose `waiting` rows others would answer clearly sooner; moving restarts a row."""
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


def _with_lease(view: LaneView) -> LaneView:
    wait = view.wait + (1 / view.rate if view.wait and view.rate else 0.0)
    return view._replace(room=view.room - 1, wait=wait, load=view.load + 1e-3)


def _wait_of(lanes: Sequence[LaneView]) -> Wait:
    held = [view for view in lanes if view.open and view.reason is not None] or [view for view in lanes if view.reason]
    if not held:
        return Wait(WaitReason.CONCURRENCY, None)
    first = min(held, key=lambda view: math.inf if view.until is None else view.until)
    return Wait(first.reason or WaitReason.CONCURRENCY, first.until)
