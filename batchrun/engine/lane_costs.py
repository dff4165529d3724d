"""What the surveyed requests would cost if all of them went to one lane of a pool: between these the run will cost."""

from typing import NamedTuple

from batchrun.engine.budget_guard import tariff_of
from batchrun.engine.forecast import BYTES_PER_TOKEN
from batchrun.engine.survey import Survey
from batchrun.plan.pools import lane_plans


class LaneCost(NamedTuple):
    """Picodollars, None where the price or a limit of output tokens is not known: `prompts` for the prompts alone, `most` with
    all output that is allowed. `price` is what tokens cost, in words."""

    name: str
    model: str | None
    prompts: float | None
    most: float | None
    price: str | None


def lane_costs(found: Survey) -> list[LaneCost]:
    """The costs by lane; none for a run with one place."""
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
