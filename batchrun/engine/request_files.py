"""Writes request files of pending rows, to be submitted by hand; the rows stay pending."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from batchrun import media
from batchrun.digests import BLAKE3
from batchrun.engine.budget_guard import named_in
from batchrun.engine.chunks import BatchLines, Size, Tokens
from batchrun.engine.ingest import Digests
from batchrun.engine.output_files import replaced, storing
from batchrun.engine.row_files import restored
from batchrun.engine.start import renderer_of
from batchrun.errors import RefusedError
from batchrun.journal import Reader
from batchrun.lanes.shapes import SHAPES, wire_id
from batchrun.lanes.vendors import vendor
from batchrun.models import Pending, Request
from batchrun.plan import Plan, plan_from_json
from batchrun.plan.blanks import copied
from batchrun.plan.reducing import Reduction
from batchrun.plan.rendering import prompt_of
from batchrun.prompts import request_digest
from batchrun.registry import RunFile


class Written(NamedTuple):
    path: Path
    rows: int
    size: int


def write_requests(run: RunFile, folder: Path) -> list[Written]:
    """Removes outdated files. Raises StorageError, RefusedError."""
    with Reader.open(run.path) as reader, storing(folder):
        plan = plan_from_json(reader.meta.plan)
        folder.mkdir(parents=True, exist_ok=True)
        files = _Files(plan, run.id, folder)
        with closing(files):
            for row, request in _pending(plan, reader):
                files.add(row, request)
    names = {each.path for each in files.written}
    for path in folder.glob(f"{run.id}-*.jsonl"):
        if path not in names:
            path.unlink()
    return files.written


def _pending(plan: Plan, reader: Reader) -> Iterator[tuple[Pending, Request]]:
    renderer, blanks, seen = renderer_of(plan, prompt_of(plan)), copied(plan), Digests()
    reduction = Reduction(plan)
    after = 0
    while page := reader.pending(after):
        for row in page:
            found = reduction.filled(restored(row, reader.path.parent), row.parts)
            if blanks.is_blank(found.fields):
                continue
            request = renderer.render(found)
            if not (plan.dedupe and seen.add(int(request_digest(request, BLAKE3)[:16], 16))):
                yield row, request
        after = page[-1].position


@dataclass(slots=True)
class _Open:
    path: Path
    stack: ExitStack
    stream: BinaryIO
    size: Size = field(default_factory=Size)


class _Files:
    def __init__(self, plan: Plan, run: str, folder: Path) -> None:
        self._vendor = vendor(plan.dialect, plan.batches)
        shape = SHAPES[self._vendor.shape]
        self._shape = (SHAPES["openai"] if shape.inline else shape)(self._vendor)
        self._lines = BatchLines(plan)
        self._run = run
        self._folder = folder
        self._most = Size.most(self._vendor)
        self._open: dict[tuple[str, str], _Open] = {}
        self.written: list[Written] = []

    def add(self, row: Pending, request: Request) -> None:
        request = self._lines.line(request)
        if request.files:
            try:
                request = request._replace(body=media.filled(bytes(request.body), request.files))
            except media.ChangedError as error:
                raise RefusedError(f"line {row.line}: {error}", "restore the file") from None
        line = self._shape.line(wire_id(self._run, row.seq, row.history.number + 1), request)
        key = str(request.endpoint), named_in(request).model or ""
        tokens = Tokens().of(request.weight)
        found = self._open.get(key)
        if found is not None and not found.size.has_room(self._most, len(line), tokens):
            self._finish(key)
            found = None
        if found is None:
            path, stack = self._folder / f"{self._run}-{len(self._open) + len(self.written) + 1:03}.jsonl", ExitStack()
            found = self._open[key] = _Open(path, stack, stack.enter_context(replaced(path)))
        found.stream.write(line)
        found.size.add(len(line), tokens)

    def _finish(self, key: tuple[str, str]) -> None:
        found = self._open.pop(key)
        found.stack.close()
        self.written.append(Written(found.path, found.size.rows, found.size.bytes))

    def close(self) -> None:
        for key in list(self._open):
            self._finish(key)
