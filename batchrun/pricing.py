"""What tokens cost: the prices of the profile, else those of the snapshot in the package `genai-prices`.

Money is counted in whole picodollars (10⁻¹² USD), so that sums are exact: a price of 0.000001 USD per million tokens is
one picodollar per token, and finer prices are rounded up. Nothing is looked up in the network. A price that is not
known is None and never guessed: a model is only looked up among those of the host it is sent to.
"""

import datetime
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from importlib import metadata
from typing import Any, NamedTuple

from batchrun.models import Usage

USD = 10**12
"""Picodollars in a US dollar."""
PER_MILLION = USD // 10**6

_HOSTS = {"api.together.ai": "together"}
"""Hosts that the snapshot has under another address."""


_LOCAL = re.compile(r"https?://(localhost|127\.|\[::1\])")
"""Nobody sells tokens here."""


class Rate(NamedTuple):
    """Picodollars per token; from more than `start` input tokens on, all tokens of a request cost the tier's rate."""

    base: int
    tiers: tuple[tuple[int, int], ...] = ()

    def at(self, input_tokens: int) -> int:
        """The rate of a request with so many input tokens."""
        return next((rate for start, rate in reversed(self.tiers) if input_tokens > start), self.base)

    @property
    def dearest(self) -> int:
        """The highest rate whatever the request."""
        return max([self.base, *(rate for _, rate in self.tiers)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What the tokens of one model cost. `output` is None where the model makes none or its price is not known.

    `source` says where the prices come from. `context_window` is the most tokens that a request and its reply may
    have together, None where it is not known.
    """

    input: Rate
    cached: Rate
    output: Rate | None
    source: str
    context_window: int | None = None

    def cost(self, usage: Usage) -> int | None:
        """Picodollars of one reply, None where it cannot be told."""
        if self.output is None and usage.output:
            return None
        fresh = (usage.input - usage.cached) * self.input.at(usage.input)
        made = usage.output * self.output.at(usage.input) if self.output is not None else 0
        return fresh + usage.cached * self.cached.at(usage.input) + made

    def worst(self, input_tokens: int, output_tokens: int) -> int | None:
        """Picodollars that a request with at most so many tokens cannot exceed: nothing cached, the dearest tier."""
        if self.output is None:
            return None if output_tokens else input_tokens * self.input.dearest
        return input_tokens * max(self.input.dearest, self.cached.dearest) + output_tokens * self.output.dearest

    @property
    def text(self) -> str:
        """`$0.75 in, $0.075 cached, $4.5 out per million tokens (genai-prices 0.2.3)`."""
        out = "" if self.output is None else f", {_rate_text(self.output)} out"
        cached = "" if self.cached == self.input else f", {_rate_text(self.cached)} cached"
        return f"{_rate_text(self.input)} in{cached}{out} per million tokens ({self.source})"


def _rate_text(rate: Rate) -> str:
    return f"${rate.base / PER_MILLION:.10g}" + ("+" if rate.tiers else "")


@dataclass(slots=True)
class Tariff:
    """The prices of one run, by model; each model is looked up once.

    `base_url` is where requests go; for the simulated provider it is empty, and a model counts as if it were sent to
    its own provider. The prices are USD per million tokens and win over the snapshot.
    """

    base_url: str
    input_price: float | None = None
    output_price: float | None = None
    cached_price: float | None = None
    _known: dict[str, Price | None] = field(default_factory=dict[str, Price | None])

    def of(self, model: str | None) -> Price | None:
        """The price of a model, None where it is not known."""
        name = model or ""
        if name not in self._known:
            self._known[name] = self._find(name)
        return self._known[name]

    def window(self, model: str | None) -> int | None:
        """The context window of a model, None where it is not known."""
        price = self.of(model)
        if price is not None:
            return price.context_window
        listed = _listed(model or "", self.base_url)
        return None if listed is None else listed.context_window

    def _find(self, model: str) -> Price | None:
        listed = _listed(model, self.base_url) if model else None
        if self.input_price is None:
            return listed if listed is None else self._overridden(listed)
        first = _own_rate(self.input_price)
        cached = first if self.cached_price is None else _own_rate(self.cached_price)
        output = None if self.output_price is None else _own_rate(self.output_price)
        if output is None and listed is not None:
            output = listed.output
        window = listed.context_window if listed is not None else None
        return Price(input=first, cached=cached, output=output, source="the profile's prices", context_window=window)

    def _overridden(self, listed: Price) -> Price:
        output = listed.output if self.output_price is None else _own_rate(self.output_price)
        cached = listed.cached if self.cached_price is None else _own_rate(self.cached_price)
        return Price(
            input=listed.input,
            cached=cached,
            output=output,
            source=listed.source,
            context_window=listed.context_window,
        )


def usd(picodollars: int) -> float:
    """The same in US dollars."""
    return picodollars / USD


def picodollars(dollars: float) -> int:
    """The same in whole picodollars, rounded down, as the decimal number that the user wrote."""
    return int(Decimal(str(dollars)) * USD)


def _own_rate(price: float) -> Rate:
    return Rate(math.ceil(Decimal(str(price)) * PER_MILLION))


@cache
def _listed(model: str, base_url: str) -> Price | None:
    """The snapshot's price; where it depends on the time of day, the dearest of today."""
    if _LOCAL.match(base_url) or (not base_url and model == "simulated"):
        return None
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415  a third of a second: only where a run asks

    host = next((name for name in _HOSTS if re.match(rf"https://{re.escape(name)}(/|$)", base_url)), None)
    try:
        provider, found = get_snapshot().find_provider_model(
            model, None, None if host is None else _HOSTS[host], None if host or not base_url else base_url
        )
    except LookupError:
        return None
    today = datetime.datetime.now(datetime.UTC).replace(minute=30)
    prices = [found.get_prices(today.replace(hour=hour)) for hour in range(24)]
    first = _dearest(price.input_mtok for price in prices)
    if first is None:
        return None
    cached = _dearest(price.cache_read_mtok for price in prices)
    return Price(
        input=first,
        cached=first if cached is None else cached,
        output=_dearest(price.output_mtok for price in prices),
        source=f"genai-prices {metadata.version('genai-prices')}: {provider.id}/{found.id}",
        context_window=found.context_window,
    )


def _dearest(prices: Iterable[Any]) -> Rate | None:
    rates = [rate for price in prices if (rate := _rate(price)) is not None]
    return max(rates, key=lambda rate: (rate.dearest, rate.base), default=None)


def _rate(price: Any) -> Rate | None:
    """A price of the snapshot: a decimal number of USD per million tokens, or one with tiers."""
    if price is None:
        return None
    if isinstance(price, Decimal):
        return Rate(math.ceil(price * PER_MILLION))
    tiers = tuple((tier.start, math.ceil(tier.price * PER_MILLION)) for tier in price.tiers)
    return Rate(math.ceil(price.base * PER_MILLION), tiers)
