"""The end of a run with batches that is to be done by a time: when batches must be asked to end so that the rest can go live,
and what that rest costs, which is said before it is sent."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

from batchrun.display import counted
from batchrun.engine.batches import Batches, BatchMode
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

CANCELLING = 600.0
"""Seconds that a provider takes at most to end a batch: OpenAI's API reference, batches, cancel."""
UNMEASURED = 10.0
"""Seconds of a live request, where the run has sent none yet."""


class FinishBy:
    """Ends batches in time for --finish-by. On the loop of the run; `renderer` makes the rows' requests, `chosen` are those
    of a page that are to be sent."""

    def __init__(  # noqa: PLR0913  what it works with, each by name
        self,
        plan: Plan,
        journal: Journal,
        renderer: Renderer,
        batches: Batches,
        *,
        chosen: Callable[[list[Pending]], list[Pending]],
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

    async def begin(self) -> None:
        """Look whether it is time already. Must have been awaited before anything else here."""
        if self._plan.finish_by is not None:
            self._seconds = await asyncio.to_thread(_measured, self._journal)
            await self._look()

    async def watch(self) -> None:
        """Ask all batches to end when there is just time enough to send the rest live."""
        while self._plan.finish_by is not None and not self._batches.ends_early:
            left = self._latest() - self._batches.now
            await asyncio.sleep(left / 2 if left > 2 else max(0.1, left))  # what is left to do changes meanwhile
            await self._look()
        if self._plan.finish_by is not None:
            await asyncio.sleep(max(0.0, self._plan.finish_by - self._batches.now))
            left = [f"chunk {ticket.chunk} ({ticket.remote or ticket.state})" for ticket in self._batches.open]
            if left:
                said = f"--finish-by is over, and {', '.join(left[:5])} has not ended: its rows are not sent live before that"
                self._emit(Notice(f"{said}, or before `batchrun batches RUN forget CHUNK`", self._loop.time()))

    async def _look(self) -> None:
        if self._latest() <= self._batches.now and not self._batches.ends_early:
            said = "--finish-by: batches are asked to end, and what they leave goes live"
            self._emit(Notice(said if self._batches.open else "--finish-by: too soon for batches", self._loop.time()))
            await self._batches.end_early()

    def _latest(self) -> float:
        """The Unix time at which batches must be asked to end. It becomes later as they answer rows."""
        assert self._plan.finish_by is not None
        totals = self._journal.totals
        rows = max(0, totals.pending + totals.in_batches - self._batches.answered)
        used = (totals.input_tokens + totals.output_tokens) / totals.replies if totals.replies else 0.0
        tokens = rows * used
        throughput = Throughput(self._plan.rpm, self._plan.tpm, self._plan.concurrency, self._seconds)
        found = duration(rows, Range(tokens, tokens, tokens), throughput)
        cancelling = CANCELLING * self._batches.scale if self._batches.open else 0.0
        return self._plan.finish_by - cancelling - (0.0 if found is None else found.seconds.high)

    async def tell_price(self) -> None:
        """Say what the rows that go live now will cost, where any do."""
        sends = self._batches.batch_mode in (BatchMode.RESUME, BatchMode.FINISH_LIVE) and not self._batches.sending
        if not sends or not self._journal.totals.pending:
            return
        said = await asyncio.to_thread(self._price)
        self._emit(Notice(said, self._loop.time()))

    def _price(self) -> str:
        """What pending rows cost at the live price: by the mean of those that were answered, and at most."""
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
        said = f"{counted(rows)} go live"
        if not priced:
            return f"{said}, at a price that is not known"
        if about:
            said += f", for about ${usd(int(about)):,.4f}"
        return said if most is None else f"{said}, at most ${usd(most):,.4f}"


def _measured(journal: Journal) -> float:
    """The mean seconds of live requests that were answered; a row of a batch has none."""
    with contextlib.suppress(StorageError), Reader.open(journal.path) as reader:
        found = [seconds for _, seconds, status in reader.timings() if status == 200 and seconds]
        if found:
            return fmean(found)
    return UNMEASURED
