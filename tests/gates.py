"""What the tests of the gate have in common: a gate, a provider, and rows that go through the one to the other."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

from batchrun.events import Resumed, Waiting
from batchrun.limits import Feedback, Gate, Hints, Limits, Permit, Stated, Throttle
from batchrun.models import Usage


def used(tokens: int) -> Usage:
    return Usage(tokens, 0, 0, 0)


OK = Feedback()
PAID = Feedback(usage=used(100))


def now() -> float:
    return asyncio.get_running_loop().time()


class Scene:
    """A gate, what it tells, and when each request left."""

    def __init__(self, limits: Limits | None = None, *, senders: bool = False) -> None:
        asyncio.get_running_loop().set_debug(False)  # else a traceback is taken for every step of thousands of requests
        self.told: list[Waiting | Resumed] = []
        limits = limits or Limits(fixed=True)
        self.gate = Gate(limits, emit=self.told.append, random=random.Random(3), senders=senders)
        self.left: list[float] = []

    async def send(self, tokens: int = 100) -> Permit:
        permit = await self.gate.leave(await self.gate.admit(tokens))
        self.left.append(now())
        return permit

    async def exchange(self, tokens: int = 100, seconds: float = 0.1, feedback: Feedback = OK) -> None:
        permit = await self.send(tokens)
        await asyncio.sleep(seconds)
        self.gate.settle(permit, feedback)

    def go(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.create_task(work)


def refusal(throttle: Throttle = Throttle.REQUESTS, seconds: float | None = None) -> Feedback:
    return Feedback(Hints(retry_after=seconds, looks_like_429=True), throttle)


def requests(limit: float, left: float | None, reset: float | None, window: float | None = None) -> Stated:
    """A limit of requests, as an answer states it in milliseconds."""
    return Stated("requests", "requests", limit, left, reset, window, 0.001)


class Provider:
    """A continuous bucket that nothing but its refusals shows."""

    def __init__(self, rate: float, depth: float) -> None:
        self.rate = rate
        self.refused: list[float] = []
        self._depth = self._level = depth
        self._at = now()

    def admits(self, cost: float = 1.0) -> bool:
        self._level, self._at = min(self._depth, self._level + (now() - self._at) * self.rate), now()
        if self._level < cost:
            self.refused.append(self._at)
            return False
        self._level -= cost
        return True

    def holds(self) -> float:
        """What was left after the last call of `admits`, in whole requests."""
        return float(int(self._level))

    def wait(self, cost: float) -> float:
        """Seconds from the last call of `admits` until the bucket holds so much."""
        return (cost - self._level) / self.rate

    async def row(self, scene: Scene, seconds: float, refused: Feedback) -> None:
        """Send one until it is admitted; answers take so long, and a limit makes nobody wait alone."""
        while True:
            permit = await scene.send()
            admitted = self.admits()
            await asyncio.sleep(seconds if admitted else 0.01)
            assert not scene.gate.settle(permit, OK if admitted else refused)
            if admitted:
                return


async def rows_refused_at_random(scene: Scene, rows: int, share: float, refused: Feedback, seed: int) -> list[float]:
    """Send each until it is answered, after the waits that are its own; when they were done, in that order."""
    chance, done = random.Random(seed), list[float]()

    async def row() -> None:
        while True:
            permit = await scene.send()
            await asyncio.sleep(0.1)
            unlucky = chance.random() < share
            wait = scene.gate.settle(permit, refused if unlucky else OK)
            if not unlucky:
                done.append(now())
                return
            await asyncio.sleep(wait)

    await asyncio.gather(*(row() for _ in range(rows)))
    return done
