"""What a reply costs: by the profile's prices, else by the package `genai-prices`. No network.

The service tier named in the reply decides; a cost stated by the provider comes first. Whole picodollars make sums
exact; finer prices are rounded up. An unknown price is None: a model is only looked up among those of its host.
"""

import datetime
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

from batchrun import price_cache
from batchrun.models import PICODOLLARS, Bill, Usage, made

USD = PICODOLLARS
PER_MILLION = USD // 10**6

SLOT = 1800  # seconds for which a price by time of day holds at least
STANDARD = "default"  # the service tier of a reply that names none
CHEAPER = frozenset({"flex", "batch"})  # below the standard price, which is the most if theirs is unknown
_HOSTS = {"api.together.ai": "together"}  # with another address in the snapshot


_LOCAL = re.compile(r"https?://(localhost|127\.|\[::1\])")  # hosts without prices


class Rate(NamedTuple):
    base: int  # picodollars per token
    tiers: tuple[tuple[int, int], ...] = ()  # (start, rate): with more input tokens, the rate holds for all tokens

    def at(self, input_tokens: int) -> int:
        if not self.tiers:
            return self.base
        return next((rate for start, rate in reversed(self.tiers) if input_tokens > start), self.base)

    def times(self, factor: Decimal) -> "Rate":
        return Rate(
            math.ceil(self.base * factor), tuple((start, math.ceil(rate * factor)) for start, rate in self.tiers)
        )

    @property
    def dearest(self) -> int:
        return max([self.base, *(rate for _, rate in self.tiers)])


class Rates(NamedTuple):
    # of one service tier
    input: Rate
    output: Rate | None  # None: unknown
    cached: Rate | None = None  # without an own rate this and media cost what their input or output does
    written: Rate | None = None  # the same
    written_long: Rate | None = None  # without an own rate what `written` costs
    input_audio: Rate | None = None
    output_audio: Rate | None = None
    input_image: Rate | None = None
    output_image: Rate | None = None
    reasoning: Rate | None = None
    request: int = 0  # a fee per request

    @classmethod
    def from_json(cls, found: Sequence[list[Any] | int | None]) -> "Rates":
        return cls._make(
            Rate(each[0], tuple((start, rate) for start, rate in each[1])) if isinstance(each, list) else each
            for each in found
        )

    def times(self, factor: Decimal) -> "Rates":
        # rounded up; fees stay
        kinds = {kind: rate.times(factor) for kind, rate in self._asdict().items() if isinstance(rate, Rate)}
        return self._replace(**kinds)

    def bill(self, usage: Usage) -> Bill | None:
        """None if the output's price is unknown."""
        if self.output is None and usage.output:
            return None
        size = usage.input
        whole = self.input.at(size)
        if usage[2:10] == _NO_KINDS:  # nearly every one
            output = 0 if self.output is None else usage.output * self.output.at(size)
            return made(Bill, (size * whole, 0, 0, output, self.request))
        written = whole if self.written is None else self.written.at(size)
        long = written if self.written_long is None else self.written_long.at(size)
        kept = usage.written_long
        plain = max(0, size - usage.cached - max(usage.written, kept) - usage.input_audio - usage.input_image)
        return Bill(
            plain * whole
            + usage.input_audio * _at(self.input_audio, size, whole)
            + usage.input_image * _at(self.input_image, size, whole),
            usage.cached * _at(self.cached, size, whole),
            max(0, usage.written - kept) * written + kept * long,
            0 if self.output is None else self._output(usage, self.output.at(size)),
            self.request,
        )

    def _output(self, usage: Usage, whole: int) -> int:
        apart = usage.output_audio + usage.output_image
        reasoning = usage.reasoning if self.reasoning is not None else 0
        size = usage.input
        return (
            max(0, usage.output - apart - reasoning) * whole
            + usage.output_audio * _at(self.output_audio, size, whole)
            + usage.output_image * _at(self.output_image, size, whole)
            + reasoning * _at(self.reasoning, size, whole)
        )

    @property
    def dearest_input(self) -> int:
        # of text: media are not among a body's bytes
        return max(rate.dearest for rate in (self.input, self.cached, self.written, self.written_long) if rate)

    @property
    def dearest_output(self) -> int | None:
        return (
            None if self.output is None else max(self.output.dearest, self.reasoning.dearest if self.reasoning else 0)
        )


_NO_KINDS = (0,) * 8  # a usage's fields from `cached` to `output_image`


def _at(rate: Rate | None, input_tokens: int, otherwise: int) -> int:
    return otherwise if rate is None else rate.at(input_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    rates: Mapping[str, Rates]  # by service tier, with `default`; the day's highest
    source: str
    context_window: int | None = None
    slots: tuple[Mapping[str, Rates], ...] = ()  # by half hour (UTC), if prices depend on the time of day
    _dearest: dict[str, tuple[int, int | None, int] | None] = field(
        default_factory=dict[str, tuple[int, int | None, int] | None], compare=False, repr=False
    )

    @classmethod
    def from_json(cls, found: Sequence[Any]) -> "Price":
        tables, source, context_window = found
        rates, *slots = [{tier: Rates.from_json(each) for tier, each in table.items()} for table in tables]
        return cls(rates=rates, slots=tuple(slots), source=source, context_window=context_window)

    def to_json(self) -> Sequence[Any]:
        """As `json` writes it."""
        return ((self.rates, *self.slots), self.source, self.context_window)

    @property
    def standard(self) -> Rates:
        return self.rates[STANDARD]

    def bill(self, usage: Usage, requested: str | None = None, at: float | None = None) -> Bill | None:
        """`at`: Unix time, None for the highest price."""
        return billed(self.at(usage.tier or requested or STANDARD, at), usage)

    def at(self, tier: str, at: float | None = None) -> Rates | None:
        """`at`: Unix time, None for the highest price."""
        known = self.slots[int(at // SLOT) % len(self.slots)] if self.slots and at is not None else self.rates
        return _of_tier(known, tier)

    def worst(self, input_tokens: int, output_tokens: int, tiers: Iterable[str] = (STANDARD,)) -> int | None:
        """Picodollars for text in any of these tiers."""
        most = 0
        for tier in tiers:
            if tier not in self._dearest:
                found = _of_tier(self.rates, tier)
                dearest = None if found is None else (found.dearest_input, found.dearest_output, found.request)
                self._dearest[tier] = dearest
            rates = self._dearest[tier]
            if rates is None or (rates[1] is None and output_tokens):
                return None
            most = max(most, input_tokens * rates[0] + output_tokens * (rates[1] or 0) + rates[2])
        return most

    def tiers(self, requested: str | None, known: "Served") -> Iterable[str]:
        # any may serve a request (an account can have a default), until a reply has shown that the named one does
        if requested is None or requested not in known.kept:
            return (requested or STANDARD, *self.rates)
        return (requested, STANDARD, *(tier for tier in known.other if tier in self.rates))

    @property
    def text(self) -> str:
        """`$0.75 in, $0.075 cached, $4.5 out per million tokens (genai-prices 0.2.3)`."""
        return self.text_of(STANDARD)

    def text_of(self, tier: str) -> str:
        if tier not in self.rates:
            return f"at most {self.text}: the price of {tier} is unknown"
        rates = self.rates[tier]
        named = ((rates.cached, "cached"), (rates.written, "written to a cache"), (rates.output, "out"))
        parts = [f"{_rate_text(rate)} {name}" for rate, name in named if rate is not None and rate != rates.input]
        fee = f" and ${rates.request / USD:.10g} a request" if rates.request else ""
        by = "" if tier == STANDARD else f" by {tier}"
        return f"{', '.join([f'{_rate_text(rates.input)} in', *parts])} per million tokens{fee}{by} ({self.source})"


def billed(rates: Rates | None, usage: Usage, extra: int = 0) -> Bill | None:
    """The provider's own figure, else by these rates and `extra` picodollars."""
    if usage.charged is not None:
        return Bill(other=usage.charged + extra)
    bill = None if rates is None else rates.bill(usage)
    return bill if bill is None or not extra else bill._replace(other=bill.other + extra)


def _of_tier(rates: Mapping[str, Rates], tier: str) -> Rates | None:
    return rates.get(tier) or (rates[STANDARD] if tier in CHEAPER else None)


def _rate_text(rate: Rate) -> str:
    return f"${rate.base / PER_MILLION:.10g}" + ("+" if rate.tiers else "")


class Served(NamedTuple):
    """What replies have shown about service tiers."""

    kept: frozenset[str] = frozenset()  # tiers that are served
    other: frozenset[str] = frozenset()  # tiers that were served instead
    excess: int = 0  # the largest charge over the expected

    def with_reply(self, requested: str | None, named: str) -> "Served":
        if named not in {STANDARD, requested}:
            return self if named in self.other else self._replace(other=self.other | {named})
        return self if requested is None or requested in self.kept else self._replace(kept=self.kept | {requested})


NOTHING_SERVED = Served()


class Terms(NamedTuple):
    input_price: float | None = None  # US dollars per million tokens
    output_price: float | None = None
    cached_price: float | None = None
    cache_write_price: float | None = None
    request_price: float | None = None  # US dollars per request
    batch_factor: float | None = None  # of the standard price
    tier_factors: tuple[tuple[str, float], ...] = ()
    usual_batch_factor: float | None = None
    cached_in_batches: bool = True  # cached tokens are cheaper in batches too


@dataclass(slots=True)
class Tariff:
    """Prices by model. `terms` win over the snapshot."""

    base_url: str  # empty for the simulated provider, where a model is priced as at its own
    terms: Terms = Terms()  # noqa: RUF009  an immutable record
    _known: dict[str, Price | None] = field(default_factory=dict[str, Price | None])

    def of(self, model: str | None) -> Price | None:
        name = model or ""
        if name not in self._known:
            self._known[name] = self._find(name)
        return self._known[name]

    def window(self, model: str | None) -> int | None:
        price = self.of(model)
        if price is not None:
            return price.context_window
        listed = _listed(model or "", self.base_url)
        return None if listed is None else listed.context_window

    def _find(self, model: str) -> Price | None:
        listed = _listed(model, self.base_url) if model else None
        own = _own_rates(self.terms)
        if listed is None and "input" not in own:
            return None
        window = None if listed is None else listed.context_window
        if "input" in own:
            start: dict[str, Any] = {"output": None if listed is None else listed.standard.output, **own}
            rates, source = {STANDARD: Rates(**start)}, "the profile's prices"
        else:
            assert listed is not None
            rates = {tier: found._replace(**own) if tier == STANDARD else found for tier, found in listed.rates.items()}
            source = listed.source
            known = "batch" in rates or self.terms.usual_batch_factor is None
            if not own and not self.terms.tier_factors and self.terms.batch_factor is None and known:
                return listed
        factors = dict(self.terms.tier_factors)
        if self.terms.usual_batch_factor is not None and "batch" not in rates:
            factors.setdefault("batch", self.terms.usual_batch_factor)
        if self.terms.batch_factor is not None:
            factors["batch"] = self.terms.batch_factor
        rates |= {tier: rates[STANDARD].times(Decimal(str(factor))) for tier, factor in factors.items()}
        if "batch" in factors and not self.terms.cached_in_batches:
            rates["batch"] = rates["batch"]._replace(cached=None, written=None, written_long=None)
        return Price(rates=rates, source=source, context_window=window)


def _own_rates(terms: Terms) -> dict[str, Any]:
    stated = {
        "input": terms.input_price,
        "output": terms.output_price,
        "cached": terms.cached_price,
        "written": terms.cache_write_price,
    }
    own: dict[str, Any] = {
        kind: Rate(math.ceil(Decimal(str(price)) * PER_MILLION)) for kind, price in stated.items() if price is not None
    }
    if terms.request_price is not None:
        own["request"] = picodollars(terms.request_price)
    return own


def usd(picodollars: int) -> float:
    return picodollars / USD


def picodollars(dollars: float) -> int:
    """Rounded down, exact for a decimal number."""
    return int(Decimal(str(dollars)) * USD)


@cache
def _listed(model: str, base_url: str) -> Price | None:
    # today's highest if it depends on the time of day
    if _LOCAL.match(base_url) or (not base_url and model == "simulated"):
        return None
    now = datetime.datetime.now(datetime.UTC)
    try:
        valid = price_cache.validity("genai_prices", __file__, now.date())
    except OSError:  # not installed as files
        return _looked_up(model, base_url, now)
    key = price_cache.key_of(model, base_url)
    if "genai_prices" not in sys.modules and key in (kept := price_cache.read(valid)):
        return kept[key] and Price.from_json(kept[key])
    price = _looked_up(model, base_url, now)
    from genai_prices.data import providers  # noqa: PLC0415  imported by now
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415  the same

    if get_snapshot().providers is providers:  # and not what a program set
        price_cache.add(valid, key, price and price.to_json())
    return price


def _looked_up(model: str, base_url: str, now: datetime.datetime) -> Price | None:
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415  0.13 s of CPU

    host = next((name for name in _HOSTS if re.match(rf"https://{re.escape(name)}(/|$)", base_url)), None)
    try:
        provider, found = get_snapshot().find_provider_model(
            model, None, None if host is None else _HOSTS[host], None if host or not base_url else base_url
        )
    except LookupError:
        return None
    return price_of(provider, found, now)


def price_of(provider: Any, found: Any, now: datetime.datetime) -> Price | None:
    """Of a provider's model in the snapshot, on the day (UTC) of `now`. None without a price for input."""
    from importlib import metadata  # noqa: PLC0415  only where there is a price

    midnight = now.replace(hour=0, minute=15, second=0)
    times = [midnight + datetime.timedelta(seconds=slot * SLOT) for slot in range(86_400 // SLOT)]
    of_times = [[found.get_prices(time, context) for context in _TIERS.values()] for time in times]
    if all(prices == of_times[0] for prices in of_times):
        times = times[:1]
    rates = _listed_tiers(found, times)
    if not rates:
        return None
    slots = [_listed_tiers(found, [time]) for time in times]
    return Price(
        rates=rates,
        slots=() if all(slot == rates for slot in slots) else tuple(slots),
        source=f"genai-prices {metadata.version('genai-prices')}: {provider.id}/{found.id}",
        context_window=found.context_window,
    )


# by the names of the snapshot's price variants (genai-prices 0.2.3)
_TIERS: Mapping[str, Mapping[str, str]] = {
    STANDARD: {},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast", "speed": "fast"},
    "batch": {"processing": "batch"},
}
# by the snapshot's names
_LISTED = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached": "cache_read_mtok",
    "written": "cache_write_mtok",
    "written_long": "cache_write_1h_mtok",
    "input_audio": "input_audio_mtok",
    "output_audio": "output_audio_mtok",
    "input_image": "input_image_mtok",
    "output_image": "output_image_mtok",
    "reasoning": "output_reasoning_mtok",
}


def _listed_tiers(found: Any, times: Sequence[datetime.datetime]) -> dict[str, Rates]:
    # the highest at these times, of tiers with own prices
    rates = {
        tier: known for tier, context in _TIERS.items() if (known := _listed_rates(found, times, context)) is not None
    }
    return {tier: known for tier, known in rates.items() if tier == STANDARD or known != rates[STANDARD]}


def _listed_rates(found: Any, times: Sequence[datetime.datetime], context: Mapping[str, str]) -> Rates | None:
    prices = [found.get_prices(time, context) for time in times]
    known: dict[str, Any] = {kind: _dearest(getattr(price, name) for price in prices) for kind, name in _LISTED.items()}
    if known["input"] is None:
        return None
    fees = [price.requests_kcount for price in prices if price.requests_kcount is not None]
    return Rates(**known, request=math.ceil(max(fees, default=Decimal(0)) * USD / 1000))


def _dearest(prices: Iterable[Any]) -> Rate | None:
    rates = [rate for price in prices if (rate := _rate(price)) is not None]
    return max(rates, key=lambda rate: (rate.dearest, rate.base), default=None)


def _rate(price: Any) -> Rate | None:
    # from USD per million tokens, or a price with tiers
    if price is None:
        return None
    if isinstance(price, Decimal):
        return Rate(math.ceil(price * PER_MILLION))
    tiers = tuple((tier.start, math.ceil(tier.price * PER_MILLION)) for tier in price.tiers)
    return Rate(math.ceil(price.base * PER_MILLION), tiers)
