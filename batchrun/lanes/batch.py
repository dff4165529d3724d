"""An executor that puts rows into a provider's batches; `states` has the states of a ticket.

A create call is refused by a 4xx with a JSON error, accepted by a 2xx with an id. Anything else leaves the ticket
*unsure*, since gateways repeat calls: the list is searched several times, as vendors show batches late. Of several
matches the one furthest on is adopted; the others are cancelled, and their replies used. An empty list proves nothing
(`batchlane serve` 0.2.0): the user decides.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from batchrun.display import printable
from batchrun.errors import StopError
from batchrun.lanes import results, search
from batchrun.lanes.executor import Read, Reclaim, Stepped
from batchrun.lanes.results import Results
from batchrun.lanes.search import answer_text, body_of, retry_after
from batchrun.lanes.shapes import (
    SHAPES,
    Batch,
    Calling,
    OpenAIShape,
    json_object,
    json_objects,
    wire_id,
)
from batchrun.lanes.states import State, detail_of, detailed, is_asked_to_end, is_imported
from batchrun.lanes.vendors import Vendor
from batchrun.models import Exchange, Ticket

SEARCHES = (0.0, 5.0, 20.0, 60.0)  # seconds after an unanswered create call at which its batch is searched
MOST_TRIES = 2  # create calls for one file
MOST_FAILURES = 8  # in a row, of an upload or a search: four minutes of doubling waits
POLL_FIRST, POLL_GROWTH, POLL_LONGEST = 15.0, 1.5, 300.0
FILE_POLL = 5.0
VISIBLE = 120.0  # seconds after which a batch never seen is another key's
OVERDUE = 3600.0  # seconds after its expiry at which an unended batch is reported
MOST_DOWNLOADS = 3  # downloads of a file with fewer lines than counted; then it is used
_REFUSED = frozenset({400, 401, 402, 403, 404, 413, 422, 429})
_NO_LIST = frozenset({404, 405, 410, 501})
_NOT_THIS_KEY = frozenset({401, 403})


class Calls(Protocol):
    async def call(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> Exchange: ...

    async def upload(self, path: str, fields: Mapping[str, str], file: Path, name: str) -> Exchange: ...

    async def send_file(self, path: str, file: Path, headers: Mapping[str, str]) -> Exchange: ...

    async def download(self, path: str, to: Path, *, headers: Mapping[str, str] | None = None) -> Exchange: ...


class BatchExecutor:
    """`clock` gives Unix seconds; `scale` multiplies waits; without `calls` it only reads results."""

    def __init__(  # noqa: PLR0913  what it works with, each by name
        self,
        vendor: Vendor,
        calls: Calls | None,
        *,
        run: str,
        folder: Path,
        clock: Callable[[], float] = time.time,
        scale: float = 1.0,
    ) -> None:
        self.vendor = vendor
        self.shape: OpenAIShape = SHAPES[vendor.shape](vendor)
        self.clock = clock
        self.scale = scale
        self._wire = calls
        self._run = run
        self._folder = folder
        self._visible = set[str]()
        self._known = set[str]()

    def reclaim(self, ticket: Ticket) -> Reclaim:
        match State(ticket.state):
            case State.CREATING | State.UNSURE:
                return Reclaim.UNSURE
            case State.ENDED | State.FETCHED:
                return Reclaim.READY
            case State.SETTLED | State.REFUSED | State.FORGOTTEN:
                return Reclaim.GONE
            case _:
                return Reclaim.RUNNING

    def reclaimed(self, ticket: Ticket) -> Ticket:
        # a call under way has no known answer for this process
        if ticket.remote is not None:
            self._known.add(ticket.remote)
        self._known.update(detail_of(ticket).get("not_ours") or ())
        if ticket.state == State.CREATING:
            note = "the process ended while it was submitted"
            return replace(
                ticket, state=State.UNSURE, next=None, note=note, detail=detailed(ticket, looks=0, killed=True)
            )
        return ticket

    async def step(self, ticket: Ticket) -> Stepped:
        """Raises StopError if the user has to decide."""
        steps: dict[str, Callable[[Ticket], Awaitable[Stepped]]] = {
            State.PLANNED: self._upload,
            State.UPLOADED: self._ready,
            State.CREATING: self._create,
            State.UNSURE: self._search,
            State.SUBMITTED: self._poll,
            State.DUPLICATE: self._poll_duplicate,
            State.ENDED: self._fetch,
        }
        step = steps.get(ticket.state)
        if step is None:
            return Stepped(ticket)
        stepped = await step(ticket)
        return stepped._replace(wait=stepped.wait * self.scale)

    async def cancel(self, ticket: Ticket) -> Ticket:
        # A 4xx means that the batch has ended.
        if ticket.remote is None:
            return ticket
        answer = await self._call(self.shape.cancel(ticket.remote))
        if answer.status // 100 not in (2, 4):
            return replace(ticket, next=None, note=f"could not be cancelled: {answer_text(answer)}")
        return replace(ticket, next=None, note="cancellation requested", detail=detailed(ticket, asked_to_end=True))

    async def _upload(self, ticket: Ticket) -> Stepped:
        if self.shape.inline:
            return Stepped(replace(ticket, state=State.UPLOADED, file=None))
        file = self.path(ticket, "requests")
        if not await asyncio.to_thread(self._is_whole, ticket):
            return Stepped(self._lost_file(ticket))
        name = f"batchrun-{ticket.tag.replace('/', '-')}-{ticket.sha256[:8]}.jsonl"
        answer = await self._calls.upload("files", {"purpose": self.vendor.purpose}, file, name)
        body = body_of(answer)
        if answer.status // 100 == 2 and body.get("id"):
            uploaded = replace(ticket, state=State.UPLOADED, file=str(body["id"]), seen=self.clock(), note=None)
            return Stepped(replace(uploaded, detail=detailed(ticket, failures=0)))
        if answer.status in _REFUSED - {429} and body:
            return Stepped(self._refused(ticket, answer))
        hint = "nothing was submitted; the rows are pending: resume the run later"
        return self._retry(ticket, answer, f"the upload of chunk {ticket.chunk}", hint)

    async def _ready(self, ticket: Ticket) -> Stepped:
        # CREATING is committed before the call.
        if self.vendor.ready and ticket.file is not None:
            answer = await self._call(Calling("GET", f"files/{ticket.file}"))
            status = str(body_of(answer).get("status") or "")
            if answer.status != 200 or status in ("pending", "uploaded", "running"):
                return Stepped(ticket, max(FILE_POLL, retry_after(answer)))
            if status in ("error", "failed"):
                return Stepped(self._refused(ticket, answer))
        return Stepped(replace(ticket, state=State.CREATING, asked=self.clock(), note=None))

    async def _create(self, ticket: Ticket) -> Stepped:
        calling = self.shape.create(ticket.file or "", ticket.endpoint, ticket.model, ticket.tag)
        if self.shape.inline:
            if not await asyncio.to_thread(self._is_whole, ticket):
                return Stepped(self._lost_file(ticket))
            answer = await self._calls.send_file(calling.path, self.path(ticket, "requests"), self.shape.headers)
        else:
            answer = await self._call(calling)
        body = body_of(answer)
        if answer.status // 100 == 2 and body.get("id"):
            return self.seen(replace(ticket, state=State.SUBMITTED), body)
        if answer.status in _REFUSED and body:
            return Stepped(self._refused(ticket, answer))
        detail = detailed(ticket, looks=0, since=self.clock(), killed=False)
        return Stepped(replace(ticket, state=State.UNSURE, note=answer_text(answer), detail=detail))

    def _is_whole(self, ticket: Ticket) -> bool:
        file = self.path(ticket, "requests")
        return file.exists() and results.digest(file) == ticket.sha256

    def _refused(self, ticket: Ticket, answer: Exchange) -> Ticket:
        # The engine judges the answer like a live one.
        kept = {"status": answer.status, "body": answer.body.decode("utf-8", "replace")[:4000]}
        detail = detailed(ticket, answer={**kept, "wait": retry_after(answer)})
        return replace(ticket, state=State.REFUSED, seen=self.clock(), note=answer_text(answer), detail=detail)

    def _lost_file(self, ticket: Ticket) -> Ticket:
        # Nothing was submitted, so its rows start over.
        note = "the file with its requests is not on this machine"
        return replace(ticket, state=State.REFUSED, detail=detailed(ticket, answer={"status": 0}), note=note)

    def _retry(self, ticket: Ticket, answer: Exchange, what: str, hint: str | None = None) -> Stepped:
        # later each time; raises StopError with `hint` after too many failures
        failures = self.failures(ticket) + 1
        if hint is not None and failures >= MOST_FAILURES:
            raise StopError(f"{what} failed {failures} times: {printable(answer_text(answer), 300)}", hint)
        wait = max(retry_after(answer), min(POLL_LONGEST, 2.0 ** min(failures, 10)))
        changed = replace(ticket, note=f"{what}: {answer_text(answer)}", detail=detailed(ticket, failures=failures))
        return Stepped(changed, wait)

    def failures(self, ticket: Ticket) -> int:
        return int(detail_of(ticket).get("failures") or 0)

    async def _search(self, ticket: Ticket) -> Stepped:
        detail = detail_of(ticket)
        looks, killed = int(detail.get("looks") or 0), bool(detail.get("killed"))
        since = float(detail.get("since") or ticket.asked or 0.0)
        wait = since + SEARCHES[looks] * self.scale - self.clock()
        if wait > 0 and not self.failures(ticket):
            return Stepped(ticket, wait / self.scale)
        found = await search.matching(self._call, self.shape, ticket, self._known)
        if found.batches:
            # The one furthest on is the ticket's; the others are remembered, to be cancelled and read as well.
            best, *rest = found.batches
            duplicates = [batch.id for batch in rest]
            return Stepped(
                self.adopt(replace(ticket, detail=detailed(ticket, duplicates=duplicates, failures=0)), best)
            )
        if found.why is not None:
            what = f"chunk {ticket.chunk} may have been submitted ({printable(ticket.note or 'no answer', 200)}): the list of batches"
            stepped = self._retry(ticket, found.why, what, self._unsure_hint(ticket))
            return stepped._replace(ticket=replace(stepped.ticket, note=ticket.note))
        if looks + 1 < len(SEARCHES) and self.clock() < since + SEARCHES[-1] * self.scale:
            return Stepped(replace(ticket, detail=detailed(ticket, looks=looks + 1, failures=0)))
        if not killed and (ticket.number >= MOST_TRIES or not found.others):
            why = "no batch of it is listed" if found.others else "the list has no batches at all"
            raise StopError(
                f"chunk {ticket.chunk} may have been submitted, and {why}; the answer was: "
                f"{printable(ticket.note or 'no answer', 300)}",
                self._unsure_hint(ticket),
            )
        again = replace(ticket, state=State.CREATING, number=ticket.number + 1, asked=self.clock())
        return Stepped(replace(again, detail=detailed(ticket, looks=0, failures=0, killed=False)))

    def _unsure_hint(self, ticket: Ticket) -> str:
        return (
            f"if the provider's console shows it, name it: `batchrun batches {self._run} adopt ID`; if it does not, "
            f"`batchrun batches {self._run} forget {ticket.chunk}` sends its rows again (they may have been billed); "
            f"or look again later: `batchrun resume {self._run}`"
        )

    def adopt(self, ticket: Ticket, batch: Batch) -> Ticket:
        self._known.add(batch.id)
        adopted = replace(ticket, state=State.SUBMITTED, remote=batch.id, status=batch.status, next=None)
        return replace(adopted, expires=batch.expires, seen=self.clock(), note="found in the list of batches")

    def released(self, ticket: Ticket) -> Ticket:
        """Without a batch that proved another's."""
        others = [*(detail_of(ticket).get("not_ours") or ()), ticket.remote]
        detail = detailed(ticket, not_ours=others, object=None, looks=0, since=self.clock())
        note = f"batch {ticket.remote} belongs to other rows"
        return replace(ticket, state=State.UNSURE, remote=None, status=None, next=None, note=note, detail=detail)

    def is_of(self, ticket: Ticket, batch: Batch) -> bool:
        return search.is_of(self.shape, ticket, batch)

    async def find(self, remote: str) -> Batch | None:
        """None if the provider does not return it."""
        answer = await self._call(self.shape.retrieve(remote))
        body = body_of(answer)
        return self.shape.batch(body) if answer.status == 200 and body.get("id") else None

    async def late(self, ticket: Ticket) -> Ticket | None:
        """A forgotten ticket with its results in the folder."""
        answer = await self._call(self.shape.retrieve(ticket.remote or ""))
        body = body_of(answer)
        if answer.status != 200 or not body.get("id") or not self.shape.batch(body).ended:
            return None
        ended = replace(ticket, state=State.ENDED, status=self.shape.batch(body).status)
        found = (await self._fetch(replace(ended, detail=detailed(ticket, object=body)))).ticket
        return found if found.state == State.FETCHED else None

    async def _poll_duplicate(self, ticket: Ticket) -> Stepped:
        if not is_asked_to_end(ticket):
            return Stepped(await self.cancel(ticket), POLL_FIRST / 3)
        return await self._poll(ticket)

    async def _poll(self, ticket: Ticket) -> Stepped:
        answer = await self._call(self.shape.retrieve(ticket.remote or ""))
        body = body_of(answer)
        if answer.status == 200 and body.get("id"):
            return self.seen(ticket, body)
        unseen = ticket.remote not in self._visible and ticket.state == State.SUBMITTED
        old = self.clock() - (ticket.asked or 0.0) > VISIBLE * self.scale
        if answer.status in _NOT_THIS_KEY or (answer.status == 404 and unseen and old):
            raise StopError(
                f"the provider does not return batch {ticket.remote} to this key ({printable(answer_text(answer), 200)}): it was made "
                "with another key or project",
                "resume with the key that submitted it; its rows stay in the batch, and none of them is sent again",
            )
        # Not an end: vendors answer 404 for seconds after the create call and now and then later.
        return Stepped(replace(ticket, note=answer_text(answer)), max(retry_after(answer), self._pause(ticket)))

    def seen(self, ticket: Ticket, body: Mapping[str, Any]) -> Stepped:
        # the wait that is returned is not scaled
        batch = self.shape.batch(body)
        self._visible.add(batch.id)
        self._known.add(batch.id)
        state = State.ENDED if batch.ended else State(ticket.state)
        note = None
        if not batch.ended and batch.expires is not None and self.clock() > batch.expires + OVERDUE:
            note = (
                f"it should have ended over an hour ago; `batchrun batches {self._run} forget {ticket.chunk}` sends its "
                "rows again (they may have been billed)"
            )
        changed = replace(ticket, state=state, remote=batch.id, status=batch.status, note=note)
        changed = replace(changed, expires=batch.expires or ticket.expires, seen=self.clock())
        changed = replace(changed, detail=detailed(ticket, object=body, failures=0))
        return Stepped(changed, 0.0 if batch.ended else self._pause(ticket))

    def _pause(self, ticket: Ticket) -> float:
        # Half the ticket's age, from 15 s to 5 minutes.
        age = max(0.0, self.clock() - (ticket.asked or self.clock())) / self.scale
        return min(POLL_LONGEST, max(POLL_FIRST, age * (POLL_GROWTH - 1)))

    async def _fetch(self, ticket: Ticket) -> Stepped:
        batch = self.batch_of(ticket)
        assert batch is not None, "it was seen to have ended"
        most = MOST_DOWNLOADS if batch.error else MOST_FAILURES
        if batch.done and not batch.output and self.failures(ticket) < most:
            # A status may be ahead of its files: rows that were counted as done would be sent, and paid for, again.
            answer = await self._call(self.shape.retrieve(batch.id))
            body = body_of(answer)
            if answer.status != 200 or not (batch := self.shape.batch(body)).output:
                unnamed = b"rows are counted as done, but no output file is named"
                return self._retry(ticket, answer._replace(status=0, body=unnamed), "the results")
            ticket = replace(ticket, detail=detailed(ticket, object=body))
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # the journal may have come from another machine
        sizes: dict[str, int] = {}
        for kind, file, lines in (("output", batch.output, batch.done), ("error", batch.error, 0)):
            to = self.path(ticket, kind)
            if not file:
                to.unlink(missing_ok=True)
                continue
            answer = await self._calls.download(self.shape.content(file), to, headers=self.shape.headers)
            if answer.status == 404 and kind == "error":
                continue  # an error file that is named and is not there: nothing failed
            if answer.status != 200:
                return self._retry(ticket, answer, f"the {kind} file")
            try:
                found = await asyncio.to_thread(results.count_lines, to)
            except ValueError as error:
                return self._retry(ticket, answer._replace(status=0, body=str(error).encode()), f"the {kind} file")
            if found < lines and self.failures(ticket) < MOST_DOWNLOADS - 1:
                short = f"{found:,} lines, where {lines:,} are counted".encode()
                return self._retry(ticket, answer._replace(status=0, body=short), f"the {kind} file")
            sizes[kind] = to.stat().st_size
        return Stepped(
            replace(ticket, state=State.FETCHED, detail=detailed(ticket, files=sizes, failures=0), note=None)
        )

    def batch_of(self, ticket: Ticket) -> Batch | None:
        found = json_object(detail_of(ticket).get("object"))
        return self.shape.batch(found) if found else None

    async def listed(self, tickets: list[Ticket]) -> dict[int, Stepped]:
        """A step of submitted tickets by one page of the list, with other batches that are theirs.

        If it cannot be read, all wait; if it is not offered, none is stepped.
        """
        answer = await self._call(self.shape.listing(None))
        if answer.status in _NO_LIST or answer.status in _NOT_THIS_KEY:
            return {}
        if answer.status != 200:
            wait, note = retry_after(answer), answer_text(answer)
            return {
                each.id: Stepped(replace(each, note=note), max(wait, self._pause(each)) * self.scale)
                for each in tickets
            }
        bodies = {str(item["id"]): item for item in json_objects(body_of(answer).get("data")) if item.get("id")}
        found = {each.id: self.seen(each, bodies[each.remote]) for each in tickets if each.remote in bodies}
        strangers = [self.shape.batch(body) for name, body in bodies.items() if name not in self._known]
        if not self.shape.inline:  # what has no label may be of another run
            for each in tickets:
                also = tuple(batch.id for batch in strangers if search.is_of(self.shape, each, batch))
                self._known.update(also)
                if each.id in found and also:
                    found[each.id] = found[each.id]._replace(also=also)
        return {number: step._replace(wait=step.wait * self.scale) for number, step in found.items()}

    def answer_of(self, ticket: Ticket) -> tuple[int, str, float]:
        """(status, body, wait) of the refusal; status 0 without one."""
        answer = json_object(detail_of(ticket).get("answer"))
        return int(answer.get("status") or 0), str(answer.get("body") or ""), float(answer.get("wait") or 0)

    def is_fatal(self, body: str) -> bool:
        # It is about money: waiting does not help.
        return any(word in body for word in ("insufficient_quota", "billing", "credit_balance"))

    def wire_id(self, seq: int, number: int) -> str:
        return wire_id(self._run, seq, number)

    def places(self, ticket: Ticket, lines: set[int]) -> dict[int, tuple[int, int]]:
        """(row, attempt) of lines (from 1)."""
        return results.places(self.path(ticket, "requests"), lines, self._run)

    def path(self, ticket: Ticket, kind: str) -> Path:
        """`kind` is `requests`, `output` or `error`."""
        return self._folder / f"{ticket.id}.{kind}.jsonl"

    def results(self, ticket: Ticket, read: Read | None = None) -> Results:
        shape = OpenAIShape(self.vendor) if is_imported(ticket) else self.shape
        return Results([self.path(ticket, "output"), self.path(ticket, "error")], shape, self._run, read)

    def clean(self, ticket: Ticket, *kinds: str) -> None:
        for kind in kinds or ("requests", "output", "error"):
            self.path(ticket, kind).unlink(missing_ok=True)

    @property
    def _calls(self) -> Calls:
        assert self._wire is not None, "results alone are read"
        return self._wire

    async def _call(self, calling: Calling) -> Exchange:
        return await self._calls.call(calling.method, calling.path, calling.body, headers=self.shape.headers)
