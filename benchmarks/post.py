"""Post-processing beside bare pools, on the same work in the same run.

    .venv/bin/python benchmarks/post.py [a b c d e]

Every contender does the same work on the same 1 kB replies; they take turns, five rounds, and each figure is the median
of the rounds' ratios, which a busy machine hardly moves. The work is counted in steps, not timed, so that waiting for a
core does not pass for work. Pools are started and warm before the clock runs, in (a); with their start in (b) and (c).
aiomultiprocess is a contender of (b) where it is installed. Python looks for cycles among objects as seldom as in a
run, for every contender. A section takes under two minutes.
"""

import asyncio
import concurrent.futures
import gc
import importlib.util
import json
import multiprocessing
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from batchrun.models import Endpoint, Request
from batchrun.post import Choices, Failure, Item, PostQueue, Reply, Result

ROUNDS = 5
WORKERS = 2
REPLIES = 20_000
TEXT = "x" * 1000
STEPS = "BENCH_STEPS"
"""The variable that says how many steps 20 µs are here."""


def steps(count: int) -> int:
    """Work that takes as long wherever it runs."""
    total = 0
    for step in range(count):
        total += step & 7
    return total


def calibrated() -> int:
    """Steps in 20 µs, on this machine when nothing disturbs it."""
    fastest = min(_timed(lambda: steps(20_000)) for _ in range(50))
    return int(20_000 * 20e-6 / fastest)


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def work_20(reply: Reply) -> int:
    """About 20 µs."""
    return steps(int(os.environ[STEPS])) & len(reply.text)


def work_200(reply: Reply) -> int:
    """About 200 µs."""
    return steps(10 * int(os.environ[STEPS])) & len(reply.text)


def work_long(reply: Reply) -> int:
    """About 0.17 s."""
    return steps(8_500 * int(os.environ[STEPS])) & len(reply.text)


def deadly(reply: Reply) -> int:
    """About 200 µs, and one row in 1,000 kills its process."""
    if reply.line % 1000 == 500:
        os.kill(os.getpid(), signal.SIGKILL)
    return work_200(reply)


async def sleeps(reply: Reply) -> int:
    """0.2 to 0.7 s of waiting, then about 0.2 s of work."""
    await asyncio.sleep(0.2 + reply.line * 7 % 30 / 60)
    return steps(10_000 * int(os.environ[STEPS])) & len(reply.text)


def bare_200(text: str) -> str:
    """What a bare pool is given: the text, to JSON."""
    return json.dumps(work_200(Reply(text)))


def bare_long(text: str) -> str:
    """The same for the long work."""
    return json.dumps(work_long(Reply(text)))


async def bare_sleeps(line: int) -> str:
    """The same for the coroutine."""
    return json.dumps(await sleeps(Reply(TEXT, line=line)))


def items(count: int) -> list[Item]:
    """Replies, as the engine hands them over."""
    return [Item(TEXT, '{"n": 1}', line=number) for number in range(count)]


class Out:
    """Where a queue delivers to: results are counted and let go of, as when a journal has written them."""

    def __init__(self) -> None:
        self.arrived = 0
        self.failed = 0

    async def deliver(self, results: list[tuple[Any, Result]]) -> None:
        failed = sum(isinstance(result, Failure) for _, result in results)
        self.failed += failed
        self.arrived += len(results) - failed


async def staged(queue: PostQueue, rows: list[Item]) -> float:
    """Seconds that the queue takes for the rows."""
    began = time.perf_counter()
    for item in rows:
        await queue.put(None, item)
    await queue.drain()
    return time.perf_counter() - began


def queue_of(name: str, workers: int | None, out: Out) -> PostQueue:
    """A queue with one of the functions here."""
    return PostQueue(Choices(specs=(f"{__file__}:{name}",), workers=workers), out.deliver, environ=dict(os.environ))


async def a() -> None:
    """20,000 replies at 200 µs and at 20 µs."""
    rows, texts = items(REPLIES), [TEXT] * REPLIES
    seconds: dict[str, list[float]] = {"queue": [], "Pool.map": [], "inline": []}
    pooled, inline = queue_of("work_200", WORKERS, Out()), queue_of("work_200", 0, Out())
    with multiprocessing.Pool(WORKERS) as pool:
        pool.map(bare_200, texts[:100])
        await staged(pooled, rows[:500])
        for _ in range(ROUNDS):
            seconds["queue"].append(await staged(pooled, rows))
            began = time.perf_counter()
            await asyncio.to_thread(pool.map, bare_200, texts, chunksize=64)
            seconds["Pool.map"].append(time.perf_counter() - began)
            seconds["inline"].append(await staged(inline, rows[:5000]) * REPLIES / 5000)
    await pooled.close()
    await inline.close()
    say("a", "rows/s at 200 µs, queue", rate(seconds["queue"]))
    say("a", "rows/s at 200 µs, multiprocessing.Pool.map", rate(seconds["Pool.map"]))
    say("a", "rows/s at 200 µs, inline", rate(seconds["inline"]))
    say("a", "queue over Pool.map", ratio(seconds["Pool.map"], seconds["queue"]), ">= 0.85")
    say("a", "queue over inline", ratio(seconds["inline"], seconds["queue"]), ">= 1.4")
    await _short(rows, texts)


async def _short(rows: list[Item], texts: list[str]) -> None:
    seconds: dict[str, list[float]] = {"auto": [], "thread": []}
    processor: dict[str, list[float]] = {"auto": [], "thread": []}
    moved = 0

    async def auto() -> float:
        nonlocal moved
        queue = queue_of("work_20", None, Out())
        took = await staged(queue, rows)
        moved = max(moved, queue.workers)
        await queue.close()
        return took

    async def thread() -> float:
        return await asyncio.to_thread(_loop, texts)

    for number in range(ROUNDS):
        for turn in (auto, thread) if number % 2 else (thread, auto):
            began = time.process_time()
            seconds[turn.__name__].append(await turn())
            processor[turn.__name__].append(time.process_time() - began)
    say("a", "at 20 µs, auto ends with worker processes", moved, "<= 0")
    say("a", "at 20 µs, auto over a plain loop in a thread", ratio(seconds["thread"], seconds["auto"]), ">= 0.95")
    say("a", "the same in processor time, of all threads", ratio(processor["thread"], processor["auto"]), ">= 0.95")


def _loop(texts: list[str]) -> float:
    return _timed(lambda: [json.dumps(work_20(Reply(text))) for text in texts])


async def b() -> None:
    """30 coroutine rows."""
    seconds: dict[str, list[float]] = {"queue": [], "gather": [], "aiomultiprocess": []}
    other = importlib.util.find_spec("aiomultiprocess") is not None
    for _ in range(ROUNDS):
        began = time.perf_counter()
        queue = queue_of("sleeps", WORKERS, Out())
        await staged(queue, items(30))
        seconds["queue"].append(time.perf_counter() - began)
        await queue.close()
        began = time.perf_counter()
        await asyncio.gather(*map(bare_sleeps, range(30)))
        seconds["gather"].append(time.perf_counter() - began)
        if other:
            from aiomultiprocess import Pool  # noqa: PLC0415  where it is installed

            began = time.perf_counter()
            async with Pool(WORKERS) as pool:
                await pool.map(bare_sleeps, range(30))
                seconds["aiomultiprocess"].append(time.perf_counter() - began)
    say("b", "seconds for 30 coroutine rows, queue", statistics.median(seconds["queue"]))
    say("b", "seconds, plain gather", statistics.median(seconds["gather"]))
    if other:
        say("b", "seconds, aiomultiprocess.Pool", statistics.median(seconds["aiomultiprocess"]))
        say("b", "queue's time over aiomultiprocess's", ratio(seconds["queue"], seconds["aiomultiprocess"]), "<= 1.1")


async def c() -> None:
    """20 long rows."""
    seconds: dict[str, list[float]] = {"queue": [], "Pool": [], "executor": [], "serial": []}
    texts = [TEXT] * 20
    for _ in range(ROUNDS):
        began = time.perf_counter()
        queue = queue_of("work_long", WORKERS, Out())
        await staged(queue, items(20))
        seconds["queue"].append(time.perf_counter() - began)
        await queue.close()
        began = time.perf_counter()
        with multiprocessing.Pool(WORKERS) as pool:
            await asyncio.to_thread(pool.map, bare_long, texts, chunksize=1)
            seconds["Pool"].append(time.perf_counter() - began)
        began = time.perf_counter()
        with concurrent.futures.ProcessPoolExecutor(WORKERS) as executor:
            await asyncio.to_thread(lambda: list(executor.map(bare_long, texts)))
            seconds["executor"].append(time.perf_counter() - began)
        seconds["serial"].append(await asyncio.to_thread(_timed, lambda: list(map(bare_long, texts))))
    for name, label in (
        ("queue", "queue"),
        ("Pool", "multiprocessing.Pool"),
        ("executor", "ProcessPoolExecutor"),
        ("serial", "serial"),
    ):
        say("c", f"seconds for 20 rows of 0.17 s, {label}", statistics.median(seconds[name]))
    say("c", "queue's time over multiprocessing.Pool's", ratio(seconds["queue"], seconds["Pool"]), "<= 1.1")


async def d() -> None:
    """The loop's lag during (a), while requests come and go."""
    from batchrun import sim  # noqa: PLC0415  only here
    from batchrun.client import Client  # noqa: PLC0415  only here

    body = json.dumps({"model": "simulated", "messages": [{"role": "user", "content": "hello"}]}).encode()
    request = Request(Endpoint.CHAT, body, None)
    with sim.spawn(sim.Settings(latency="0.5")) as base_url:
        async with Client(base_url=base_url, api_key=None, allow_insecure_http=True) as client:
            queue = queue_of("work_200", WORKERS, Out())
            await staged(queue, items(500))
            lags: list[float] = []
            answered: list[int] = []
            side = [asyncio.create_task(_lag(lags)), asyncio.create_task(_traffic(client, request, answered))]
            await asyncio.sleep(1.0)
            lags.clear()
            answered.clear()
            took = sum([await staged(queue, items(REPLIES)) for _ in range(3)])
            rate_seen = len(answered) / took
            for task in side:
                task.cancel()
            await asyncio.gather(*side, return_exceptions=True)
            await queue.close()
    lags.sort()
    say("d", "requests answered a second meanwhile", rate_seen, ">= 190")
    say("d", "median lag of the loop, ms", lags[len(lags) // 2] * 1000)
    say("d", "p95 lag of the loop, ms", lags[int(len(lags) * 0.95)] * 1000, "<= 20")


async def _lag(lags: list[float]) -> None:
    while True:
        due = time.perf_counter() + 0.005
        await asyncio.sleep(0.005)
        lags.append(max(0.0, time.perf_counter() - due))


async def _traffic(client: Any, request: Request, answered: list[int]) -> None:
    async def one() -> None:
        answered.append((await client.send(request, timeout=30)).status)

    async with asyncio.TaskGroup() as group:
        due = time.perf_counter()
        while True:
            while due <= time.perf_counter():
                due += 1 / 200
                group.create_task(one())
            await asyncio.sleep(0.002)


async def e() -> None:
    """One row in 1,000 kills its worker."""
    out = Out()
    queue = queue_of("deadly", WORKERS, out)
    seconds = await staged(queue, items(REPLIES))
    await queue.close()
    say("e", "rows that killed their worker, of 20,000", out.failed, f"<= {REPLIES // 1000}")
    say("e", "rows that arrived", out.arrived, f">= {REPLIES - REPLIES // 1000}")
    say("e", "seconds", seconds)


def rate(seconds: list[float]) -> float:
    """Rows a second, the median."""
    return REPLIES / statistics.median(seconds)


def ratio(one: list[float], other: list[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(left / right for left, right in zip(one, other, strict=True))


def say(section: str, what: str, figure: float, target: str = "") -> None:
    """One line of the table; whether the target is met."""
    met = ""
    if target:
        bound = float(target[3:])
        met = "met" if (figure >= bound if target.startswith(">=") else figure <= bound) else "MISSED"
    print(f"{section}  {what:<55} {figure:>12,.2f}  {target:<10} {met}", flush=True)


def main() -> None:
    """The sections that are named, or all."""
    os.environ[STEPS] = str(calibrated())
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    for section in sys.argv[1:] or ["a", "b", "c", "d", "e"]:
        asyncio.run({"a": a, "b": b, "c": c, "d": d, "e": e}[section]())


if __name__ == "__main__":
    main()
