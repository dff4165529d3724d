"""An executor that puts rows into a provider's batches; `states` has the states of a ticket.

The answer to the create call is a *no* where it is a 4xx with a JSON error, a *yes* where it is a 2xx with an id; anything
else (time-outs, resets, 5xx, HTML, 4xx that is no JSON) leaves it *unsure*: gateways repeat the call by themselves and pass
on what they like. So the list is searched, several times since vendors show batches late, and several orphans are expected:
the one furthest on is adopted, the others are cancelled and kept as duplicates, whose replies are paid and used. A list
without any batch proves nothing (that of `batchlane serve` 0.2.0 is always empty): where an answer was lost, it is then for the
user to say what is sent again.
"""

import asyncio
import json
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
from batchrun.lanes.search import body_of, retry_after, said
from batchrun.lanes.shapes import (
    SHAPES,
    Batch,
    Calling,
    OpenAIShape,
    Vendor,
    json_object,
    json_objects,
    wire_id,
)
from batchrun.lanes.states import State, detailed, is_asked_to_end, is_brought
from batchrun.models import Exchange, Ticket

LOOKS = (0.0, 5.0, 20.0, 60.0)
"""Seconds after the create call at which a batch of it is searched where its answer is not known; then it was not made."""
MOST_TRIES = 2
"""Create calls for one file, where the searches for the one before found nothing."""
MOST_FAILURES = 8
"""Failures in a row of an upload or a search: with waits that double, four minutes."""
POLL_FIRST, POLL_GROWTH, POLL_LONGEST = 15.0, 1.5, 300.0
FILE_POLL = 5.0
VISIBLE = 120.0
"""Seconds after which a batch that this key never saw is another key's."""
OVERDUE = 3600.0
"""Seconds after its expiry at which a batch that has not ended is spoken of."""
MOST_DOWNLOADS = 3
"""Downloads of a file that has fewer lines than the batch has counted; then it is taken as it is."""
_REFUSED = frozenset({400, 401, 402, 403, 404, 413, 422, 429})
_NO_LIST = frozenset({404, 405, 410, 501})
_NOT_THIS_KEY = frozenset({401, 403})


class Calls(Protocol):
    """The calls that are made; `client.Calls` is one."""

    async def call(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> Exchange: ...

    async def upload(self, path: str, fields: Mapping[str, str], file: Path, name: str) -> Exchange: ...

    async def send_file(self, path: str, file: Path, headers: Mapping[str, str]) -> Exchange: ...

    async def download(self, path: str, to: Path, *, headers: Mapping[str, str] | None = None) -> Exchange: ...


class BatchExecutor:
    """Carries out tickets by one vendor's batches.

    `folder` holds files on their way; `clock` gives Unix seconds; `scale` shortens every wait, for a simulated provider.
    Without `calls` it only reads results that are in the folder.
    """

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
        """What to do with a ticket that an earlier process left."""
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
        """The ticket as this process takes it over: a call that was under way has no known answer."""
        if ticket.remote is not None:
            self._known.add(ticket.remote)
        self._known.update(json_object(json.loads(ticket.detail)).get("not_ours") or ())
        if ticket.state == State.CREATING:
            note = "the process ended while it was submitted"
            return replace(
                ticket, state=State.UNSURE, next=None, note=note, detail=detailed(ticket, looks=0, killed=True)
            )
        return ticket

    async def step(self, ticket: Ticket) -> Stepped:
        """One step on. Raises StopError where only a person can say how to go on."""
        steps: dict[str, Callable[[Ticket], Awaitable[Stepped]]] = {
            State.PLANNED: self._upload,
            State.UPLOADED: self._ready,
            State.CREATING: self._create,
            State.UNSURE: self._search,
            State.SUBMITTED: self._look,
            State.DUPLICATE: self._look_at_duplicate,
            State.ENDED: self._fetch,
        }
        step = steps.get(ticket.state)
        if step is None:
            return Stepped(ticket)
        stepped = await step(ticket)
        return stepped._replace(wait=stepped.wait * self.scale)

    async def cancel(self, ticket: Ticket) -> Ticket:
        """Ask for its batch to end. A batch that has ended says so with a 4xx, which is fine."""
        if ticket.remote is None:
            return ticket
        answer = await self._call(self.shape.cancel(ticket.remote))
        if answer.status // 100 not in (2, 4):
            return replace(ticket, next=None, note=f"could not be asked to end: {said(answer)}")
        return replace(ticket, next=None, note="asked to end", detail=detailed(ticket, asked_to_end=True))

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
        hint = "nothing was submitted and the rows are pending: resume the run later"
        return self._again(ticket, answer, f"the upload of chunk {ticket.chunk}", hint)

    async def _ready(self, ticket: Ticket) -> Stepped:
        """Where a file must be processed first, wait for that; then the state CREATING is committed before the call."""
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
        return Stepped(replace(ticket, state=State.UNSURE, note=said(answer), detail=detail))

    def _is_whole(self, ticket: Ticket) -> bool:
        """Whether the file of its requests is here, as it was committed."""
        file = self.path(ticket, "requests")
        return file.exists() and results.digest(file) == ticket.sha256

    def _refused(self, ticket: Ticket, answer: Exchange) -> Ticket:
        """A clear no: nothing was created. The engine judges the answer as it would a live one."""
        kept = {"status": answer.status, "body": answer.body.decode("utf-8", "replace")[:4000]}
        detail = detailed(ticket, answer={**kept, "wait": retry_after(answer)})
        return replace(ticket, state=State.REFUSED, seen=self.clock(), note=said(answer), detail=detail)

    def _lost_file(self, ticket: Ticket) -> Ticket:
        """The journal is here and the file with the requests is not, or another: nothing was submitted, so its rows start
        over."""
        note = "the file with its requests is not on this machine"
        return replace(ticket, state=State.REFUSED, detail=detailed(ticket, answer={"status": 0}), note=note)

    def _again(self, ticket: Ticket, answer: Exchange, what: str, hint: str | None = None) -> Stepped:
        """An answer that may pass, to a call that costs nothing: the same step again, later each time.

        Raises StopError with that hint after too many in a row.
        """
        failures = self.failures(ticket) + 1
        if hint is not None and failures >= MOST_FAILURES:
            raise StopError(f"{what} failed {failures} times: {printable(said(answer), 300)}", hint)
        wait = max(retry_after(answer), min(POLL_LONGEST, 2.0 ** min(failures, 10)))
        changed = replace(ticket, note=f"{what}: {said(answer)}", detail=detailed(ticket, failures=failures))
        return Stepped(changed, wait)

    def failures(self, ticket: Ticket) -> int:
        """How many calls of the present step have failed."""
        return int(json_object(json.loads(ticket.detail)).get("failures") or 0)

    async def _search(self, ticket: Ticket) -> Stepped:
        """Look for what a create call without a known answer has made."""
        detail = json_object(json.loads(ticket.detail))
        looks, killed = int(detail.get("looks") or 0), bool(detail.get("killed"))
        since = float(detail.get("since") or ticket.asked or 0.0)
        wait = since + LOOKS[looks] * self.scale - self.clock()
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
            stepped = self._again(ticket, found.why, what, self._three_ways(ticket))
            return stepped._replace(ticket=replace(stepped.ticket, note=ticket.note))
        if looks + 1 < len(LOOKS) and self.clock() < since + LOOKS[-1] * self.scale:
            return Stepped(replace(ticket, detail=detailed(ticket, looks=looks + 1, failures=0)))
        if not killed and (ticket.number >= MOST_TRIES or not found.others):
            why = "no batch of it is listed" if found.others else "the list shows no batch at all"
            raise StopError(
                f"chunk {ticket.chunk} may have been submitted, and {why}; the answer was: "
                f"{printable(ticket.note or 'no answer', 300)}",
                self._three_ways(ticket),
            )
        again = replace(ticket, state=State.CREATING, number=ticket.number + 1, asked=self.clock())
        return Stepped(replace(again, detail=detailed(ticket, looks=0, failures=0, killed=False)))

    def _three_ways(self, ticket: Ticket) -> str:
        return (
            f"if the provider's console shows it, name it: `batchrun batches {self._run} adopt ID`; if it does not, "
            f"`batchrun batches {self._run} forget {ticket.chunk}` sends its rows again (they may have been billed); "
            f"or look again later: `batchrun resume {self._run}`"
        )

    def _also(self, batch: Batch) -> str:
        self._known.add(batch.id)
        return batch.id

    def adopt(self, ticket: Ticket, batch: Batch) -> Ticket:
        """The ticket with that batch for its own."""
        self._known.add(batch.id)
        adopted = replace(ticket, state=State.SUBMITTED, remote=batch.id, status=batch.status, next=None)
        return replace(adopted, expires=batch.expires, seen=self.clock(), note="found in the list of batches")

    def given_back(self, ticket: Ticket) -> Ticket:
        """The ticket without the batch that was taken for its own and is another's: its own is searched again."""
        others = [*(json_object(json.loads(ticket.detail)).get("not_ours") or ()), ticket.remote]
        detail = detailed(ticket, not_ours=others, object=None, looks=0, since=self.clock())
        note = f"batch {ticket.remote} is another's"
        return replace(ticket, state=State.UNSURE, remote=None, status=None, next=None, note=note, detail=detail)

    def is_of(self, ticket: Ticket, batch: Batch) -> bool:
        """Whether a batch is a ticket's, as far as it shows that."""
        return search.is_of(self.shape, ticket, batch)

    async def find(self, remote: str) -> Batch | None:
        """A batch by its id; None where the provider does not show it."""
        answer = await self._call(self.shape.retrieve(remote))
        body = body_of(answer)
        return self.shape.batch(body) if answer.status == 200 and body.get("id") else None

    async def late(self, ticket: Ticket) -> Ticket | None:
        """A ticket that was given up, with its results in the folder; None where its batch has not ended or is not shown."""
        answer = await self._call(self.shape.retrieve(ticket.remote or ""))
        body = body_of(answer)
        if answer.status != 200 or not body.get("id") or not self.shape.batch(body).ended:
            return None
        ended = replace(ticket, state=State.ENDED, status=self.shape.batch(body).status)
        found = (await self._fetch(replace(ended, detail=detailed(ticket, object=body)))).ticket
        return found if found.state == State.FETCHED else None

    async def _look_at_duplicate(self, ticket: Ticket) -> Stepped:
        if not is_asked_to_end(ticket):
            return Stepped(await self.cancel(ticket), POLL_FIRST / 3)
        return await self._look(ticket)

    async def _look(self, ticket: Ticket) -> Stepped:
        answer = await self._call(self.shape.retrieve(ticket.remote or ""))
        body = body_of(answer)
        if answer.status == 200 and body.get("id"):
            return self.seen(ticket, body)
        unseen = ticket.remote not in self._visible and ticket.state == State.SUBMITTED
        old = self.clock() - (ticket.asked or 0.0) > VISIBLE * self.scale
        if answer.status in _NOT_THIS_KEY or (answer.status == 404 and unseen and old):
            raise StopError(
                f"the provider does not show batch {ticket.remote} to this key ({printable(said(answer), 200)}): it was made "
                "with another key or project",
                "resume with the key that submitted it; its rows stay in the batch, and none of them is sent again",
            )
        # Not an end: vendors answer 404 for seconds after the create call and now and then later.
        return Stepped(replace(ticket, note=said(answer)), max(retry_after(answer), self._pause(ticket)))

    def seen(self, ticket: Ticket, body: Mapping[str, Any]) -> Stepped:
        """A ticket whose batch was just seen, by itself or in a list; the wait is not scaled."""
        batch = self.shape.batch(body)
        self._visible.add(batch.id)
        self._known.add(batch.id)
        state = State.ENDED if batch.ended else State(ticket.state)
        note = None
        if not batch.ended and batch.expires is not None and self.clock() > batch.expires + OVERDUE:
            note = (
                f"it should have ended an hour ago or more; `batchrun batches {self._run} forget {ticket.chunk}` sends its "
                "rows again (they may have been billed)"
            )
        changed = replace(ticket, state=state, remote=batch.id, status=batch.status, note=note)
        changed = replace(changed, expires=batch.expires or ticket.expires, seen=self.clock())
        changed = replace(changed, detail=detailed(ticket, object=body, failures=0))
        return Stepped(changed, 0.0 if batch.ended else self._pause(ticket))

    def _pause(self, ticket: Ticket) -> float:
        """Longer the longer it takes, from a quarter of a minute to five."""
        age = max(0.0, self.clock() - (ticket.asked or self.clock())) / self.scale
        return min(POLL_LONGEST, max(POLL_FIRST, age * (POLL_GROWTH - 1)))

    async def _fetch(self, ticket: Ticket) -> Stepped:
        """Both files, whole; a file that is missing, empty or named by nothing is no file."""
        batch = self.batch_of(ticket)
        assert batch is not None, "it was seen to have ended"
        most = MOST_DOWNLOADS if batch.error else MOST_FAILURES
        if batch.done and not batch.output and self.failures(ticket) < most:
            # A status may be ahead of its files: rows that were counted as done would be sent, and paid for, again.
            answer = await self._call(self.shape.retrieve(batch.id))
            body = body_of(answer)
            if answer.status != 200 or not (batch := self.shape.batch(body)).output:
                unnamed = b"rows are counted as done, and no file of replies is named"
                return self._again(ticket, answer._replace(status=0, body=unnamed), "the results")
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
                return self._again(ticket, answer, f"the {kind} file")
            try:
                found = await asyncio.to_thread(results.count_lines, to)
            except ValueError as error:
                return self._again(ticket, answer._replace(status=0, body=str(error).encode()), f"the {kind} file")
            if found < lines and self.failures(ticket) < MOST_DOWNLOADS - 1:
                short = f"{found:,} lines, where {lines:,} are counted".encode()
                return self._again(ticket, answer._replace(status=0, body=short), f"the {kind} file")
            sizes[kind] = to.stat().st_size
        return Stepped(
            replace(ticket, state=State.FETCHED, detail=detailed(ticket, files=sizes, failures=0), note=None)
        )

    def batch_of(self, ticket: Ticket) -> Batch | None:
        """The batch of a ticket as it was last seen."""
        found = json_object(json_object(json.loads(ticket.detail)).get("object"))
        return self.shape.batch(found) if found else None

    async def listed(self, tickets: list[Ticket]) -> dict[int, Stepped]:
        """A step of each of these submitted tickets by one page of the list, as far as it shows them, with other batches
        that are theirs: gateways repeat calls by themselves.

        Where the list cannot be read now, all wait; where it is not offered, none is stepped.
        """
        answer = await self._call(self.shape.listing(None))
        if answer.status in _NO_LIST or answer.status in _NOT_THIS_KEY:
            return {}
        if answer.status != 200:
            wait, note = retry_after(answer), said(answer)
            return {
                each.id: Stepped(replace(each, note=note), max(wait, self._pause(each)) * self.scale)
                for each in tickets
            }
        bodies = {str(item["id"]): item for item in json_objects(body_of(answer).get("data")) if item.get("id")}
        found = {each.id: self.seen(each, bodies[each.remote]) for each in tickets if each.remote in bodies}
        strangers = [self.shape.batch(body) for name, body in bodies.items() if name not in self._known]
        if not self.shape.inline:  # what has no label may be of another run
            for each in tickets:
                also = tuple(self._also(batch) for batch in strangers if search.is_of(self.shape, each, batch))
                if each.id in found and also:
                    found[each.id] = found[each.id]._replace(also=also)
        return {number: step._replace(wait=step.wait * self.scale) for number, step in found.items()}

    def answer_of(self, ticket: Ticket) -> tuple[int, str, float]:
        """The status, the body and the stated wait of the answer that refused a ticket; the status is 0 where there was
        none."""
        answer = json_object(json_object(json.loads(ticket.detail)).get("answer"))
        return int(answer.get("status") or 0), str(answer.get("body") or ""), float(answer.get("wait") or 0)

    def is_fatal(self, body: str) -> bool:
        """Whether a 429 is about money: waiting cures nothing."""
        return any(word in body for word in ("insufficient_quota", "billing", "credit_balance"))

    def wire_id(self, seq: int, number: int) -> str:
        """The `custom_id` of a row's attempt."""
        return wire_id(self._run, seq, number)

    def places(self, ticket: Ticket, lines: set[int]) -> dict[int, tuple[int, int]]:
        """Row and attempt of these lines (from 1) of a ticket's file; none where the file is gone."""
        return results.places(self.path(ticket, "requests"), lines, self._run)

    def path(self, ticket: Ticket, kind: str) -> Path:
        """Where a file of a ticket is: `requests`, `output` or `error`."""
        return self._folder / f"{ticket.id}.{kind}.jsonl"

    def results(self, ticket: Ticket, read: Read | None = None) -> Results:
        """What the lines of both files say."""
        shape = OpenAIShape(self.vendor) if is_brought(ticket) else self.shape
        return Results([self.path(ticket, "output"), self.path(ticket, "error")], shape, self._run, read)

    def clean(self, ticket: Ticket, *kinds: str) -> None:
        """Remove the files of a ticket that is settled, or those of these kinds."""
        for kind in kinds or ("requests", "output", "error"):
            self.path(ticket, kind).unlink(missing_ok=True)

    @property
    def _calls(self) -> Calls:
        assert self._wire is not None, "results alone are read"
        return self._wire

    async def _call(self, calling: Calling) -> Exchange:
        return await self._calls.call(calling.method, calling.path, calling.body, headers=self.shape.headers)
