"""What tokens cost, and what is said where that is not known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.models import Usage
from batchrun.pricing import USD, Price, Rate, Tariff, picodollars, usd

OPENAI = "https://api.openai.com/v1"


def test_a_reply_costs_what_the_snapshot_says() -> None:
    price = Tariff(OPENAI).of("gpt-5.4-mini")
    assert price is not None
    assert price.cost(Usage(1_000_000, 100_000, 400_000, 50_000)) == 930 * USD // 1000
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
    assert price.input.base > 0
    assert price.output is not None


def test_a_rehearsal_knows_the_price_of_the_model_that_it_plays() -> None:
    assert Tariff("").of("gpt-5.4-mini") == Tariff(OPENAI).of("gpt-5.4-mini")


def test_the_prices_of_the_profile_win() -> None:
    price = Tariff(OPENAI, input_price=1.0, output_price=2.0).of("gpt-5.4-mini")
    assert price is not None
    assert price.cost(Usage(1_000_000, 1_000_000, 500_000, 0)) == 3 * USD
    assert price.context_window == 400_000


def test_one_price_of_the_profile_is_completed_by_the_snapshot() -> None:
    price = Tariff(OPENAI, output_price=9.0).of("gpt-5.4-mini")
    assert price is not None
    assert price.cost(Usage(1_000_000, 1_000_000, 0, 0)) == picodollars(9.75)


def test_without_a_price_for_output_a_reply_has_no_cost() -> None:
    price = Tariff("http://127.0.0.1:1/v1", input_price=1.0).of("mine")
    assert price is not None
    assert price.cost(Usage(10, 1, 0, 0)) is None
    assert price.worst(10, 1) is None
    assert price.cost(Usage(10, 0, 0, 0)) == 10 * 10**6


def test_embeddings_cost_their_input() -> None:
    price = Tariff(OPENAI).of("text-embedding-3-small")
    assert price is not None
    assert price.cost(Usage(1_000_000, 0, 0, 0)) == picodollars(0.02)


def test_beyond_a_tier_all_tokens_cost_more() -> None:
    rate = Rate(10, ((100, 20), (200, 30)))
    assert [rate.at(tokens) for tokens in (0, 100, 101, 200, 201)] == [10, 10, 20, 20, 30]
    assert rate.dearest == 30


rates = st.builds(
    lambda base, tiers: Rate(base, tuple(sorted(tiers.items()))),
    st.integers(0, 10**8),
    st.dictionaries(st.integers(1, 10**6), st.integers(0, 10**8), max_size=2),
)


@given(
    price=st.builds(Price, input=rates, cached=rates, output=rates, source=st.just("here")),
    given_tokens=st.integers(0, 10**7),
    made=st.integers(0, 10**6),
    share=st.floats(0, 1),
    spare=st.integers(0, 10**6),
)
def test_no_reply_costs_more_than_the_worst_case(
    price: Price, given_tokens: int, made: int, share: float, spare: int
) -> None:
    cost = price.cost(Usage(given_tokens, made, int(given_tokens * share), 0))
    worst = price.worst(given_tokens + spare, made + spare)
    assert cost is not None
    assert worst is not None
    assert 0 <= cost <= worst


def test_amounts_survive_exactly() -> None:
    assert picodollars(0.1) == USD // 10
    assert usd(picodollars(12.345678)) == 12.345678
