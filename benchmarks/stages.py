"""Where the CPU of a row goes: a run that samples its own stack every millisecond of CPU that it uses.

python benchmarks/stages.py FILE ARGUMENT …      batchrun with these arguments; the samples go to FILE as JSON
"""

import json
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from measure import Bench
from mockserver import serving

ROWS = 40_000
IN_FLIGHT = 64
EVERY = 0.001
# The innermost module of the stack that is in this list has the time.
STAGES = {
    "/aiohttp/": "aiohttp: request, connection, response",
    "/multidict/": "aiohttp: request, connection, response",
    "/yarl/": "aiohttp: request, connection, response",
    "batchrun/client/": "client: deadline, reading the body",
    "batchrun/limits/": "limits: the rate limiter",
    "batchrun/journal/": "journal: passing writes on (loop)",
    "batchrun/replies/": "replies: parsing, usage, flags",
    "batchrun/prompts/": "rows and prompts: parsing, rendering",
    "batchrun/rows/": "rows and prompts: parsing, rendering",
    "batchrun/retry/": "engine: queue, verdicts, workers",
    "batchrun/engine/": "engine: queue, verdicts, workers",
    "batchrun/progress.py": "progress and reporters",
    "batchrun/report/": "progress and reporters",
    "/asyncio/": "asyncio: the event loop and its socket calls",
    "selectors.py": "asyncio: the event loop and its socket calls",
}
OUTSIDE = "start-up and end"


class Sampler:
    """Takes the stack of the main thread, weighed by the CPU it used since the last look."""

    def __init__(self) -> None:
        self.stages: Counter[str] = Counter()
        self.functions: Counter[str] = Counter()
        self.threads: dict[str, float] = {}
        self._used = time.thread_time()
        self._looks = 0

    def __call__(self, _: int, frame: FrameType | None) -> None:
        used = time.thread_time()
        weight, self._used = used - self._used, used
        self._looks += 1
        if self._looks % 20 == 0:
            self.look_at_threads()
        files: list[str] = []
        while frame is not None:
            files.append(frame.f_code.co_filename)
            if len(files) == 1:
                self.functions[
                    f"{frame.f_code.co_filename.rpartition('site-packages/')[2]}:{frame.f_code.co_qualname}"
                ] += weight
            frame = frame.f_back
        self.stages[stage_of(files)] += weight

    def look_at_threads(self) -> None:
        """The CPU of every other thread so far."""
        for thread in threading.enumerate():
            if thread.ident is not None and thread is not threading.main_thread():
                self.threads[thread.name] = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def stage_of(files: list[str]) -> str:
    """The stage of a stack, innermost file first."""
    if not any("/asyncio/" in file for file in files):
        return OUTSIDE
    return next((stage for file in files for part, stage in STAGES.items() if part in file), OUTSIDE)


def sampled(target: Path, arguments: list[str]) -> int:
    """Run batchrun and write what was seen."""
    from batchrun.cli import main  # noqa: PLC0415  only the child needs it

    sampler = Sampler()
    signal.signal(signal.SIGPROF, sampler)
    signal.siginterrupt(signal.SIGPROF, False)
    signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
    sys.argv[1:] = arguments
    code: Any = 0
    try:
        code = main()
    except SystemExit as ended:
        code = ended.code
    signal.setitimer(signal.ITIMER_PROF, 0)
    found = {"stages": sampler.stages, "threads": sampler.threads, "functions": dict(sampler.functions.most_common(60))}
    target.write_text(json.dumps(found))
    return int(code or 0)


def run(bench: Bench) -> None:
    """The table of stages, in microseconds of CPU per row."""
    with serving(bench.program, cpu=bench.server_cpu) as mock:
        command = bench.command(mock.base_url, ROWS, "--concurrency", str(IN_FLIGHT), "--concurrency-fixed")
        samples = bench.folder / "samples.json"
        bench.run([command[0], __file__, samples, *command[3:]], pinned=True)
    found = json.loads(samples.read_text())
    stages: dict[str, float] = found["stages"]
    stages["journal: the writer's thread"] = found["threads"].get("journal", 0.0)
    stages["intake, fetching and output: other threads"] = sum(v for k, v in found["threads"].items() if k != "journal")
    whole = sum(stages.values())
    for name, seconds in sorted(stages.items(), key=lambda item: -item[1]):
        bench.table.row(
            "2",
            f"{ROWS:,} rows, {IN_FLIGHT} in flight: {name}",
            f"{seconds / ROWS * 1e6:.0f} µs a row, {seconds / whole:.0%}",
        )


if __name__ == "__main__":
    sys.exit(sampled(Path(sys.argv[1]), sys.argv[2:]))
