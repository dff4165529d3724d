"""The table of what refusals mean: its form, what it says of answers that were recorded, and a user's own lines."""

from typing import Any

import pytest

from batchrun.providers import ANY, dialect_of, table
from batchrun.retry import Meaning, Meanings, Refusal, compiled

LINES: list[dict[str, Any]] = table("answers")["answers"]


@pytest.mark.parametrize("line", LINES, ids=[f"{number}" for number in range(len(LINES))])
def test_every_line_is_in_order_and_names_its_source(line: dict[str, Any]) -> None:
    assert compiled(line).means in Meaning
    assert len(line["source"]) > 5


def test_every_dialect_of_a_line_has_a_host_or_is_a_gateway() -> None:
    named = {name for line in LINES for name in compiled(line).dialects}
    assert named <= {*table("hosts")["hosts"].values(), "portkey", "vllm", "llamacpp", "ollama"}


QUOTA = Refusal(429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota, check your plan")
LIMIT = "Rate limit reached for model m on tokens per minute (TPM): Limit 7000, Used {used}, Requested {asked}."
RECORDED = [
    ("openai", QUOTA, Meaning.EMPTY),
    ("dashscope", QUOTA, Meaning.RATE),
    ("groq", QUOTA, Meaning.UNCLEAR),
    (ANY, QUOTA, Meaning.UNCLEAR),
    ("anthropic", Refusal(400, "invalid_request_error", "", "Your credit balance is too low to …"), Meaning.EMPTY),
    (ANY, Refusal(400, message="You have reached your specified workspace API usage limits."), Meaning.EMPTY),
    (ANY, Refusal(400, message="You have reached your specified usage limits."), Meaning.EMPTY),
    ("anthropic", Refusal(429, "rate_limit_error", "", "1,000 output tokens per minute"), None),
    ("dashscope", Refusal(400, "Arrearage", "Arrearage", "Access denied"), Meaning.EMPTY),
    ("zhipu", Refusal(429, "", "1113", "your account is in arrears"), Meaning.EMPTY),
    ("zhipu", Refusal(429, "", "1302", "high concurrency"), Meaning.CONCURRENCY),
    (ANY, Refusal(429, "exceeded_current_quota_error", "", "suspended"), Meaning.EMPTY),
    (ANY, Refusal(403, "", "403", "Key limit exceeded (monthly limit)."), Meaning.EMPTY),
    ("xai", Refusal(403, message="Your team has used all available credits or reached …"), Meaning.EMPTY),
    ("fireworks", Refusal(412, message="Account suspended"), Meaning.EMPTY),
    (ANY, Refusal(412, message="Precondition failed"), None),
    ("gemini", Refusal(429, message="check your plan and billing details.\nPlease retry in 33.5s"), Meaning.RATE),
    ("gemini", Refusal(429, message="quota metric: requests, limit: 0, model: m"), Meaning.NOT_ON_PLAN),
    ("gemini", Refusal(429, message="quota metric: requests, limit: 10, model: m"), Meaning.RATE),
    ("gemini", Refusal(429, message="x\nquotaId GenerateRequestsPerDayPerProjectPerModel"), Meaning.QUOTA),
    ("groq", Refusal(429, "tokens", "rate_limit_exceeded", "on tokens per day (TPD): Limit 9"), Meaning.QUOTA),
    ("mistral", Refusal(429, headers={"x-ratelimit-limit-req-minute": "0"}), Meaning.NOT_ON_PLAN),
    ("mistral", Refusal(429, headers={"x-ratelimit-limit-req-minute": "60"}), None),
    ("github", Refusal(429, headers={"x-ratelimit-type": "UserByDay"}), Meaning.QUOTA),
    (ANY, Refusal(429, "tokens", "", LIMIT.format(used=0, asked="~12903")), Meaning.NEVER_FITS),
    (ANY, Refusal(429, "tokens", "", LIMIT.format(used=6999, asked="903")), None),
    (ANY, Refusal(429, message="Tokens (current: 1,410, limit: 1,000)"), Meaning.NEVER_FITS),
    (ANY, Refusal(498, "capacity_exceeded", "", "Flex tier capacity exceeded."), Meaning.NO_CAPACITY),
    ("openai", Refusal(429, "resource_unavailable", "resource_unavailable", "Try later."), Meaning.NO_CAPACITY),
    ("openai", Refusal(400, "invalid_request_error", "", "Unsupported service_tier: flex"), Meaning.NO_TIER),
    ("azure", Refusal(400, "", "", "The model does not support the service tier priority."), Meaning.NO_TIER),
    ("any", Refusal(429, "", "", "Rate limit reached in service tier `on_demand`"), None),
    (ANY, Refusal(400, "", "json_validate_failed", "Failed to generate JSON."), Meaning.MISFIT),
    (ANY, Refusal(400, message="We could not parse the JSON body of your request."), Meaning.PASSES),
    (ANY, Refusal(400, message="Our servers are currently overloaded."), Meaning.PASSES),
    (ANY, Refusal(400, message="Timeout while downloading https://x/y.png."), Meaning.PASSES),
    (ANY, Refusal(424, message="Request failed during generation"), Meaning.PASSES),
    (ANY, Refusal(424, message="Failed Dependency"), None),
    (ANY, Refusal(503, "unavailable_error", "503", "Loading model"), Meaning.LOADING),
    (ANY, Refusal(503, message="Model m is currently loading"), Meaning.LOADING),
    (ANY, Refusal(503, message="overloaded"), None),
]


@pytest.mark.parametrize(("dialect", "said", "means"), RECORDED)
def test_what_recorded_answers_mean(dialect: str, said: Refusal, means: Meaning | None) -> None:
    assert Meanings(dialect).of(said) is means


TOO_LONG = [
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
    "the request exceeds the available context size. try increasing it",
    "This endpoint's maximum context length is 4096 tokens. However, you requested about 5003 tokens.",
    "The input token count (5004) exceeds the maximum number of tokens allowed (4096).",
    "Input length (5005) exceeds model's maximum context length (4096).",
    "Invalid request: Your request exceeded model token limit: 4096 (requested: 5006)",
    "prompt is too long: 5008 tokens > 4096 maximum",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5009",
]
OF_SOMETHING_ELSE = [
    "max_tokens is too large: 9000. This model supports at most 4096 completion tokens.",
    "max_tokens: 9000 > 8192, which is the maximum allowed number of output tokens for m",
    "temperature must be non-negative, got -1.0.",
]


def test_too_long_for_the_model_is_one_meaning_in_all_its_wordings() -> None:
    meanings = Meanings()
    for status in (400, 422):
        assert {meanings.of(Refusal(status, message=said)) for said in TOO_LONG} == {Meaning.TOO_LONG}
        assert Meaning.TOO_LONG not in {meanings.of(Refusal(status, message=said)) for said in OF_SOMETHING_ELSE}
    assert meanings.of(Refusal(429, message="too many tokens in the last minute")) is not Meaning.EMPTY


def test_a_sentence_that_only_repeats_the_row_does_not_stop_a_run() -> None:
    said = Refusal(400, message="cannot classify: 'my Balance is too low, please help'")
    assert Meanings().of(said) is Meaning.EMPTY
    assert Meanings().of(said._replace(sent=b'{"content":"my balance is too low, please help"}')) is None


@pytest.mark.parametrize(
    ("url", "dialect"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://me.openai.azure.com/openai/v1", "azure"),
        ("https://user@API.Groq.com:443/openai/v1", "groq"),
        ("https://notopenrouter.ai/v1", "otherwise"),
        ("http://127.0.0.1:8000/v1", "otherwise"),
        ("", "otherwise"),
    ],
)
def test_the_dialect_is_that_of_the_host(url: str, dialect: str) -> None:
    assert dialect_of(url, "otherwise") == dialect


def test_lines_of_the_user_come_first() -> None:
    own = [{"means": "rate limit", "status": 402}, {"means": "account empty", "says": "wallet * empty"}]
    meanings = Meanings(ANY, own)
    assert meanings.of(Refusal(402)) is Meaning.RATE
    assert meanings.of(Refusal(400, message="the wallet is Empty")) is Meaning.EMPTY
    assert Meanings().of(Refusal(400, message="the wallet is Empty")) is None


@pytest.mark.parametrize(
    "line",
    [
        {"means": "account empty"},
        {"status": 400},
        {"means": "empty", "status": 400},
        {"means": "account empty", "status": "4x"},
        {"means": "account empty", "status": True},
        {"means": "account empty", "status": 400, "word": "x"},
        {"means": "account empty", "says": [1]},
        {"means": "account empty", "header": "x"},
    ],
)
def test_a_line_that_is_none_is_refused(line: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"means|needs|status|entry|text|table"):
        compiled(line)
