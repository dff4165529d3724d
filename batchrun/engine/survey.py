"""What a run would send, measured on every row without a call; and what it will cost and take, as far as that is known.

`survey` reads the input as a run would, `survey_pending` the rows of a journal that are not answered. What answered
rows of the same run used, a pilot's above all, turns lengths into tokens, cost and time (`forecast`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from batchrun import registry
from batchrun.engine.budget_guard import named_in, tariff_of
from batchrun.engine.chunks import Size
from batchrun.engine.export import reserved
from batchrun.engine.forecast import (
    BYTES_PER_TOKEN,
    Duration,
    Lengths,
    Range,
    Seen,
    Throughput,
    duration,
    input_tokens,
    total,
)
from batchrun.engine.hash_counts import Digests
from batchrun.engine.ingest import BLANK_ROW, Ids, Problems, checked, tell_rows
from batchrun.engine.reuse import lender
from batchrun.engine.row_files import restored
from batchrun.engine.selection import in_sample
from batchrun.engine.start import check_same_world, opened
from batchrun.engine.tiers import tiers_of
from batchrun.events import Emit, IntakeProgress
from batchrun.journal import IntakeRow, Reader
from batchrun.lanes.shapes import vendor
from batchrun.models import Kind, Request, Row
from batchrun.plan import Plan
from batchrun.plan.blanks import blanks_of, copied
from batchrun.plan.reducing import Reduction
from batchrun.plan.rendering import prompt_of
from batchrun.plan.segments import DocumentInput
from batchrun.plan.sources import Gathered
from batchrun.pricing import STANDARD, Price
from batchrun.prompts import Renderer, RenderError, request_digest
from batchrun.registry import STREAM, RunFile
from batchrun.rows import restore

_NAMES = 110
"""Bytes of a line beside its body: custom_id, method and url."""
NAMED = 5
"""Lines that are too long which are named."""
EXAMPLES = 3
"""Requests that a survey keeps at least: the first, the longest, the last."""


class Example(NamedTuple):
    """A rendered request, and the line it comes from."""

    line: int
    request: Request


@dataclass(slots=True)
class Survey:
    """What was found. `rows` are valid ones, segments of so many `documents` where the input is documents, `settled` of them need no request any more; the rest is about the
    `lengths.rows` requests that would be sent.

    `reused` of them are answered by replies of the run `reuse`. `duplicates` are the lengths of those that are equal to an
    earlier one; with `--dedupe` they are not sent. `ceiling` is what all cost at most and `floor` their prompts alone,
    in picodollars, None where a price or a limit of output tokens is not known. `too_long` requests do not fit into the
    context window with the output that they ask for; `lines` names some. `batches` are those that they go in, with `--batch`.
    """

    plan: Plan
    rows: int = 0
    skipped: int = 0
    documents: int = 0
    settled: int = 0
    lengths: Lengths = field(default_factory=Lengths)
    duplicates: Lengths = field(default_factory=Lengths)
    floor: float | None = 0.0
    ceiling: float | None = 0.0
    output_limit: int | None = 0
    price: Price | None = None
    unpriced: set[str] = field(default_factory=set[str])
    window: int | None = None
    too_long: int = 0
    lines: list[int] = field(default_factory=list[int])
    examples: list[Example] = field(default_factory=list[Example])
    batches: int = 0
    run: RunFile | None = None
    reuse: RunFile | None = None
    reused: int = 0


def survey(gathered: Gathered, emit: Emit, keep: int = EXAMPLES) -> Survey:
    """Open, check and render the whole input as a run would, and keep so many requests as examples.

    Raises as `prepare`; makes no journal and no call.
    """
    source, plan, inner = opened(gathered, emit)
    problems = Problems(source.where)
    renderer = _Last(inner)
    counted = _Counted(plan, _run_of(plan, gathered), reuse=lender(gathered.settings, plan), keep=keep)
    total = sum(1 for _ in source) if plan.sample is not None else 0
    blanks = blanks_of(plan, prompt_of(plan))
    reduction = Reduction.of(plan)
    ids = Ids()

    def read(problems: Problems) -> Iterator[IntakeRow]:
        return checked(source, renderer, problems, reserved(plan), blanks=blanks, reduction=reduction)

    for position, row in enumerate(read(problems), 1):
        ids.add(row)
        if row.skipped is None and not row.request:
            counted.survey.rows += 1  # answered without a request
        elif row.skipped is BLANK_ROW:
            counted.survey.skipped += 1
        elif row.skipped is None and renderer.request is not None:
            counted.add(row.line, row.request, renderer.request, wanted=_wanted(plan, position, total))
        if position % 10_000 == 0:
            emit(IntakeProgress(position))
    problems.refuse(source.name, skip_invalid=gathered.settings.skip_invalid)
    ids.refuse(read(Problems(source.where)))
    counted.survey.skipped += problems.count
    counted.survey.documents = len(source.sources) if isinstance(source, DocumentInput) else 0
    tell_rows(source, problems, emit)
    return counted.survey


def survey_pending(plan: Plan, run: RunFile, renderer: Renderer, pages: Iterable[Sequence[Any]]) -> Survey:
    """The same for the rows of a journal without an outcome, page by page."""
    counted, blanks = _Counted(plan, run, pending=True), copied(plan)
    for page in pages:
        for row in page:
            found = restored(row, run.path.parent)
            if not blanks.is_blank(found.fields):
                request = renderer.render(found)
                counted.add(row.line, request_digest(request), request)
    with Reader.open(run.path) as reader:
        totals = reader.totals
        for line, key, text, parts in reader.reductions() if plan.reduce is not None else ():
            request = Reduction(plan).expected(restore(line, key, text), parts, renderer)
            counted.add(line, request_digest(request), request)
    found = counted.survey
    found.rows, found.skipped, found.settled = totals.rows - totals.skipped, totals.skipped, totals.done + totals.failed
    return found


def _wanted(plan: Plan, position: int, total: int) -> bool:
    """Whether `limit` or `sample` lets a run send this row."""
    if plan.sample is not None:
        return in_sample(position, plan.sample, total)
    return plan.limit is None or position <= plan.limit


def _run_of(plan: Plan, gathered: Gathered) -> RunFile | None:
    if plan.output == STREAM or gathered.settings.fresh:
        return None
    directory = registry.directory_for(plan.output, gathered.settings.runs_dir)
    found = registry.of_output(Path(plan.output), directory)
    if found is not None:
        check_same_world(found, plan)
    return found


class _Last:
    """A renderer that remembers its last request."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self.request: Request | None = None

    def render(self, row: Row) -> Request:
        self.request = None
        self.request = self._renderer.render(row)
        return self.request


class _Counted:
    """Counts requests into a survey."""

    def __init__(
        self,
        plan: Plan,
        run: RunFile | None,
        *,
        pending: bool = False,
        reuse: RunFile | None = None,
        keep: int = EXAMPLES,
    ) -> None:
        """`pending`: only rows without an outcome will come, so that none of them is settled."""
        self._keep = max(EXAMPLES, keep)
        self.survey = Survey(plan, run=run, reuse=reuse)
        self._tariff = tariff_of(plan)
        self._one_model = plan.kind is Kind.ROWS
        self._model: str | None = None
        self._tier: str | None = None
        self._tiers = tuple(tier.priced or STANDARD for tier in tiers_of(plan).values())
        if plan.batch:
            self._tiers = ("batch",)
        self._most = Size.most(vendor(plan.dialect, plan.batches))
        self._chunks: dict[tuple[str, str | None], Size] = {}
        self._met, self._settled, self._offered = Digests(), Digests(), Digests()
        if run is not None:
            with Reader.open(run.path) as reader:
                for digest in map(_short, reader.settled()):
                    self._met.add(digest)
                    if not pending:
                        self._settled.add(digest)
        if reuse is not None and (run is None or run.path != reuse.path):
            with Reader.open(reuse.path) as reader:
                for digest in map(_short, reader.offered()):
                    self._offered.add(digest)

    def add(self, line: int, digest: str, request: Request, *, wanted: bool = True) -> None:
        """One valid row; `wanted` ones would be sent if they are not settled."""
        found, short = self.survey, _short(digest)
        found.rows += 1
        offered = self._offered.take(short)  # in turn, as `journal.duplicates` has it: also by rows that need none
        if not wanted:
            return
        if self._settled.take(short):
            found.settled += 1
            return
        again = self._met.add(short)
        if offered and not (again and found.plan.dedupe):
            found.reused += 1
            return
        if again:
            found.duplicates.add(request.weight)
            if found.plan.dedupe:
                return
        found.lengths.add(request.weight)
        self._show(line, request)
        self._price(line, request)
        if found.plan.batch:
            self._into_batch(request)

    def _into_batch(self, request: Request) -> None:
        """Count the batches that are filled as the run fills them; their lines have names beside the body."""
        found, key = self.survey, (str(request.endpoint), self._model)
        size, tokens = request.size + _NAMES, request.weight / BYTES_PER_TOKEN
        chunk = self._chunks.get(key)
        is_first = chunk is not None and found.batches == 1 and chunk.rows >= found.plan.batch_first
        if chunk is None or is_first or not chunk.has_room(self._most, size, tokens):
            chunk = self._chunks[key] = Size()
            found.batches += 1
        chunk.add(size, tokens)

    def _show(self, line: int, request: Request) -> None:
        """The first requests are examples, and at the end the longest of the others and the last one."""
        examples = self.survey.examples
        example = Example(line, request)
        if len(examples) < self._keep:
            examples.append(example)
            return
        if len(examples[-1].request.body) > len(examples[-2].request.body):
            examples[-2] = examples[-1]
        examples[-1] = example

    def _price(self, line: int, request: Request) -> None:
        found, limit = self.survey, request.output_limit
        if self._model is None or not self._one_model:
            self._model, self._tier = named_in(request.body)
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
    """Enough of a digest to tell requests apart, in little memory."""
    return int(digest[:16], 16)


def seen_in(run: RunFile, renderer: Renderer) -> list[Seen]:
    """What answered rows of a run did, those whose request is still the same: of another model, or another prompt, the
    tokens, cost and time say nothing."""
    seen: list[Seen] = []
    with Reader.open(run.path) as reader:
        for row in reader.spent():
            try:
                request = renderer.render(restore(row.line, row.key, row.text))
            except RenderError:  # a prompt that asks for a column which the rows had not then
                continue
            if request_digest(request) == row.request:
                cost = None if row.cost is None else int(row.cost)
                tokens = int(row.input_tokens), int(row.output_tokens)
                seen.append(Seen(request.weight, *tokens, cost, row.seconds or 0.0, max(1, int(row.attempts))))
    return seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What sending the surveyed requests will use, cost and take; None where nothing tells.

    `cost` is in picodollars and includes the `charged` of what was sent before; `duplicates` is the part of it for requests
    that are equal to an earlier one. `measured` is how many answered rows it rests on; with none, `cost` is None unless
    the output is none.
    """

    requests: int
    measured: int
    input_tokens: Range
    output_tokens: Range | None
    cost: Range | None
    duplicates: Range | None
    charged: int
    time: Duration | None


def forecast(found: Survey, seen: Sequence[Seen], throughput: Throughput, charged: int) -> Forecast:
    """What is to be expected of what the survey found."""
    lengths, sums = found.lengths, input_tokens(found.lengths, seen)
    output = cost = duplicates = None
    attempts = 1.0
    if seen:
        output = total(lengths, [(row.size, row.output_tokens) for row in seen])
        attempts = sum(row.attempts for row in seen) / len(seen)
        costs = [(row.size, row.cost) for row in seen if row.cost is not None]
        if len(costs) == len(seen):
            cost, duplicates = total(lengths, costs), total(found.duplicates, costs)
    elif found.output_limit == 0:
        output = Range(0, 0, 0)
        cost = None if found.floor is None else Range(found.floor * 0.75, found.floor, found.floor * 1.25)
    tokens = sums if output is None else Range(*(one + other for one, other in zip(sums, output, strict=True)))
    return Forecast(
        requests=lengths.rows,
        measured=len(seen),
        input_tokens=sums,
        output_tokens=output,
        cost=None if cost is None else cost.plus(charged),
        duplicates=duplicates,
        charged=charged,
        time=duration(lengths.rows * attempts, tokens, throughput),
    )


def throughput_of(plan: Plan, seen: Sequence[Seen], rpm: float | None, tpm: float | None) -> Throughput:
    """What bounds the speed: the user's limits, and those that a provider has stated."""
    seconds = sum(row.seconds for row in seen) / len(seen) if seen else None
    return Throughput(_lower(plan.rpm, rpm), _lower(plan.tpm, tpm), plan.concurrency, seconds)


def _lower(one: float | None, other: float | None) -> float | None:
    known = [rate for rate in (one, other) if rate is not None]
    return min(known, default=None)


def stated_limits(run: RunFile) -> tuple[float | None, float | None]:
    """The requests and tokens per minute that were in force when the run was last at work."""
    with Reader.open(run.path) as reader:
        states = [sample.state for sample in reader.samples()[-20:]]
    rates = {name: [state[name] for state in states if state.get(name)] for name in ("rpm", "tpm")}
    return max(rates["rpm"], default=None), max(rates["tpm"], default=None)
