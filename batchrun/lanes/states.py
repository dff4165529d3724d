"""How far a ticket is.

States of a ticket, what is committed before which call, and what a kill in that state means:

| state     | committed before                | then                                     | a kill here means                 |
|---|---|---|---|
| planned   | its rows, attempts, tag, digest | the file is uploaded                     | uploaded again; a spare file      |
| uploaded  | the file's id                   | waits until the file can be used         | goes on                           |
| creating  | when it was asked, which try    | POST, on a connection of its own, once   | unsure                            |
| unsure    |                                 | the list is searched                     | searched                          |
| submitted | the provider's id               | looked at now and then                   | looked at                         |
| refused   | the answer                      | the rows are pending again, or wait      | the same                          |
| ended     | the whole object                | both files are downloaded and checked    | downloaded again                  |
| fetched   | names and sizes                 | the engine takes the lines in            | taken in again; known ones passed |
| settled   |                                 | nothing                                  | nothing                           |
"""

import json
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from batchrun.lanes.shapes import json_object
from batchrun.models import Ticket


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
    {
        State.PLANNED,
        State.UPLOADED,
        State.CREATING,
        State.UNSURE,
        State.REFUSED,
        State.SUBMITTED,
        State.DUPLICATE,
        State.ENDED,
        State.FETCHED,
    }
)
"""Tickets that are carried on. Their rows are in a batch, and are not sent otherwise."""


def main_of(ticket: Ticket) -> int | None:
    """The ticket whose create call has made this one's batch too; None for a ticket of its own."""
    found = json_object(json.loads(ticket.detail)).get("of")
    return found if isinstance(found, int) else None


def is_unread(ticket: Ticket) -> bool:
    """Whether it was given up, and what its batch may still bring was not read."""
    read = json_object(json.loads(ticket.detail)).get("read")
    return ticket.state == State.FORGOTTEN and ticket.remote is not None and not read


def tokens_of(ticket: Ticket) -> int:
    """About how many input tokens its requests have; an earlier version has not written that down."""
    return int(json_object(json.loads(ticket.detail)).get("tokens") or ticket.bytes / 4)


def weight_of(ticket: Ticket) -> int:
    """Bytes that the input tokens of its requests are estimated by; 0 where that was not written down."""
    return int(json_object(json.loads(ticket.detail)).get("weight") or 0)


def learned_of(tickets: Iterable[Ticket]) -> tuple[int, int]:
    """Bytes of requests and the input tokens that replies counted for them, as the last of these tickets has it."""
    found = [json_object(json.loads(ticket.detail)).get("learned") for ticket in tickets]
    size, tokens = next(filter(None, reversed(found)), (0, 0))
    return int(size), int(tokens)


def is_asked_to_end(ticket: Ticket) -> bool:
    """Whether the provider was asked to end its batch, and has answered."""
    return bool(json_object(json.loads(ticket.detail)).get("asked_to_end"))


def is_brought(ticket: Ticket) -> bool:
    """Whether its results were brought by the user, and nothing was submitted for it."""
    return "brought" in json_object(json.loads(ticket.detail))


def detailed(ticket: Ticket, **changes: Any) -> str:
    """The detail of a ticket with these members changed."""
    return json.dumps({**json_object(json.loads(ticket.detail)), **changes}, ensure_ascii=False)
