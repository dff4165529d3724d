"""The files of rows, as the journal names them, and their texts."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from batchrun import media
from batchrun.display import counted
from batchrun.engine.ingest import NAMED
from batchrun.engine.output_files import replaced
from batchrun.engine.segment_checks import RowChecks
from batchrun.errors import RefusedError
from batchrun.journal import Journal, Reader, TextForm
from batchrun.models import Endpoint, File, Kind, Pending, Request, Row
from batchrun.plan import Plan
from batchrun.replies import Checker
from batchrun.rows import restore

if TYPE_CHECKING:
    from batchrun.client.senders.hub import Hub


class LeftOut:
    def __init__(self) -> None:
        self._rows: set[int] = set()
        self._named: list[str] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Pending, why: str) -> None:
        if row.seq not in self._rows and len(self._named) < NAMED:
            self._named.append(f"line {row.line}: {why}")
        self._rows.add(row.seq)

    @property
    def named(self) -> list[str]:
        more = len(self) - len(self._named)
        return [*self._named, f"… and {more:,} more"] if more else self._named

    @property
    def text(self) -> str:
        return f"{counted(len(self))} cannot be sent, and {'stays' if len(self) == 1 else 'stay'} pending"

    @property
    def notes(self) -> list[str]:
        return [f"{self.text}: {'; '.join(self.named)}"] if self._rows else []


def restored(row: Pending, folder: Path, parse: Callable[[int, str | None, str, bytes], Row] = restore) -> Row:
    """Raises ValueError for an invalid text."""
    found = parse(row.line, row.key, row.text, bytes(row.encoded))
    return found._replace(files=media.from_json(row.files, folder)) if row.files else found


def text_form(plan: Plan, checker: Checker | RowChecks | None, *, alone: bool, hub: "Hub | None") -> TextForm:
    """`alone`: each row is sent by itself."""
    uses_text = plan.post or isinstance(checker, RowChecks) or plan.split is not None or plan.reduce is not None
    if uses_text or not alone:
        return TextForm.TEXT
    # What is read alone is sent as it is, but a limit is written into the bodies that have none.
    if plan.kind is not Kind.BATCH or plan.max_output_tokens is not None:
        return TextForm.ENCODED
    # a service tier is written into the body here
    return TextForm.PLACED if hub is not None and hub.reads_files and not plan.tier else TextForm.READY


async def with_content(request: Request) -> Request:
    """Reads in a thread. Raises media.ChangedError."""
    fill = media.form if request.endpoint is Endpoint.TRANSCRIPTIONS else media.filled
    return request._replace(body=await asyncio.to_thread(fill, bytes(request.body), request.files))


def copy_with_files(journal: Path, target: Path) -> list[str]:
    """Files go into a directory beside `target`, named by digest.

    Returns messages about files not copied. Raises RefusedError where the directory exists, StorageError.
    """
    folder = target.with_suffix(".files")
    if os.path.lexists(folder):
        raise RefusedError(f"{folder} exists already", "choose another file name")
    failures: dict[str, None] = {}

    def taken(file: File) -> File:
        if not file.sha256:
            return file
        place = folder / f"{file.sha256}.{media.known_types()[file.type].suffix}"
        try:
            if not place.exists():
                data = media.content(file)
                folder.mkdir(mode=0o700, exist_ok=True)
                with replaced(place) as stream:
                    stream.write(data)
        except (media.ChangedError, OSError) as error:
            failures[str(error)] = None
            return file
        return file._replace(path=str(place.absolute()))

    def moved(text: str) -> str:
        return media.to_json(map(taken, media.from_json(text, journal.parent)), target.parent)

    with Reader.open(journal) as reader:
        reader.copy(target, moved)
    return list(failures)


def changed(journal: Journal) -> Iterator[tuple[Pending, str]]:
    """Rows whose files are missing or changed, and why."""
    folder = journal.path.parent
    for row in _pending(journal):
        found = (media.why_changed(file) for file in media.from_json(row.files, folder))
        if (why := next(filter(None, found), None)) is not None:
            yield row, why


def pending_positions(journal: Journal) -> Iterator[int]:
    return (row.position for row in _pending(journal))


def _pending(journal: Journal) -> Iterator[Pending]:
    after = 0
    while page := journal.pending(after):
        yield from page
        after = page[-1].position
