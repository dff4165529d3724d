"""Measures what a run would send, on every row, without a journal or a request."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from batchrun import registry
from batchrun.digests import BLAKE3
from batchrun.engine.budget_guard import named_in, tariff_of
from batchrun.engine.chunks import Size
from batchrun.engine.export import reserved
from batchrun.engine.forecast import Lengths
from batchrun.engine.ingest import BLANK_ROW, Digests, Ids, Problems, checked, report_rows
from batchrun.engine.reuse import reused_run
from batchrun.engine.row_files import restored
from batchrun.engine.selection import in_sample
from batchrun.engine.start import check_not_mixed, opened
from batchrun.engine.tiers import tiers_of
from batchrun.events import Emit, IntakeProgress
from batchrun.journal import IntakeRow, Reader
from batchrun.lanes.vendors import vendor
from batchrun.models import Kind, Request, Row
from batchrun.plan import Plan
from batchrun.plan.blanks import blanks_of, copied
from batchrun.plan.inputs import DocumentInput
from batchrun.plan.reducing import Reduction
from batchrun.plan.rendering import prompt_of
from batchrun.plan.sources import Gathered
from batchrun.pricing import STANDARD, Price
from batchrun.prompts import Renderer, request_digest
from batchrun.prompts.caching import BYTES_PER_TOKEN
from batchrun.registry import STREAM, RunFile
from batchrun.rows import restore

_NAMES = 110  # Bytes of a line beside its body: custom_id, method and url
NAMED = 5  # Lines listed as too long
EXAMPLES = 3  # Requests kept at least: the first, the longest, the last


class Example(NamedTuple):
    line: int
    request: Request


@dataclass(slots=True)
class RequestStats:
    plan: Plan
    rows: int = 0
    skipped: int = 0
    documents: int = 0
    settled: int = 0  # Without need of a request; the rest concerns requests to send
    lengths: Lengths = field(default_factory=Lengths)
    duplicates: Lengths = field(default_factory=Lengths)
    floor: float | None = 0.0  # Picodollars of prompts (None: unknown)
    ceiling: float | None = 0.0  # The same with all output
    output_limit: int | None = 0
    price: Price | None = None
    unpriced: set[str] = field(default_factory=set[str])
    window: int | None = None
    too_long: int = 0
    lines: list[int] = field(default_factory=list[int])  # That exceed the context window
    examples: list[Example] = field(default_factory=list[Example])
    batches: int = 0
    shared: bytes | None = None  # Prefix of all bodies, None before the first
    run: RunFile | None = None
    reuse: RunFile | None = None
    reused: int = 0


def measure(gathered: Gathered, emit: Emit, keep: int = EXAMPLES) -> RequestStats:
    """Raises as `prepare`."""
    reading = _Reading(gathered, emit)
    plan, source = reading.plan, reading.source
    run, reuse = _run_of(plan, gathered), reused_run(gathered.settings, plan)
    if (known := run or reuse) is not None:
        reading.digest = known.meta.digest
    counted = _Counted(plan, run, reuse=reuse, keep=keep)
    total = sum(1 for _ in source) if plan.sample is not None else 0
    for position, row in enumerate(reading, 1):
        if row.skipped is None and not row.request:
            counted.stats.rows += 1  # answered without a request
        elif row.skipped is BLANK_ROW:
            counted.stats.skipped += 1
        elif row.skipped is None and reading.request is not None:
            counted.add(row.line, row.request, reading.request, wanted=_wanted(plan, position, total))
    counted.stats.skipped += reading.problems.count
    counted.stats.documents = len(source.sources) if isinstance(source, DocumentInput) else 0
    return counted.stats


def measure_pending(plan: Plan, run: RunFile, renderer: Renderer, pages: Iterable[Sequence[Any]]) -> RequestStats:
    """The same for rows without an outcome."""
    counted, blanks = _Counted(plan, run, pending=True), copied(plan)
    for page in pages:
        for row in page:
            found = restored(row, run.path.parent)
            if not blanks.is_blank(found.fields):
                request = renderer.render(found)
                counted.add(row.line, request_digest(request, run.meta.digest), request)
    with Reader.open(run.path) as reader:
        totals = reader.totals
        for line, key, text, parts in reader.reductions() if plan.reduce is not None else ():
            request = Reduction(plan).expected(restore(line, key, text), parts, renderer)
            counted.add(line, request_digest(request, run.meta.digest), request)
    found = counted.stats
    found.rows, found.skipped, found.settled = totals.rows - totals.skipped, totals.skipped, totals.done + totals.failed
    return found


def _wanted(plan: Plan, position: int, total: int) -> bool:
    if plan.sample is not None:
        return in_sample(position, plan.sample, total)
    return plan.limit is None or position <= plan.limit


def _run_of(plan: Plan, gathered: Gathered) -> RunFile | None:
    if plan.output == STREAM or gathered.settings.fresh:
        return None
    directory = registry.directory_for(plan.output, gathered.settings.runs_dir)
    found = registry.of_output(Path(plan.output), directory)
    if found is not None:
        check_not_mixed(found, plan)
    return found


class _Reading:
    """Raises as `prepare`, partly at the end."""

    def __init__(self, gathered: Gathered, emit: Emit) -> None:
        self.source, self.plan, self._renderer = opened(gathered, emit)
        self.problems = Problems(self.source.where)
        self.digest = BLAKE3
        self.request: Request | None = None
        self.first: Request | None = None
        self.rendered = self.body_bytes = 0
        self._skip_invalid, self._emit = gathered.settings.skip_invalid, emit

    def render(self, row: Row) -> Request:
        self.request = None
        request = self.request = self._renderer.render(row)
        self.first = self.first or request
        self.rendered += 1
        self.body_bytes += len(request.body)
        return request

    def __iter__(self) -> Iterator[IntakeRow]:
        ids, blanks, reduction = Ids(), blanks_of(self.plan, prompt_of(self.plan)), Reduction.of(self.plan)

        def read(problems: Problems) -> Iterator[IntakeRow]:
            taken = reserved(self.plan)
            return checked(self.source, self, problems, taken, digest=self.digest, blanks=blanks, reduction=reduction)

        for count, row in enumerate(read(self.problems), 1):
            ids.add(row)
            yield row
            if count % 10_000 == 0:
                self._emit(IntakeProgress(count))
        self.problems.refuse(self.source.name, skip_invalid=self._skip_invalid)
        totals = self.rendered, self.body_bytes
        ids.refuse(read(Problems(self.source.where)))
        self.rendered, self.body_bytes = totals  # that may read the input again
        report_rows(self.source, self.problems, self._emit)


class _Counted:
    def __init__(
        self,
        plan: Plan,
        run: RunFile | None,
        *,
        pending: bool = False,  # Only rows without an outcome follow
        reuse: RunFile | None = None,
        keep: int = EXAMPLES,
    ) -> None:
        self._keep = max(EXAMPLES, keep)
        self.stats = RequestStats(plan, run=run, reuse=reuse)
        self._tariff = tariff_of(plan)
        self._one_model = plan.kind is Kind.ROWS
        self._model: str | None = None
        self._tier: str | None = None
        self._tiers = tuple(tier.priced or STANDARD for tier in tiers_of(plan).values())
        if plan.batch:
            self._tiers = ("batch",)
        self._most = Size.most(vendor(plan.dialect, plan.batches))
        self._chunks: dict[tuple[str, str | None], Size] = {}
        self._seen, self._settled, self._offered = Digests(), Digests(), Digests()
        if run is not None:
            with Reader.open(run.path) as reader:
                for digest in map(_short, reader.settled()):
                    self._seen.add(digest)
                    if not pending:
                        self._settled.add(digest)
        if reuse is not None and (run is None or run.path != reuse.path):
            with Reader.open(reuse.path) as reader:
                for digest in map(_short, reader.offered()):
                    self._offered.add(digest)

    def add(self, line: int, digest: str, request: Request, *, wanted: bool = True) -> None:
        found, short = self.stats, _short(digest)
        found.rows += 1
        offered = self._offered.take(short)  # in turn, as `journal.duplicates` has it: also by rows that need none
        if not wanted:
            return
        if self._settled.take(short):
            found.settled += 1
            return
        again = self._seen.add(short)
        if offered and not (again and found.plan.dedupe):
            found.reused += 1
            return
        if again:
            found.duplicates.add(request.weight)
            if found.plan.dedupe:
                return
        found.lengths.add(request.weight)
        if found.shared is None:
            found.shared = bytes(request.body)
        elif not (body := bytes(request.body)).startswith(found.shared):
            same = takewhile(lambda pair: pair[0] == pair[1], zip(found.shared, body, strict=False))
            found.shared = bytes(one for one, _ in same)
        self._keep_example(line, request)
        self._price(line, request)
        if found.plan.batch:
            self._into_batch(request)

    def _into_batch(self, request: Request) -> None:
        found, key = self.stats, (str(request.endpoint), self._model)
        size, tokens = request.size + _NAMES, request.weight / BYTES_PER_TOKEN
        chunk = self._chunks.get(key)
        is_first = chunk is not None and found.batches == 1 and chunk.rows >= found.plan.batch_first
        if chunk is None or is_first or not chunk.has_room(self._most, size, tokens):
            chunk = self._chunks[key] = Size()
            found.batches += 1
        chunk.add(size, tokens)

    def _keep_example(self, line: int, request: Request) -> None:
        """Keep the first, the longest of the others and the last."""
        examples = self.stats.examples
        example = Example(line, request)
        if len(examples) < self._keep:
            examples.append(example)
            return
        if len(examples[-1].request.body) > len(examples[-2].request.body):
            examples[-2] = examples[-1]
        examples[-1] = example

    def _price(self, line: int, request: Request) -> None:
        found, limit = self.stats, request.output_limit
        if self._model is None or not self._one_model:
            self._model, self._tier = named_in(request)
            if found.plan.lanes:
                self._model = found.plan.lanes[0]["model"] or self._model
            found.price = self._tariff.of(self._model)
            found.window = self._tariff.window(self._model)
        tokens = request.weight / BYTES_PER_TOKEN
        if found.window is not None and tokens + (limit or 0) > found.window:
            found.too_long += 1
            found.lines += [line] if len(found.lines) < NAMED else []
        found.output_limit = None if limit is None or found.output_limit is None else found.output_limit + limit
        if found.price is None:
            found.floor = found.ceiling = None
            found.unpriced.add(self._model or "")
            return
        rates = found.price.rates.get(self._tiers[0], found.price.standard) if self._tiers else found.price.standard
        found.floor = None if found.floor is None else found.floor + tokens * rates.input.at(int(tokens))
        tiers = self._tiers or (self._tier or STANDARD,)
        worst = None if limit is None else found.price.worst(len(request.body) + request.file_tokens, limit, tiers)
        found.ceiling = None if worst is None or found.ceiling is None else found.ceiling + worst


def _short(digest: str) -> int:
    return int(digest[:16], 16)


@dataclass(frozen=True, slots=True)
class DryRun:
    plan: Plan
    rows: int
    skipped: int
    body_bytes: int
    first: Request | None


def dry_run(gathered: Gathered, emit: Emit) -> DryRun:
    """Raises as `prepare`."""
    reading = _Reading(gathered, emit)
    for _ in reading:
        pass
    return DryRun(reading.plan, reading.rendered, reading.problems.count, reading.body_bytes, reading.first)
