"""What tokens cost, and what is said where that is not known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.models import Bill, Usage
from batchrun.pricing import NOTHING_SERVED, STANDARD, USD, Price, Rate, Rates, Tariff, Terms, picodollars, usd

OPENAI = "https://api.openai.com/v1"


def cost(price: Price, usage: Usage, asked: str | None = None) -> int | None:
    bill = price.bill(usage, asked)
    return None if bill is None else bill.total


def test_a_reply_costs_what_the_snapshot_says() -> None:
    price = Tariff(OPENAI).of("gpt-5.4-mini")
    assert price is not None
    assert cost(price, Usage(1_000_000, 100_000, 400_000, 50_000)) == 930 * USD // 1000
    assert "openai/gpt-5.4-mini" in price.text


@pytest.mark.parametrize(
    ("base_url", "model"),
    [
        (OPENAI, "no-such-model"),
        ("https://gateway.example/v1", "gpt-5.4-mini"),
        ("http://127.0.0.1:8000/v1", "gpt-5.4-mini"),
        ("", "simulated"),
        (OPENAI, None),
    ],
)
def test_a_price_that_is_not_known_is_not_guessed(base_url: str, model: str | None) -> None:
    assert Tariff(base_url).of(model) is None


@pytest.mark.parametrize(
    ("base_url", "model"),
    [
        ("https://api.anthropic.com/v1", "claude-haiku-4-5"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-flash-latest"),
        ("https://api.mistral.ai/v1", "mistral-small-latest"),
        ("https://api.deepseek.com/v1", "deepseek-v4-flash"),
        ("https://api.together.ai/v1", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
    ],
)
def test_the_models_of_the_built_in_profiles_have_prices(base_url: str, model: str) -> None:
    price = Tariff(base_url).of(model)
    assert price is not None
    assert price.standard.input.base > 0
    assert price.standard.output is not None


def test_a_simulated_run_knows_the_price_of_the_model_that_it_names() -> None:
    assert Tariff("").of("gpt-5.4-mini") == Tariff(OPENAI).of("gpt-5.4-mini")


def test_the_prices_of_the_profile_win() -> None:
    price = Tariff(OPENAI, Terms(input_price=1.0, output_price=2.0)).of("gpt-5.4-mini")
    assert price is not None
    assert cost(price, Usage(1_000_000, 1_000_000, 500_000, 0)) == 3 * USD
    assert price.context_window == 400_000


def test_one_price_of_the_profile_is_completed_by_the_snapshot() -> None:
    price = Tariff(OPENAI, Terms(output_price=9.0)).of("gpt-5.4-mini")
    assert price is not None
    assert cost(price, Usage(1_000_000, 1_000_000, 0, 0)) == picodollars(9.75)


def test_without_a_price_for_output_a_reply_has_no_cost() -> None:
    price = Tariff("http://127.0.0.1:1/v1", Terms(input_price=1.0)).of("mine")
    assert price is not None
    assert cost(price, Usage(10, 1, 0, 0)) is None
    assert price.worst(10, 1) is None
    assert cost(price, Usage(10, 0, 0, 0)) == 10 * 10**6


def test_embeddings_cost_their_input() -> None:
    price = Tariff(OPENAI).of("text-embedding-3-small")
    assert price is not None
    assert cost(price, Usage(1_000_000, 0, 0, 0)) == picodollars(0.02)


def test_beyond_a_tier_all_tokens_cost_more() -> None:
    rate = Rate(10, ((100, 20), (200, 30)))
    assert [rate.at(tokens) for tokens in (0, 100, 101, 200, 201)] == [10, 10, 20, 20, 30]
    assert rate.dearest == 30


rates = st.builds(
    lambda base, tiers: Rate(base, tuple(sorted(tiers.items()))),
    st.integers(0, 10**8),
    st.dictionaries(st.integers(1, 10**6), st.integers(0, 10**8), max_size=2),
)


def test_cache_writes_cost_their_own_price() -> None:
    price = Tariff(OPENAI).of("gpt-5.6-luna")
    assert price is not None
    bill = price.bill(Usage(3_000, 100, 0, 0, written=3_000))
    assert bill == Bill(written=3_000 * USD // 4_000_000, output=100 * 12 * USD // 10**7)
    assert bill.total > 3_000 * price.standard.input.base


TIERS = {None: 1, "default": 1, "flex": 0.5, "batch": 0.5, "priority": 2, "fast": 2}


@pytest.mark.parametrize(("tier", "factor"), TIERS.items())
def test_the_tier_that_the_reply_names_decides(tier: str | None, factor: float) -> None:
    price = Tariff(OPENAI).of("gpt-5.6-terra")
    assert price is not None
    usage = Usage(1_000, 100, 400, 0, written=200)
    standard = cost(price, usage)
    assert standard is not None
    assert cost(price, usage._replace(tier=tier)) == standard * factor
    assert cost(price, usage._replace(tier=tier), "priority") == standard * (factor if tier else 2)


def test_a_tier_of_unknown_price_costs_at_most_the_standard_one_or_is_not_known() -> None:
    price = Tariff("http://127.0.0.1:1/v1", Terms(input_price=1.0, output_price=2.0)).of("mine")
    assert price is not None
    usage = Usage(1_000, 100, 0, 0)
    assert cost(price, usage._replace(tier="flex")) == cost(price, usage)
    assert cost(price, usage._replace(tier="scale")) is None
    assert price.worst(10, 1, price.tiers("scale", NOTHING_SERVED)) is None


def test_the_profile_says_what_cache_writes_tiers_and_requests_cost() -> None:
    terms = Terms(2.0, 10.0, 0.2, 2.5, 0.01, batch_factor=0.5, tier_factors=(("flex", 0.5), ("turbo", 3)))
    price = Tariff("http://127.0.0.1:1/v1", terms).of("mine")
    assert price is not None
    usage = Usage(1_000_000, 100_000, 300_000, 0, written=200_000)
    assert price.bill(usage) == Bill(
        picodollars(1), picodollars(0.06), picodollars(0.5), picodollars(1), picodollars(0.01)
    )
    assert price.bill(usage._replace(tier="flex")) == Bill(
        picodollars(0.5), picodollars(0.03), picodollars(0.25), picodollars(0.5), picodollars(0.01)
    )
    assert cost(price, usage._replace(tier="turbo")) == picodollars(7.69)
    assert cost(price, usage._replace(tier="batch")) == cost(price, usage._replace(tier="flex"))


def test_what_the_provider_says_it_charged_is_believed() -> None:
    price = Tariff(OPENAI).of("gpt-5.4-mini")
    assert price is not None
    assert price.bill(Usage(1_000, 100, 0, 0, charged=123)) == Bill(other=123)


def rates_of(*rates: Rate) -> Rates:
    first, output, *rest = rates
    return Rates(first, output, *rest)


all_rates = st.builds(rates_of, *[rates] * 10)
shares = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))


@given(
    standard=all_rates,
    dear=all_rates,
    given_tokens=st.integers(0, 10**7),
    made=st.integers(0, 10**6),
    share=shares,
    spare=st.integers(0, 10**6),
    tier=st.sampled_from([None, "default", "priority"]),
    asked=st.sampled_from([None, "priority"]),
)
def test_no_reply_costs_more_than_the_worst_case(  # noqa: PLR0917  drawn by name
    standard: Rates,
    dear: Rates,
    given_tokens: int,
    made: int,
    share: tuple[float, float, float],
    spare: int,
    tier: str | None,
    asked: str | None,
) -> None:
    price = Price(rates={STANDARD: standard, "priority": dear}, source="here")
    cached = int(given_tokens * share[0])
    written = int((given_tokens - cached) * share[1])
    usage = Usage(given_tokens, made, cached, int(made * share[2]), written, int(written * share[2]), tier=tier)
    paid, worst = (
        cost(price, usage, asked),
        price.worst(given_tokens + spare, made + spare, price.tiers(asked, NOTHING_SERVED)),
    )
    assert paid is not None
    assert worst is not None
    assert 0 <= paid <= worst


@pytest.mark.parametrize(
    ("asked", "named", "reserved"),
    [
        (None, [], {"default", "flex", "priority"}),
        (None, ["default"], {"default", "flex", "priority"}),
        ("flex", [], {"default", "flex", "priority"}),
        ("flex", ["flex"], {"default", "flex"}),
        ("default", ["default"], {"default"}),
        ("default", ["default", "priority"], {"default", "priority"}),
        ("default", ["priority"], {"default", "flex", "priority"}),
        ("default", ["default", "unheard of"], {"default"}),
    ],
)
def test_what_is_reserved_is_the_tier_that_is_asked_for_once_replies_name_it(
    asked: str | None, named: list[str], reserved: set[str]
) -> None:
    terms = Terms(input_price=1.0, output_price=2.0, tier_factors=(("flex", 0.5), ("priority", 2.0)))
    price, served = Tariff("http://127.0.0.1:1/v1", terms).of("mine"), NOTHING_SERVED
    assert price is not None
    for name in named:
        served = served.with_reply(asked, name)
    assert set(price.tiers(asked, served)) == reserved


def test_amounts_survive_exactly() -> None:
    assert picodollars(0.1) == USD // 10
    assert usd(picodollars(12.345678)) == 12.345678
