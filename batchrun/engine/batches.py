"""Collects rows into chunks, advances tickets and ingests results.

    row ─ add ─► chunk file ─ close_chunk ─► ticket and attempts, one commit ─ carry ─► executor steps, each committed
    results ─ take ─► attempts closed and replies stored, as for live rows ─► judged, post-processed, finished

While its attempt is open in a ticket, a row is neither pending nor sent live.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from batchrun.engine.batch_mode import BatchMode
from batchrun.engine.batch_results import NOT_SENT, Ends
from batchrun.engine.budget_guard import BATCH, BudgetGuard, BudgetReached, Reservation
from batchrun.engine.chunks import SHARE, Chunk, Size
from batchrun.engine.result_files import Part
from batchrun.engine.row_files import with_content
from batchrun.engine.run_result import RunResult
from batchrun.engine.tickets import Tickets
from batchrun.errors import BatchrunError, ExitCode, RefusedError, StopError
from batchrun.events import Emit
from batchrun.journal import Journal, Lease
from batchrun.lanes.batch import POLL_FIRST, BatchExecutor
from batchrun.lanes.executor import Stepped
from batchrun.lanes.states import OPEN, State, detailed, is_asked_to_end, is_unread
from batchrun.models import Endpoint, Request, Ticket

log = logging.getLogger(__name__)

_NOT_SUBMITTED = frozenset({State.PLANNED, State.UPLOADED, State.CREATING})
_IDLE = 3600.0
MOST_CHUNKS = 16  # Chunks filled at once, one per endpoint and model; beyond that the largest is submitted
FIRST_POLL = 10.0  # Seconds after submission within which a batch counts as never polled


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    executor: BatchExecutor
    run: str
    lane: int
    folder: Path
    sending: bool = True
    first: int = 100  # Most rows of the first chunk
    lines: int | None = None  # Most rows of any
    batch_mode: BatchMode = BatchMode.RESUME
    parts: Sequence[Part] = ()  # To be imported


class Batches:
    """Files are written and read in threads."""

    def __init__(
        self, batching: Batching, journal: Journal, guard: BudgetGuard, *, emit: Emit, stop: Callable[[RunResult], None]
    ) -> None:
        self._with = batching
        self._executor = batching.executor
        self._journal = journal
        self._guard = guard
        self._stop_run = stop
        self._chunks: dict[tuple[Endpoint, str], Chunk] = {}
        self._made = 0
        self._closed = False
        self._adding = asyncio.Lock()
        self._ends_early = False
        self._polled: dict[int, int] = {}
        self._polls = 0
        most = batching.lines or int(self._executor.vendor.lines * SHARE)
        carried = frozenset({State.FETCHED}) if batching.batch_mode is BatchMode.IMPORT else OPEN
        self._tickets = Tickets(batching.executor, journal, emit, most, carried)
        self.tokens = self._tickets.tokens
        self.ends = Ends(self._tickets, batching.executor, journal, guard, self._stop)
        self.sending = batching.sending
        self.batch_mode = batching.batch_mode

    @property
    def open(self) -> list[Ticket]:
        return self._tickets.open

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self._executor.clock()

    @property
    def scale(self) -> float:
        """Factor on all waits; below 1 for a simulated provider."""
        return self._executor.scale

    @property
    def answered(self) -> int:
        found = [self._executor.batch_of(ticket) for ticket in self.open if ticket.rows]
        return sum(batch.done for batch in found if batch is not None)

    @property
    def may_send(self) -> bool:
        return self._with.sending and not self._ends_early

    @property
    def ends_early(self) -> bool:
        return self._ends_early

    def notify(self, message: str) -> None:
        self._tickets.notify(message)

    def _stop(self, ending: RunResult) -> None:
        self.halt()
        self._stop_run(ending)

    async def add(self, seq: int, number: int, request: Request) -> None:
        """Raises RefusedError, media.ChangedError, BudgetReached."""
        vendor = self._executor.vendor
        vendor.check(str(request.endpoint))
        sent = await with_content(request) if request.files else request
        line = self._executor.shape.line(self._executor.wire_id(seq, number), sent)
        if len(line) > vendor.bytes * SHARE:
            raise RefusedError(
                f"the request has {len(line):,} bytes, but a batch of {vendor.dialect} takes at most {vendor.bytes:,}",
                "send this row live, without --batch",
            )
        async with self._adding:
            reservation = await self._reserved(request)
            await self._put([(request, line, Lease(seq, number, reservation.cost, reservation.tokens))])

    async def add_all(self, requests: Iterable[tuple[int, int, Request]]) -> set[int]:
        """Returns the rows that the budget allows now."""
        vendor, shape, wire_id = self._executor.vendor, self._executor.shape, self._executor.wire_id
        sent: list[tuple[int, int, Request, bytes]] = []
        for seq, number, request in requests:
            if request.files or request.endpoint not in vendor.endpoints:
                continue
            with suppress(RefusedError):  # reported by `add`
                line = shape.line(wire_id(seq, number), request)
                if len(line) <= vendor.bytes * SHARE:
                    sent.append((seq, number, request, line))
        async with self._adding:
            worst = self._guard.all_now([request for _, _, request, _ in sent])
            held = zip(sent, worst, strict=False)
            await self._put((request, line, Lease(seq, number, *each)) for (seq, number, request, line), each in held)
        return {seq for seq, *_ in sent[: len(worst)]}

    async def _put(self, requests: Iterable[tuple[Request, bytes, Lease]]) -> None:
        most = self._most
        for request, line, lease in requests:
            weight = request.weight
            key, tokens = (request.endpoint, self._guard.named(request).model or ""), self.tokens.of(weight)
            chunk = self._chunks.get(key)
            if chunk is None or not chunk.size.has_room(most, len(line), tokens):
                chunk = await self._new_chunk(key)
                most = self._most
            chunk.add(line, weight, tokens, lease)

    async def _new_chunk(self, key: tuple[Endpoint, str]) -> Chunk:
        if key in self._chunks:
            await self._close_chunk(key)
        elif len(self._chunks) >= MOST_CHUNKS:
            await self._close_chunk(max(self._chunks, key=lambda each: len(self._chunks[each].leases)))
        self._made += 1
        chunk = await asyncio.to_thread(Chunk, self._with.folder, self._made, self._executor.shape, *key)
        self._chunks[key] = chunk
        return chunk

    @property
    def _most(self) -> Size:
        most, first = Size.most(self._executor.vendor), not self._tickets.any and not self._executor.shape.inline
        return replace(most, rows=min(most.rows, self._tickets.most, self._with.first if first else most.rows))

    async def _reserved(self, request: Request) -> Reservation:
        while True:
            reservation = self._guard.now(request, BATCH)
            if reservation is not None:
                return reservation
            await self._close_chunks()
            if not self.open:
                self._guard.refuse(request)
                raise BudgetReached(self._guard.reached or "cost")
            await self.next_settled()

    async def close_chunks(self) -> None:
        async with self._adding:
            await self._close_chunks()

    async def _close_chunks(self) -> None:
        for key in list(self._chunks):
            await self._close_chunk(key)

    async def _close_chunk(self, key: tuple[Endpoint, str]) -> None:
        # The file is on disk before the ticket and the attempts are committed.
        chunk = self._chunks.pop(key)
        number = self._tickets.new_chunk()
        ticket = Ticket(
            id=self._tickets.new_id(),
            lane=self._with.lane,
            state=State.PLANNED,
            chunk=number,
            tag=f"{self._with.run}/{number}",
            endpoint=chunk.endpoint,
            model=chunk.model,
            rows=len(chunk.leases),
            asked=self._executor.clock(),
        )
        size, sha256 = await asyncio.to_thread(chunk.finish, self._executor.path(ticket, "requests"))
        detail = detailed(ticket, tokens=round(chunk.size.tokens), weight=chunk.weight)
        ticket = replace(ticket, bytes=size, sha256=sha256, detail=detail)
        await self._journal.plan(ticket, chunk.leases)
        self._guard.hand_over(chunk.leases)
        self._tickets.show(ticket)

    async def import_parts(self) -> None:
        for part in self._with.parts:
            ticket = replace(part.ticket, lane=self._with.lane, rows=part.lines, asked=self._executor.clock())
            await self._journal.plan(ticket, part.leases())
            self._tickets.show(ticket)

    async def read_late(self) -> None:
        for ticket in self._tickets.all:
            if is_unread(ticket) and self.batch_mode is not BatchMode.IMPORT:
                await self.ends.read_late(ticket)

    async def carry(self) -> None:
        try:
            while not self._closed:
                await self._carry_due()
        except BatchrunError:
            raise
        except Exception as error:
            log.exception("batches: internal error")
            message = f"internal error: {type(error).__name__}: {error}"
            self._stop(RunResult(ExitCode.UNEXPECTED, message, "this is a bug in batchrun"))
        finally:
            self.halt()

    async def _carry_due(self) -> None:
        now = self._executor.clock()
        self._tickets.changed.clear()
        due = [ticket for ticket in self.open if ticket.next is None or ticket.next <= now]
        if any(ticket.state == State.SUBMITTED for ticket in due):
            due = await self._poll_all(due)
        for ticket in due:
            if not self._closed:
                await self._step(self._tickets.get(ticket.id))
        if not due and not self._closed:
            waits = [ticket.next - now for ticket in self.open if ticket.next is not None]
            try:
                async with asyncio.timeout(max(0.01, min(waits, default=_IDLE))):
                    await self._tickets.changed.wait()
            except TimeoutError:
                return

    async def _poll_all(self, due: list[Ticket]) -> list[Ticket]:
        """One list page for several; returns tickets still due."""
        submitted = [ticket for ticket in self.open if ticket.state == State.SUBMITTED]
        if len(submitted) < 2 and not all(map(self._is_new, submitted)):
            return due
        found = await self._executor.listed(submitted)
        alone = self._unchanged(submitted, found)
        for ticket in submitted:
            if ticket.id in found and ticket not in alone:
                await self._advanced(ticket, found[ticket.id])
        return [ticket for ticket in due if ticket.id not in found and ticket not in alone] + alone

    def _unchanged(self, submitted: list[Ticket], found: Mapping[int, Stepped]) -> list[Ticket]:
        """Unchanged tickets to poll by id, one per 15 s: lists may lag (aimock 1.43)."""
        same = [
            ticket
            for ticket in submitted
            if ticket.id in found
            and not found[ticket.id].also
            and self._executor.batch_of(ticket) == self._executor.batch_of(found[ticket.id].ticket)
        ]
        if not same:
            return []
        wait = min(found[ticket.id].wait for ticket in same) / self._executor.scale
        same.sort(key=lambda ticket: self._polled.get(ticket.id, 0))
        alone = same[: max(1, int(wait / POLL_FIRST))]
        self._polls += 1
        self._polled |= dict.fromkeys((ticket.id for ticket in alone), self._polls)
        return alone

    @staticmethod
    def _is_new(ticket: Ticket) -> bool:
        return ticket.seen is None or ticket.asked is None or ticket.seen - ticket.asked < FIRST_POLL

    async def _step(self, ticket: Ticket) -> None:
        if self._ends_early and ticket.state in _NOT_SUBMITTED:
            await self.ends.release(ticket, NOT_SENT, State.SETTLED)
            return
        unsure = [other for other in self.open if other.state == State.UNSURE and other.id != ticket.id]
        if unsure and ticket.state in _NOT_SUBMITTED:
            # One call without an answer at a time: where batches have no label, two could not be distinguished.
            self._tickets.hold(ticket, self._executor.clock() + self._executor.scale)
            return
        if ticket.state == State.ENDED and ticket.status == "failed":
            await self.ends.failed(ticket)
            return
        if ticket.state == State.ENDED:
            await self.ends.prepare(ticket)
        try:
            stepped = await self._executor.step(ticket)
        except StopError as error:
            self._stop(RunResult(ExitCode.STOPPED, error.message, error.hint))
            return
        await self._advanced(ticket, stepped)

    async def _advanced(self, before: Ticket, stepped: Stepped) -> None:
        ticket = replace(stepped.ticket, next=self._executor.clock() + stepped.wait if stepped.wait else None)
        await self._tickets.put(ticket, *self._duplicates(ticket, stepped.also))
        if ticket.state == State.SUBMITTED and self._ends_early and not is_asked_to_end(ticket):
            await self._cancel_batch(ticket)
        elif ticket.state == State.FETCHED:
            await self.ends.fetched(ticket)
        elif ticket.state == State.REFUSED:
            await self.ends.refused(ticket)
        elif ticket.state == State.SUBMITTED and ticket.note and "forget" in ticket.note:
            self._tickets.notify(f"batch {ticket.remote}: {ticket.note}", ticket)

    def _duplicates(self, ticket: Ticket, also: Sequence[str]) -> list[Ticket]:
        others: list[Ticket] = []
        for remote in also:
            number = self._tickets.new_id()
            detail = f'{{"of": {ticket.id}}}'
            note = f"made by the same call as {ticket.remote}"
            other = replace(ticket, id=number, state=State.DUPLICATE, remote=remote, rows=0, note=note, detail=detail)
            others.append(replace(other, next=None))
            self._tickets.notify(f"one call created several batches: {ticket.remote} is kept, {remote} is cancelled")
        return others

    async def next_settled(self) -> bool:
        """False where no ticket is open."""
        before = self._tickets.settled
        while not self._closed and self._tickets.settled == before:
            if not self.open:
                return False
            self._tickets.advanced.clear()
            await self._tickets.advanced.wait()
        return self._tickets.settled != before

    def poll_now(self) -> None:
        self._tickets.poll_now()

    async def quiet(self) -> None:
        """Wait until each ticket was polled or waits."""
        while not self._closed and not all(map(self._tickets.is_waiting, self.open)):
            self._tickets.advanced.clear()
            await self._tickets.advanced.wait()

    async def end_early(self) -> None:
        if self._ends_early:
            return
        self.sending = False
        self._ends_early = True
        await self.close_chunks()
        for ticket in self.open:
            if ticket.state == State.SUBMITTED:
                await self._cancel_batch(ticket)
        self._tickets.poll_now()

    async def _cancel_batch(self, ticket: Ticket) -> None:
        cancelled = await self._executor.cancel(ticket)
        now = self._tickets.get(ticket.id)
        if now.state == State.SUBMITTED:
            await self._tickets.put(replace(now, note=cancelled.note, detail=cancelled.detail, next=now.next))

    def halt(self) -> None:
        self._closed = True
        self._tickets.wake()

    def close(self) -> None:
        """Rows of unfinished chunks stay pending."""
        self.halt()
        self.ends.close()
        for chunk in self._chunks.values():
            chunk.discard()
            self._guard.release_leases(chunk.leases)
        self._chunks.clear()
