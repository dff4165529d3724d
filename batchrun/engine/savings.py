"""What a prompt cache is going to save or cost, before anything is sent. Pure."""

from typing import NamedTuple

from batchrun.engine.tiers import tiers_of
from batchrun.plan import Plan
from batchrun.plan.rendering import prompt_of, sharing_of
from batchrun.pricing import STANDARD, Price
from batchrun.prompts.caching import BYTES_PER_TOKEN

AT_FIRST = 16
"""Requests that have left when the first reply comes: with which a run begins."""


class Saving(NamedTuple):
    """`tokens` of the fixed part of a prompt, by its length; `minimum` is what a provider keeps at least. `saved` is in
    picodollars, below 0 where caching costs, None where prices are not known or the part is too short. `marked` is whether
    requests mark the part, else the provider finds it itself."""

    tokens: int
    minimum: int
    saved: int | None
    marked: bool

    @property
    def is_kept(self) -> bool:
        """Whether the fixed part is long enough."""
        return self.tokens >= self.minimum


def saving_of(plan: Plan, price: Price | None, requests: int) -> Saving | None:
    """What the cache does to so many requests; None where none is used, or nothing is known of one.

    One request writes the fixed part, those that are sent before its reply pay it in full, all others read it.
    """
    found = sharing_of(plan, prompt_of(plan))
    if found is None or not found[1].names or not found[0].fixed:
        return None
    renderer, caching = found
    tokens, minimum = len(renderer.fixed) // BYTES_PER_TOKEN, caching.minimum
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
