"""Post-processing on a Ray cluster beside the local pool, on the same work and the same cores.

    .venv/bin/python benchmarks/cluster.py [pool feed]

`pool`: two workers of each kind do the same work on the same 1 kB replies, in turns; each figure is the median of the rounds'
ratios, which a busy machine hardly moves. All are up and warm before the clock runs, and those whose turn it is not are idle.
Beside the time stands all processor time, Ray's own processes included: what bounds two workers on two cores. The driver's
processor time is that of this process and of the one that is Ray's driver, without the workers'. `feed`: how many processors one driver keeps at work, shown with actors that sleep as long as
they would compute, so that two cores can stand for twenty. The cluster is started here, on loopback, and ended.
"""

import asyncio
import contextlib
import gc
import os
import signal
import statistics
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "reliability"))

from post import Out, calibrated, items, ratio, say, staged
from ray_cluster import cluster

from batchrun.post import Choices, PostQueue

ROUNDS = 7
WORKERS = 2
SECONDS = 6.0
"""Seconds that a turn takes two workers, so that the start and the end of a turn weigh as little as in a run."""
FED = 20
FUNCTIONS = Path(__file__).with_name("cluster_work.py")


def processor_seconds(address: str) -> tuple[float, float]:
    """Processor time of the driver, which is this process and its child that is Ray's driver, and of all: with this process's
    other children, and the processes of the cluster at the address."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    driver, roots = {os.getpid()}, {os.getpid()}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            command = (entry / "cmdline").read_bytes()
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            pid = int(entry.name)
            parents[pid] = int(fields[1])
            seconds[pid] = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
            if b"batchrun.cluster.ray_main" in command and parents[pid] == os.getpid():
                driver.add(pid)
            if address.rpartition(":")[2].encode() in command:
                roots.add(pid)
    seconds[os.getpid()] = time.process_time()

    def counts(pid: int) -> bool:
        return pid in roots or (pid in parents and counts(parents[pid]))

    return sum(seconds[pid] for pid in driver), sum(seconds[pid] for pid in seconds if counts(pid))


async def queue_of(name: str, address: str | None, workers: int) -> tuple[PostQueue, Out]:
    """A queue with one of the functions, with all its workers up, and where its results go."""
    out = Out()
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
        (there, there_out), (here, here_out) = [await queue_of("work", at, WORKERS) for at in (address, None)]
        twenty = calibrated()
        for times, label, least in ((1, "20 µs", ""), (10, "200 µs", ">= 0.92"), (100, "2 ms", ">= 0.97")):
            count = min(50_000, int(SECONDS * WORKERS / (times * 20e-6)))
            rows = [item._replace(row=f'{{"steps": {times * twenty}}}') for item in items(count)]
            names = ("here", "there")
            seconds: dict[str, list[float]] = {name: [] for name in names}
            driver: dict[str, list[float]] = {name: [] for name in names}
            everything: dict[str, list[float]] = {name: [] for name in names}
            for queue in (here, there):
                await staged(queue, rows[: count // 4])
            for number in range(ROUNDS):
                for name, queue in (("here", here), ("there", there))[:: 1 if number % 2 else -1]:
                    before = processor_seconds(address)
                    seconds[name].append(await staged(queue, rows))
                    after = processor_seconds(address)
                    driver[name].append((after[0] - before[0]) / count * 1e6)
                    everything[name].append((after[1] - before[1]) / count * 1e6)
            for name, where in (("here", "local pool"), ("there", "Ray")):
                say("pool", f"rows/s at {label}, {where}", count / statistics.median(seconds[name]))
                say("pool", f"all processor time, µs a row at {label}, {where}", statistics.median(everything[name]))
            say(
                "pool", f"at {label}, Ray over the local pool, by time", ratio(seconds["here"], seconds["there"]), least
            )
            say("pool", "the same by processor time", ratio(everything["here"], everything["there"]), least)
            say("pool", f"driver, µs a row at {label}, local pool", statistics.median(driver["here"]))
            most = "<= 10" if times == 10 else ""
            say("pool", f"driver, µs a row at {label}, Ray", statistics.median(driver["there"]), most)
        say("pool", "failed", there_out.failed + here_out.failed, "<= 0")
        await there.close()
        await here.close()


async def feed() -> None:
    """As many actors as two cores can stand for, asleep for 200 µs a row."""
    with cluster(FED) as made:
        address = made.address
        queue, out = await queue_of("Sleeper", address, FED)
        rows = items(FED * 5000)
        await staged(queue, rows)
        rates: list[float] = []
        driver: list[float] = []
        for _ in range(ROUNDS):
            began = processor_seconds(address)[0]
            took = await staged(queue, rows)
            rates.append(len(rows) / took)
            driver.append((processor_seconds(address)[0] - began) / len(rows) * 1e6)
        await queue.close()
    say("feed", "failed", out.failed, "<= 0")
    rate = statistics.median(rates)
    say("feed", f"rows/s of {FED} actors that sleep 200 µs a row", rate)
    say("feed", "driver, µs a row", statistics.median(driver))
    say("feed", "processors at work", rate * 200e-6, f">= {0.9 * FED:g}")


def main() -> None:
    """The sections that are named, or both."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the cluster ends with it
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    for section in sys.argv[1:] or ["pool", "feed"]:
        asyncio.run({"pool": pool, "feed": feed}[section]())


if __name__ == "__main__":
    main()
