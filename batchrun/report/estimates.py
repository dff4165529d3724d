"""The estimate of `batchrun plan`, and the error of a pilot's prediction."""

import json
from collections.abc import Iterable
from typing import Any, cast

from batchrun.display import counted, printable
from batchrun.engine.estimate import Estimate, LaneCost, Saving, lane_costs, saving_of
from batchrun.engine.forecast import Range
from batchrun.engine.request_stats import EXAMPLES, RequestStats
from batchrun.engine.reuse import taken_over
from batchrun.lanes.vendors import Vendor, vendor
from batchrun.plan import Plan
from batchrun.pricing import STANDARD, usd
from batchrun.report import words

_SHOWN = 4000
_BEGINNING, _END = 240, 80


def show(found: Estimate, *, as_json: bool, requests: int = 0) -> None:
    if as_json:
        print(json.dumps(values(found)))
        return
    for line in (*lines(found), *_examples(found.stats, requests)):
        print(line)


def values(found: Estimate) -> dict[str, Any]:
    """Money in US dollars, times in seconds, ranges as low, expected and high."""
    stats, expected, throughput = found
    return {
        "rows": stats.rows,
        "documents": stats.documents,
        "skipped": stats.skipped,
        "with_outcome": stats.settled,
        "requests": expected.requests,
        "duplicates": stats.duplicates.rows,
        "dedupe": stats.plan.dedupe,
        "reuse": None if stats.reuse is None else stats.reuse.id,
        "reused": stats.reused,
        "cost_of_duplicates": _range(expected.duplicates, 1e-12),
        "body_bytes": stats.lengths.size,
        "measured": expected.measured,
        "input_tokens": _range(expected.input_tokens),
        "output_tokens": _range(expected.output_tokens),
        "output_limit": stats.output_limit,
        "cost": _range(expected.cost, 1e-12),
        "charged": usd(expected.charged),
        "cost_of_prompts": None if stats.floor is None else usd(int(stats.floor)),
        "cost_at_most": None if stats.ceiling is None else usd(int(stats.ceiling)),
        "cache": _cache_values(saving_of(stats, expected.requests)),
        "price": _price(stats),
        "batch": _batch_values(stats),
        "unpriced": sorted(stats.unpriced),
        "lanes": [_lane_values(cost) for cost in lane_costs(stats)],
        "seconds": None if expected.time is None else _range(expected.time.seconds),
        "binding": None if expected.time is None else expected.time.binding,
        "rpm": throughput.rpm,
        "tpm": throughput.tpm,
        "concurrency": throughput.concurrency,
        "context_window": stats.window,
        "too_long": stats.too_long,
        "too_long_lines": stats.lines,
        "model": stats.plan.model,
        "profile": stats.plan.profile,
        "base_url": stats.plan.base_url,
        "simulated": stats.plan.simulated,
        "output": stats.plan.output,
        "run": None if stats.run is None else stats.run.id,
        "examples": [{"line": line, "body": json.loads(bytes(request.body))} for line, request in stats.examples],
    }


def _lane_values(cost: LaneCost) -> dict[str, Any]:
    prompts, most = (None if amount is None else usd(int(amount)) for amount in (cost.prompts, cost.most))
    return {**cost._asdict(), "prompts": prompts, "most": most}


def _lane_line(cost: LaneCost) -> str:
    if cost.prompts is None:
        return f"{printable(cost.name, 60)} not known"
    most = "" if cost.most is None else f", {words.money(int(cost.most))} at most"
    return f"{printable(cost.name, 60)} {words.money(int(cost.prompts))} for the prompts{most}"


def _cache_values(saving: Saving | None) -> dict[str, Any] | None:
    if saving is None:
        return None
    return {**saving._asdict(), "saved": None if saving.saved is None else usd(saving.saved), "kept": saving.is_kept}


def _range(amount: Range | None, unit: float = 1.0) -> dict[str, float] | None:
    return None if amount is None else {name: round(value * unit, 9) for name, value in amount._asdict().items()}


def brief(found: Estimate) -> str:
    stats, expected = found.stats, found.forecast
    parts = [counted(expected.requests, "request"), f"≈ {words.count(round(expected.input_tokens.expected))} tokens in"]
    unknown: list[str] = []
    if expected.output_tokens is not None:
        parts.append(f"≈ {words.count(round(expected.output_tokens.expected))} out")
    if expected.cost is not None and not stats.unpriced:
        parts.append(f"≈ {words.money(int(expected.cost.expected))}")
    elif stats.ceiling is not None and not stats.unpriced:
        parts.append(f"at most {words.money(cost_ceiling(stats))}")
    elif stats.floor and not stats.unpriced:
        parts.append(f"≈ {words.money(int(stats.floor))} for the prompts")
    elif stats.plan.simulated:
        parts.append("no cost (simulated)")
    else:
        unknown.append("cost")
    if expected.time is not None:
        parts.append(f"≈ {words.duration(expected.time.seconds.expected)}")
    elif expected.requests:
        unknown.append("time")
    return " · ".join([*parts, f"{' and '.join(unknown)} not known"] if unknown else parts)


def lines(found: Estimate) -> Iterable[str]:
    stats, expected, _ = found
    skipped = f", {stats.skipped:,} invalid lines skipped" if stats.skipped else ""
    documents = "1 document" if stats.documents == 1 else f"{stats.documents:,} documents"
    yield f"rows      {stats.rows:,}{f', segments of {documents}' if stats.documents else ''}{skipped}"
    settled = f"; {counted(stats.settled)} with an outcome already" if stats.settled else ""
    yield f"requests  {expected.requests:,} to send{settled}"
    if stats.duplicates.rows:
        yield f"equal     {_duplicates(found)}"
    if stats.reuse is not None:
        yield f"reuse     {taken_over(stats.reused, stats.reuse.id)}"
    yield f"to        {printable(stats.plan.base_url or stats.plan.profile)}, model {words.model_of(stats.plan)}"
    yield f"output    {printable(stats.plan.output)}"
    basis = "by the length of every request; --pilot 50 measures it"
    if expected.measured:
        basis = f"measured on {counted(expected.measured, 'answered row')}"
    yield f"in        {_tokens(expected.input_tokens)}, {basis}"
    yield f"out       {_output(found)}"
    yield f"cost      {_cost(found)}"
    if costs := lane_costs(stats):
        yield f"          if all went to one lane: {'; '.join(map(_lane_line, costs))}"
    if cache := _cache(saving_of(stats, expected.requests)):
        yield f"cache     {cache}"
    if stats.plan.batch:
        yield f"batches   {_batches(stats)}"
    yield f"time      {_time(found)}"
    if stats.too_long:
        named = ", ".join(map(str, stats.lines))
        yield f"too long  {stats.too_long:,} requests for the window of {stats.window:,} tokens (line {named} …)"


def _duplicates(found: Estimate) -> str:
    stats, cost = found.stats, found.forecast.duplicates
    worth = "" if cost is None else f", about {words.money(int(cost.expected))}"
    if stats.plan.dedupe:
        return f"{stats.duplicates.rows:,} more rows get the reply of an equal request{worth} saved by --dedupe"
    return f"{stats.duplicates.rows:,} of the requests are equal to another; --dedupe would save them{worth}"


def _tokens(amount: Range) -> str:
    low, expected, high = (words.count(round(value)) for value in amount)
    return f"about {expected} tokens" + ("" if low == high else f" ({low} to {high})")


def _output(found: Estimate) -> str:
    expected, limit = found.forecast.output_tokens, found.stats.output_limit
    if expected is not None:
        return _tokens(expected)
    most = "no limit is set" if limit is None else f"at most {words.count(limit)} tokens"
    return f"not known before a reply, {most}; --pilot 50 measures it"


def _cost(found: Estimate) -> str:
    stats, expected = found.stats, found.forecast
    if stats.unpriced and stats.plan.simulated:
        return "nothing: replies are simulated; --model NAME shows what a model would cost"
    if stats.unpriced:
        named = ", ".join(printable(name or "-", 60) for name in sorted(stats.unpriced)[:3])
        return f"not known: no price for {named}; set input_price and output_price in the profile"
    before = f", {words.money(expected.charged)} of it charged already" if expected.charged else ""
    if expected.cost is not None:
        low, middle, high = (words.money(int(amount)) for amount in expected.cost)
        return f"about {middle} ({low} to {high}){before}"
    at_least = "" if stats.floor is None else f"about {words.money(int(stats.floor))} for the prompts"
    at_most = "" if stats.ceiling is None else f", at most {words.money(cost_ceiling(stats))} with the replies"
    priced = "" if stats.price is None else f"; {_price(stats)}"
    return f"{at_least}{at_most}{priced}"


def _cache(saving: Saving | None) -> str:
    if saving is None:
        return ""
    part = f"the fixed part of the prompt, about {words.count(saving.tokens)} tokens,"
    if not saving.is_kept:
        return f"{part} is too short for the provider's cache (at least {saving.minimum:,} tokens)"
    how = "is marked for the provider's cache" if saving.marked else "is cached by the provider automatically"
    if saving.saved is None:
        return f"{part} {how}"
    does = "saves" if saving.saved >= 0 else "costs"
    return f"{part} {how}, which {does} about {words.money(abs(saving.saved))}"


def _price(stats: RequestStats) -> str | None:
    return None if stats.price is None else stats.price.text_of("batch" if stats.plan.batch else STANDARD)


def vendor_of(plan: Plan) -> Vendor:
    return vendor(plan.dialect, plan.batches)


def _batch_values(stats: RequestStats) -> dict[str, Any] | None:
    if not stats.plan.batch:
        return None
    found = vendor_of(stats.plan)
    most = {
        "lines": found.lines,
        "bytes": found.bytes,
        "tokens": found.tokens,
        "window": found.window,
        "days": found.days,
    }
    return {"batches": stats.batches, **most}


def _batches(stats: RequestStats) -> str:
    found, first = vendor_of(stats.plan), stats.plan.batch_first
    tokens = "" if found.tokens is None else f", {found.tokens:,} tokens"
    split = f"; the first has {first:,} rows" if stats.batches > 1 and found.shape != "anthropic" else ""
    limits = f"at most {found.lines:,} rows, {found.bytes / 1e6:,.0f} MB{tokens} each"
    return f"about {stats.batches:,}, {limits}{split}; each within {found.window}, results kept {found.days} days"


def cost_ceiling(stats: RequestStats) -> int:
    """Picodollars."""
    return int(stats.ceiling or 0)


def _time(found: Estimate) -> str:
    time, throughput = found.forecast.time, found.throughput
    if not found.forecast.requests:
        return "none: nothing is left to send"
    if found.stats.plan.batch:
        return f"set by the provider: up to {vendor_of(found.stats.plan).window} per batch; --finish-by sets a deadline"
    if time is None:
        return "not known: no limit is set, and no reply was measured; --pilot 50 measures it"
    low, expected, high = (words.duration(seconds) for seconds in time.seconds)
    rates = {
        "requests per minute": throughput.rpm,
        "tokens per minute": throughput.tpm,
        "concurrency": float(throughput.concurrency),
    }
    rate = rates.get(time.binding)
    bound = time.binding if rate is None else f"{time.binding} ({rate:,.0f})"
    return f"about {expected} ({low} to {high}), bound by {bound}"


def _examples(stats: RequestStats, requests: int) -> Iterable[str]:
    found = stats.examples
    names = {0: "first", len(found) - 2: "longest", len(found) - 1: "last"} if len(found) >= EXAMPLES else {}
    for place, (line, request) in enumerate(found[:requests]):
        name = names.get(place, "next")
        body = json.dumps(_shortened(json.loads(bytes(request.body))), ensure_ascii=False, indent=2)
        text = "\n".join(printable(part, _SHOWN) for part in body[:_SHOWN].split("\n"))
        more = f"\n… {len(body) - _SHOWN:,} more characters" if len(body) > _SHOWN else ""
        yield f"\nthe {name} request (line {line}):\n{text}{more}"


def _shortened(value: Any) -> Any:
    # omits the middle of long texts, so that every message is visible
    if isinstance(value, str):
        left = len(value) - _BEGINNING - _END
        return value if left <= 0 else f"{value[:_BEGINNING]} … {left:,} characters … {value[-_END:]}"
    if isinstance(value, list):
        return [_shortened(one) for one in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {name: _shortened(one) for name, one in cast("dict[str, Any]", value).items()}
    return value
