"""Runs that go by batches, against the simulated provider: both on the test's own loop, so that a night takes no time.

`Night` is a `Stage` with the provider's address; each `go_on` is a session with a client of its own, as after a kill.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from engine import Stage, Story

from batchrun.client import Client
from batchrun.engine.batch_mode import BatchMode
from batchrun.engine.batches import Batching
from batchrun.engine.run import Run
from batchrun.events import Event
from batchrun.journal import Reader
from batchrun.lanes.batch import BatchExecutor
from batchrun.lanes.shapes import SHAPES
from batchrun.lanes.vendors import vendor
from batchrun.models import Ticket
from batchrun.sim import Server, Settings, parse_fault, running


def settings(*faults: str, **values: Any) -> Settings:
    """Settings of the provider, with faults as they are typed."""
    return Settings(faults=tuple(parse_fault(fault) for fault in faults), **values)


def clock() -> Callable[[], float]:
    """Unix seconds by the loop's own time."""
    loop = asyncio.get_running_loop()
    start = time.time() - loop.time()
    return lambda: start + loop.time()


class Night(Stage):
    """A journal whose rows go to that server by batches."""

    def __init__(self, directory: Path, server: Server, rows: int = 30, **plan: Any) -> None:
        plan = {"batch": True, "batch_first": 100, "batch_min": 1, "batch_tail": "batch", **plan}
        super().__init__(directory, rows, base_url=server.base_url, **plan)
        self.server = server
        self.run = "r1"
        self.clock = clock()

    async def go_on(
        self,
        *,
        key: str = "one",
        lines: int | None = None,
        own: dict[str, Any] | None = None,
        batch_mode: BatchMode = BatchMode.RESUME,
        during: Callable[[Run], Awaitable[None]] | None = None,
        hear: Callable[[Event, Run], None] | None = None,
        **plan: Any,
    ) -> Story:
        """One session with that key; `own` are what the user's file says of the vendor, `lines` the most of a batch."""
        dialect = plan.get("dialect", self.plan.dialect)
        found = vendor(dialect, {} if own is None else {dialect: own})
        folder = self.path.with_suffix(".batches")
        async with Client(base_url=self.server.base_url, api_key=key, environ={}) as client:
            calls = client.calls(SHAPES[found.shape].key_header)
            executor = BatchExecutor(found, calls, run=self.run, folder=folder, clock=self.clock)
            first = plan.get("batch_first", self.plan.batch_first)
            sending = plan.get("batch", self.plan.batch)
            batching = Batching(
                executor=executor,
                run=self.run,
                lane=1,
                folder=folder,
                sending=sending,
                first=first,
                lines=lines,
                batch_mode=batch_mode,
            )
            return await self.play(client, batching=batching, during=during, hear=hear, **plan)

    @property
    def tickets(self) -> list[Ticket]:
        """The tickets as the journal has them."""
        with Reader.open(self.path) as reader:
            return reader.tickets

    @property
    def told(self) -> dict[str, Any]:
        """What the provider has seen."""
        stats = self.server.stats
        view = self.server.provider.batches.view()
        return {**view, "calls": dict(stats.batch_calls), "live": stats.answered}

    @property
    def paid(self) -> int:
        """Completions that the provider was or will be paid for."""
        told = self.told
        return told["batch_completions"] + told["live"]

    def answers(self) -> list[str]:
        """The texts of the replies, in input order."""
        return [
            "" if record.body is None else json.loads(record.body)["choices"][0]["message"]["content"]
            for record in self.records
        ]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what will come about, in the loop's time."""
    while not condition():  # noqa: ASYNC110  what the journal or the provider says is no event
        await asyncio.sleep(0.1)


@asynccontextmanager
async def night(
    path: Path, *faults: str, rows: int = 30, plan: dict[str, Any] | None = None, **values: Any
) -> AsyncIterator[Night]:
    """A run of so many rows and its provider with these faults and settings."""
    async with running(settings(*faults, **values)) as server:
        yield Night(path, server, rows, **(plan or {}))


def echoed(rows: int) -> list[str]:
    return [f"[simulated] row {number}" for number in range(1, rows + 1)]


def adds_up(stage: Night) -> None:
    totals = stage.totals
    assert totals.pending >= 0
    assert (
        totals.done + totals.failed + totals.skipped + totals.unknown + totals.pending + totals.in_batches
        == totals.rows
    )
