"""Cancels batches in time for --finish-by, and sends the rest live."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

from batchrun.display import counted
from batchrun.engine.batch_mode import BatchMode
from batchrun.engine.batches import Batches
from batchrun.engine.budget_guard import named_in, tariff_of
from batchrun.engine.forecast import Range, Throughput, duration
from batchrun.engine.row_files import restored
from batchrun.errors import StorageError
from batchrun.events import Emit, Notice
from batchrun.journal import Journal, Reader
from batchrun.models import Pending, Usage
from batchrun.plan import Plan
from batchrun.plan.reducing import Reduction
from batchrun.pricing import usd
from batchrun.prompts import Renderer

CANCELLING = 600.0  # Seconds a provider takes at most to cancel a batch (OpenAI API reference, batches, cancel)
UNMEASURED = 10.0  # Seconds assumed for a live request before one was sent


class FinishBy:
    def __init__(  # noqa: PLR0913  what it works with, each by name
        self,
        plan: Plan,
        journal: Journal,
        renderer: Renderer,
        batches: Batches,
        *,
        chosen: Callable[[list[Pending]], list[Pending]],  # Filters a page for rows to be sent
        emit: Emit,
    ) -> None:
        self._plan = plan
        self._journal = journal
        self._renderer = renderer
        self._batches = batches
        self._chosen = chosen
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._seconds = UNMEASURED

    async def start(self) -> None:
        if self._plan.finish_by is not None:
            self._seconds = await asyncio.to_thread(_measured, self._journal)
            await self._check()

    async def watch(self) -> None:
        while self._plan.finish_by is not None and not self._batches.ends_early:
            left = self._latest() - self._batches.now
            await asyncio.sleep(left / 2 if left > 2 else max(0.1, left))  # what is left to do changes meanwhile
            await self._check()
        if self._plan.finish_by is not None:
            await asyncio.sleep(max(0.0, self._plan.finish_by - self._batches.now))
            left = [f"chunk {ticket.chunk} ({ticket.remote or ticket.state})" for ticket in self._batches.open]
            if left:
                message = f"--finish-by has passed, but {', '.join(left[:5])} has not ended: its rows are sent live after it ends"
                self._emit(Notice(f"{message}, or after `batchrun batches RUN forget CHUNK`", self._loop.time()))

    async def _check(self) -> None:
        if self._latest() <= self._batches.now and not self._batches.ends_early:
            message = "--finish-by: the batches are cancelled, and their unanswered rows are sent live"
            self._emit(
                Notice(message if self._batches.open else "--finish-by: not enough time for batches", self._loop.time())
            )
            await self._batches.end_early()

    def _latest(self) -> float:
        """Unix time; later as the batches answer rows."""
        assert self._plan.finish_by is not None
        totals = self._journal.totals
        rows = max(0, totals.pending + totals.in_batches - self._batches.answered)
        used = (totals.input_tokens + totals.output_tokens) / totals.replies if totals.replies else 0.0
        tokens = rows * used
        throughput = Throughput(self._plan.rpm, self._plan.tpm, self._plan.concurrency, self._seconds)
        found = duration(rows, Range(tokens, tokens, tokens), throughput)
        cancelling = CANCELLING * self._batches.scale if self._batches.open else 0.0
        return self._plan.finish_by - cancelling - (0.0 if found is None else found.seconds.high)

    async def report_price(self) -> None:
        sends = self._batches.batch_mode in (BatchMode.RESUME, BatchMode.FINISH_LIVE) and not self._batches.sending
        if not sends or not self._journal.totals.pending:
            return
        message = await asyncio.to_thread(self._price)
        self._emit(Notice(message, self._loop.time()))

    def _price(self) -> str:
        plan, totals = replace(self._plan, batch=False), self._journal.totals
        tariff, after, rows, most, about = tariff_of(plan), 0, 0, 0, 0.0
        priced, reduction = True, Reduction(plan)
        while page := self._journal.pending(after, until=self._plan.limit):
            after = page[-1].position
            for row in self._chosen(page):
                found = reduction.filled(restored(row, self._journal.path.parent), row.parts)
                request = self._renderer.render(found)
                price, limit = tariff.of(named_in(request).model), request.output_limit
                rows += 1
                priced = priced and price is not None
                if price is not None and totals.replies:
                    used = Usage(totals.input_tokens // totals.replies, totals.output_tokens // totals.replies, 0, 0)
                    bill = price.bill(used, None, time.time())
                    about += 0 if bill is None else bill.total
                worst = (
                    None
                    if price is None or limit is None
                    else price.worst(len(request.body) + request.file_tokens, limit)
                )
                most = None if worst is None or most is None else most + worst
        message = f"{counted(rows)} are sent live"
        if not priced:
            return f"{message}, at an unknown price"
        if about:
            message += f", for about ${usd(int(about)):,.4f}"
        return message if most is None else f"{message}, at most ${usd(most):,.4f}"


def _measured(journal: Journal) -> float:
    with contextlib.suppress(StorageError), Reader.open(journal.path) as reader:
        found = [seconds for _, seconds, status in reader.timings() if status == 200 and seconds]
        if found:
            return fmean(found)
    return UNMEASURED
