"""States of a ticket, what is committed before which call, and what a kill in that state means.

| state     | committed before                | then                                     | a kill here means                 |
|---|---|---|---|
| planned   | its rows, attempts, tag, digest | the file is uploaded                     | uploaded again; a spare file      |
| uploaded  | the file's id                   | waits until the file can be used         | goes on                           |
| creating  | when, and which try             | POST, on a connection of its own, once   | unsure                            |
| unsure    |                                 | the list is searched                     | searched                          |
| submitted | the provider's id               | polled                                   | polled                            |
| refused   | the answer                      | the rows are pending again, or wait      | the same                          |
| ended     | the whole object                | both files are downloaded and checked    | downloaded again                  |
| fetched   | names and sizes                 | the engine ingests the lines             | ingested again; known ones skipped |
| settled   |                                 | nothing                                  | nothing                           |
"""

import json
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from batchrun.lanes.shapes import json_object
from batchrun.models import Ticket


class State(StrEnum):
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
    {
        *(State.PLANNED, State.UPLOADED, State.CREATING, State.UNSURE, State.REFUSED, State.SUBMITTED),
        *(State.DUPLICATE, State.ENDED, State.FETCHED),
    }
)
"""Their rows are not sent otherwise."""


def main_of(ticket: Ticket) -> int | None:
    """The ticket whose create call also made this batch."""
    found = json_object(json.loads(ticket.detail)).get("of")
    return found if isinstance(found, int) else None


def is_unread(ticket: Ticket) -> bool:
    """Whether it was forgotten with unread results."""
    read = json_object(json.loads(ticket.detail)).get("read")
    return ticket.state == State.FORGOTTEN and ticket.remote is not None and not read


def tokens_of(ticket: Ticket) -> int:
    """Approximate input tokens."""
    return int(json_object(json.loads(ticket.detail)).get("tokens") or ticket.bytes / 4)


def weight_of(ticket: Ticket) -> int:
    """Bytes for estimating input tokens; 0 in earlier journals."""
    return int(json_object(json.loads(ticket.detail)).get("weight") or 0)


def learned_of(tickets: Iterable[Ticket]) -> tuple[int, int]:
    """(bytes, their input tokens), as last counted."""
    found = [json_object(json.loads(ticket.detail)).get("learned") for ticket in tickets]
    size, tokens = next(filter(None, reversed(found)), (0, 0))
    return int(size), int(tokens)


def is_asked_to_end(ticket: Ticket) -> bool:
    """Whether the cancelling call was answered."""
    return bool(json_object(json.loads(ticket.detail)).get("asked_to_end"))


def is_imported(ticket: Ticket) -> bool:
    """Whether the user imported its results."""
    return "brought" in json_object(json.loads(ticket.detail))


def detailed(ticket: Ticket, **changes: Any) -> str:
    return json.dumps({**json_object(json.loads(ticket.detail)), **changes}, ensure_ascii=False)
