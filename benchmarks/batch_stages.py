"""Where the time of a run by batches goes: the engine's two halves in this process, and their stages one by one.

    python benchmarks/batch_stages.py [ROWS]

*Rendered and hashed*: from pending rows in the journal to bytes of request files with their SHA-256, on the disk; without the
commit of tickets and attempts, which has a line of its own. *Taken in*: from the downloaded files to replies, ends of attempts,
outcomes and totals, committed; without the download's own check and the output file. The process that reads large results counts, its
start included. Both are of a run with a provider in this process
that answers at once: no network, no input, no output. Stages are the same functions called for the same rows, one stage after the other; what
the halves take beyond their sum is the engine between them. Figures are microseconds a row, of processor time
(of all threads, SQLite's included) and of wall time. The floor is the same without the engine: bare SQLite with the same bytes in the same
tables as durably, and one parse of the same lines by orjson.
"""

import asyncio
import gc
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from measure import PROMPT, text

from batchrun.engine.batches import Batching
from batchrun.engine.budget_guard import BATCH, BudgetGuard
from batchrun.engine.chunks import BatchLines, Chunk
from batchrun.engine.lane import Member
from batchrun.engine.result_reader import ReplyReader
from batchrun.engine.row_files import restored
from batchrun.engine.run import Run
from batchrun.engine.snapshots import rows_answered
from batchrun.engine.start import renderer_of
from batchrun.journal import Answers, IntakeRow, Journal, Lease, Meta, Sum, columns
from batchrun.lanes.batch import BatchExecutor
from batchrun.lanes.results import Results, count_lines
from batchrun.lanes.shapes import wire_id
from batchrun.lanes.vendors import vendor
from batchrun.models import Endpoint, Exchange, Kind, Ticket
from batchrun.plan import Plan, plan_to_json
from batchrun.plan.rendering import prompt_of
from batchrun.progress import Fold

RUN = "20261129-053000-abcd"
REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "mock",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "A sentence."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 70, "completion_tokens": 3, "total_tokens": 73},
}
LINE = (
    '{"id": "x", "custom_id": "%s", "response": {"status_code": 200, "request_id": "r", "body": %s}, "error": null}\n'
)
PLAN = Plan(
    kind=Kind.ROWS,
    input="rows.jsonl",
    input_format="jsonl",
    id_column="id",
    prompt_name="p",
    prompt_path="p.txt",
    prompt_source=PROMPT,
    endpoint=Endpoint.CHAT,
    model="gpt-4.1-mini",
    output="out.jsonl",
    output_format="jsonl",
    output_column="output",
    profile="openai",
    base_url="https://api.openai.com/v1",
    dialect="openai",
    api_key_env=None,
    batch=True,
    batch_first=50_000,
)


BEGUN = """INSERT INTO attempts (row, number, session, began, cost, charged_tokens, ticket, lane)
VALUES (?, 1, 1, ?, 1000, 400, 1, 1)"""
REPLIED = "INSERT INTO replies VALUES (?, ?, 1, ?)"
ENDED = """UPDATE attempts SET ended = ?, seconds = 0, status = 200, input_tokens = 70, output_tokens = 3, cached_tokens = 0,
cost = 1000, reply = ?, tier = 'batch' WHERE row = ? AND number = 1"""
OUTCOME = """INSERT INTO outcomes (row, finished, attempts, reply, seconds, input_tokens, output_tokens, state, permanent)
VALUES (?, ?, 1, ?, 0, 70, 3, 'done', 1)"""


class Took(NamedTuple):
    """Microseconds a row: of processor time, and of wall time."""

    cpu: float
    wall: float


class Clock:
    """Adds up what stages take for so many rows."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.found: dict[str, Took] = {}

    @contextmanager
    def taking(self, stage: str) -> Generator[None]:
        """Add what this takes."""
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.add(stage, time.process_time() - cpu, time.perf_counter() - wall)

    def add(self, stage: str, cpu: float, wall: float) -> None:
        """Add these seconds."""
        each = 1e6 / self._rows
        before = self.found.get(stage, Took(0.0, 0.0))
        self.found[stage] = Took(before.cpu + cpu * each, before.wall + wall * each)


def cpu_of_all() -> float:
    """Seconds of processor time of this process and of children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


class Provider:
    """Batches that are done at once; nothing is uploaded before `open` is set."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self._made = 0

    async def upload(self, path: str, fields: Mapping[str, str], file: Path, name: str) -> Exchange:
        await self.open.wait()
        return self._said({"id": f"file-{file.name.partition('.')[0]}"})

    async def call(self, method: str, path: str, body: Any = None, *, headers: Any = None) -> Exchange:
        if method == "POST":
            return self._said(self._batch(body["input_file_id"]) | {"status": "validating"})
        if path.startswith("batches?"):
            return self._said({"data": []})
        return self._said(self._batch(path.rpartition("/")[2].removeprefix("batch-")))

    async def send_file(self, path: str, file: Path, headers: Mapping[str, str]) -> Exchange:
        raise NotImplementedError

    async def download(self, path: str, to: Path, *, headers: Any = None) -> Exchange:
        return self._said({})

    @staticmethod
    def _batch(file: str) -> dict[str, Any]:
        return {"id": f"batch-{file}", "status": "completed", "input_file_id": file, "output_file_id": "out"}

    @staticmethod
    def _said(body: dict[str, Any]) -> Exchange:
        return Exchange(200, {}, json.dumps(body).encode(), 0.0, 0.0, None, "", True)


def journal_of(folder: Path, rows: int) -> Journal:
    """A journal with so many pending rows."""
    path = folder / f"{RUN}.db"
    journal = Journal.create(
        path, Meta(run=RUN, created=0.0, plan=plan_to_json(PLAN), prompt=PROMPT, simulated=False, output="out.jsonl")
    )
    texts = (json.dumps({"id": f"row-{n}", "text": text(n)}) for n in range(rows))
    journal.ingest(IntakeRow(n, f"row-{n}", f"hash-{n}", row) for n, row in enumerate(texts))
    return journal


def answered(requests: Path, output: Path) -> None:
    """The results of a file of requests."""
    body = json.dumps(REPLY)
    with requests.open("rb") as lines, output.open("w") as out:
        for line in lines:
            out.write(LINE % (orjson.loads(line)["custom_id"], body))


async def engine(folder: Path, rows: int, clock: Clock) -> None:
    """A whole run, its two halves apart."""
    journal, provider, fold = journal_of(folder, rows), Provider(), Fold()
    batches = folder / "batches"
    executor = BatchExecutor(vendor("openai"), provider, run=RUN, folder=batches, scale=1e-3)
    lane = journal.lane(PLAN.base_url, None, PLAN.model)
    journal.start()
    ended = [0.0, 0.0]
    planned, left, in_batches = [0.0, 0.0], [rows], asyncio.Event()
    plan = journal.plan

    def timed(ticket: Ticket, leases: Any) -> Any:
        began = time.process_time(), time.perf_counter()
        done = plan(ticket, leases)

        def over(_: Any) -> None:
            planned[0] += time.process_time() - began[0]
            planned[1] += time.perf_counter() - began[1]
            left[0] -= len(leases)
            if not left[0]:
                in_batches.set()

        done.add_done_callback(over)
        return done

    journal.plan = timed  # type: ignore[method-assign]
    try:
        batching = Batching(executor=executor, run=RUN, lane=lane.id, folder=batches, first=PLAN.batch_first)
        run = Run(
            PLAN,
            journal,
            [Member(PLAN, _Nobody(), lane)],
            renderer_of(PLAN, prompt_of(PLAN)),
            checker=None,
            emit=fold,
            batching=batching,
        )
        began = time.process_time(), time.perf_counter()
        running = asyncio.ensure_future(run.run())
        await asyncio.wait([running, asyncio.ensure_future(in_batches.wait())], return_when=asyncio.FIRST_COMPLETED)
        cpu, wall = time.process_time() - began[0], time.perf_counter() - began[1]
        clock.add("rendered and hashed", cpu - planned[0], wall - planned[1])
        clock.add("tickets and attempts committed", *planned)
        for ticket in journal.tickets:
            answered(executor.path(ticket, "requests"), executor.path(ticket, "output"))
            with clock.taking("a download is checked"):
                count_lines(executor.path(ticket, "output"))
        checked = clock.found["a download is checked"]
        began = cpu_of_all(), time.perf_counter()
        provider.open.set()
        ending = await running
        ended = [cpu_of_all() - began[0], time.perf_counter() - began[1]]
        clock.add("taken in", ended[0] - checked.cpu * rows / 1e6, ended[1] - checked.wall * rows / 1e6)
        assert ending.exit_code == 0, ending
        assert journal.totals.done == rows
        assert fold.snapshot(0.0).done == rows
    finally:
        journal.close(0)


class _Nobody:
    """In the place of the client: nothing is sent live."""

    def describe(self) -> str:
        return "nobody"

    @staticmethod
    def mask(said: str) -> str:
        return said


async def stages(folder: Path, rows: int, out: Clock, back: Clock) -> None:
    """The same functions, one stage after the other, a page of rows at a time."""
    journal, model = journal_of(folder, rows), PLAN.model or ""
    lane = journal.lane(PLAN.base_url, None, model)
    renderer, lines = renderer_of(PLAN, prompt_of(PLAN)), BatchLines(PLAN)
    executor = BatchExecutor(vendor("openai"), None, run=RUN, folder=folder / "batches")
    guard = BudgetGuard(PLAN, journal, expected=lambda: 1000)
    journal.start()
    chunk, after = Chunk(folder / "batches", 1, executor.shape, Endpoint.CHAT, model), 0
    while after < rows:
        with out.taking("pending rows read"):
            page = journal.pending(after, 2000)
        after = page[-1].position
        with out.taking("rows parsed and rendered"):
            made = [renderer.render(restored(row, folder)) for row in page]
        with out.taking("reserved"):
            held = guard.all_now(made)
        with out.taking("spelled, as a line"):
            named = [wire_id(RUN, row.seq, 1) for row in page]
            sent = [executor.shape.line(*each) for each in zip(named, map(lines.line, made), strict=True)]
        leases = [Lease(row.seq, 1, *each) for row, each in zip(page, held, strict=True)]
        with out.taking("hashed and written"):
            for line, request, lease in zip(sent, made, leases, strict=True):
                chunk.add(line, request.weight, 70.0, lease)
    ticket = Ticket(id=1, lane=lane.id, state="fetched", chunk=1, rows=rows, endpoint=Endpoint.CHAT, model=model)
    with out.taking("hashed and written"):
        chunk.finish(executor.path(ticket, "requests"))
    with out.taking("tickets and attempts committed"):
        await journal.plan(ticket, chunk.leases)
    guard.hand_over(chunk.leases)
    answered(executor.path(ticket, "requests"), executor.path(ticket, "output"))
    fold = Fold()
    alike = made[0].endpoint, made[0].output_limit, 1
    reader = ReplyReader(*alike, None, *guard.batch_rates(model))
    pages = Results([executor.path(ticket, "output")], executor.shape, RUN, reader)
    while True:
        with back.taking("lines parsed, judged and priced"):
            page = pages.page()
            if page is None:
                break
            answers = columns(Answers, page.read)
        with back.taking("their rows found"):
            leased = journal.leased(1, answers.rows)
        with back.taking("charged, summed"):
            answers = guard.settle_all(leased, answers)
            found = Sum.of(answers)
        with back.taking("written and committed"):
            await journal.answer(answers, found, sum(filter(None, leased.costs)), BATCH)
        with back.taking("told"):
            fold(rows_answered(answers, found, 0.0, partial(journal.places, answers.rows)))
    journal.close(0)


def floor(folder: Path, rows: int, clock: Clock) -> None:
    """Bare SQLite and orjson."""
    body, now = json.dumps(REPLY), time.time()
    line = (LINE % (wire_id(RUN, 1, 1), body)).encode()
    with closing(journal_of(folder, rows)) as journal:
        path = journal.path
    numbers = range(1, rows + 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        with clock.taking("rows read by SQLite"):
            connection.execute("SELECT seq, position, line, key, text, files FROM rows ORDER BY position").fetchall()
        with clock.taking("lines parsed by orjson"):
            for _ in numbers:
                orjson.loads(line)
        for stage, statement, values in (
            ("attempts written by SQLite", BEGUN, [(n, now) for n in numbers]),
            ("replies written by SQLite", REPLIED, [(n, n, body) for n in numbers]),
            ("attempts ended by SQLite", ENDED, [(now, n, n) for n in numbers]),
            ("outcomes written by SQLite", OUTCOME, [(n, now, n) for n in numbers]),
        ):
            with clock.taking(stage):
                for start in range(0, rows, 1000):
                    connection.execute("BEGIN IMMEDIATE")
                    connection.executemany(statement, values[start : start + 1000])
                    connection.execute("COMMIT")


def show(title: str, clock: Clock) -> None:
    """The stages of a half as a table."""
    print(
        f"\n| {title} | processor, µs a row | wall, µs a row | rows/s of processor time | rows/s |\n|---|---|---|---|---|"
    )
    for stage, (cpu, wall) in clock.found.items():
        print(f"| {stage} | {cpu:.2f} | {wall:.2f} | {1e6 / max(cpu, 1e-3):,.0f} | {1e6 / max(wall, 1e-3):,.0f} |")


def main(rows: int) -> dict[str, Took]:
    """Print all tables; what the two halves took."""
    gc.set_threshold(20_000, 20, 100)  # as the command does
    whole, out, back, bare = Clock(rows), Clock(rows), Clock(rows), Clock(rows)
    with tempfile.TemporaryDirectory(prefix="stages-") as name:
        for part in ("engine", "stages", "floor"):
            (Path(name) / part).mkdir()
        asyncio.run(engine(Path(name) / "engine", rows, whole))
        asyncio.run(stages(Path(name) / "stages", rows, out, back))
        floor(Path(name) / "floor", rows, bare)
    show(f"the engine, {rows:,} rows", whole)
    show("stages of rendered and hashed", out)
    show("stages of taken in", back)
    show("floor", bare)
    return whole.found


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 50_000)
