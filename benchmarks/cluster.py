"""Post-processing on a Ray cluster beside the local pool, on the same work and the same cores.

    .venv/bin/python benchmarks/cluster.py [pool idle feed]

`pool`: two workers of each kind do the same work on the same 1 kB replies, in turns; each figure is the median of the rounds'
ratios. All are up and warm before the clock runs. While it is the local pool's turn the cluster is frozen, as even when idle it
takes a fiftieth of two processors. The ratio by time is valid only on a quiet machine: Linux gives each session the same share of
the processors (autogroup), and the nodes of the cluster and Ray's driver are sessions of their own, so among other programs Ray
gets more. So the share that others used is stated. Beside the time stands all processor time: of the local pool this process and
its workers, of Ray this process, Ray's driver and all processes of the cluster. `driver` is this process and the one that is
Ray's driver, without workers. `idle`: the time that workers lose at the start, between shards and at the end, with rows that
sleep for 2 ms and return how long they took, so that other programs hardly count. `feed`: how many processors one driver keeps at
work, shown with actors that sleep as long as they would compute, so that two cores can stand for twenty. The cluster is started
here, on loopback, and ended.
"""

import asyncio
import contextlib
import gc
import os
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

sys.path.append(str(Path(__file__).parents[1] / "tests" / "reliability"))

from post import Out, calibrated, items, ratio, say, staged
from ray_cluster import Cluster, cluster, family

from batchrun.post import Choices, PostQueue, Result, Value

ROUNDS = 7
WORKERS = 2
SECONDS = 6.0
"""Seconds that a turn takes two workers, so that the start and the end of a turn weigh as little as in a run."""
FED = 20
To = TypeVar("To", bound=Out)
FUNCTIONS = Path(__file__).with_name("cluster_work.py")


def processor_seconds(address: str) -> Counter[str]:
    """Processor time of this process (`main`), of its child that is Ray's driver (`driver`), of the `cluster` at the address
    with its actors, and of the local pool's `workers`."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    parts = {os.getpid(): "workers"}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            command = (entry / "cmdline").read_bytes()
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            pid = int(entry.name)
            parents[pid] = int(fields[1])
            seconds[pid] = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
            if b"batchrun.cluster.ray_main" in command and parents[pid] == os.getpid():
                parts[pid] = "driver"
            elif address.rpartition(":")[2].encode() in command and pid != os.getpid():
                parts[pid] = "cluster"
    del seconds[os.getpid()]

    def part(pid: int) -> str:
        return parts.get(pid) or (part(parents[pid]) if pid in parents else "others")

    spent = Counter(main=time.process_time())
    for pid, each in seconds.items():
        spent[part(pid)] += each
    return spent


def busy_seconds() -> float:
    """Processor time of all programs, and what the host took."""
    user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().partition("\n")[0].split()[1:9])
    return sum((user, nice, system, *rest)) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def frozen(made: Cluster) -> Iterator[None]:
    """Without the processes of the cluster, and a second afterwards for them to catch up."""
    pids = [pid for node in made.nodes for pid in sorted(family(node.pid))]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        time.sleep(1.0)


async def queue_of(name: str, address: str | None, workers: int, out: To) -> tuple[PostQueue, To]:
    """A queue with one of the functions, with all its workers up, and where its results go."""
    choices = Choices(specs=(f"{FUNCTIONS}:{name}",), workers=workers, ray=address)
    queue = PostQueue(choices, out.deliver, environ=dict(os.environ))
    await queue.join()
    queue.start()
    while queue.workers < workers:  # noqa: ASYNC110  it has no event of this
        await asyncio.sleep(0.1)
    return queue, out


async def pool() -> None:
    """Two workers of each kind at 20 µs, 200 µs and 2 ms a row."""
    with cluster(WORKERS) as made:
        address = made.address
        (there, there_out), (here, here_out) = [await queue_of("work", at, WORKERS, Out()) for at in (address, None)]
        twenty = calibrated()
        for times, label, least in ((1, "20 µs", ""), (10, "200 µs", ">= 0.92"), (100, "2 ms", ">= 0.97")):
            count = min(50_000, int(SECONDS * WORKERS / (times * 20e-6)))
            rows = [item._replace(row=f'{{"steps": {times * twenty}}}') for item in items(count)]
            queues = {"here": here, "there": there}
            seconds: dict[str, list[float]] = {name: [] for name in queues}
            driver: dict[str, list[float]] = {name: [] for name in queues}
            everything: dict[str, list[float]] = {name: [] for name in queues}
            others: list[float] = []
            for queue in queues.values():
                await staged(queue, rows[: count // 4])
            for number in range(ROUNDS):
                for name in sorted(queues, reverse=number % 2 == 0):
                    with frozen(made) if name == "here" else contextlib.nullcontext():
                        before, busy = processor_seconds(address), busy_seconds()
                        took = await staged(queues[name], rows)
                        busy = busy_seconds() - busy
                    spent = {part: now - before[part] for part, now in processor_seconds(address).items()}
                    seconds[name].append(took)
                    own = ("main", "workers") if name == "here" else ("main", "driver", "cluster")
                    everything[name].append(sum(spent[part] for part in own) / count * 1e6)
                    driver[name].append(sum(spent[part] for part in own if part in ("main", "driver")) / count * 1e6)
                    both = sum(spent[part] for part in ("main", "workers", "driver", "cluster"))
                    others.append((busy - both) / took / (os.cpu_count() or 1))
            for name, where in (("here", "local pool"), ("there", "Ray")):
                say("pool", f"rows/s at {label}, {where}", count / statistics.median(seconds[name]))
                say("pool", f"all processor time, µs a row at {label}, {where}", statistics.median(everything[name]))
            say(
                "pool", f"at {label}, Ray over the local pool, by time", ratio(seconds["here"], seconds["there"]), least
            )
            say("pool", "the same by processor time", ratio(everything["here"], everything["there"]), least)
            say("pool", "share of the processors that other programs used", statistics.median(others), "<= 0.05")
            say("pool", f"driver, µs a row at {label}, local pool", statistics.median(driver["here"]))
            most = "<= 10" if times == 10 else ""
            say("pool", f"driver, µs a row at {label}, Ray", statistics.median(driver["there"]), most)
        say("pool", "failed", there_out.failed + here_out.failed, "<= 0")
        await there.close()
        await here.close()


class Timed(Out):
    """Rows return how long they took."""

    seconds = 0.0

    async def deliver(self, results: list[tuple[Any, Result]]) -> None:
        await super().deliver(results)
        self.seconds += sum(float(result.output or 0) for _, result in results if isinstance(result, Value))


async def idle() -> None:
    """Two workers of each kind that sleep for 2 ms a row."""
    with cluster(WORKERS) as made:
        there, here = [await queue_of("sleeps", at, WORKERS, Timed()) for at in (made.address, None)]
        rows = items(int(SECONDS * WORKERS / 2e-3))
        lost: dict[str, list[float]] = {"local pool": [], "Ray": []}
        for queue, _ in (here, there):
            await staged(queue, rows[: len(rows) // 4])
        for number in range(ROUNDS):
            for name, (queue, out) in (("local pool", here), ("Ray", there))[:: 1 if number % 2 else -1]:
                before = out.seconds
                took = await staged(queue, rows)
                lost[name].append(1 - (out.seconds - before) / took / WORKERS)
        await there[0].close()
        await here[0].close()
    for name, shares in lost.items():
        say("idle", f"percent of the time outside of rows of 2 ms, {name}", statistics.median(shares) * 100)
    more = statistics.median(ray - local for ray, local in zip(lost["Ray"], lost["local pool"], strict=True))
    say("idle", "percent that Ray loses more", more * 100, "<= 3")


async def feed() -> None:
    """As many actors as two cores can stand for, asleep for 200 µs a row."""
    with cluster(FED) as made:
        address = made.address
        queue, out = await queue_of("Sleeper", address, FED, Out())
        rows = items(FED * 5000)
        await staged(queue, rows)
        rates: list[float] = []
        driver: list[float] = []
        for _ in range(ROUNDS):
            before = processor_seconds(address)
            took = await staged(queue, rows)
            rates.append(len(rows) / took)
            after = processor_seconds(address)
            driver.append(sum(after[part] - before[part] for part in ("main", "driver")) / len(rows) * 1e6)
        await queue.close()
    say("feed", "failed", out.failed, "<= 0")
    rate = statistics.median(rates)
    say("feed", f"rows/s of {FED} actors that sleep 200 µs a row", rate)
    say("feed", "driver, µs a row", statistics.median(driver))
    say("feed", "processors at work", rate * 200e-6, f">= {0.9 * FED:g}")


def main() -> None:
    """The sections that are named, or all."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the cluster ends with it
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    for section in sys.argv[1:] or ["pool", "idle", "feed"]:
        asyncio.run({"pool": pool, "idle": idle, "feed": feed}[section]())


if __name__ == "__main__":
    main()
