# ruff: noqa: S311  # chance in an experiment is no secret
"""A provider, runs against it and their figures, in virtual time: what the experiments of limits_lab.py are made of.

Workers call admit, wait a few milliseconds for a journal, call leave, and exchange with a server whose limits are those
of `batchrun sim` (docs/sim.md). Timers wake on whole milliseconds, as epoll's do.
"""

import asyncio
import math
import random
import selectors
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from batchrun.limits import Feedback, Gate, Limits, Throttle, hints
from batchrun.models import Usage
from batchrun.sim.dialects import Cost, Limiter
from batchrun.sim.settings import Settings

Arrival = tuple[float, bool, int]
"""When a request arrived, whether it was admitted, and its tokens."""


class VirtualSelector(selectors.DefaultSelector):  # pyright: ignore[reportUntypedBaseClass]  # differs by platform
    """Never waits: moves the clock on instead, to the next whole tick."""

    def __init__(self, tick: float) -> None:
        super().__init__()
        self.now = 0.0
        self.tick = tick

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everybody waits for everybody")
        if timeout > 0:
            self.now += max(1, math.ceil(timeout / self.tick - 1e-6)) * self.tick
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which time passes only while nobody has anything to do."""

    def __init__(self, tick: float = 0.001) -> None:
        self._virtual = VirtualSelector(tick)
        super().__init__(self._virtual)
        self._clock_resolution = 1e-7

    def time(self) -> float:
        return self._virtual.now


@dataclass(kw_only=True)
class Setup:
    """What an experiment varies. `rows` or `seconds` end each of its `runs`; `ideal` is the wall time to compare with."""

    rows: int | None = None
    seconds: float | None = None
    latency: float | Callable[[random.Random], float] = 0.5
    limits: Limits = field(default_factory=Limits)
    ideal: float | None = None
    at_once: int | None = None
    queues: bool = True
    spread: float = 0.0
    quick: bool = True
    charge: float = 1.0
    count_rejected: bool = False
    named: bool = True
    noise: float = 0.0
    noise_wait: float | None = None
    noise_kind: str = "requests"
    seed: int = 1
    runs: int = 1

    def draw(self, rng: random.Random) -> float:
        """The latency of one exchange, in seconds."""
        return self.latency(rng) if callable(self.latency) else self.latency


@dataclass
class Server:
    """A provider: the buckets of `sim`, and what the experiment says of it."""

    settings: Settings
    setup: Setup
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    arrivals: list[Arrival] = field(default_factory=list)
    replies: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limiter = Limiter(self.settings, 0.0)
        self.slots = asyncio.Semaphore(self.setup.at_once or 1_000_000)

    async def call(self, tokens: int) -> Feedback:
        loop = asyncio.get_running_loop()
        charged = int(tokens * self.setup.charge)
        refused = self.limiter.admit(Cost(charged, charged, 0), "sim", loop.time())
        if refused and self.setup.count_rejected:
            for limit in self.limiter.limits:
                limit.take(Cost(0, 0, 0)._asdict()[limit.unit], loop.time())
        kind, wait = (refused.kind, refused.wait) if refused else ("", None)
        if not refused and not self.setup.queues and self.slots.locked():
            kind = "concurrency"
        self.arrivals.append((loop.time(), not kind, tokens))
        if kind:
            refusal = self._refuse(kind, wait)  # with what the headers say at the time
            await asyncio.sleep(0.005 if self.setup.quick else self.setup.draw(self.rng))
            return refusal
        async with self.slots:
            await asyncio.sleep(self.setup.draw(self.rng))
        if self.setup.noise and self.rng.random() < self.setup.noise:
            return self._refuse(self.setup.noise_kind, self.setup.noise_wait)
        self.replies.append(loop.time())
        said = hints(self._headers(), 200)
        return Feedback(said, usage=Usage(tokens // 2, tokens - tokens // 2, 0, 0), body_bytes=tokens * 3)

    def _refuse(self, kind: str, wait: float | None) -> Feedback:
        now = asyncio.get_running_loop().time()
        lines = self.limiter.answer("throttle", now, wait).headers if wait else ""
        said = hints(self._headers(lines), 429)
        return Feedback(said, throttle=Throttle(kind) if self.setup.named else Throttle.UNKNOWN)

    def _headers(self, more: str = "") -> dict[str, str]:
        now = asyncio.get_running_loop().time()
        text = more + (self.limiter.headers(now) if self.settings.headers else "")
        return dict(line.split(": ", 1) for line in text.split("\r\n") if line)


@dataclass
class Run:
    """Rows of some size through a gate to a server."""

    server: Server
    gate: Gate
    rows: Iterator[int]
    workers: int
    journal: Callable[[random.Random], float]
    seconds: float | None
    done: int = 0
    sizes: list[tuple[float, int]] = field(default_factory=list)
    back: list[tuple[float, int]] = field(default_factory=list)
    rng: random.Random = field(default_factory=lambda: random.Random(11))

    async def worker(self) -> None:
        loop = asyncio.get_running_loop()
        while self.seconds is None or loop.time() < self.seconds:
            tokens = await self.next_row(loop)
            if tokens is None:
                return
            permit = await self.gate.admit(self.gate.estimate(tokens * 3, None))
            await asyncio.sleep(self.journal(self.rng))
            permit = await self.gate.leave(permit)
            feedback = await self.server.call(tokens)
            alone = self.gate.settle(permit, feedback)
            self.sizes.append((loop.time(), self.gate.view().allowed))
            if feedback.throttle is None:
                self.done += 1
            else:
                heappush(self.back, (loop.time() + alone, tokens))

    async def next_row(self, loop: asyncio.AbstractEventLoop) -> int | None:
        """A row whose wait is over, else a new one, else the next whose wait will be over."""
        if not self.back or self.back[0][0] > loop.time():
            tokens = next(self.rows, None)
            if tokens is not None or not self.back:
                return tokens
        due, tokens = heappop(self.back)
        await asyncio.sleep(max(0.0, due - loop.time()))
        return tokens

    async def go(self) -> float:
        await asyncio.gather(*(self.worker() for _ in range(self.workers)))
        return asyncio.get_running_loop().time()


def journal(rng: random.Random) -> float:
    """The commit of an attempt: mostly 1 to 3 ms, now and then 20."""
    return 0.02 if rng.random() < 0.02 else rng.uniform(0.001, 0.003)


def sizes(count: int | None, rng: random.Random, spread: float) -> Iterator[int]:
    """Tokens of the rows: 200 on the average, log-normal."""
    number = 0
    while count is None or number < count:
        number += 1
        yield max(4, int(200 * math.exp(spread * rng.gauss(0, 1) - spread * spread / 2)))


def experiment(name: str, settings: Settings, **varied: Any) -> None:
    """Run one experiment in virtual time and print its line."""
    setup, started, loop = Setup(**varied), time.perf_counter(), VirtualLoop()
    try:
        runs, wall = loop.run_until_complete(_runs(setup, settings))
    finally:
        loop.close()
    print(f"{name:38}", line(runs, wall, settings, setup), f"({time.perf_counter() - started:.1f} s)", flush=True)


async def _runs(setup: Setup, settings: Settings) -> tuple[list[Run], float]:
    """All runs of an experiment against one server, to their end; they differ by chance alone."""
    server = Server(settings, setup)
    runs: list[Run] = []
    for seed in range(setup.seed, setup.seed + setup.runs):
        gate = Gate(setup.limits, emit=lambda _: None, random=random.Random(seed))
        rows = sizes(setup.rows, random.Random(seed), setup.spread)
        runs.append(Run(server, gate, rows, 2 * setup.limits.cap, journal, setup.seconds, rng=random.Random(10 + seed)))
    return runs, max(await asyncio.gather(*(run.go() for run in runs)))


def line(runs: list[Run], wall: float, settings: Settings, setup: Setup) -> str:
    """The figures of one experiment; the window is that of the first run."""
    arrivals = runs[0].server.arrivals
    missing = 0 if setup.rows is None else setup.rows * len(runs) - sum(run.done for run in runs)
    half = [size for at, size in runs[0].sizes if at > wall / 2] or [0]
    late = " ".join(f"{refusals(arrivals, after):5.1%}" for after in (0, 2, 10))
    parts = [
        f"wall {wall:7.1f}",
        f"×{wall / setup.ideal:5.2f}" if setup.ideal else " " * 6,
        f"calls {len(arrivals):6}  429 {late}",
        f"used {used(arrivals, settings, setup.charge):6.1%}" if settings.rpm or settings.tpm else " " * 11,
        f"1s {most(arrivals, 1.0):5}",
        f"window {min(half)}–{max(half)}{f' LOST {missing}' if missing else ''}",
    ]
    if setup.noise:
        parts.append(bound(runs[0].server.replies, settings, setup))
    return "  ".join(parts)


def bound(replies: list[float], settings: Settings, setup: Setup) -> str:
    """What of the bound under noise was reached until 99 % of the rows were done, and whether the run slowed down."""
    latency = setup.latency if isinstance(setup.latency, float) else math.nan
    count = math.ceil(0.99 * len(replies))
    wall = replies[count - 1]
    most_a_second = min(settings.rpm / 60 if settings.rpm else math.inf, setup.limits.cap / latency)
    reached = count / ((1 - setup.noise) * most_a_second * max(latency, wall - latency))
    first = sum(at <= wall / 3 for at in replies)
    ratio = sum(wall * 2 / 3 < at <= wall for at in replies) / max(1, first)
    missed = " MISSED" if reached < 0.8 or ratio < 0.9 else ""
    return f"bound {reached:6.1%}  last/first {ratio:4.2f}{missed}"


def refusals(arrivals: list[Arrival], after: float) -> float:
    """The share of 429s among the calls after some seconds."""
    late = [admitted for at, admitted, _ in arrivals if at >= after]
    return 1 - sum(late) / len(late) if late else 0.0


def used(arrivals: list[Arrival], settings: Settings, charge: float) -> float:
    """The share of the allowed rate that was used from the tenth second to the last arrival."""
    end = arrivals[-1][0]
    if end <= 10:
        return math.nan
    late = [(1 if settings.rpm else tokens * charge) for at, admitted, tokens in arrivals if admitted and at >= 10]
    return sum(late) / ((settings.rpm or settings.tpm or 0) / 60 * (end - 10))


def most(arrivals: list[Arrival], seconds: float) -> int:
    """The most admitted arrivals in any window of so many seconds."""
    window: deque[float] = deque()
    top = 0
    for at, admitted, _ in arrivals:
        if admitted:
            window.append(at)
        while window and window[0] <= at - seconds:
            window.popleft()
        top = max(top, len(window))
    return top
