"""The usage of a reply in the spellings of providers, and that its price is the one of genai-prices to the cent."""

from datetime import UTC, datetime
from random import Random
from typing import Any

import orjson
import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import Usage as Listed
from hypothesis import given
from hypothesis import strategies as st

from batchrun import providers
from batchrun.engine.judge import judge_body
from batchrun.models import PICODOLLARS, Endpoint, Request, Usage
from batchrun.pricing import Tariff, usd
from batchrun.replies.usage import tier_named, usage_of

STATED: dict[str, tuple[dict[str, Any], Usage]] = {
    "OpenAI chat": (
        {
            "prompt_tokens": 3100,
            "completion_tokens": 120,
            "total_tokens": 3220,
            "prompt_tokens_details": {"cached_tokens": 1024, "cache_write_tokens": 2000, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 64, "audio_tokens": 0},
        },
        Usage(3100, 120, 1024, 64, 2000),
    ),
    "OpenAI chat with audio": (
        {
            "prompt_tokens": 300,
            "completion_tokens": 120,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 200},
            "completion_tokens_details": {"audio_tokens": 80},
        },
        Usage(300, 120, 0, 0, input_audio=200, output_audio=80),
    ),
    "OpenAI responses": (
        {
            "input_tokens": 2100,
            "output_tokens": 50,
            "total_tokens": 2150,
            "input_tokens_details": {"cached_tokens": 2048, "cache_write_tokens": 12},
            "output_tokens_details": {"reasoning_tokens": 8},
        },
        Usage(2100, 50, 2048, 8, 12),
    ),
    "OpenAI embeddings": ({"prompt_tokens": 8, "total_tokens": 8}, Usage(8, 0, 0, 0)),
    "OpenAI images": (
        {
            "input_tokens": 50,
            "output_tokens": 4000,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            "output_tokens_details": {"image_tokens": 4000},
        },
        Usage(50, 4000, 0, 0, input_image=40, output_image=4000),
    ),
    "vLLM, details null": (
        {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "prompt_tokens_details": None},
        Usage(9, 3, 0, 0),
    ),
    "Anthropic native, cache beside the input": (
        {
            "input_tokens": 40,
            "cache_read_input_tokens": 3000,
            "cache_creation_input_tokens": 500,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 400},
            "output_tokens": 100,
            "service_tier": "standard",
        },
        Usage(3540, 100, 3000, 0, 500, 400, tier="default"),
    ),
    "Anthropic native, only written": (
        {"input_tokens": 40, "cache_creation_input_tokens": 3000, "output_tokens": 100, "service_tier": "batch"},
        Usage(3040, 100, 0, 0, 3000, tier="batch"),
    ),
    "Anthropic compatible": (
        {"prompt_tokens": 3040, "completion_tokens": 100, "cached_tokens": 3000},
        Usage(3040, 100, 3000, 0),
    ),
    "Anthropic, fast": ({"input_tokens": 4, "output_tokens": 1, "speed": "fast"}, Usage(4, 1, 0, 0, tier="fast")),
    "Gemini compatible, reasoning only in the total": (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 40},
        Usage(10, 30, 0, 0),
    ),
    "Gemini native": (
        {
            "promptTokenCount": 2000,
            "cachedContentTokenCount": 1500,
            "candidatesTokenCount": 10,
            "thoughtsTokenCount": 90,
            "totalTokenCount": 2100,
        },
        Usage(2000, 100, 1500, 90),
    ),
    "DeepSeek": (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 20,
            "prompt_cache_hit_tokens": 896,
            "prompt_cache_miss_tokens": 104,
        },
        Usage(1000, 20, 896, 0),
    ),
    "Moonshot": ({"prompt_tokens": 1000, "completion_tokens": 20, "cached_tokens": 512}, Usage(1000, 20, 512, 0)),
    "Groq": (
        {
            "queue_time": 0.02,
            "prompt_tokens": 50,
            "prompt_time": 0.001,
            "completion_tokens": 9,
            "completion_time": 0.02,
            "total_tokens": 59,
            "prompt_tokens_details": {"cached_tokens": 48},
        },
        Usage(50, 9, 48, 0),
    ),
    "Mistral": (
        {
            "prompt_tokens": 50,
            "completion_tokens": 9,
            "total_tokens": 59,
            "prompt_audio_seconds": None,
            "num_cached_tokens": 32,
        },
        Usage(50, 9, 32, 0),
    ),
    "DashScope": (
        {
            "prompt_tokens": 1500,
            "completion_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_creation_input_tokens": 1200},
        },
        Usage(1500, 9, 0, 0, 1200),
    ),
    "LiteLLM over Anthropic": (
        {
            "prompt_tokens": 3040,
            "completion_tokens": 100,
            "prompt_tokens_details": {"cached_tokens": 3000, "cache_creation_tokens": 20},
            "cache_read_input_tokens": 3000,
            "cache_creation_input_tokens": 20,
        },
        Usage(3040, 100, 3000, 0, 20),
    ),
    "Bedrock Converse": (
        {
            "inputTokens": 40,
            "outputTokens": 9,
            "totalTokens": 3049,
            "cacheReadInputTokens": 2000,
            "cacheWriteInputTokens": 1000,
        },
        Usage(3040, 9, 2000, 0, 1000),
    ),
    "OpenRouter": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 4,
            "total_tokens": 14,
            "cost": 0.00014,
            "is_byok": False,
            "cost_details": {"upstream_inference_cost": None},
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        },
        Usage(10, 4, 0, 0, charged=140_000_000),
    ),
    "OpenRouter with a key of one's own": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 4,
            "cost": 0.00001,
            "is_byok": True,
            "cost_details": {"upstream_inference_cost": 0.0002},
        },
        Usage(10, 4, 0, 0, charged=210_000_000),
    ),
    "Perplexity": (
        {"prompt_tokens": 10, "completion_tokens": 4, "cost": {"total_cost": 0.006}},
        Usage(10, 4, 0, 0, charged=6_000_000_000),
    ),
    "xAI": (
        {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14, "cost_in_usd_ticks": 1_234_567},
        Usage(10, 4, 0, 0, charged=123_456_700),
    ),
}


@pytest.mark.parametrize(("stated", "usage"), STATED.values(), ids=STATED)
def test_usage_is_read_in_every_spelling(stated: dict[str, Any], usage: Usage) -> None:
    assert usage_of({"usage": stated}) == usage


def test_every_line_of_the_table_has_a_reply_here() -> None:
    table = providers.table("usage")
    used = [stated for stated, _ in STATED.values()]
    for shape in table["shape"]:
        assert any(all(name in stated for name in shape["when"]) for stated in used), shape["name"]
    for cost in table["cost"]:
        assert any(cost["member"].split(".")[0] in stated for stated in used), cost["member"]


NONSENSE: list[dict[str, Any]] = [
    {"prompt_tokens": "7", "completion_tokens": 1},
    {"prompt_tokens": 7, "total_tokens": 6},
    {"prompt_tokens": None, "completion_tokens": 1},
    {"prompt_tokens": -7, "completion_tokens": 1},
    {"prompt_tokens": 7.5, "completion_tokens": 1},
    {"prompt_tokens": 10**13, "completion_tokens": 1},
    {"prompt_tokens": True, "completion_tokens": 1},
    {"tokens": 8},
    {},
]


@pytest.mark.parametrize("stated", NONSENSE, ids=str)
def test_nonsense_is_no_usage(stated: dict[str, Any]) -> None:
    assert usage_of({"usage": stated}) is None


def test_a_part_that_is_larger_than_its_whole_is_not_believed() -> None:
    stated = {"prompt_tokens": 7, "completion_tokens": 1, "cached_tokens": 8, "cost": -1}
    assert usage_of({"usage": stated}) == Usage(7, 1, 0, 0)


COUNTS = st.integers(-2, 9) | st.sampled_from([None, True, 1.0, "1", 10**12, 10**12 + 1])
DETAILS = st.none() | st.just("1") | st.fixed_dictionaries(
    {}, optional=dict.fromkeys(["cached_tokens", "audio_tokens", "reasoning_tokens", "other"], COUNTS)
)  # fmt: skip
CHAT_USAGE = st.fixed_dictionaries(
    {"prompt_tokens": COUNTS, "completion_tokens": COUNTS},
    optional={"prompt_tokens_details": DETAILS, "completion_tokens_details": DETAILS, "cached_tokens": COUNTS},
)


@given(CHAT_USAGE)
def test_members_that_tell_nothing_new_change_no_usage(stated: dict[str, Any]) -> None:
    """Nor does the shorter way of reading counts that are all there, and details without any."""
    usage = usage_of({"usage": stated})
    nothing = {"prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}}
    assert usage_of({"usage": nothing | stated}) == usage
    assert usage_of({"usage": stated | {"total_tokens": None}}) == usage
    assert usage_of({"usage": stated | {"speed": None}, "service_tier": None, "choices": [{}]}) == usage
    if usage is not None:
        assert usage_of({"usage": stated | {"total_tokens": usage.input + usage.output}}) == usage


@pytest.mark.parametrize(
    ("named", "tier"),
    [("default", None), ("auto", None), ("on_demand", None), ("Flex", "flex"), ("performance", "priority"), (3, None)],
)
def test_service_tiers_have_one_name_each(named: Any, tier: str | None) -> None:
    assert tier_named(named) == tier
    body = {"usage": {"prompt_tokens": 1, "completion_tokens": 1}, "service_tier": named}
    found = usage_of(body)
    assert found is not None
    assert found.tier == ("default" if named in ("default", "on_demand") else tier)  # one that is named is none less


@pytest.mark.parametrize(("tokens", "counted"), [(25, 75), (75, 75)])
def test_a_usage_that_counts_one_of_several_choices_is_multiplied(tokens: int, counted: int) -> None:
    choices = [{"message": {"content": "word " * 20}} for _ in range(3)]
    found = usage_of({"usage": {"prompt_tokens": 5, "completion_tokens": tokens}, "choices": choices})
    assert found == Usage(5, counted, 0, 0)


def test_several_prompts_of_which_one_is_counted_are_all_counted() -> None:
    choices = [{"index": number, "text": "word " * 20} for number in range(3)]
    body = orjson.dumps({"choices": choices, "usage": {"prompt_tokens": 5, "completion_tokens": 25}})
    request = Request(Endpoint.COMPLETIONS, b'{"prompt":["one","two","three"]}', None)
    assert judge_body(request, body, None).usage == Usage(15, 75, 0, 0)
    assert judge_body(request._replace(body=b'{"prompt":"one","n":3}'), body, None).usage == Usage(5, 75, 0, 0)


DIALECTS: dict[str, tuple[str, str]] = {
    "OpenAI": ("https://api.openai.com/v1", "gpt-5.6-luna"),
    "OpenAI priority": ("https://api.openai.com/v1", "gpt-5.6-sol"),
    "OpenAI older": ("https://api.openai.com/v1", "gpt-5.4-mini"),
    "Anthropic": ("https://api.anthropic.com/v1", "claude-haiku-4-5"),
    "Anthropic long": ("https://api.anthropic.com/v1", "claude-haiku-5-5"),
    "Gemini": ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-flash-latest"),
    "Groq": ("https://api.groq.com/openai/v1", "openai/gpt-oss-120b"),
    "Mistral": ("https://api.mistral.ai/v1", "mistral-small-latest"),
    "DeepSeek": ("https://api.deepseek.com/v1", "deepseek-v4-flash"),
    "Together": ("https://api.together.ai/v1", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
    "xAI": ("https://api.x.ai/v1", "grok-4"),
    "OpenRouter": ("https://openrouter.ai/api/v1", "openai/gpt-5.4-mini"),
}
TIERS: dict[str | None, dict[str, str]] = {
    None: {},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "batch": {"processing": "batch"},
    "fast": {"service_tier": "fast", "speed": "fast"},
}


def _made(random: Random, dialect: str) -> dict[str, Any]:
    """A usage of the shape that the dialect's replies have."""
    cached, written, fresh = random.randrange(4000), random.randrange(4000), random.randrange(1, 300_000)
    made, reasoning = random.randrange(1, 4000), random.randrange(2000)
    if dialect.startswith("Anthropic"):
        return {
            "input_tokens": fresh,
            "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": written,
            "cache_creation": {"ephemeral_1h_input_tokens": written // 2},
            "output_tokens": made,
        }
    if dialect == "DeepSeek":
        return {"prompt_tokens": fresh + cached, "prompt_cache_hit_tokens": cached, "completion_tokens": made}
    if dialect == "Gemini":
        return {
            "promptTokenCount": fresh + cached,
            "cachedContentTokenCount": cached,
            "candidatesTokenCount": made,
            "thoughtsTokenCount": reasoning,
        }
    written = written if dialect.startswith(("OpenAI", "OpenRouter")) else 0
    return {
        "prompt_tokens": fresh + cached + written,
        "completion_tokens": made + reasoning,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def _listed(base_url: str, model: str, usage: Usage, context: dict[str, str], at: datetime) -> float:
    api = "https://api.together.xyz" if "together" in base_url else base_url
    provider, found = get_snapshot().find_provider_model(model, None, None, api)
    stated = Listed(
        input_tokens=usage.input,
        output_tokens=usage.output,
        cache_read_tokens=usage.cached or None,
        cache_write_tokens=usage.written or None,
        cache_write_1h_tokens=usage.written_long or None,
        output_reasoning_tokens=usage.reasoning or None,
    )
    return float(found.calc_price(stated, provider, price_context=context, genai_request_timestamp=at).total_price)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_sum_over_recorded_shapes_is_that_of_genai_prices_to_the_cent(dialect: str) -> None:
    random = Random(dialect)  # made up, and the same each time
    base_url, model = DIALECTS[dialect]
    price = Tariff(base_url).of(model)
    assert price is not None
    ours = theirs = 0.0
    for number in range(20):
        tier = list(TIERS)[number % 5] if "priority" in dialect else None
        usage = usage_of({"usage": _made(random, dialect), "service_tier": tier})
        assert usage is not None
        at = datetime(2026, 11, 20 + number // 10, number, 15, tzinfo=UTC)
        bill = price.bill(usage, None, at.timestamp())
        assert bill is not None
        ours += usd(bill.total)
        theirs += _listed(base_url, model, usage, TIERS[tier], at)
    assert ours > 0.01
    assert ours == pytest.approx(theirs, abs=0.005, rel=1e-6)
    assert PICODOLLARS == 10**12
