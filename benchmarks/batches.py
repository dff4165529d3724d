"""A run by batches: how fast rows become files of requests, and results become rows of the output; memory.

    python benchmarks/batches.py [ROWS]

The provider is a process of its own that keeps what is uploaded and has the same reply for each line, made while nobody
waits for it. `--batch-detach` ends when all is submitted; `resume` takes the results in and writes the output. Each is
processor and wall time less that of 1,000 rows, from the command to its end: the intake of the input is part of the
first, the export of the output of the second.

What is asked for are two of the lines behind that, of `batch_stages`, which has no network, no input and no output: *rendered and
hashed* is from pending rows in the journal to the bytes of request files and their SHA-256, on the disk; *taken in* from
downloaded files to replies and outcomes, committed. The commit of tickets and attempts has its own line, and so has each stage.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import batch_stages
from aiohttp import web
from measure import PROMPT, text

SMALL = 1_000
RATE, MEMORY = 60_000, 150
STAGED = 100_000
"""Rows that the stages are measured with, at most."""
RESPONSE = json.dumps({"status_code": 200, "request_id": "r", "body": batch_stages.REPLY})
WAITING = 7
DONE = "done"
"""The file whose presence says that batches have ended."""
_ID = re.compile(rb'"custom_id":\s*"([^"]+)"')


class Used(NamedTuple):
    """Of a command: processor and wall time in seconds, the most memory in MB."""

    cpu: float
    wall: float
    memory: float


def serve(folder: str) -> None:
    """Files and batches of OpenAI's shape; says its port and serves until it is killed."""
    place, batches = Path(folder), dict[str, dict[str, Any]]()

    async def upload(request: web.Request) -> web.Response:
        async for part in await request.multipart():
            if part.name == "file":
                name = f"file-{time.monotonic_ns()}"
                with (place / name).open("wb") as file:
                    while piece := await part.read_chunk(1 << 18):
                        file.write(piece)
        return web.json_response({"id": name, "object": "file", "status": "processed"})

    async def create(request: web.Request) -> web.Response:
        asked = await request.json()
        name, rows = asked["input_file_id"], 0
        with (place / name).open("rb") as lines, (place / f"{name}-out").open("w") as out:
            for line in lines:
                rows += 1
                found = _ID.search(line)
                assert found is not None
                out.write(f'{{"id": "x", "custom_id": "{found[1].decode()}", "response": {RESPONSE}, "error": null}}\n')
        batch = {
            "id": f"batch-{len(batches)}",
            "object": "batch",
            "status": "completed",
            "created_at": int(time.time()),
            "input_file_id": name,
            "output_file_id": f"{name}-out",
            "error_file_id": None,
            "request_counts": {"total": rows, "completed": rows, "failed": 0},
            "metadata": asked.get("metadata"),
        }
        batches[batch["id"]] = batch
        return web.json_response({**batch, "status": "validating", "output_file_id": None})

    def now(batch: dict[str, Any]) -> dict[str, Any]:
        """A batch ends when all rows are submitted: else a long run would take the first ones in meanwhile."""
        return batch if (place / DONE).exists() else {**batch, "status": "in_progress", "output_file_id": None}

    async def listed(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": list(map(now, batches.values())), "has_more": False})

    async def retrieve(request: web.Request) -> web.Response:
        return web.json_response(now(batches[request.match_info["name"]]))

    async def content(request: web.Request) -> web.FileResponse:
        return web.FileResponse(place / request.match_info["name"])

    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/v1/files", upload)
    app.router.add_get("/v1/files/{name}/content", content)
    app.router.add_post("/v1/batches", create)
    app.router.add_get("/v1/batches", listed)
    app.router.add_get("/v1/batches/{name}", retrieve)

    async def main() -> None:
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())


@contextmanager
def provider(folder: Path) -> Generator[str]:
    """The server in a process of its own."""
    with subprocess.Popen([sys.executable, __file__, "serve", folder], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.kill()


def run(folder: Path, *args: str, code: int = 0) -> Used:
    """A command of batchrun. Raises RuntimeError where it ends otherwise."""
    environment = os.environ | {"OPENAI_API_KEY": "k", "XDG_CONFIG_HOME": "/nonexistent"}
    began = time.monotonic()
    with (folder / "said.txt").open("w+") as said:
        command = [sys.executable, "-m", "batchrun", *args]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != code:
            said.seek(0)
            raise RuntimeError(f"{command}: exit {process.returncode}\n{said.read()[-2000:]}")
    return Used(used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024)


def both(rows: int, size: int = 0) -> tuple[Used, Used, list[tuple[int, int]]]:
    """Submitting so many rows, whose texts have `size` characters or a usual length, and taking their results in; lines and
    bytes of each file of requests."""
    with tempfile.TemporaryDirectory(prefix="batches-") as name:
        folder = Path(name)
        (folder / "files").mkdir()
        (folder / "prompt.txt").write_text(PROMPT)
        with (folder / "rows.jsonl").open("w") as out:
            out.writelines(json.dumps({"id": f"row-{n}", "text": text(n).ljust(size, "x")}) + "\n" for n in range(rows))
        with provider(folder / "files") as base_url:
            named = ("-i", "rows.jsonl", "-p", "prompt.txt", "-m", "mock", "--base-url", base_url, "-o", "out.jsonl")
            submitted = run(folder, *named, "--batch", "--batch-detach", "--batch-first", "50000", code=WAITING)
            (folder / "files" / DONE).touch()
            taken = run(folder, "resume", "last", "--batch-detach")
        with (folder / "out.jsonl").open("rb") as lines:
            assert sum(1 for _ in lines) == rows
        sent = [path for path in (folder / "files").iterdir() if not path.name.endswith(("-out", DONE))]
        return submitted, taken, [(sum(1 for _ in path.open("rb")), path.stat().st_size) for path in sent]


def large() -> bool:
    """Whether 60,000 rows of 5 kB, 300 MB together, go into batches within the usual limits, in little memory."""
    submitted, taken, files = both(60_000, 5_000)
    memory = max(submitted.memory, taken.memory)
    good = memory <= MEMORY and all(lines <= 50_000 and size <= 200_000_000 for lines, size in files)
    print(
        f"60,000 rows of 5 kB: {len(files)} batches of at most {max(lines for lines, _ in files):,} lines and "
        f"{max(size for _, size in files) / 1e6:.0f} MB; {memory:.0f} MB ({MEMORY} asked): {'yes' if good else 'no'}",
        flush=True,
    )
    return good


def main(rows: int) -> int:
    missed = 0
    many, few = both(rows), both(SMALL)
    for what, most, least in zip(("submitted", "taken in"), many[:2], few[:2], strict=True):
        cpu, wall = ((rows - SMALL) / max(1e-9, most[at] - least[at]) for at in (0, 1))
        good = most.memory <= MEMORY
        missed += not good
        print(
            f"{rows:,} rows {what}, the whole command: {wall:,.0f} rows/s, {cpu:,.0f} per second of processor time; "
            f"{most.memory:.0f} MB ({MEMORY} asked): {'yes' if good else 'no'}",
            flush=True,
        )
    missed += not large()
    found = batch_stages.main(min(rows, STAGED))
    for what in ("rendered and hashed", "taken in"):
        cpu, wall = (1e6 / each for each in found[what])
        missed += wall < RATE
        print(
            f"{what}: {wall:,.0f} rows/s, {cpu:,.0f} per second of processor time ({RATE:,} asked): "
            f"{'yes' if wall >= RATE else 'no'}"
        )
    return 1 if missed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
    else:
        sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 1_000_000))
