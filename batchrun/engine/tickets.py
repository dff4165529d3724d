"""The tickets of a run's batches: their journaled state and events."""

import asyncio
from dataclasses import replace

from batchrun.engine.chunks import Tokens
from batchrun.events import BatchChanged, Emit, Notice
from batchrun.journal import Journal
from batchrun.lanes.batch import BatchExecutor
from batchrun.lanes.states import OPEN, State, learned_of, main_of
from batchrun.models import Ticket


class Tickets:
    def __init__(
        self, executor: BatchExecutor, journal: Journal, emit: Emit, most: int, carried: frozenset[State] = OPEN
    ) -> None:
        self._carried = carried  # Tickets in these states are advanced
        self._executor = executor
        self._journal = journal
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._all = {ticket.id: executor.reclaimed(ticket) for ticket in journal.tickets}
        self.tokens = Tokens(learned_of(self._all.values()))
        self._last_id = self._last_chunk = 0
        self._notified = set[tuple[int, str]]()
        self.changed = asyncio.Event()
        self.advanced = asyncio.Event()
        self.settled = 0
        self.most = most  # Rows in a new one

    @property
    def open(self) -> list[Ticket]:
        return [ticket for ticket in self._all.values() if ticket.state in self._carried]

    @property
    def all(self) -> list[Ticket]:
        return list(self._all.values())

    @property
    def any(self) -> bool:
        return bool(self._all)

    def new_id(self) -> int:
        self._last_id = max([self._last_id, *self._all]) + 1
        return self._last_id

    def new_chunk(self) -> int:
        self._last_chunk = max([self._last_chunk, *(ticket.chunk for ticket in self._all.values())]) + 1
        return self._last_chunk

    def get(self, number: int) -> Ticket:
        return self._all[number]

    def duplicates_of(self, ticket: Ticket) -> list[Ticket]:
        """Other batches of the same create call."""
        return [other for other in self.open if main_of(other) == ticket.id]

    async def put(self, *tickets: Ticket) -> None:
        """All in one commit."""
        for done in [self._journal.put_ticket(ticket) for ticket in tickets]:
            await done
        for ticket in tickets:
            self.show(ticket)

    def show(self, ticket: Ticket) -> None:
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
        self.changed.set()
        self.advanced.set()

    def poll_now(self) -> None:
        for ticket in self.open:
            self._all[ticket.id] = replace(ticket, next=None)
        self.wake()

    def hold(self, ticket: Ticket, until: float) -> None:
        """Delays the next step; this is not journaled."""
        self._all[ticket.id] = replace(ticket, next=until)

    def notify(self, message: str, ticket: Ticket | None = None) -> None:
        """Once per ticket."""
        key = (0, message) if ticket is None else (ticket.id, message)
        if ticket is None or key not in self._notified:
            self._notified.add(key)
            self._emit(Notice(message, self._loop.time()))

    def is_waiting(self, ticket: Ticket) -> bool:
        if ticket.next is None:
            return False
        if ticket.state in (State.SUBMITTED, State.DUPLICATE, State.UPLOADED, State.FETCHED):
            return True
        return ticket.state in (State.PLANNED, State.ENDED) and self._executor.failures(ticket) > 1
