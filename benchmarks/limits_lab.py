# ruff: noqa: S311  # chance in an experiment is no secret
"""Experiments with the gate against simulated limits, in virtual time: hours pass in seconds.

    python benchmarks/limits_lab.py [NAME …]       e.g. headers rate tokens charges queue open stated storm concurrency noise cpu

Workers call admit, wait a few milliseconds for a journal, call leave, and exchange with a server whose limits are those
of `batchrun sim` (docs/sim.md). Timers wake on whole milliseconds, as epoll's do. One line an experiment: wall time over
the ideal, calls, the share of 429s (all; after two seconds; after ten), the share of the allowed rate used after ten
seconds, the most arrivals in any second, and the window at the end.

Under `noise` a share of the requests is answered 429 at random. Only the rows that meet one are bound to wait, so the
bound on rows is what the limit, or the window of the cap, allows a second, times the share that is not refused. `bound`
is how much of that was reached until 99 % of the rows were done, `last/first` the rows done in the last third of that
time over those in the first; the targets are 80 % and 0.9.
"""

import asyncio
import math
import random
import selectors
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from batchrun.limits import Feedback, Gate, Limits, Throttle, hints
from batchrun.sim.limiter import Limiter, retry_after
from batchrun.sim.settings import Settings


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


@dataclass
class Server:
    """A provider: the buckets of `sim`, a latency, and how many it serves at once."""

    settings: Settings
    latency: Callable[[random.Random], float]
    at_once: int | None = None
    queues: bool = True
    quick_refusals: bool = True
    charge: float = 1.0
    named: bool = True
    noise: float = 0.0
    noise_wait: float | None = None
    noise_kind: str = "requests"
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    arrivals: list[tuple[float, bool, int]] = field(default_factory=list)
    replies: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limiter = Limiter(self.settings, 0.0)
        self.slots = asyncio.Semaphore(self.at_once or 1_000_000)

    async def call(self, tokens: int) -> Feedback:
        loop = asyncio.get_running_loop()
        refused = self.limiter.admit(int(tokens * self.charge), "sim", loop.time())
        kind, wait = (refused.kind, refused.wait) if refused else ("", None)
        if not refused and not self.queues and self.slots.locked():
            kind = "concurrency"
        self.arrivals.append((loop.time(), not kind, tokens))
        if kind:
            await asyncio.sleep(0.005 if self.quick_refusals else self.latency(self.rng))
            return self._refuse(kind, wait)
        async with self.slots:
            await asyncio.sleep(self.latency(self.rng))
        if self.noise and self.rng.random() < self.noise:
            return self._refuse(self.noise_kind, self.noise_wait)
        self.replies.append(loop.time())
        said = hints(self._headers(), 200)
        return Feedback(
            200,
            said,
            tokens=tokens,
            body_bytes=tokens * 3,
            input_tokens=tokens // 2,
            output_tokens=tokens - tokens // 2,
        )

    def _refuse(self, kind: str, wait: float | None) -> Feedback:
        lines = retry_after(self.settings.retry_after, wait) if wait else ""
        said = hints(self._headers(lines), 429)
        return Feedback(429, said, throttle=Throttle(kind) if self.named else Throttle.UNKNOWN)

    def _headers(self, more: str = "") -> dict[str, str]:
        now = asyncio.get_running_loop().time()
        text = more + (self.limiter.headers(now) if self.settings.headers else "")
        return dict(line.split(": ", 1) for line in text.split("\r\n") if line)


@dataclass
class Run:
    """One experiment: rows of some size through a gate to a server."""

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
            if feedback.status == 200:
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


@dataclass(kw_only=True)
class Setup:
    """What an experiment varies. `rows` or `seconds` end it; `ideal` is the wall time to compare with."""

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
    named: bool = True
    noise: float = 0.0
    noise_wait: float | None = None
    noise_kind: str = "requests"
    seed: int = 1


def experiment(name: str, settings: Settings, **varied: Any) -> None:
    """Run one experiment in virtual time and print its line."""
    setup = Setup(**varied)
    latency = setup.latency
    draw = latency if callable(latency) else lambda _: latency
    loop = VirtualLoop()

    async def main() -> tuple[Run, float]:
        server = Server(settings, draw, setup.at_once, setup.queues, setup.quick, setup.charge, setup.named)
        server.noise, server.noise_wait, server.noise_kind = setup.noise, setup.noise_wait, setup.noise_kind
        gate = Gate(setup.limits, listen=lambda _: None, random=random.Random(setup.seed))
        rows = sizes(setup.rows, random.Random(setup.seed), setup.spread)
        run = Run(server, gate, rows, 2 * setup.limits.cap, journal, setup.seconds)
        return run, await run.go()

    started = time.perf_counter()
    try:
        run, wall = loop.run_until_complete(main())
    finally:
        loop.close()
    print(f"{name:38}", line(run, wall, settings, setup), f"({time.perf_counter() - started:.1f} s)", flush=True)


def line(run: Run, wall: float, settings: Settings, setup: Setup) -> str:
    """The figures of one experiment."""
    arrivals = run.server.arrivals
    lost = "" if setup.rows is None or run.done == setup.rows else f" LOST {setup.rows - run.done}"
    half = [size for at, size in run.sizes if at > wall / 2] or [0]
    late = " ".join(f"{refusals(arrivals, after):5.1%}" for after in (0, 2, 10))
    parts = [
        f"wall {wall:7.1f}",
        f"×{wall / setup.ideal:5.2f}" if setup.ideal else " " * 6,
        f"calls {len(arrivals):6}  429 {late}",
        f"used {used(run, settings, setup.charge):6.1%}" if settings.rpm or settings.tpm else " " * 11,
        f"1s {most(arrivals, 1.0):5}",
        f"window {min(half)}–{max(half)}{lost}",
    ]
    if setup.noise:
        parts.append(bound(run, settings, setup))
    return "  ".join(parts)


def bound(run: Run, settings: Settings, setup: Setup) -> str:
    """What of the bound under noise was reached until 99 % of the rows were done, and whether the run slowed down."""
    latency = setup.latency if isinstance(setup.latency, float) else math.nan
    replies = run.server.replies
    count = math.ceil(0.99 * len(replies))
    wall = replies[count - 1]
    most_a_second = min(settings.rpm / 60 if settings.rpm else math.inf, setup.limits.cap / latency)
    reached = count / ((1 - setup.noise) * most_a_second * max(latency, wall - latency))
    first = sum(at <= wall / 3 for at in replies)
    ratio = sum(wall * 2 / 3 < at <= wall for at in replies) / max(1, first)
    missed = " MISSED" if reached < 0.8 or ratio < 0.9 else ""
    return f"bound {reached:6.1%}  last/first {ratio:4.2f}{missed}"


def refusals(arrivals: list[tuple[float, bool, int]], after: float) -> float:
    """The share of 429s among the calls after some seconds."""
    late = [admitted for at, admitted, _ in arrivals if at >= after]
    return 1 - sum(late) / len(late) if late else 0.0


def used(run: Run, settings: Settings, charge: float) -> float:
    """The share of the allowed rate that was used from the tenth second to the last arrival."""
    arrivals = run.server.arrivals
    end = arrivals[-1][0]
    if end <= 10:
        return math.nan
    late = [(1 if settings.rpm else tokens * charge) for at, admitted, tokens in arrivals if admitted and at >= 10]
    return sum(late) / ((settings.rpm or settings.tpm or 0) / 60 * (end - 10))


def most(arrivals: list[tuple[float, bool, int]], seconds: float) -> int:
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


def headers() -> None:
    """(a) 10/s stated by headers only."""
    for latency in (0.05, 0.5, 3.0):
        experiment(
            f"headers 10/s {latency} s", Settings(rpm=600), rows=300, latency=latency, limits=Limits(cap=32), ideal=30
        )


def rate() -> None:
    """(b) 10/s that no header names."""
    for style in ("ms", "seconds", "none"):
        for rows in (300, 3000):
            for latency in (0.05, 0.5, 3.0):
                settings = Settings(rpm=600, headers=False, retry_after=style)
                experiment(
                    f"only 429s, {style}, {rows}, {latency} s",
                    settings,
                    named=False,
                    rows=rows,
                    latency=latency,
                    ideal=rows / 10,
                    limits=Limits(cap=64),
                )
    for latency in (0.05, 0.5, 3.0):
        settings = Settings(rpm=600, headers=False, retry_after="none")
        experiment(
            f"slow 429s, none, 3000, {latency} s",
            settings,
            named=False,
            rows=3000,
            latency=latency,
            ideal=300,
            limits=Limits(cap=64),
            quick=False,
        )
    for r, cap in ((1, 16), (100, 256), (1000, 1024)):
        settings = Settings(rpm=60 * r, headers=False, retry_after="none")
        experiment(
            f"only 429s at {r}/s, 0.5 s",
            settings,
            named=False,
            seconds=240 if r < 1000 else 60,
            latency=0.5,
            limits=Limits(cap=cap),
        )


def tokens() -> None:
    """(c) tokens per minute, rows of very different length."""
    for latency in (0.05, 0.5, 3.0):
        for spread in (0.0, 1.0):
            experiment(
                f"tpm headers, spread {spread}, {latency} s",
                Settings(tpm=120_000),
                rows=1000,
                latency=latency,
                spread=spread,
                ideal=100,
                limits=Limits(cap=64),
            )
            experiment(
                f"tpm stated, spread {spread}, {latency} s",
                Settings(tpm=120_000, headers=False),
                rows=1000,
                latency=latency,
                spread=spread,
                ideal=100,
                limits=Limits(cap=64, tpm=120_000),
            )


def charges() -> None:
    """(c) a provider that charges three times the tokens that replies state."""
    for latency in (0.05, 0.5, 3.0):
        for told in (True, False):
            settings = Settings(tpm=120_000, headers=told)
            limits = Limits(cap=64, tpm=120_000)
            name = f"charged ×3, {'headers' if told else 'stated'}, {latency} s"
            experiment(name, settings, rows=1000, latency=latency, limits=limits, ideal=300, charge=3.0)


def queue() -> None:
    """(d) a server that serves 4 at once and queues the rest."""
    for cap in (16, 64, 256):
        for latency in (0.05, 0.2, 1.0):
            rows = int(600 / latency) if latency < 1 else 1500
            experiment(
                f"4 at once, {latency} s, cap {cap}",
                Settings(),
                rows=rows,
                latency=latency,
                at_once=4,
                limits=Limits(cap=cap),
                ideal=rows * latency / 4,
            )
    for at_once in (1, 20, 100):
        experiment(f"{at_once} at once, 0.2 s", Settings(), rows=200 * at_once, latency=0.2, at_once=at_once, ideal=40)
        experiment(
            f"{at_once} at once, exponential 0.2 s",
            Settings(),
            rows=200 * at_once,
            latency=lambda rng: rng.expovariate(5),
            at_once=at_once,
            ideal=40,
        )


def open_() -> None:
    """(d) no limit at all."""
    for latency, rows in ((0.05, 20_000), (0.5, 10_000), (2.0, 10_000)):
        experiment(f"open, {latency} s, {rows}", Settings(), rows=rows, latency=latency, ideal=rows * latency / 256)
    experiment(
        "open, log-normal 0.5 s, 10000",
        Settings(),
        rows=10_000,
        latency=lambda rng: 0.5 * rng.lognormvariate(-0.32, 0.8),
        ideal=10_000 * 0.5 / 256,
    )
    experiment(
        "open, 0.5 s, cap 1024, 40000",
        Settings(),
        rows=40_000,
        latency=0.5,
        limits=Limits(cap=1024),
        ideal=40_000 * 0.5 / 1024,
    )


def stated() -> None:
    """(e) a limit stated by the user or by headers."""
    for r, seconds in ((10, 120), (200, 60), (2000, 20)):
        for latency in (0.05, 0.5):
            cap = max(64, int(r * latency * 1.6))
            quiet = Settings(rpm=60 * r, headers=False)
            experiment(
                f"--rpm {60 * r}, {latency} s",
                quiet,
                seconds=seconds,
                latency=latency,
                limits=Limits(cap=cap, rpm=60 * r),
            )
            experiment(
                f"headers {r}/s, {latency} s",
                Settings(rpm=60 * r),
                seconds=seconds,
                latency=latency,
                limits=Limits(cap=cap),
            )


def storm() -> None:
    """(f) 429s without Retry-After, 64 fixed in flight, and rejected calls that count."""
    for latency in (0.05, 0.5, 3.0):
        settings = Settings(rpm=600, headers=False, retry_after="none")
        experiment(
            f"storm, fixed 64, {latency} s",
            settings,
            named=False,
            rows=2000,
            latency=latency,
            ideal=200,
            limits=Limits(cap=64, fixed=True),
        )
    settings = Settings(rpm=600, headers=False, retry_after="none", count_rejected=True)
    experiment("storm, rejected count, 0.5 s", settings, rows=2000, latency=0.5, ideal=200, limits=Limits(cap=64))


def concurrency() -> None:
    """429s about concurrency, named and unnamed."""
    for latency in (0.2, 1.0):
        for named in (True, False):
            name = f"20 at once or 429{'' if named else ', unnamed'}, {latency} s"
            rows = int(20 * 120 / latency)
            experiment(name, Settings(), rows=rows, latency=latency, at_once=20, queues=False, ideal=120, named=named)


def noise() -> None:
    """429s at random, whatever the rate."""
    for r, told, latency, cap in _NOISY:
        for style, wait, kind in _NOISES:
            for share in (0.001, 0.005, 0.01, 0.05, 0.1):
                settings = Settings(rpm=60 * r if r else None, headers=told, retry_after=style)
                rows = min(20_000, int(min(r or math.inf, cap / latency) * 180))
                limit = f"{r}/s{' told' if told else ''}" if r else "no limit"
                experiment(
                    f"{share:.1%} {kind} {style}, {limit}, {latency} s",
                    settings,
                    rows=rows,
                    latency=latency,
                    limits=Limits(cap=cap),
                    noise=share,
                    noise_wait=wait,
                    noise_kind=kind,
                    quick=False,
                )


_NOISES = (
    ("none", None, "requests"), ("ms", 0.2, "requests"), ("seconds", 1.0, "requests"), ("none", None, "concurrency"),
    ("seconds", 1.0, "concurrency"),
)  # fmt: skip
"""How the wait is announced, its seconds, and what the 429 says it is about."""
_NOISY = (
    (10, False, 0.05, 64), (10, False, 0.5, 64), (10, False, 3.0, 64), (10, True, 0.5, 64), (200, False, 0.05, 64),
    (200, False, 0.5, 256), (200, False, 3.0, 1024), (200, True, 0.05, 64), (200, True, 0.5, 256), (None, False, 0.05, 64),
    (None, False, 0.5, 64), (None, False, 0.5, 256), (None, False, 3.0, 64),
)  # fmt: skip
"""True limit a second, whether headers tell it, latency, cap."""


def cpu() -> None:
    """The cost of admit + leave + settle on a real clock, nothing blocking and rate-bound."""
    asyncio.run(_unblocked())
    asyncio.run(_bound())


async def _unblocked(count: int = 100_000) -> None:
    gate = Gate(Limits(cap=64, fixed=True), listen=lambda _: None)
    said = Feedback(200, tokens=200, body_bytes=600, input_tokens=100, output_tokens=100)
    started = time.process_time()
    for _ in range(count):
        permit = await gate.admit(200)
        await gate.leave(permit)
        gate.settle(permit, said)
    print(f"unblocked: {(time.process_time() - started) / count * 1e6:.1f} µs a request")
    text = {
        f"x-ratelimit-{what}-{which}": value
        for which in ("requests", "tokens")
        for what, value in (("limit", "60000"), ("remaining", "59123"), ("reset", "12ms"))
    }
    started = time.process_time()
    for _ in range(count):
        hints(text, 200)
    print(f"hints: {(time.process_time() - started) / count * 1e6:.1f} µs a reply")


async def _bound(seconds: float = 4.0) -> None:
    for r in (500, 5000, 15_000):
        gate = Gate(Limits(cap=64, fixed=True, rpm=r * 60), listen=lambda _: None)
        started, end = time.process_time(), asyncio.get_running_loop().time() + seconds
        count = sum(await asyncio.gather(*(_until(gate, end) for _ in range(64))))
        spent = time.process_time() - started
        print(
            f"rate-bound at {r}/s: {count / seconds:.0f}/s, {spent / count * 1e6:.1f} µs a request, loop and tasks too"
        )


async def _until(gate: Gate, end: float) -> int:
    count = 0
    while asyncio.get_running_loop().time() < end:
        permit = await gate.admit(200)
        await gate.leave(permit)
        gate.settle(permit, Feedback(200, tokens=200))
        count += 1
    return count


EXPERIMENTS = {
    "headers": headers, "rate": rate, "tokens": tokens, "charges": charges, "queue": queue, "open": open_, "stated": stated,
    "storm": storm, "concurrency": concurrency, "noise": noise, "cpu": cpu,
}  # fmt: skip

if __name__ == "__main__":
    for chosen in sys.argv[1:] or EXPERIMENTS:
        print(f"{chosen}: {EXPERIMENTS[chosen].__doc__}")
        EXPERIMENTS[chosen]()
