"""Experiments with the gate against simulated limits, in virtual time: hours pass in seconds.

    python benchmarks/limits_lab.py [NAME …]       by default all: see EXPERIMENTS at the end

One line an experiment: wall time over the ideal, calls, the share of 429s (all; after two seconds; after ten), the
share of the allowed rate used after ten seconds, the most arrivals in any second, and the window at the end.

Under `noise` a share of the requests is answered 429 at random. Only the rows that meet one are bound to wait, so the
bound on rows is what the limit, or the window of the cap, allows a second, times the share that is not refused. `bound`
is how much of that was reached until 99 % of the rows were done, `last/first` the rows done in the last third of that
time over those in the first; the targets are 80 % and 0.9.
"""

import asyncio
import math
import sys
import time

from virtual import experiment

from batchrun.limits import Feedback, Gate, Limits, hints
from batchrun.models import Usage
from batchrun.sim.settings import Settings


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
                _silent(f"only 429s, {style}, {rows}, {latency} s", style, rows, latency)
    for latency in (0.05, 0.5, 3.0):
        _silent(f"slow 429s, none, 3000, {latency} s", "none", 3000, latency, quick=False)
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


def _silent(name: str, style: str, rows: int, latency: float, quick: bool = True) -> None:
    settings, limits = Settings(rpm=600, headers=False, retry_after=style), Limits(cap=64)
    experiment(name, settings, named=False, rows=rows, latency=latency, ideal=rows / 10, limits=limits, quick=quick)


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
    settings = Settings(rpm=600, headers=False, retry_after="none")
    experiment(
        "storm, rejected count, 0.5 s",
        settings,
        rows=2000,
        latency=0.5,
        ideal=200,
        limits=Limits(cap=64),
        count_rejected=True,
    )


def concurrency() -> None:
    """429s about concurrency, named and unnamed."""
    for latency in (0.2, 1.0):
        for named in (True, False):
            name = f"20 at once or 429{'' if named else ', unnamed'}, {latency} s"
            rows = int(20 * 120 / latency)
            experiment(name, Settings(), rows=rows, latency=latency, at_once=20, queues=False, ideal=120, named=named)


def shared() -> None:
    """(g) two runs that share a key; the ideal is what both together are allowed."""
    for r, seconds in ((20, 15), (200, 30)):
        for latency in (0.05, 0.2, 1.0, 3.0):
            for told in (True, False):
                for named in (True, False):
                    settings = Settings(rpm=60 * r, headers=told, retry_after="ms")
                    name = f"two at {r}/s{' told' if told else ''}{'' if named else ', unnamed'}, {latency} s"
                    rows = r * seconds // 2
                    experiment(name, settings, rows=rows, latency=latency, named=named, ideal=seconds, runs=2)


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
    gate = Gate(Limits(cap=64, fixed=True), emit=lambda _: None)
    said = Feedback(usage=Usage(100, 100, 0, 0), body_bytes=600)
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
        gate = Gate(Limits(cap=64, fixed=True, rpm=r * 60), emit=lambda _: None)
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
        gate.settle(permit, Feedback(usage=Usage(100, 100, 0, 0)))
        count += 1
    return count


EXPERIMENTS = {
    "headers": headers, "rate": rate, "tokens": tokens, "charges": charges, "queue": queue, "open": open_, "stated": stated,
    "storm": storm, "concurrency": concurrency, "shared": shared, "noise": noise, "cpu": cpu,
}  # fmt: skip

if __name__ == "__main__":
    for chosen in sys.argv[1:] or EXPERIMENTS:
        print(f"{chosen}: {EXPERIMENTS[chosen].__doc__}")
        EXPERIMENTS[chosen]()
