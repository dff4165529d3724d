"""States of a ticket, what is committed before which call, and what a kill in that state means."""

import json
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, cast

from batchrun.models import Ticket


class State(StrEnum):
    # committed with its rows, attempts, tag and digest; then the file is uploaded: after a kill again, and one is spare
    PLANNED = "planned"
    UPLOADED = "uploaded"  # committed with the file's id; waits until the file can be used
    # committed with when and which try; then POST, on a connection of its own, once: after a kill UNSURE
    CREATING = "creating"
    UNSURE = "unsure"  # the list is searched
    SUBMITTED = "submitted"  # committed with the provider's id; polled
    ENDED = "ended"  # committed with the whole object; both files are downloaded and checked: after a kill again
    # committed with names and sizes; the engine ingests the lines: after a kill again, and skips known ones
    FETCHED = "fetched"
    SETTLED = "settled"
    REFUSED = "refused"  # committed with the answer; the rows are pending again, or wait
    FORGOTTEN = "forgotten"
    DUPLICATE = "duplicate"


# their rows are not sent otherwise
OPEN = frozenset(
    {
        *(State.PLANNED, State.UPLOADED, State.CREATING, State.UNSURE, State.REFUSED, State.SUBMITTED),
        *(State.DUPLICATE, State.ENDED, State.FETCHED),
    }
)


def detail_of(ticket: Ticket) -> dict[str, Any]:
    found = json.loads(ticket.detail)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def main_of(ticket: Ticket) -> int | None:
    """The ticket whose create call also made this batch."""
    found = detail_of(ticket).get("of")
    return found if isinstance(found, int) else None


def is_unread(ticket: Ticket) -> bool:
    """Whether it was forgotten with unread results."""
    read = detail_of(ticket).get("read")
    return ticket.state == State.FORGOTTEN and ticket.remote is not None and not read


def tokens_of(ticket: Ticket) -> int:
    """Approximate input tokens."""
    return int(detail_of(ticket).get("tokens") or ticket.bytes / 4)


def weight_of(ticket: Ticket) -> int:
    """Bytes for estimating input tokens; 0 in earlier journals."""
    return int(detail_of(ticket).get("weight") or 0)


def learned_of(tickets: Iterable[Ticket]) -> tuple[int, int]:
    """(bytes, their input tokens), as last counted."""
    found = [detail_of(ticket).get("learned") for ticket in tickets]
    size, tokens = next(filter(None, reversed(found)), (0, 0))
    return int(size), int(tokens)


def is_asked_to_end(ticket: Ticket) -> bool:
    # whether the cancelling call was answered
    return bool(detail_of(ticket).get("asked_to_end"))


def is_imported(ticket: Ticket) -> bool:
    return "brought" in detail_of(ticket)


def detailed(ticket: Ticket, **changes: Any) -> str:
    return json.dumps({**detail_of(ticket), **changes}, ensure_ascii=False)
