"""The files of rows: those that the journal names, in the place of what is on the disk by now."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

from batchrun import media
from batchrun.journal import Journal
from batchrun.models import Pending, Request, Row
from batchrun.rows import restore


def restored(row: Pending, folder: Path, parse: Callable[[int, str | None, str], Row] = restore) -> Row:
    """A pending row, with its files as the journal in `folder` names them. Raises ValueError if its text is no row."""
    found = parse(row.line, row.key, row.text)
    return found._replace(files=media.from_json(row.files, folder)) if row.files else found


async def with_content(request: Request) -> Request:
    """The request with the content of its files in it; they are read in a thread. Raises media.ChangedError."""
    return request._replace(body=await asyncio.to_thread(media.filled, request.body, request.files))


def changed(journal: Journal) -> Iterator[tuple[int, int, str]]:
    """Position and line of pending rows whose files cannot be sent as they were taken in, and why."""
    folder = journal.path.parent
    for row in _pending(journal):
        found = (media.why_changed(file) for file in media.from_json(row.files, folder))
        if (why := next(filter(None, found), None)) is not None:
            yield row.position, row.line, why


def pending_positions(journal: Journal) -> Iterator[int]:
    """Where in the input the pending rows are."""
    return (row.position for row in _pending(journal))


def _pending(journal: Journal) -> Iterator[Pending]:
    after = 0
    while page := journal.pending(after):
        yield from page
        after = page[-1].position
