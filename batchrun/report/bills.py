"""What a run was charged, by kind of token."""

from typing import NamedTuple

from batchrun.journal import Reader
from batchrun.plan import plan_from_json
from batchrun.pricing import Tariff
from batchrun.report.words import money


class Kinds(NamedTuple):
    """Parts of what a run was charged, in picodollars: `input` without what was cached, `output` with reasoning.

    `other` are attempts without an answer and replies that state no usage, at the most they can have cost.
    """

    input: int
    cached: int
    output: int
    other: int

    @property
    def text(self) -> str:
        """`$1.20 input, $0.03 cached input, $4.10 output`."""
        names = ("input", "cached input", "output", "for what states no usage, at most")
        return ", ".join(f"{money(part)} {name}" for part, name in zip(self, names, strict=True) if part)


def kinds(reader: Reader) -> Kinds | None:
    """The parts, computed from the sums of tokens and the prices of today.

    None where they are not what the journal has as charged: other prices since, a dearer tier, several models, or
    what `--reserve` stands for. May read all attempts.
    """
    plan, totals = plan_from_json(reader.meta.plan), reader.totals
    if not totals.cost or plan.model is None:
        return None
    price = Tariff(plan.base_url, plan.input_price, plan.output_price, plan.cached_price).of(plan.model)
    if price is None or (price.output is None and totals.output_tokens):
        return None
    fresh = (totals.input_tokens - totals.cached_tokens) * price.input.base
    cached = totals.cached_tokens * price.cached.base
    made = totals.output_tokens * price.output.base if price.output is not None else 0
    other = totals.cost - fresh - cached - made
    if other != totals.cost_maybe and totals.cost - other != reader.cost_of_usage():
        return None
    return Kinds(fresh, cached, made, other)
