"""Answers to calls about batches, and the search of batches whose create call has no known answer."""

import email.utils
import json
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any, NamedTuple

from batchrun.lanes.shapes import Batch, Calling, OpenAIShape, json_object
from batchrun.models import Exchange, Ticket

_LONGEST = 3600.0


def body_of(answer: Exchange) -> dict[str, Any]:
    try:
        return json_object(json.loads(answer.body))
    except ValueError:
        return {}


def answer_text(answer: Exchange) -> str:
    error = body_of(answer).get("error")
    message = json_object(error).get("message") if isinstance(error, dict) else error
    text = str(message or answer.body[:300].decode("utf-8", "replace") or answer.detail or answer.fault or "no answer")
    return f"{answer.status}: {text}" if answer.status else text


def retry_after(answer: Exchange) -> float:
    """Seconds, or a date (RFC 9110, 10.2.3), at most an hour."""
    given = str(answer.headers.get("retry-after") or "")
    try:
        seconds = float(given)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(given).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(_LONGEST, seconds) if seconds > 0 else 0.0


BEFORE = 600.0  # seconds by which clocks differ
MOST_PAGES = 50
_FURTHEST = {"completed": 3, "finalizing": 2, "in_progress": 1}


class Found(NamedTuple):
    batches: list[Batch]
    others: bool  # the list has other batches
    why: Exchange | None = None  # it cannot be read


async def matching(
    call: Callable[[Calling], Awaitable[Exchange]], shape: OpenAIShape, ticket: Ticket, known: Collection[str]
) -> Found:
    """This ticket's batches, furthest on first; `known`: others."""
    own: list[Batch] = []
    others = False
    oldest, cursor = (ticket.asked or 0.0) - BEFORE, None
    seen_cursors = set[str | None]()
    for _ in range(MOST_PAGES):
        answer = await call(shape.listing(cursor))
        if answer.status != 200:
            return Found(own, others, answer)
        batches, cursor = shape.page(body_of(answer), cursor)
        found = [batch for batch in batches if batch.id not in known and is_of(shape, ticket, batch)]
        others = others or len(found) < len(batches)
        own += found
        if cursor is None or all(0 < batch.created < oldest for batch in batches):
            break
        if cursor in seen_cursors:
            repeated = b"a page of the list names itself as the next page"
            return Found(_sorted(own), others, answer._replace(status=0, body=repeated))
        seen_cursors.add(cursor)
    return Found(_sorted(own), others)


def _sorted(found: list[Batch]) -> list[Batch]:
    each = {batch.id: batch for batch in found}
    return sorted(each.values(), key=lambda batch: (-_FURTHEST.get(batch.status, 0), -batch.done, batch.created))


def is_of(shape: OpenAIShape, ticket: Ticket, batch: Batch) -> bool:
    """By file, else by label, else by size and time."""
    if ticket.file is not None and batch.input is not None:
        return batch.input == ticket.file
    if batch.tag is not None or shape.vendor.metadata:
        return batch.tag == ticket.tag
    late = (ticket.asked or 0.0) - BEFORE <= batch.created
    return late and batch.total in (None, 0, ticket.rows) and shape.inline
