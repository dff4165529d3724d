"""What only the user can decide: which batch belongs to a chunk, if any."""

import asyncio
from dataclasses import replace

from batchrun import registry
from batchrun.engine.connect import connected
from batchrun.engine.execute import batching_of, simulator_of
from batchrun.engine.start import Prepared
from batchrun.errors import RefusedError
from batchrun.journal import End, Journal
from batchrun.lanes.states import OPEN, State
from batchrun.models import Ticket
from batchrun.plan.resolve import Access
from batchrun.registry import RunFile

_FORGOTTEN = End(0, 0.0, "lost in a batch", "forgotten by the user", counted=False, possibly_billed=True)
_LOST = frozenset({State.CREATING, State.UNSURE})


def forget(run: RunFile, chunk: int) -> int:
    """Make a chunk's rows pending again, possibly billed. Raises RefusedError, BusyError."""
    lock = registry.held(run.path)
    try:
        journal = Journal.open(run.path)
        try:
            return asyncio.run(_forgotten(journal, chunk))
        finally:
            journal.close()
    finally:
        lock.release()


async def _forgotten(journal: Journal, chunk: int) -> int:
    tickets = [ticket for ticket in journal.tickets if ticket.chunk == chunk and ticket.state in OPEN]
    if not tickets:
        raise RefusedError(f"chunk {chunk} is not in an open batch", "`batchrun batches RUN` lists them")
    count = 0
    journal.start()
    for ticket in tickets:
        after = 0
        while leases := journal.leases(ticket.id, after):
            ends = [
                journal.end(
                    lease.row,
                    lease.number,
                    _FORGOTTEN._replace(cost=lease.cost, charged_tokens=lease.tokens),
                    None,
                    lease,
                )
                for lease in leases
            ]
            await ends[-1]
            count, after = count + len(leases), leases[-1].row
        await journal.put_ticket(replace(ticket, state=State.FORGOTTEN, next=None, note="forgotten by the user"))
    return count


async def adopt(prepared: Prepared, access: Access, remote: str) -> Ticket:
    """For a chunk whose create call got no answer. Raises RefusedError."""
    journal = prepared.journal
    async with connected(prepared.plan, access, simulator_of(prepared)) as members:
        client = members[0].client
        lost = [ticket for ticket in journal.tickets if ticket.state in _LOST]
        batching = None if client is None else batching_of(prepared, client, 1)
        if not lost or batching is None:
            raise RefusedError("no chunk of this run lacks its batch", "`batchrun batches RUN` lists them")
        executor = batching.executor
        found = await executor.find(remote)
    if found is None:
        raise RefusedError(f"the provider has no batch {remote} for this key", "use the id shown in its console")
    matching = [ticket for ticket in lost if executor.is_of(ticket, found)]
    if len(matching) != 1 or any(ticket.remote == found.id for ticket in journal.tickets):
        raise RefusedError(
            f"batch {remote} matches no chunk of this run that lacks its batch",
            "its file or label does not match; check the id in the provider's console",
        )
    adopted = executor.adopt(matching[0], found)
    journal.start()
    await journal.put_ticket(replace(adopted, note="named by the user"))
    journal.stop(0)
    return adopted
