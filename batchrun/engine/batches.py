"""A run's batches: rows gathered into chunks, tickets carried on, results taken in.

    row ─ add ─► chunk file ─ close_chunk ─► ticket and attempts, one commit ─ carry ─► steps of the executor, each committed
    results ─ take_in ─► attempts closed and replies kept, as of live rows ─► judged, post-processed, finished

A row is in one place: while its attempt is open in a ticket it is neither pending nor sent live. What is not answered there
is pending again when its ticket is settled, and goes into the next chunk, or live where few are left. Every decision about
an answer is that of live rows (`way`).
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from batchrun.display import counted
from batchrun.engine.chunks import Chunk
from batchrun.engine.ending import Ending
from batchrun.engine.till import BudgetReached, Hold, Till, named_in
from batchrun.errors import ExitCode, RefusedError, StopError
from batchrun.events import BatchChanged, Emit, Notice
from batchrun.journal import End, Journal, Lease
from batchrun.lanes.batch import OPEN, BatchExecutor, State
from batchrun.lanes.executor import Came, Completion
from batchrun.models import Pending, Request, Ticket

Stop = Callable[[Ending], None]
Take = Callable[[Pending, Lease, Completion], Awaitable[None]]

_SHARE = 0.9
"""Of a vendor's limits that a chunk may have: what it counts may be a little more than what is counted here."""
NOT_SENT = End(0, 0.0, "not processed", counted=False)
"""The end of an attempt that a batch never got to: nothing was billed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """What batches are made with: the executor, the run and its lane, the folder of files on their way.

    `sending` is whether rows are put into batches, else open ones are only carried on; `first` are the rows of the first
    chunk, `lines` the most of any; `scale` shortens every wait, for a simulated provider.
    """

    executor: BatchExecutor
    run: str
    lane: int
    folder: Path
    sending: bool = True
    first: int = 100
    lines: int | None = None
    scale: float = 1.0


class Batches:
    """One run's batches. One event loop, no threads of its own; files are written and read in others.

    `take` must be set before `carry`, and is called for each completion of a row that is in a ticket; `stop` ends the run.
    """

    def __init__(  # noqa: PLR0913  what it works with, and who hears of it
        self,
        batching: Batching,
        journal: Journal,
        till: Till,
        *,
        emit: Emit,
        stop: Stop,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._with = batching
        self._executor = batching.executor
        self._journal = journal
        self._till = till
        self._emit = emit
        self._stop = stop
        self.take: Take | None = None
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._chunk: Chunk | None = None
        self._tickets = {ticket.id: self._executor.reclaimed(ticket) for ticket in journal.tickets}
        self._most = batching.lines or int(self._executor.vendor.lines * _SHARE)
        self._changed = asyncio.Event()
        self._moved_on = asyncio.Event()
        self._settled = 0
        self._closed = False
        self._adding = asyncio.Lock()
        self.sending = batching.sending
        self.left_pending = False

    @property
    def open(self) -> list[Ticket]:
        """The tickets that have rows in them."""
        return [ticket for ticket in self._tickets.values() if ticket.state in OPEN or ticket.state == State.DUPLICATE]

    async def add(self, seq: int, number: int, request: Request) -> None:
        """Put a row into the present chunk, or into a new one where that is full or for another endpoint or model.

        Raises RefusedError where the vendor's batches cannot take the request, BudgetReached where nothing more fits into
        the budget and no batch can give anything back.
        """
        vendor = self._executor.vendor
        if str(request.endpoint) not in vendor.endpoints:
            raise RefusedError(
                f"the batches of {vendor.dialect} do not take {request.endpoint}, only {', '.join(vendor.endpoints)}",
                "send these rows live, without --batch",
            )
        line = self._executor.shape.line(self._executor.wire_id(seq, number), request)
        async with self._adding:
            await self._append(Lease(seq, number, None, 0), request, line)

    async def _append(self, lease: Lease, request: Request, line: bytes) -> None:
        hold = await self._reserved(request)
        model = named_in(request.body).model or ""
        chunk = self._chunk
        if chunk is not None and not self._fits(chunk, str(request.endpoint), model, len(line)):
            await self.close_chunk()
            chunk = None
        if chunk is None:
            chunk = self._chunk = await asyncio.to_thread(
                Chunk, self._with.folder, self._executor.shape.head, str(request.endpoint), model
            )
        chunk.add(line, self._executor.shape.separator, lease._replace(cost=hold.cost, tokens=hold.tokens), hold)

    def _fits(self, chunk: Chunk, endpoint: str, model: str, size: int) -> bool:
        first = not self._tickets and not self._executor.shape.inline
        most = min(self._most, self._with.first) if first else self._most
        return (
            (chunk.endpoint, chunk.model) == (endpoint, model)
            and len(chunk.leases) < most
            and chunk.size + size <= self._executor.vendor.bytes * _SHARE
        )

    async def _reserved(self, request: Request) -> Hold:
        """What the request may cost in a batch. Where it does not fit now, results that come in may give back enough."""
        while True:
            hold = self._till.at_most(request, "batch")
            if hold is not None:
                return hold
            await self.close_chunk()
            if not self.open:
                self._till.refuse(request)
                raise BudgetReached(self._till.reached or "cost")
            await self.next_settled()

    async def close_chunk(self) -> None:
        """Make a ticket of the present chunk: its file is on the disk before the ticket and the attempts are committed."""
        chunk, self._chunk = self._chunk, None
        if chunk is None:
            return
        number = max((ticket.chunk for ticket in self._tickets.values()), default=0) + 1
        ticket = Ticket(
            id=max(self._tickets, default=0) + 1,
            lane=self._with.lane,
            state=State.PLANNED,
            chunk=number,
            tag=f"{self._with.run}/{number}",
            endpoint=chunk.endpoint,
            model=chunk.model,
            rows=len(chunk.leases),
            asked=self._clock(),
        )
        size, sha256 = await asyncio.to_thread(
            chunk.finish, self._executor.shape.tail, self._executor.path(ticket, "requests")
        )
        ticket = replace(ticket, bytes=size, sha256=sha256)
        await self._journal.plan(ticket, chunk.leases)
        for hold in chunk.holds:
            self._till.lose(hold)  # charged in full until its result is here
        self._put(ticket)

    async def carry(self) -> None:
        """Carry all tickets on until `close`; a failure of one ends the run, and its ticket stays as it was committed."""
        try:
            while not self._closed:
                await self._carry_due()
        finally:
            self.halt()

    async def _carry_due(self) -> None:
        """One step of every ticket that is due, else a pause until one is."""
        now = self._clock()
        due = [ticket for ticket in self.open if ticket.next is None or ticket.next <= now]
        submitted = [ticket for ticket in due if ticket.state == State.SUBMITTED]
        if len(submitted) > 1:
            due = [ticket for ticket in due if ticket not in submitted]
            await self._look_at_all(submitted)
        for ticket in due:
            if not self._closed:
                await self._step(ticket)
        if not due and not self._closed:
            await self._pause()

    async def _pause(self) -> None:
        self._changed.clear()
        waits = [ticket.next - self._clock() for ticket in self.open if ticket.next is not None]
        try:
            async with asyncio.timeout(max(0.01, min(waits, default=3600.0))):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _look_at_all(self, tickets: list[Ticket]) -> None:
        """One page of the list serves all; who is not on it is looked at by itself."""
        seen = await self._executor.listed()
        for ticket in tickets:
            body = seen.get(ticket.remote or "")
            if body is None:
                await self._step(ticket)
            else:
                stepped = self._executor.seen(ticket, body)
                await self._moved(ticket, stepped.ticket, stepped.wait)

    async def _step(self, ticket: Ticket) -> None:
        try:
            stepped = await self._executor.step(ticket)
        except StopError as error:
            self._stop(Ending(ExitCode.STOPPED, error.message, error.hint))
            self.halt()
            return
        await self._moved(ticket, stepped.ticket, stepped.wait)

    async def _moved(self, before: Ticket, ticket: Ticket, wait: float) -> None:
        ticket = replace(ticket, next=self._clock() + wait * self._with.scale if wait else None)
        await self._journal.put_ticket(ticket)
        self._put(ticket)
        if before.state == State.UNSURE and ticket.state == State.SUBMITTED:
            await self._remember_duplicates(ticket)
        if ticket.state == State.ENDED and ticket.status == "failed" and before.state != State.DUPLICATE:
            await self._failed(ticket)
        elif ticket.state == State.FETCHED:
            await self._take_in(ticket)
        elif ticket.state == State.REFUSED:
            await self._refused(ticket)

    def _put(self, ticket: Ticket) -> None:
        self._tickets[ticket.id] = ticket
        batch = self._executor.batch_of(ticket) if "object" in ticket.detail else None
        done, failed = (0, 0) if batch is None else (batch.done, batch.failed)
        shown = ticket.chunk, ticket.state, ticket.rows, ticket.remote, ticket.status, done, failed
        times = ticket.expires, ticket.next, ticket.note, self._journal.totals.in_batches, self._loop.time()
        self._emit(BatchChanged(*shown, *times))
        self._changed.set()
        self._moved_on.set()

    async def _remember_duplicates(self, ticket: Ticket) -> None:
        """Other batches of the same call: they are asked to end, and what they answered all the same is paid."""
        for remote in self._executor.duplicates(ticket):
            other = replace(
                ticket,
                id=max(self._tickets) + 1,
                state=State.DUPLICATE,
                remote=remote,
                rows=0,
                next=None,
                note=f"made by the same call as chunk {ticket.chunk}; asked to end",
                detail="{}",
            )
            await self._journal.put_ticket(other)
            self._put(other)
            await self._executor.cancel(other)
            said = f"one call made several batches: {remote} beside {ticket.remote} was asked to end"
            self._emit(Notice(said, self._loop.time()))

    async def _refused(self, ticket: Ticket) -> None:
        """The provider said a clear no: nothing was made, and the rows are pending again."""
        status, said = self._executor.answer_of(ticket)
        if status == 429 and not self._executor.is_fatal(said):
            again = replace(ticket, state=State.UPLOADED if ticket.file else State.PLANNED, next=self._clock() + 60)
            await self._journal.put_ticket(again)
            self._put(again)
            return
        if status == 413 and ticket.rows > 1:
            self._most = max(1, ticket.rows // 2)
            await self._release(ticket, NOT_SENT, State.REFUSED)
            return
        await self._release(ticket, NOT_SENT, State.REFUSED)
        self.halt()
        hint = "nothing was submitted and the rows are pending; fix the cause, or send them live without --batch"
        self._stop(Ending(ExitCode.STOPPED, f"the provider refused the batch: {ticket.note}", hint))

    async def _failed(self, ticket: Ticket) -> None:
        """A batch that failed as a whole, at validation: nothing of it was billed."""
        errors = self._executor.batch_of(ticket).errors
        codes = {str(error.get("code") or "") for error in errors}
        said = (
            "; ".join(str(error.get("message") or error.get("code") or "") for error in errors[:3]) or "no reason given"
        )
        if "token_limit_exceeded" in codes:
            await self._wait_for_room(ticket, said)
            return
        lines = {int(error["line"]): str(error.get("message") or "") for error in errors if error.get("line")}
        if lines:
            await self._fail_lines(ticket, lines)
            await self._release(ticket, NOT_SENT, State.SETTLED)
            return
        await self._release(ticket, NOT_SENT, State.SETTLED)
        self.halt()
        hint = "nothing was billed and the rows are pending; fix the cause, or send them live without --batch"
        self._stop(Ending(ExitCode.STOPPED, f"chunk {ticket.chunk} failed at the provider: {said}", hint))

    async def _wait_for_room(self, ticket: Ticket, said: str) -> None:
        """Too many tokens are enqueued: the same file again when others have ended; smaller where there are no others."""
        others = [other for other in self.open if other.id != ticket.id and other.state == State.SUBMITTED]
        if not others and ticket.rows > 1:
            self._most = max(1, ticket.rows // 2)
            await self._release(ticket, NOT_SENT, State.SETTLED)
            self._emit(
                Notice(f"chunk {ticket.chunk} has too many tokens for one batch and is made smaller", self._loop.time())
            )
            return
        waits = replace(
            ticket,
            state=State.UPLOADED,
            remote=None,
            status=None,
            next=self._clock() + 60 * self._with.scale,
            note=f"waits for room: {said}",
        )
        await self._journal.put_ticket(waits)
        self._put(waits)

    async def _fail_lines(self, ticket: Ticket, lines: dict[int, str]) -> None:
        """Rows whose lines were refused fail for that; the others go into another batch."""
        places = await asyncio.to_thread(self._executor.places, ticket, set(lines))
        failed = [
            Completion(seq, number, Came.FAILURE, 400, _error(lines[line])) for line, (seq, number) in places.items()
        ]
        await self._hand_over(ticket, failed)

    async def _take_in(self, ticket: Ticket) -> None:
        """The lines of a batch that has ended; rows without one are pending again."""
        came = 0
        async for page in self._executor.completions(ticket):
            came += await self._hand_over(ticket, page)
        batch = self._executor.batch_of(ticket)
        if ticket.rows:
            missing = NOT_SENT
            if batch.status == "completed":
                missing = End(0, 0.0, "missing in the results", "no line names it", counted=True, maybe_paid=True)
            left = await self._release(ticket, missing, State.SETTLED)
            if batch.total is not None and batch.total != came + left:
                said = f"chunk {ticket.chunk}: the provider counts {counted(batch.total)}, its files have {came:,}"
                self._emit(Notice(said, self._loop.time()))
        else:
            await self._settle(ticket, State.SETTLED)

    async def _hand_over(self, ticket: Ticket, page: list[Completion]) -> int:
        """Give completions to their rows; how many were of rows that are still in this ticket."""
        found = await asyncio.to_thread(self._journal.in_batch, ticket.id, [each.seq for each in page])
        known = {lease.row: (row, lease) for row, lease in found}
        handed = 0
        for completion in page:
            row, lease = known.get(completion.seq, (None, None))
            if row is None or lease is None or lease.number != completion.number:
                continue
            handed += 1
            assert self.take is not None
            await self.take(row, lease, completion)
        return handed

    async def _release(self, ticket: Ticket, end: End, state: State) -> int:
        """Close what is still open in a ticket, and settle it; how many attempts that were."""
        count, after = 0, 0
        while leases := await asyncio.to_thread(self._journal.leases, ticket.id, after):
            last = None
            for lease in leases:
                charged = end._replace(cost=lease.cost, charged_tokens=lease.tokens) if end.maybe_paid else end
                if not end.maybe_paid:
                    self._till.give_back(lease.cost, lease.tokens)
                last = self._journal.end(lease.row, lease.number, charged, None, lease)
            count += len(leases)
            after = leases[-1].row
            if last is not None:
                await last
        self.left_pending = self.left_pending or count > 0
        await self._settle(ticket, state)
        return count

    async def _settle(self, ticket: Ticket, state: State) -> None:
        settled = replace(ticket, state=state, next=None)
        await self._journal.put_ticket(settled)
        self._settled += 1
        self._put(settled)
        await asyncio.to_thread(self._executor.clean, settled)

    async def next_settled(self) -> bool:
        """Wait until a ticket is settled; False where none is open, or the run ends."""
        before = self._settled
        while not self._closed and self._settled == before:
            if not self.open:
                return False
            self._moved_on.clear()
            await self._moved_on.wait()
        return self._settled != before

    def look_now(self) -> None:
        """Look at every ticket at once, whenever it was last looked at."""
        for ticket in self.open:
            self._tickets[ticket.id] = replace(ticket, next=None)
        self._changed.set()

    async def quiet(self) -> None:
        """Wait until every ticket is at the provider and was looked at, or waits for room there."""
        while not self._closed and any(map(self._is_busy, self.open)):
            self._moved_on.clear()
            await self._moved_on.wait()

    def _is_busy(self, ticket: Ticket) -> bool:
        return ticket.next is None or ticket.state not in (State.SUBMITTED, State.DUPLICATE, State.UPLOADED)

    def waiting(self) -> Ending:
        """How a run ends that leaves batches at the provider: which, what they may cost, and how to collect or cancel them."""
        ids = ", ".join(ticket.remote or f"chunk {ticket.chunk}" for ticket in self.open[:3])
        more = f" and {len(self.open) - 3} more" if len(self.open) > 3 else ""
        rows = counted(self._journal.totals.in_batches)
        return Ending(ExitCode.WAITING, f"{rows} in {len(self.open)} batches at the provider: {ids}{more}")

    async def end_early(self) -> None:
        """Ask every batch to end, and take back what was not submitted; what is not answered is pending afterwards."""
        await self.close_chunk()
        for ticket in self.open:
            if ticket.state == State.SUBMITTED:
                asked = await self._executor.cancel(ticket)
                await self._journal.put_ticket(asked)
                self._put(asked)
            elif ticket.state in (State.PLANNED, State.UPLOADED):
                await self._release(ticket, NOT_SENT, State.FORGOTTEN)

    def halt(self) -> None:
        """Carry nothing on; the tickets stay as they are committed."""
        self._closed = True
        self._changed.set()
        self._moved_on.set()

    def close(self) -> None:
        """Carry nothing on, and leave what is in the present chunk pending."""
        self.halt()
        chunk, self._chunk = self._chunk, None
        if chunk is not None:
            chunk.discard()
            for hold in chunk.holds:
                self._till.cancel(hold)


def _error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "code": "invalid_batch_line"}}).encode()
