"""The tickets of a run while it has batches: what the journal says of them, as events, and waking what waits for them."""

import asyncio
from dataclasses import replace

from batchrun.engine.chunks import Tokens
from batchrun.events import BatchChanged, Emit, Notice
from batchrun.journal import Journal
from batchrun.lanes.batch import BatchExecutor
from batchrun.lanes.states import OPEN, State, learned_of, main_of
from batchrun.models import Ticket


class Tickets:
    """All tickets by number; those in the states `carried` are carried on.

    `most` are the rows that a new one may have. One event loop, no threads.
    """

    def __init__(
        self, executor: BatchExecutor, journal: Journal, emit: Emit, most: int, carried: frozenset[State] = OPEN
    ) -> None:
        self._carried = carried
        self._executor = executor
        self._journal = journal
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._all = {ticket.id: executor.reclaimed(ticket) for ticket in journal.tickets}
        self.tokens = Tokens(learned_of(self._all.values()))
        self._last_id = self._last_chunk = 0
        self._told = set[tuple[int, str]]()
        self.changed = asyncio.Event()
        self.moved_on = asyncio.Event()
        self.settled = 0
        self.most = most

    @property
    def open(self) -> list[Ticket]:
        """Those that are carried on, in order."""
        return [ticket for ticket in self._all.values() if ticket.state in self._carried]

    @property
    def all(self) -> list[Ticket]:
        """Every one, in order."""
        return list(self._all.values())

    @property
    def any(self) -> bool:
        """Whether there is or was one."""
        return bool(self._all)

    def new_id(self) -> int:
        """The number of a new one, reserved before it is committed."""
        self._last_id = max([self._last_id, *self._all]) + 1
        return self._last_id

    def new_chunk(self) -> int:
        """The number of a new chunk of rows, likewise."""
        self._last_chunk = max([self._last_chunk, *(ticket.chunk for ticket in self._all.values())]) + 1
        return self._last_chunk

    def get(self, number: int) -> Ticket:
        """The ticket as it is now."""
        return self._all[number]

    def others_of(self, ticket: Ticket) -> list[Ticket]:
        """Open ones whose batches the same create call has made."""
        return [other for other in self.open if main_of(other) == ticket.id]

    async def put(self, *tickets: Ticket) -> None:
        """Commit them together, and emit their events."""
        for done in [self._journal.put_ticket(ticket) for ticket in tickets]:
            await done
        for ticket in tickets:
            self.show(ticket)

    def show(self, ticket: Ticket) -> None:
        """Take note of a ticket that is committed, and emit its event."""
        self._all[ticket.id] = ticket
        batch = self._executor.batch_of(ticket)
        done, failed = (0, 0) if batch is None else (batch.done, batch.failed)
        shown = ticket.chunk, ticket.state, ticket.rows, ticket.remote, ticket.status, done, failed
        times = (
            ticket.asked,
            ticket.expires,
            ticket.next,
            ticket.note,
            self._journal.totals.in_batches,
            self._loop.time(),
        )
        self._emit(BatchChanged(*shown, *times))
        self.wake()

    def wake(self) -> None:
        """Wake all that wait for a ticket."""
        self.changed.set()
        self.moved_on.set()

    def look_now(self) -> None:
        """Step every one at once, whenever it was to be."""
        for ticket in self.open:
            self._all[ticket.id] = replace(ticket, next=None)
        self.wake()

    def hold(self, ticket: Ticket, until: float) -> None:
        """Step it not before `until`; not kept in the journal."""
        self._all[ticket.id] = replace(ticket, next=until)

    def tell(self, message: str, ticket: Ticket | None = None) -> None:
        """Emit a notice; once for each ticket."""
        key = (0, message) if ticket is None else (ticket.id, message)
        if ticket is None or key not in self._told:
            self._told.add(key)
            self._emit(Notice(message, self._loop.time()))

    def waits_elsewhere(self, ticket: Ticket) -> bool:
        """Whether nothing can be done for it now: it is at the provider, or its next try is later."""
        if ticket.next is None:
            return False
        if ticket.state in (State.SUBMITTED, State.DUPLICATE, State.UPLOADED, State.FETCHED):
            return True
        return ticket.state in (State.PLANNED, State.ENDED) and self._executor.failures(ticket) > 1
