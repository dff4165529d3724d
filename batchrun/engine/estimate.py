"""Estimates requests, cost, time and prompt cache of a run; afterwards the error."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from batchrun.engine.budget_guard import tariff_of
from batchrun.engine.forecast import Duration, Range, Seen, Throughput, duration, input_tokens, total
from batchrun.engine.prediction import NOTE
from batchrun.engine.request_stats import EXAMPLES, RequestStats, measure, measure_pending
from batchrun.engine.start import Prepared, renderer_of
from batchrun.engine.tiers import tiers_of
from batchrun.events import Emit
from batchrun.journal import Reader
from batchrun.models import Pending
from batchrun.plan import Plan
from batchrun.plan.pools import lane_plans
from batchrun.plan.rendering import prompt_of, sharing_of
from batchrun.plan.sources import Gathered
from batchrun.pricing import STANDARD, usd
from batchrun.prompts import Renderer, RenderError, request_digest
from batchrun.prompts.caching import BYTES_PER_TOKEN
from batchrun.registry import RunFile
from batchrun.rows import restore


def seen_in(run: RunFile, renderer: Renderer) -> list[Seen]:
    """Answered rows whose request is unchanged."""
    seen: list[Seen] = []
    with Reader.open(run.path) as reader:
        for row in reader.spent():
            try:
                request = renderer.render(restore(row.line, row.key, row.text))
            except RenderError:  # a prompt that asks for a column which the rows had not then
                continue
            if request_digest(request, run.meta.digest) == row.request:
                cost = None if row.cost is None else int(row.cost)
                tokens = int(row.input_tokens), int(row.output_tokens)
                seen.append(Seen(request.weight, *tokens, cost, row.seconds or 0.0, max(1, int(row.attempts))))
    return seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """None where unknown. Costs are in picodollars."""

    requests: int
    measured: int
    input_tokens: Range
    output_tokens: Range | None
    cost: Range | None  # Includes `charged`
    duplicates: Range | None  # The cost of repeated requests
    charged: int
    time: Duration | None


def forecast(found: RequestStats, seen: Sequence[Seen], throughput: Throughput, charged: int) -> Forecast:
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
    seconds = sum(row.seconds for row in seen) / len(seen) if seen else None
    return Throughput(_lower(plan.rpm, rpm), _lower(plan.tpm, tpm), plan.concurrency, seconds)


def _lower(one: float | None, other: float | None) -> float | None:
    known = [rate for rate in (one, other) if rate is not None]
    return min(known, default=None)


def stated_limits(run: RunFile) -> tuple[float | None, float | None]:
    """Requests and tokens per minute, by the last samples."""
    with Reader.open(run.path) as reader:
        states = [sample.state for sample in reader.samples()[-20:]]
    rates = {name: [state[name] for state in states if state.get(name)] for name in ("rpm", "tpm")}
    return max(rates["rpm"], default=None), max(rates["tpm"], default=None)


class Estimate(NamedTuple):
    stats: RequestStats
    forecast: Forecast
    throughput: Throughput


def estimate(gathered: Gathered, emit: Emit, keep: int = EXAMPLES) -> Estimate:
    """Raises RefusedError as the run would."""
    found = measure(gathered, emit, keep)
    if found.run is None:
        throughput = throughput_of(found.plan, [], None, None)
        return Estimate(found, forecast(found, [], throughput, 0), throughput)
    seen = seen_in(found.run, renderer_of(found.plan, prompt_of(found.plan)))
    throughput = throughput_of(found.plan, seen, *stated_limits(found.run))
    return Estimate(found, forecast(found, seen, throughput, _charged(found.run)), throughput)


def estimate_after(prepared: Prepared, rpm: float | None, tpm: float | None) -> Estimate:
    """What a pilot has left; journaled for comparison."""
    found = measure_pending(prepared.plan, prepared.run, prepared.renderer, _pages(prepared))
    seen = seen_in(prepared.run, prepared.renderer)
    throughput = throughput_of(prepared.plan, seen, rpm, tpm)
    expected = forecast(found, seen, throughput, _charged(prepared.run))
    with Reader.open(prepared.run.path) as reader:
        sessions = len(reader.sessions)
    cost = None if expected.cost is None else [usd(int(amount)) for amount in expected.cost]
    seconds = None if expected.time is None else list(expected.time.seconds)
    prepared.journal.note(NOTE, json.dumps({"sessions": sessions, "cost": cost, "seconds": seconds}))
    return Estimate(found, expected, throughput)


def _pages(prepared: Prepared) -> Iterator[list[Pending]]:
    after = 0
    while page := prepared.journal.pending(after, until=prepared.plan.limit):
        yield page
        after = page[-1].position


def _charged(run: RunFile) -> int:
    with Reader.open(run.path) as reader:
        totals = reader.totals
    return totals.cost + totals.cost_reserved


class LaneCost(NamedTuple):
    name: str
    model: str | None
    prompts: float | None  # Picodollars (None: unknown)
    most: float | None  # With all output
    price: str | None


def lane_costs(found: RequestStats) -> list[LaneCost]:
    if not found.plan.lanes:
        return []
    size, limit, rows = found.lengths.size, found.output_limit, found.lengths.rows
    costs: list[LaneCost] = []
    for name, plan, _, fallback in lane_plans(found.plan):
        if fallback:
            continue
        price = tariff_of(plan).of(plan.model)
        prompts = most = None
        if price is not None:
            fees = price.standard.request * max(0, rows - 1)
            prompts = size / BYTES_PER_TOKEN * price.standard.input.base + price.standard.request * rows
            worst = None if limit is None else price.worst(size, limit)
            most = None if worst is None else worst + fees
        costs.append(LaneCost(name, plan.model, prompts, most, None if price is None else price.text))
    return costs


AT_FIRST = 16  # Requests sent before the first reply arrives


class Saving(NamedTuple):
    tokens: int  # Of the fixed prefix
    minimum: int
    saved: int | None  # Picodollars (negative: a loss; None: unknown)
    marked: bool  # In requests

    @property
    def is_kept(self) -> bool:
        return self.tokens >= self.minimum


def saving_of(stats: RequestStats, requests: int) -> Saving | None:
    """One request writes the prefix, early ones pay it in full, the others read it."""
    plan, price = stats.plan, stats.price
    found = sharing_of(plan, prompt_of(plan))
    if found is None or not found[1].names or not found[0].fixed:
        return None
    renderer, caching = found
    # Variables that have the same value in every row, a default for one, are part of what is fixed.
    shared = stats.shared if stats.shared and stats.lengths.rows > 1 else b""
    tokens, minimum = max(len(renderer.fixed), len(shared)) // BYTES_PER_TOKEN, caching.minimum
    if price is None or tokens < minimum or not requests:
        return Saving(tokens, minimum, None, bool(caching.mark))
    tier = next((tier.priced for tier in tiers_of(plan).values()), None)
    rates = price.rates.get(tier or STANDARD, price.standard)
    plain = rates.input.at(tokens)
    read = plain if rates.cached is None else rates.cached.at(tokens)
    written = plain if rates.written is None or not caching.mark else rates.written.at(tokens)
    readers = max(0, requests - min(AT_FIRST, plan.concurrency))
    writes = 1 if requests > 1 else 0
    return Saving(tokens, minimum, tokens * (readers * (plain - read) - writes * (written - plain)), bool(caching.mark))
