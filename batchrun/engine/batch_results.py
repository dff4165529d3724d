"""Ends tickets: ingests results, handles refused and failed batches and missing lines."""

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from batchrun.display import counted, printable
from batchrun.engine import result_pages
from batchrun.engine.budget_guard import BudgetGuard
from batchrun.engine.chunks import SHARE
from batchrun.engine.result_pages import ReaderProcess, ResultPages
from batchrun.engine.result_reader import ReplyReader
from batchrun.engine.run_result import RunResult
from batchrun.engine.tickets import Tickets
from batchrun.errors import ExitCode
from batchrun.journal import Answers, End, Journal, Lease
from batchrun.lanes.batch import BatchExecutor
from batchrun.lanes.executor import Completion, CompletionKind
from batchrun.lanes.states import State, detailed, is_imported, main_of, tokens_of
from batchrun.models import Pending, Ticket

Returned = tuple[Pending, Lease, Completion]  # What a batch returned for a row in it
Take = Callable[[Ticket, Sequence[Returned]], Awaitable[None]]  # Accepted results may not be committed yet on return
# Stores replies that need no decision; returns the others
Accept = Callable[[Ticket, int | None, Answers], Awaitable[list[Completion]]]
Again = Callable[[int, Ticket, Completion], Awaitable[None]]  # For a row (`seq`) that already has a reply


class Late(Protocol):
    async def __call__(self, ticket: Ticket, lease: Lease, completion: Completion, *, wanted: bool) -> bool: ...


NOT_SENT = End(0, 0.0, "not processed", counted=False)  # An attempt that a batch never processed: nothing was billed
MISSING = End(
    0, 0.0, "missing in the results", "the results have no line with its id", counted=True, possibly_billed=True
)
_ROOM = 60.0  # Seconds between tries of a chunk that waits for room in the provider's queue
_LIMIT = re.compile(r"[Ll]imit:?\s*([\d,]+)")
_NEVER = 1e9


class Ends:
    """Set the callbacks before results arrive; `flush` waits for commits."""

    def __init__(
        self,
        tickets: Tickets,
        executor: BatchExecutor,
        journal: Journal,
        guard: BudgetGuard,
        stop: Callable[[RunResult], None],
    ) -> None:
        self._tickets = tickets
        self._executor = executor
        self._journal = journal
        self._guard = guard
        self._stop = stop
        self._ingested = set[int]()
        self._process = ReaderProcess()
        self.reader: Callable[[Ticket], Awaitable[ReplyReader | None]] | None = None
        self.accept: Accept | None = None
        self.take: Take | None = None
        self.flush: Callable[[], Awaitable[None]] | None = None
        self.again: Again | None = None
        self.late: Late | None = None
        self.left_pending = False
        self.stops: RunResult | None = None

    def close(self) -> None:
        self._process.end()

    async def refused(self, ticket: Ticket) -> None:
        status, message, wait = self._executor.answer_of(ticket)
        if _is_about_room(message):
            await self._wait_for_room(ticket, message)
        elif status == 429 and not self._executor.is_fatal(message):
            await self._later(ticket, max(wait, _ROOM), ticket.note)
        elif status in (0, 413) and (ticket.rows > 1 or not status):
            self._tickets.most = min(self._tickets.most, max(1, ticket.rows // 2)) if status else self._tickets.most
            await self.release(ticket, NOT_SENT, State.SETTLED)
        else:
            hint = "nothing was submitted and the rows are pending; fix the cause, or send them live without --batch"
            message = f"the provider refused the batch: {printable(ticket.note or '', 500)}"
            await self.release(ticket, NOT_SENT, State.SETTLED, RunResult(ExitCode.STOPPED, message, hint))

    async def failed(self, ticket: Ticket) -> None:
        """The batch failed at validation: nothing was billed."""
        batch = self._executor.batch_of(ticket)
        errors = () if batch is None else batch.errors
        messages = [str(error.get("message") or error.get("code") or "") for error in errors]
        message = "; ".join(messages[:3]) or "no reason given"
        codes = {str(error.get("code") or "") for error in errors}
        if "token_limit_exceeded" in codes or _is_about_room(message):
            await self._wait_for_room(ticket, message)
            return
        lines = {
            int(error["line"]): str(error.get("message") or "") for error in errors if str(error.get("line")).isdigit()
        }
        if lines and (len(lines) < ticket.rows or self._journal.totals.done):
            # These rows fail for it; the others go into another batch.
            places = await asyncio.to_thread(self._executor.places, ticket, set(lines))
            fails = [
                Completion(
                    seq,
                    number,
                    CompletionKind.FAILURE,
                    400,
                    json.dumps({"error": {"message": lines[line], "code": "invalid_batch_line"}}).encode(),
                )
                for line, (seq, number) in places.items()
            ]
            if await self._hand_over(ticket, fails):
                await self._flush()
                await self.release(ticket, NOT_SENT, State.SETTLED)
                return
        hint = "nothing was billed and the rows are pending; fix the cause, or send them live without --batch"
        message = f"chunk {ticket.chunk} failed at the provider: {printable(message, 500)}"
        await self.release(ticket, NOT_SENT, State.SETTLED, RunResult(ExitCode.STOPPED, message, hint))

    async def _wait_for_room(self, ticket: Ticket, message: str) -> None:
        """Too many tokens are enqueued: retry later, maybe with a smaller file."""
        found = _LIMIT.search(message)
        limit = int(found[1].replace(",", "")) if found and found[1].strip(",") else None
        tokens = tokens_of(ticket)
        alone = not [other for other in self._tickets.open if other.id != ticket.id and other.remote]
        if ticket.rows > 1 and (tokens > limit * SHARE if limit else alone):
            fits = ticket.rows // 2 if limit is None else int(ticket.rows * limit * SHARE / tokens)
            self._tickets.most = max(1, min(self._tickets.most, ticket.rows - 1, fits))
            await self.release(ticket, NOT_SENT, State.SETTLED)
            message = f"chunk {ticket.chunk} has too many tokens for one batch and is split"
            self._tickets.notify(message)
            return
        await self._later(ticket, _ROOM, f"waits until the provider's queue has room: {message}")

    async def _later(self, ticket: Ticket, wait: float, note: str | None) -> None:
        again = replace(
            ticket, state=State.UPLOADED if ticket.file else State.PLANNED, remote=None, status=None, note=note
        )
        await self._tickets.put(replace(again, next=self._executor.clock() + wait * self._executor.scale))

    async def prepare(self, ticket: Ticket) -> None:
        if self.reader is not None and _is_for_process(ticket, await self.reader(ticket)):
            await asyncio.to_thread(self._process.start)

    async def fetched(self, ticket: Ticket) -> None:
        """Results of other batches of the same call come last."""
        main = main_of(ticket)
        if main is None:
            if not await self._ingest(ticket):
                return
            self._ingested.add(ticket.id)
        elif self._tickets.get(main) in self._tickets.open and main not in self._ingested:
            self._tickets.hold(ticket, self._executor.clock() + _NEVER)
            return
        own = ticket if main is None else self._tickets.get(main)
        for other in self._tickets.duplicates_of(own):
            if other.state == State.FETCHED:
                await self._ingest_duplicate(own, other)
        if own.id in self._ingested and own.state == State.FETCHED:
            if self._tickets.duplicates_of(own):
                self._tickets.hold(own, self._executor.clock() + _NEVER)
            else:
                await self._end(own)

    async def _ingest(self, ticket: Ticket) -> bool:
        """False for an unlabelled batch with only foreign lines, which is given back."""
        assert self.reader is not None
        assert self.accept is not None
        reader, lines, where = await self.reader(ticket), 0, None if is_imported(ticket) else ticket.id
        results = self._executor.results(ticket, reader)
        elsewhere = reader if _is_for_process(ticket, reader) else None
        pages = await asyncio.to_thread(ResultPages, results, self._process, elsewhere)
        next_page = asyncio.ensure_future(asyncio.to_thread(pages.page))
        try:
            while (page := await next_page) is not None:
                # The next one is read while this one is written.
                next_page = asyncio.ensure_future(asyncio.to_thread(pages.page))
                lines += len(page.read.rows) + len(page.others)
                left = await self.accept(ticket, where, page.read)
                await self._hand_over(ticket, [*page.others, *left])
        finally:
            next_page.cancel()
            await asyncio.to_thread(pages.close)
            if all(each.state != State.ENDED for each in self._tickets.open):
                self.close()
        await self._flush()
        if pages.foreign and not lines and self._executor.shape.inline:
            self._tickets.notify(
                f"batch {ticket.remote} is not this run's: its results contain no row of chunk {ticket.chunk}"
            )
            await asyncio.to_thread(self._executor.clean, ticket, "output", "error")
            await self._tickets.put(self._executor.released(ticket))
            return False
        if pages.foreign or pages.repeated:
            self._tickets.notify(
                f"chunk {ticket.chunk}: {pages.foreign:,} lines of other runs and {pages.repeated:,} repeated lines in "
                "the results were ignored",
                ticket,
            )
        batch = self._executor.batch_of(ticket)
        if batch is not None and batch.status == "completed" and batch.total not in (None, lines):
            message = f"chunk {ticket.chunk}: the provider reports {counted(batch.total or 0)}, but its result files have {lines:,}"
            self._tickets.notify(message, ticket)
        return True

    async def _ingest_duplicate(self, own: Ticket, other: Ticket) -> None:
        pages = self._executor.results(other)
        while page := await asyncio.to_thread(pages.page):
            replies = [each for each in page.others if each.kind is CompletionKind.REPLY]
            used = await self._hand_over(own, replies)
            await self._flush()
            for completion in replies:
                if completion.seq not in used and self.again is not None:
                    await self.again(completion.seq, other, completion)
        await self.settle(other, State.SETTLED)

    async def read_late(self, ticket: Ticket) -> None:
        """Replies to answered rows were paid twice."""
        found = await self._executor.late(ticket)
        if found is None:
            return
        assert self.late is not None
        pages, counts = self._executor.results(found), {True: 0, False: 0}
        while page := await asyncio.to_thread(pages.page):
            replies = {each.seq: each for each in page.others if each.kind is CompletionKind.REPLY}
            for lease, wanted in await asyncio.to_thread(self._journal.lost_in, ticket.id, list(replies)):
                counts[wanted] += await self.late(ticket, lease, replies[lease.row], wanted=wanted)
        message = f"batch {ticket.remote}, which was abandoned, has ended: its replies answer {counted(counts[True])}"
        again = f"; {counted(counts[False])} had a reply already and were paid twice" if counts[False] else ""
        self._tickets.notify(message + again)
        await self._tickets.put(replace(ticket, status=found.status, detail=detailed(ticket, read=True)))
        await asyncio.to_thread(self._executor.clean, ticket)

    async def _end(self, ticket: Ticket) -> None:
        batch = self._executor.batch_of(ticket)
        completed = batch is not None and batch.status == "completed"
        left = await self.release(ticket, MISSING if completed else NOT_SENT, State.SETTLED)
        if left and completed:
            message = f"chunk {ticket.chunk}: the results lack {counted(left)}, which may have been billed"
            self._tickets.notify(message, ticket)
        if self.stops is not None:
            self._stop(self.stops)

    async def _hand_over(self, ticket: Ticket, page: list[Completion]) -> set[int]:
        where = None if is_imported(ticket) else ticket.id
        assert self.take is not None
        taken, left, more = set[int](), page, bool(page)
        while more:
            found, more = await asyncio.to_thread(self._journal.in_batch, where, [each.seq for each in left])
            known = {lease.row: (row, lease) for row, lease in found}
            current = [each for each in left if each.seq in known and known[each.seq][1].number == each.number]
            await self.take(ticket, [(*known[each.seq], each) for each in current])
            taken.update(each.seq for each in current)
            left = [each for each in left if more and each.seq > found[-1][0].seq]
        return taken

    async def _flush(self) -> None:
        assert self.flush is not None
        await self.flush()

    async def release(self, ticket: Ticket, end: End, state: State, stops: RunResult | None = None) -> int:
        """Close open attempts; returns their number. `stops` ends the run before a row is resent."""
        await self._journal.put_ticket(ticket)  # commits what was handed over before: those attempts are closed
        count, after = 0, 0
        while leases := await asyncio.to_thread(self._journal.leases, ticket.id, after):
            last = None
            for lease in leases:
                charged = end._replace(cost=lease.cost, charged_tokens=lease.tokens) if end.possibly_billed else end
                if not end.possibly_billed:
                    self._guard.refund(lease.cost, lease.tokens)
                last = self._journal.end(lease.row, lease.number, charged, None, lease)
            count += len(leases)
            after = leases[-1].row
            if last is not None:
                await last
        self.left_pending = self.left_pending or (count > 0 and stops is None)
        await self.settle(ticket, state, stops)
        return count

    async def settle(self, ticket: Ticket, state: State, stops: RunResult | None = None) -> None:
        self._tickets.settled += 1
        detail = detailed(ticket, learned=self._tickets.tokens.learned)
        await self._tickets.put(replace(ticket, state=state, next=None, detail=detail))
        if stops is not None:
            self._stop(stops)
        await asyncio.to_thread(self._executor.clean, ticket)


def _is_for_process(ticket: Ticket, reader: ReplyReader | None) -> bool:
    if reader is None or reader.checker is not None:
        return False
    return ticket.rows >= result_pages.LARGE and (os.cpu_count() or 1) > 1


def _is_about_room(message: str) -> bool:
    return "token_limit_exceeded" in message or "nqueued token limit" in message
