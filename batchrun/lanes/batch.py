"""An executor that puts rows into a provider's batches.

States of a ticket, what is committed before which call, and what a kill in that state means:

| state     | committed before                | then                                     | a kill here means                 |
|---|---|---|---|
| planned   | its rows, attempts, tag, digest | the file is written and uploaded         | uploaded again; a spare file      |
| uploaded  | the file's id                   | waits until the file can be used         | goes on                           |
| creating  | when it was asked, which try    | POST, on a connection of its own, once   | unsure                            |
| unsure    |                                 | the list is searched                     | searched                          |
| submitted | the provider's id               | looked at now and then                   | looked at                         |
| ended     | the whole object                | both files are downloaded and checked    | downloaded again                  |
| fetched   | names and sizes                 | the engine takes the lines in            | taken in again; known ones passed |
| settled   |                                 | nothing                                  | nothing                           |

The answer to the create call is a *no* where it is a 4xx with a JSON error, a *yes* where it is a 2xx with an id; anything
else (time-outs, resets, 5xx, HTML, 4xx that is no JSON) leaves it *unsure*: gateways repeat the call by themselves and pass
on what they like. So the list is searched, several times since vendors show batches late, and several orphans are expected:
the one furthest on is adopted, the others are cancelled and kept as duplicates, whose replies are paid and used.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from batchrun.display import printable
from batchrun.errors import StopError
from batchrun.lanes.executor import Completion, Reclaim, Stepped
from batchrun.lanes.shapes import (
    SHAPES,
    Batch,
    Calling,
    OpenAIShape,
    Vendor,
    json_object,
    json_objects,
    parse_wire_id,
    parsed,
    wire_id,
)
from batchrun.models import Exchange, Ticket

LOOKS = (0.0, 5.0, 20.0, 60.0)
"""Seconds before each search for a batch whose create call has no known answer; after the last one it was not made."""
MOST_TRIES = 2
"""Create calls for one file, where the searches for the one before found nothing."""
POLL_FIRST, POLL_GROWTH, POLL_LONGEST = 15.0, 1.5, 300.0
FILE_POLL = 5.0
BEFORE = 600.0
"""Seconds by which a batch may seem older than the call that made it: clocks differ."""
MOST_PAGES = 50
LINES = 1000
"""Lines of results that are handed over together."""
_REFUSED = frozenset({400, 401, 402, 403, 404, 413, 422, 429})


class State(StrEnum):
    """How far a ticket is."""

    PLANNED = "planned"
    UPLOADED = "uploaded"
    CREATING = "creating"
    UNSURE = "unsure"
    SUBMITTED = "submitted"
    ENDED = "ended"
    FETCHED = "fetched"
    SETTLED = "settled"
    REFUSED = "refused"
    FORGOTTEN = "forgotten"
    DUPLICATE = "duplicate"


OPEN = frozenset(
    {State.PLANNED, State.UPLOADED, State.CREATING, State.UNSURE, State.SUBMITTED, State.ENDED, State.FETCHED}
)
"""Tickets whose rows are in a batch: they are not sent otherwise."""
SENT = frozenset({State.CREATING, State.UNSURE, State.SUBMITTED, State.ENDED, State.FETCHED})
"""Tickets that the provider may be working on, or has worked on."""


class Calls(Protocol):
    """The calls that are made; `client.Calls` is one."""

    async def call(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> Exchange: ...

    async def upload(self, path: str, fields: Mapping[str, str], file: Path, name: str) -> Exchange: ...

    async def send_file(self, path: str, file: Path, headers: Mapping[str, str]) -> Exchange: ...

    async def download(self, path: str, to: Path, *, headers: Mapping[str, str] | None = None) -> Exchange: ...


class BatchExecutor:
    """Carries out tickets by one vendor's batches. `folder` holds files on their way; `clock` gives Unix seconds."""

    def __init__(
        self,
        vendor: Vendor,
        calls: Calls,
        *,
        run: str,
        folder: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.vendor = vendor
        self.shape: OpenAIShape = SHAPES[vendor.shape](vendor)
        self._calls = calls
        self._run = run
        self._folder = folder
        self._clock = clock

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
        """The ticket as this process goes on with it: a call that was under way has no known answer."""
        if self.reclaim(ticket) is Reclaim.UNSURE and ticket.state == State.CREATING:
            return replace(ticket, state=State.UNSURE, next=None)
        return ticket

    async def step(self, ticket: Ticket) -> Stepped:
        """One step on. Raises StopError where only a person can say how to go on."""
        steps: dict[str, Callable[[Ticket], Awaitable[Stepped]]] = {
            State.PLANNED: self._upload,
            State.UPLOADED: self._ready,
            State.CREATING: self._create,
            State.UNSURE: self._search,
            State.SUBMITTED: self._look,
            State.DUPLICATE: self._look,
            State.ENDED: self._fetch,
        }
        step = steps.get(ticket.state)
        return Stepped(ticket) if step is None else await step(ticket)

    async def cancel(self, ticket: Ticket) -> Ticket:
        """Ask for its batch to end. A batch that has ended says so with a 4xx, which is fine."""
        if ticket.remote is None:
            return ticket
        await self._call(self.shape.cancel(ticket.remote))
        return replace(ticket, next=None, note="asked to end")

    async def _upload(self, ticket: Ticket) -> Stepped:
        if self.shape.inline:
            return Stepped(replace(ticket, state=State.UPLOADED, file=None))
        file = self.path(ticket, "requests")
        if not file.exists():
            return Stepped(self._lost_file(ticket))
        name = f"batchrun-{ticket.tag.replace('/', '-')}-{ticket.sha256[:8]}.jsonl"
        answer = await self._calls.upload("files", {"purpose": self.vendor.purpose}, file, name)
        body = _body(answer)
        if answer.status // 100 == 2 and body.get("id"):
            return Stepped(replace(ticket, state=State.UPLOADED, file=str(body["id"]), seen=self._clock(), note=None))
        if answer.status in (400, 401, 402, 403, 404, 413, 422):
            return Stepped(self._refused(ticket, answer))
        return self._again(ticket, answer, "the upload")

    async def _ready(self, ticket: Ticket) -> Stepped:
        """Where a file must be processed first, wait for that; then the wish to create is committed before the call."""
        if self.vendor.ready and ticket.file is not None:
            answer = await self._call(Calling("GET", f"files/{ticket.file}"))
            said = str(_body(answer).get("status") or "")
            if answer.status != 200 or said in ("pending", "uploaded", "running"):
                return Stepped(ticket, FILE_POLL)
            if said in ("error", "failed"):
                return Stepped(self._refused(ticket, answer))
        return Stepped(replace(ticket, state=State.CREATING, asked=self._clock(), note=None))

    async def _create(self, ticket: Ticket) -> Stepped:
        calling = self.shape.create(ticket.file or "", ticket.endpoint, ticket.model, ticket.tag)
        if self.shape.inline:
            file = self.path(ticket, "requests")
            if not file.exists():
                return Stepped(self._lost_file(ticket))
            answer = await self._calls.send_file(calling.path, file, self.shape.headers)
        else:
            answer = await self._call(calling)
        body = _body(answer)
        if answer.status // 100 == 2 and body.get("id"):
            return Stepped(self._seen(replace(ticket, state=State.SUBMITTED, note=None), self.shape.batch(body), body))
        if answer.status in _REFUSED and body:
            return Stepped(self._refused(ticket, answer))
        return Stepped(replace(ticket, state=State.UNSURE, note=_said(answer), detail=_detail(ticket, looks=0)))

    def _refused(self, ticket: Ticket, answer: Exchange) -> Ticket:
        """A clear no: nothing was created. The engine judges the answer as it would a live one."""
        detail = _detail(
            ticket, answer={"status": answer.status, "body": answer.body.decode("utf-8", "replace")[:4000]}
        )
        return replace(ticket, state=State.REFUSED, seen=self._clock(), note=_said(answer), detail=detail)

    def _lost_file(self, ticket: Ticket) -> Ticket:
        """The journal is here and the file with the requests is not: nothing was submitted, so its rows start over."""
        detail = _detail(ticket, answer={"status": 413, "body": "the file with its requests is not on this machine"})
        return replace(ticket, state=State.REFUSED, detail=detail, note="the file with its requests is not here")

    def _again(self, ticket: Ticket, answer: Exchange, what: str) -> Stepped:
        """An answer that may pass, to a call that costs nothing: the same step again, later each time."""
        detail = json_object(json.loads(ticket.detail))
        failures = int(detail.get("failures") or 0) + 1
        wait = max(_retry_after(answer), min(POLL_LONGEST, 2.0**failures))
        changed = replace(ticket, note=f"{what}: {_said(answer)}", detail=_detail(ticket, failures=failures))
        return Stepped(changed, wait)

    async def _search(self, ticket: Ticket) -> Stepped:
        """Look for what a create call without a known answer has made."""
        detail = json_object(json.loads(ticket.detail))
        looks = int(detail.get("looks") or 0)
        since = (ticket.asked or self._clock()) + LOOKS[min(looks, len(LOOKS) - 1)] - self._clock()
        if since > 0:
            return Stepped(ticket, since)
        found = await self._matching(ticket)
        if found is None:
            note = f"the list of batches cannot be read, and {ticket.tag} may have been submitted"
            return self._again(replace(ticket, note=note), Exchange(0, {}, b"", 0, 0, None, note, True), "the search")
        if found:
            return Stepped(self._adopted(ticket, found))
        if looks + 1 < len(LOOKS):
            wait = LOOKS[looks + 1] - LOOKS[looks]
            return Stepped(replace(ticket, detail=_detail(ticket, looks=looks + 1)), wait)
        if ticket.number >= MOST_TRIES:
            raise StopError(
                f"chunk {ticket.chunk} was to be submitted {ticket.number} times, and no batch of it is listed: "
                f"{printable(ticket.note or 'no answer', 300)}",
                f"name it with `batchrun batches RUN adopt ID`, send its rows again with `batchrun batches RUN forget "
                f"{ticket.chunk}` (they may have been billed), or resume later",
            )
        again = replace(ticket, state=State.CREATING, number=ticket.number + 1, asked=self._clock())
        return Stepped(replace(again, detail=_detail(ticket, looks=0)))

    async def _matching(self, ticket: Ticket) -> list[Batch] | None:
        """The batches that are this ticket's, newest first; None where the list cannot be read."""
        matching: list[Batch] = []
        oldest, cursor = (ticket.asked or 0.0) - BEFORE, None
        met = set[str | None]()
        for _ in range(MOST_PAGES):
            answer = await self._call(self.shape.listing(cursor))
            if answer.status != 200:
                return None
            batches, cursor = self.shape.page(_body(answer))
            matching += [batch for batch in batches if self._is_of(ticket, batch)]
            if cursor is None or cursor in met or all(0 < batch.created < oldest for batch in batches):
                break
            met.add(cursor)
        return matching

    def _is_of(self, ticket: Ticket, batch: Batch) -> bool:
        """By its file, else by its label; where a vendor has neither, by its size and the time."""
        if ticket.file is not None and batch.input is not None:
            return batch.input == ticket.file
        if batch.tag is not None or self.vendor.metadata:
            return batch.tag == ticket.tag
        late = (ticket.asked or 0.0) - BEFORE <= batch.created
        return late and batch.total in (None, 0, ticket.rows) and self.shape.inline

    def _adopted(self, ticket: Ticket, found: list[Batch]) -> Ticket:
        """The batch that is furthest on is the ticket's; the others are remembered, to be cancelled and read as well."""
        order = {"completed": 3, "finalizing": 2, "in_progress": 1}
        best, *rest = sorted(found, key=lambda batch: (-order.get(batch.status, 0), -batch.done, batch.created))
        detail = _detail(ticket, duplicates=[batch.id for batch in rest])
        adopted = replace(ticket, state=State.SUBMITTED, remote=best.id, status=best.status, detail=detail, next=None)
        return replace(adopted, expires=best.expires, seen=self._clock(), note="found in the list of batches")

    async def _look(self, ticket: Ticket) -> Stepped:
        answer = await self._call(self.shape.retrieve(ticket.remote or ""))
        body = _body(answer)
        if answer.status == 200 and body.get("id"):
            return self.seen(ticket, body)
        # Not an end: vendors answer 404 for seconds after the create call and now and then later.
        return Stepped(replace(ticket, note=_said(answer)), max(_retry_after(answer), self._pause(ticket)))

    def seen(self, ticket: Ticket, body: Mapping[str, Any]) -> Stepped:
        """A ticket whose batch was just seen, by itself or in a list."""
        changed = self._seen(replace(ticket, note=None), self.shape.batch(body), body)
        return Stepped(changed, 0.0 if changed.state == State.ENDED else self._pause(ticket))

    def _pause(self, ticket: Ticket) -> float:
        """Longer the longer it takes, from a quarter of a minute to five."""
        age = max(0.0, self._clock() - (ticket.asked or self._clock()))
        return min(POLL_LONGEST, max(POLL_FIRST, age * (POLL_GROWTH - 1)))

    def _seen(self, ticket: Ticket, batch: Batch, body: Mapping[str, Any]) -> Ticket:
        duplicate = ticket.state == State.DUPLICATE
        state = State.ENDED if batch.ended else State.DUPLICATE if duplicate else State.SUBMITTED
        return replace(
            ticket,
            state=state,
            remote=batch.id,
            status=batch.status,
            expires=batch.expires or ticket.expires,
            seen=self._clock(),
            detail=_detail(ticket, object=body),
        )

    async def _fetch(self, ticket: Ticket) -> Stepped:
        """Both files, whole; a file that is missing, empty or named by nothing is no file."""
        batch = self.batch_of(ticket)
        sizes: dict[str, int] = {}
        for kind, file in (("output", batch.output), ("error", batch.error)):
            if not file:
                continue
            to = self.path(ticket, kind)
            answer = await self._calls.download(self.shape.content(file), to, headers=self.shape.headers)
            if answer.status == 404 and kind == "error":
                continue  # an error file that is named and is not there: nothing failed
            if answer.status != 200:
                return self._again(ticket, answer, f"the {kind} file")
            try:
                await asyncio.to_thread(_check_lines, to)
            except ValueError as error:
                return self._again(ticket, Exchange(0, {}, b"", 0, 0, None, str(error), True), f"the {kind} file")
            sizes[kind] = to.stat().st_size
        return Stepped(replace(ticket, state=State.FETCHED, detail=_detail(ticket, files=sizes, failures=0)))

    def batch_of(self, ticket: Ticket) -> Batch:
        """The batch of a ticket as it was last seen."""
        return self.shape.batch(json_object(json_object(json.loads(ticket.detail)).get("object")))

    async def listed(self) -> dict[str, dict[str, Any]]:
        """The newest batches by id, one page of them; none where the list cannot be read."""
        answer = await self._call(self.shape.listing(None))
        if answer.status != 200:
            return {}
        return {str(item.get("id")): item for item in json_objects(_body(answer).get("data"))}

    def duplicates(self, ticket: Ticket) -> list[str]:
        """The ids of other batches that the same create call has made."""
        return list(json_object(json.loads(ticket.detail)).get("duplicates") or [])

    def answer_of(self, ticket: Ticket) -> tuple[int, str]:
        """The status and the body of the answer that refused a ticket."""
        answer = json_object(json_object(json.loads(ticket.detail)).get("answer"))
        return int(answer.get("status") or 0), str(answer.get("body") or "")

    def is_fatal(self, body: str) -> bool:
        """Whether a 429 is about money: waiting cures nothing."""
        return any(word in body for word in ("insufficient_quota", "billing", "credit_balance"))

    def wire_id(self, seq: int, number: int) -> str:
        """The `custom_id` of a row's attempt."""
        return wire_id(self._run, seq, number)

    def places(self, ticket: Ticket, lines: set[int]) -> dict[int, tuple[int, int]]:
        """Row and attempt of these lines (from 1) of a ticket's file; none where the file is gone."""
        path = self.path(ticket, "requests")
        if not path.exists():
            return {}
        with path.open("rb") as stream:
            wanted = {number: line for number, line in enumerate(stream, 1) if number in lines}
        places = {
            number: parse_wire_id(self._run, json.loads(line).get("custom_id")) for number, line in wanted.items()
        }
        return {number: place for number, place in places.items() if place is not None}

    def path(self, ticket: Ticket, kind: str) -> Path:
        """Where a file of a ticket is: `requests`, `output` or `error`."""
        return self._folder / f"{ticket.id}.{kind}.jsonl"

    async def completions(self, ticket: Ticket) -> AsyncIterator[list[Completion]]:
        """What the lines of both files say, a thousand at a time. Lines of other runs and repeated ones are passed over."""
        met = set[tuple[int, int]]()
        for kind in ("output", "error"):
            path = self.path(ticket, kind)
            if not path.exists():
                continue
            with path.open("rb") as lines:
                more = parsed(iter(lines))
                while page := await asyncio.to_thread(self._page, more, met):
                    yield page

    def _page(self, lines: Iterator[Mapping[str, Any]], met: set[tuple[int, int]]) -> list[Completion]:
        page: list[Completion] = []
        for line in lines:
            place = parse_wire_id(self._run, line.get("custom_id"))
            if place is not None and place not in met:
                met.add(place)
                page.append(self.shape.completion(line, *place))
            if len(page) == LINES:
                break
        return page

    def clean(self, ticket: Ticket) -> None:
        """Remove the files of a ticket that is settled."""
        for kind in ("requests", "output", "error"):
            self.path(ticket, kind).unlink(missing_ok=True)

    async def _call(self, calling: Calling) -> Exchange:
        return await self._calls.call(calling.method, calling.path, calling.body, headers=self.shape.headers)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_lines(path: Path) -> None:
    """Raises ValueError where a line is not a whole JSON object: a download that was cut."""
    with path.open("rb") as lines:
        for number, _ in enumerate(parsed(iter(lines)), 1):
            del number


def _body(answer: Exchange) -> dict[str, Any]:
    try:
        return json_object(json.loads(answer.body))
    except ValueError:
        return {}


def _said(answer: Exchange) -> str:
    """What an answer says, for people: its error's message, else its beginning, else why there is none."""
    error = _body(answer).get("error")
    message = json_object(error).get("message") if isinstance(error, dict) else error
    text = str(message or answer.body[:300].decode("utf-8", "replace") or answer.detail or answer.fault or "no answer")
    return f"{answer.status}: {text}" if answer.status else text


def _retry_after(answer: Exchange) -> float:
    try:
        return min(3600.0, max(0.0, float(answer.headers.get("retry-after", 0))))
    except ValueError:
        return 0.0


def _detail(ticket: Ticket, **changes: Any) -> str:
    return json.dumps({**json_object(json.loads(ticket.detail)), **changes}, ensure_ascii=False)
