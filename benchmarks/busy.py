"""A server of a few slots, and one that is restarted, under this checkout and another in alternating rounds.

    python benchmarks/busy.py [--than FOLDER] [--rounds N] [CASE …]

A server serves four requests at a time, half a second each; what comes on top waits, or is refused at once with the
status of the case, without a wait; with `gauges` it waits, and the server says so in its metrics. `die` and `hang` are a server of 64 slots whose process goes after 300 replies: it
accepts no more connections and answers those that are open with 500, or not at all; three seconds later another
process serves the same port. `fleet` is a pool of four servers of 8, 16, 32 and 64 slots; in `fleet-killed` that of 32 is
killed twice, after 2,000 and 4,000 replies of all, and is back three seconds later. `×` is the time from the first call
to the last reply over the least that the slots allow; "most" counts what hangs as well.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

HERE = Path(__file__).parent
REPLY = json.dumps({
    "id": "x", "object": "chat.completion", "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ok"}}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
}).encode()  # fmt: skip
GONE_FOR = 3.0
LONGEST = "90s"
FLEET = (8, 16, 32, 64)
KILLED, KILLS = 32, (2000, 4000)
CASES = ("queue", "gauges", "429", "503", "529", "408", "die", "hang", "fleet", "fleet-killed")


@dataclass
class Server:
    """One case. `gone` is whether the first process has gone; connections know which process they belong to."""

    case: str
    slots: int
    seconds: float
    calls: int = 0
    replies: int = 0
    most: int = 0
    first: float = 0.0
    last: float = 0.0
    gone: bool = False
    _busy: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._free = asyncio.Semaphore(self.slots)
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port: int = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        mine = self.gone  # of the second process
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if head.startswith(b"get /metrics"):
                    status, body = (200, self._gauges()) if self.case == "gauges" else (404, b"")
                    writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
                    await writer.drain()
                    continue
                await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
                status, body = await self._answer(of_second=mine)
                writer.write(b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n" % status)
                writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    def _gauges(self) -> bytes:
        waiting = max(0, self._busy - self.slots)
        return b"vllm:num_requests_running %d\nvllm:num_requests_waiting %d\n" % (self._busy - waiting, waiting)

    async def _answer(self, *, of_second: bool) -> tuple[int, bytes]:
        self.calls += 1
        self.first = self.first or time.monotonic()
        self._busy += 1
        self.most = max(self.most, self._busy)
        try:
            if self.gone and not of_second:
                return await self._dead()
            if self.case.isdigit() and self._free.locked():
                return int(self.case), b'{"error": {"message": "busy"}}'
            async with self._free:
                await asyncio.sleep(self.seconds)
            if self.gone and not of_second:
                return await self._dead()
            self._replied()
            return 200, REPLY
        finally:
            self._busy -= 1

    async def _dead(self) -> tuple[int, bytes]:
        if self.case == "hang":
            await asyncio.get_running_loop().create_future()
        return 500, b'{"error": {"message": "engine is gone"}}'

    def _replied(self) -> None:
        self.replies += 1
        self.last = time.monotonic()
        if self.case in ("die", "hang") and self.replies == 300:
            self.gone = True
            self._listener.close()
            task = asyncio.get_running_loop().create_task(self._come_back())
            self._tasks.add(task)

    async def _come_back(self) -> None:
        await asyncio.sleep(GONE_FOR)
        self._free = asyncio.Semaphore(self.slots)
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)

    async def kill(self) -> None:
        """What is in flight is lost with its connections; another process serves the same port later."""
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._come_back()


class Load(NamedTuple):
    """Rows for servers of so many slots, which take so many seconds; how long the run has to take."""

    rows: int
    slots: tuple[int, ...]
    seconds: float
    ideal: float


def load_of(case: str) -> Load:
    if case.startswith("fleet"):
        rows, seconds = 6000, 0.5
        lost = KILLED * GONE_FOR * len(KILLS) if case == "fleet-killed" else 0.0
        return Load(rows, FLEET, seconds, (rows * seconds + lost) / sum(FLEET))
    if case in ("die", "hang"):
        return Load(1000, (64,), 0.2, 1000 * 0.2 / 64 + GONE_FOR)
    return Load(300, (4,), 0.5, 300 * 0.5 / 4)


async def measured(case: str, checkout: Path) -> str:
    """One run of one case: what a cell of the table says."""
    load = load_of(case)
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        texts = (json.dumps({"id": str(number), "text": f"row {number}"}) for number in range(load.rows))
        (folder / "rows.jsonl").write_text("\n".join(texts))
        (folder / "say.txt").write_text("Say: {{ text }}")
        kind = "queue" if len(load.slots) > 1 else case
        servers = [await stack.enter_async_context(Server(kind, slots, load.seconds)) for slots in load.slots]
        urls = [word for server in servers for word in ("--base-url", f"http://127.0.0.1:{server.port}/v1")]
        command = [
            *(sys.executable, "-P", "-m", "batchrun", "run", "-i", "rows.jsonl", "-p", "say.txt", "-m", "m"),
            *(*urls, "-o", "out.jsonl", "--no-progress", "--stop-after", LONGEST, "--drain", "2s"),
        ]
        environ = {**os.environ, "OPENAI_API_KEY": "sk-none", "PYTHONPATH": str(checkout)}
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env=environ, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        kills = asyncio.create_task(_kill(servers)) if case == "fleet-killed" else None
        _, said = await process.communicate()
        if kills is not None:
            kills.cancel()
    lines = said.decode().splitlines()
    done = next((line.partition(" done")[0].split()[-1] for line in reversed(lines) if " done + " in line), "0")
    downs = sum("is down" in line for line in lines)
    took = max(server.last for server in servers) - min(server.first for server in servers)
    ratio = f"{took / load.ideal:.2f} ×" if done.replace(",", "") == str(load.rows) else "-"
    calls, most = sum(server.calls for server in servers), "+".join(str(server.most) for server in servers)
    return f"{done} of {load.rows}, {ratio}, {calls} calls, most {most}, down {downs}, exit {process.returncode}"


async def _kill(servers: list[Server]) -> None:
    (one,) = (server for server in servers if server.slots == KILLED)
    for replies in KILLS:
        while sum(server.replies for server in servers) < replies:  # noqa: ASYNC110  a count of several
            await asyncio.sleep(0.05)
        await one.kill()


def main() -> None:
    """Measure the chosen cases, all by default, and print the table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--than", type=Path)
    words.add_argument("--rounds", type=int, default=1)
    words.add_argument("cases", nargs="*", metavar="CASE", choices=[*CASES, []])
    asked = words.parse_args()
    builds = [HERE.parent, *([asked.than.resolve()] if asked.than else [])]
    print(
        "| case | build | rows done, time over ideal, calls, most at once, messages, exit |\n|---|---|---|", flush=True
    )
    for number in range(asked.rounds):
        for case in asked.cases or CASES:
            for build in builds if number % 2 == 0 else reversed(builds):
                name = "this" if build == HERE.parent else str(build)
                print(f"| {case} | {name} | {asyncio.run(measured(case, build))} |", flush=True)


if __name__ == "__main__":
    main()
