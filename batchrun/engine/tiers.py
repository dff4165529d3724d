"""Service tiers: which one a row requests, and when it takes the next.

A tier without capacity is closed and probed, and rows wait up to `--tier-patience`; one without the model is off.
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
# Seconds for which a tier without capacity is closed: doubled with every refusal, with jitter
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
UNREFUSED = 10.0  # Seconds after which a probe that was not refused counts as accepted, and others follow
RESERVE = 1.25  # Factor on the time of the rows left, to finish by --finish-by


class Tier(NamedTuple):
    members: str  # JSON without braces
    timeout: float  # Seconds, at least
    priced: str | None  # The tier whose prices apply


def tier_of(name: str, dialect: str) -> Tier:
    known: Mapping[str, Any] = table("tiers")
    line: Mapping[str, Any] = {**known[ANY].get(name, {}), **known.get(dialect, {}).get(name, {})}
    body: Mapping[str, Any] = line.get("body", {"service_tier": name})
    priced = "default" if name == STANDARD else replies.tier_named(name)
    return Tier(to_json(body)[1:-1], float(line.get("timeout", 0)), priced if body else None)


def tiers_of(plan: Plan) -> dict[str, Tier]:
    return {name: tier_of(name, plan.dialect) for name in plan.tier}


def may_miss_deadline(seconds: float, rows: int, took: float, concurrency: int, rpm: float | None) -> bool:
    needed = took * math.ceil(rows / concurrency)
    if rpm:
        needed = max(needed, rows * 60.0 / rpm)
    return seconds < RESERVE * (needed + took)


@dataclass(slots=True)
class _Status:
    off: bool = False
    open: bool = False
    trying: RowState | None = None
    until: float = 0.0  # Loop time; probed from then on, unless `open`
    pause: float = 0.0
    since: float | None = None  # Loop time, without capacity


class Tiers:
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
        self._closed = self._reported = self._waits = False

    async def chosen(self, state: RowState) -> str | None:
        """Waits until it is available. Raises GateClosed."""
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
                if not last and now >= self._wait_until(state, status):
                    state.tiers_left |= {name}
                    state.tier_since = None
                    break
                await self._wait(state, status, last=last)
            self._report_resumed()
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
        if self._plan.finish_by is None:
            return False
        left = self._plan.finish_by - self._clock()
        return may_miss_deadline(left, self._rows_left(), self._took, self._plan.concurrency, self._plan.rpm)

    def _wait_until(self, state: RowState, status: _Status) -> float:
        known = [since for since in (state.tier_since, status.since) if since is not None]
        return min(known, default=math.inf) + self._plan.tier_patience

    async def _wait(self, state: RowState, status: _Status, *, last: bool) -> None:
        now = self._loop.time()
        if state.tier_since is None:
            state.tier_since = now
        until = math.inf if status.trying is not None else status.until
        until = until if last else min(until, self._wait_until(state, status))
        if status.since is not None and not self._reported:
            self._reported = self._waits = True
            self._emit(Waiting(WaitReason.CAPACITY, None if math.isinf(until) else until, now))
        changed = self._changed
        try:
            async with asyncio.timeout(min(30.0, max(0.0, until - now))):  # --finish-by is looked at from time to time
                await changed.wait()
        except TimeoutError:
            return

    def receive(self, state: RowState, answer: Answer, seconds: float) -> float | None:
        """Returns the seconds without capacity."""
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
        self._reported = False
        self._report_resumed()
        self._wake()

    def released(self, state: RowState) -> None:
        status = self._statuses.get(state.tier or "")
        if status is not None and status.trying is state:
            status.trying = None
            self._wake()

    def _is_last(self, name: str) -> bool:
        names = list(self._statuses)
        return all(self._statuses[other].off for other in names[names.index(name) + 1 :])

    def has_another(self, state: RowState) -> bool:
        return state.tier in self._statuses and not self._is_last(state.tier)

    def report_off(self, state: RowState) -> None:
        message = f"the model is not offered in service tier {state.tier}: rows use the next tier"
        self._emit(Notice(message, self._loop.time()))

    def close(self) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _report_resumed(self) -> None:
        if self._waits:
            self._waits = False
            self._emit(Resumed(self._loop.time()))
