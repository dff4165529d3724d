"""The dry run: the whole input opened, checked and rendered as a run would, without a journal and without a call."""

from collections.abc import Iterator
from dataclasses import dataclass

from batchrun.engine.export import reserved
from batchrun.engine.ingest import Ids, Problems, checked, tell_rows
from batchrun.engine.start import opened
from batchrun.events import Emit, IntakeProgress
from batchrun.journal import IntakeRow
from batchrun.models import Request, Row
from batchrun.plan import Plan
from batchrun.plan.blanks import blanks_of
from batchrun.plan.reducing import Reduction
from batchrun.plan.rendering import prompt_of
from batchrun.plan.sources import Gathered
from batchrun.prompts import Renderer


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would send, found without a journal and without a call; `body_bytes` sums all bodies."""

    plan: Plan
    rows: int
    skipped: int
    body_bytes: int
    first: Request | None


def dry_run(gathered: Gathered, emit: Emit) -> DryRun:
    """Open, check and render the whole input as a run would. Raises as `prepare`."""
    source, plan, renderer = opened(gathered, emit)
    problems = Problems(source.where)
    sized = _Sized(renderer)
    blanks, reduction = blanks_of(plan, prompt_of(plan)), Reduction.of(plan)
    ids = Ids()

    def read(problems: Problems) -> Iterator[IntakeRow]:
        return checked(source, sized, problems, reserved(plan), blanks=blanks, reduction=reduction)

    for count, row in enumerate(read(problems), 1):
        ids.add(row)
        if count % 10_000 == 0:
            emit(IntakeProgress(count))
    problems.refuse(source.name, skip_invalid=gathered.settings.skip_invalid)
    ids.refuse(read(Problems(source.where)))
    tell_rows(source, problems, emit)
    return DryRun(plan, sized.rows, problems.count, sized.body_bytes, sized.first)


class _Sized:
    """A renderer that counts what passes."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self.rows = 0
        self.body_bytes = 0
        self.first: Request | None = None

    def render(self, row: Row) -> Request:
        request = self._renderer.render(row)
        self.first = self.first or request
        self.rows += 1
        self.body_bytes += len(request.body)
        return request
