"""Imports result files: copied as results of unsubmitted tickets, and ingested like a batch's."""

import os
from array import array
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from batchrun.display import counted, printable
from batchrun.engine.judge import EXCERPT
from batchrun.errors import RefusedError
from batchrun.journal import Journal, Lease, Standing
from batchrun.lanes.executor import Completion, CompletionKind
from batchrun.lanes.results import LINES, imported, result_line
from batchrun.lanes.shapes import wire_id
from batchrun.lanes.states import State as TicketState
from batchrun.models import State, Ticket
from batchrun.registry import RunFile, batch_folder

MOST = 50_000  # Rows of one ticket
_ANSWERED = frozenset({State.DONE, State.SKIPPED})


@dataclass(slots=True)
class Part:
    ticket: Ticket
    lines: int = 0
    rows: "array[int]" = field(default_factory=lambda: array("q"))
    numbers: "array[int]" = field(default_factory=lambda: array("q"))

    def leases(self) -> list[Lease]:
        """Of unknown cost."""
        return [Lease(*each, None, 0) for each in zip(self.rows, self.numbers, strict=True)]


@dataclass(slots=True)
class Imported:
    parts: list[Part] = field(default_factory=list[Part])
    taken: int = 0
    known: int = 0
    late: int = 0  # Their rows were answered already
    foreign: int = 0
    cut: int = 0  # Incomplete lines

    @property
    def summary(self) -> str:
        texts = [f"results of {counted(self.taken)} imported" if self.taken else "nothing new"]
        if self.known:
            texts.append(f"{counted(self.known, 'line')} imported before")
        if self.late:
            texts.append(f"{counted(self.late, 'line')} for rows that have a reply already, ignored")
        if self.foreign:
            texts.append(f"{counted(self.foreign, 'line')} of other runs ignored")
        if self.cut:
            texts.append(f"{counted(self.cut, 'line')} incomplete, ignored")
        return "; ".join(texts)


def import_results(run: RunFile, journal: Journal, files: Sequence[str]) -> Imported:
    """Replies first; failed rows with a reply are pending again. Raises RefusedError."""
    paths = [Path(name) for name in files]
    for path in paths:
        try:
            path.open("rb").close()
        except OSError as error:
            raise RefusedError(f"{path}: {error.strerror or error}", "name the files with the results") from error
    with closing(_Importer(run.id, journal, batch_folder(run))) as importer:
        for replies in (True, False):
            for path in paths:
                importer.read(path, replies=replies)
    return importer.found


class _Importer:
    def __init__(self, run: str, journal: Journal, folder: Path) -> None:
        self._run = run
        self._journal = journal
        self._folder = folder
        tickets = journal.tickets
        self._next = max((ticket.id for ticket in tickets), default=0) + 1
        self._chunk = max((ticket.chunk for ticket in tickets), default=0) + 1
        self._stream: BinaryIO | None = None
        self._taken: dict[int, int] = {}
        self.found = Imported()

    def read(self, path: Path, *, replies: bool) -> None:
        page: list[Completion] = []
        for each in imported(path, self._run):
            if isinstance(each, bool):
                self.found.foreign += each and not replies
                self.found.cut += not (each or replies)
            elif (each.kind is CompletionKind.REPLY) is replies:
                page.append(each)
                if len(page) == LINES:
                    self._take(page, path)
                    page = []
        self._take(page, path)

    def _take(self, page: list[Completion], path: Path) -> None:
        standings = self._journal.standings([each.seq for each in page])
        wanted: list[tuple[Completion, Standing]] = []
        for each in page:
            standing, text = standings.get(each.seq), each.body.decode("utf-8", "backslashreplace")
            if standing is None or standing.position is None:
                self.found.foreign += 1
            elif _is_known(each, text, standing) or self._taken.get(each.seq) == hash(text):
                self.found.known += 1
            elif each.seq in self._taken or not _is_wanted(each, standing):
                self.found.late += 1
            else:
                self._taken[each.seq] = hash(text)
                wanted.append((each, standing))
        failed = [each.position for _, each in wanted if each.state is State.FAILED and each.position is not None]
        if failed:
            self._journal.reopen(failed_for_good=True, positions=failed)
        for each, standing in wanted:
            self._copy(each, standing, path)
        self.found.taken += len(wanted)

    def _copy(self, each: Completion, standing: Standing, path: Path) -> None:
        """A row in a batch keeps its attempt."""
        parts = self.found.parts
        if self._stream is None or parts[-1].lines >= MOST:
            self.close()
            note = f"imported by hand: {printable(path.name, 100)}"
            ticket = Ticket(
                id=self._next, lane=0, state=TicketState.FETCHED, chunk=self._chunk, note=note, detail='{"brought": 1}'
            )
            parts.append(Part(ticket))
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._stream = (self._folder / f"{self._next}.output.jsonl").open("wb", buffering=1 << 20)
            self._next, self._chunk = self._next + 1, self._chunk + 1
        open_there = standing.state is State.IN_BATCH
        number = standing.number + (not open_there)
        self._stream.write(result_line(wire_id(self._run, each.seq, number), each))
        part = parts[-1]
        part.lines += 1
        if not open_there:
            part.rows.append(each.seq)
            part.numbers.append(number)

    def close(self) -> None:
        if self._stream is not None:
            with self._stream as stream:
                stream.flush()
                os.fsync(stream.fileno())
            self._stream = None


def _is_known(each: Completion, text: str, standing: Standing) -> bool:
    if each.kind in (CompletionKind.REPLY, CompletionKind.FAILURE):
        kept = each.body[:EXCERPT].decode("utf-8", "backslashreplace")
        return any(body == text if body is not None else excerpt == kept for body, excerpt in standing.answers)
    return each.number < standing.number + (standing.state is not State.IN_BATCH)


def _is_wanted(each: Completion, standing: Standing) -> bool:
    """Failed rows lack only a reply."""
    if standing.state in _ANSWERED:
        return False
    return standing.state is not State.FAILED or each.kind is CompletionKind.REPLY
