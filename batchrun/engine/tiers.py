"""The service tiers of a run: which one a row asks for, and when it takes the next of them.

A provider may have no capacity in a cheap tier. That is no failure and says nothing of the other tiers: the tier is closed
for a while, single requests try it, and the rows wait, each for the patience that the user has. Then it goes in the next
tier, where there is one. A tier that the model is not offered in is off for the run.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from batchrun import replies
from batchrun.engine.pending_queue import RowState
from batchrun.events import Emit, Notice, Resumed, Waiting, WaitReason
from batchrun.limits import GateClosed
from batchrun.plan import Plan
from batchrun.prompts.request import to_json
from batchrun.providers import ANY, table
from batchrun.retry import Answer, Meaning

STANDARD = "standard"
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds for which a tier without capacity is left alone: doubled with every refusal, with jitter."""
UNREFUSED = 10.0
"""Seconds after which a first request that has not been refused is being worked on: others may follow."""
RESERVE = 1.25
"""Times the time that the rows left will take, which is to be left before --finish-by."""


class Tier(NamedTuple):
    """What a tier is at a provider: `members` are JSON without braces, `timeout` the seconds an attempt needs at least,
    `priced` the tier whose prices it has, None where the request names none."""

    members: str
    timeout: float
    priced: str | None


def tier_of(name: str, dialect: str) -> Tier:
    """The tier of that name, as the table `tiers` has it for a dialect."""
    known: Mapping[str, Any] = table("tiers")
    line: Mapping[str, Any] = {**known[ANY].get(name, {}), **known.get(dialect, {}).get(name, {})}
    body: Mapping[str, Any] = line.get("body", {"service_tier": name})
    priced = "default" if name == STANDARD else replies.tier_named(name)
    return Tier(to_json(body)[1:-1], float(line.get("timeout", 0)), priced if body else None)


def tiers_of(plan: Plan) -> dict[str, Tier]:
    """The tiers that a plan names, the preferred one first."""
    return {name: tier_of(name, plan.dialect) for name in plan.tier}


def in_danger(seconds: float, rows: int, took: float, concurrency: int, rpm: float | None) -> bool:
    """Whether the `rows` left may take more than these seconds, at `took` seconds for a request."""
    needed = took * math.ceil(rows / concurrency)
    if rpm:
        needed = max(needed, rows * 60.0 / rpm)
    return seconds < RESERVE * (needed + took)


@dataclass(slots=True)
class _Status:
    """How a tier stands. `open` is whether requests leave freely, else single ones try it from `until` on; `since` is when
    it last had capacity, None while it has; times are the loop's."""

    off: bool = False
    open: bool = False
    trying: RowState | None = None
    until: float = 0.0
    pause: float = 0.0
    since: float | None = None


class Tiers:
    """Which tier each row of a run asks for. On the loop of the run, no threads.

    `rows_left` tells how many rows are still to be sent; `clock` gives Unix seconds.
    """

    def __init__(
        self, plan: Plan, *, emit: Emit, rows_left: Callable[[], int], clock: Callable[[], float] = time.time
    ) -> None:
        self.known = tiers_of(plan)
        self._plan = plan
        self._emit = emit
        self._rows_left = rows_left
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._random = Random()  # noqa: S311  jitter, not a secret
        self._statuses = {name: _Status(open=name == STANDARD) for name in self.known}
        self._took = 0.0
        self._changed = asyncio.Event()
        self._closed = self._told = self._waits = False

    async def chosen(self, state: RowState) -> str | None:
        """The tier of the next attempt of a row, once it may leave there; None where no tier was chosen.

        Raises GateClosed once `close` was called.
        """
        for name, status in self._statuses.items():
            last = self._is_last(name)
            while not status.off and (last or not (name in state.tiers_left or self._is_late())):
                if self._closed:
                    raise GateClosed
                now = self._loop.time()
                waited = state.tier_since is not None and now >= state.tier_since + self._plan.tier_patience
                if (status.open or (status.trying is None and now >= status.until)) and (last or not waited):
                    self._take(state, status)
                    return name
                if not last and now >= self._patient_until(state, status):
                    state.tiers_left |= {name}
                    state.tier_since = None
                    break
                await self._wait(state, status, last=last)
            self._go()
        return next(reversed(self._statuses), None)

    def _take(self, state: RowState, status: _Status) -> None:
        if status.open:
            return
        status.trying = state
        if status.since is None:
            self._loop.call_later(UNREFUSED, self._unrefused, state, status)

    def _unrefused(self, state: RowState, status: _Status) -> None:
        if status.trying is state and status.since is None:
            self._opened(status)

    def _is_late(self) -> bool:
        """Whether the rows left may not be done by --finish-by, so that they take the next tier."""
        if self._plan.finish_by is None:
            return False
        left = self._plan.finish_by - self._clock()
        return in_danger(left, self._rows_left(), self._took, self._plan.concurrency, self._plan.rpm)

    def _patient_until(self, state: RowState, status: _Status) -> float:
        known = [since for since in (state.tier_since, status.since) if since is not None]
        return min(known, default=math.inf) + self._plan.tier_patience

    async def _wait(self, state: RowState, status: _Status, *, last: bool) -> None:
        """Until the tier may be tried or the row's patience is over; one event while no request can be sent."""
        now = self._loop.time()
        if state.tier_since is None:
            state.tier_since = now
        until = math.inf if status.trying is not None else status.until
        until = until if last else min(until, self._patient_until(state, status))
        if status.since is not None and not self._told:
            self._told = self._waits = True
            self._emit(Waiting(WaitReason.CAPACITY, None if math.isinf(until) else until, now))
        changed = self._changed
        try:
            async with asyncio.timeout(min(30.0, max(0.0, until - now))):  # --finish-by is looked at from time to time
                await changed.wait()
        except TimeoutError:
            return

    def heard(self, state: RowState, answer: Answer, seconds: float) -> float | None:
        """What the answer to a row says of its tier; for how many seconds it has had no capacity, None where it has."""
        status = self._statuses.get(state.tier or "")
        if status is None:
            return None
        if answer.meaning is Meaning.NO_CAPACITY:
            return self._refused(state, status, answer)
        if answer.accepted:
            self._took = seconds if not self._took else self._took + (seconds - self._took) / 16
        if answer.meaning is Meaning.NO_TIER:
            status.off = True
            self._wake()
        elif answer.status and not answer.down and not answer.throttled:
            self._opened(status)
            state.tier_since = None
        else:
            self.released(state)
        return None

    def _refused(self, state: RowState, status: _Status, answer: Answer) -> float:
        now = self._loop.time()
        if status.trying is state or status.open:
            status.pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * status.pause))
            status.until = now + max(answer.retry_after or 0.0, status.pause * self._random.uniform(0.5, 1.0))
        status.open, status.trying = False, None
        status.since = now if status.since is None else status.since
        state.tier_since = now if state.tier_since is None else state.tier_since
        self._wake()
        return now - status.since

    def _opened(self, status: _Status) -> None:
        if status.open:
            return
        status.open, status.trying, status.since, status.pause = True, None, None, 0.0
        self._told = False
        self._go()
        self._wake()

    def released(self, state: RowState) -> None:
        """The row's attempt says nothing of its tier, or never left."""
        status = self._statuses.get(state.tier or "")
        if status is not None and status.trying is state:
            status.trying = None
            self._wake()

    def _is_last(self, name: str) -> bool:
        """Whether there is no tier behind this one that a row could take."""
        names = list(self._statuses)
        return all(self._statuses[other].off for other in names[names.index(name) + 1 :])

    def has_another(self, state: RowState) -> bool:
        """Whether there is a tier behind that of the row."""
        return state.tier in self._statuses and not self._is_last(state.tier)

    def tell_off(self, state: RowState) -> None:
        """Say once that a tier is off."""
        said = f"the model is not offered in service tier {state.tier}: rows go in the next one"
        self._emit(Notice(said, self._loop.time()))

    def close(self) -> None:
        """Wake all waiting rows: the run stops."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        """Wake all waiting rows to look again."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _go(self) -> None:
        """Requests leave again, in this tier or in the next one."""
        if self._waits:
            self._waits = False
            self._emit(Resumed(self._loop.time()))
