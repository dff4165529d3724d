"""The simulated provider's buckets: exact over a minute, and what the headers and 429s say of them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun import providers
from batchrun.sim import Settings
from batchrun.sim.dialects import Bucket, Cost, Limiter, Refused, Window
from batchrun.sim.formats import go_duration, http_date


def admit(limiter: Limiter, tokens: int, now: float) -> Refused | None:
    return limiter.admit(Cost(tokens, tokens, 0), "gpt-x", now)


def said(refused: Refused) -> Any:
    return json.loads(refused.answer.body)


def told(limiter: Limiter, now: float) -> dict[str, str]:
    return dict(line.split(": ") for line in limiter.headers(now).splitlines())


@pytest.mark.parametrize(
    ("seconds", "spelling"),
    [
        (0, "0s"),
        (-1, "0s"),
        (0.012, "12ms"),
        (0.0101, "11ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (59.9999, "1m0s"),
        (90.25, "1m30.25s"),
        (0.1 + 0.2, "300ms"),
    ],
)
def test_a_duration_is_written_as_go_does(seconds: float, spelling: str) -> None:
    assert go_duration(seconds) == spelling


def test_a_date_is_written_as_http_does() -> None:
    assert http_date(784_111_777) == "Sun, 06 Nov 1994 08:49:37 GMT"


@given(
    rpm=st.floats(1, 100_000),
    gaps=st.lists(st.floats(0, 2), min_size=1, max_size=200),
    depth=st.floats(1, 50),
)
def test_no_span_admits_more_than_rate_and_depth(rpm: float, gaps: list[float], depth: float) -> None:
    bucket, now, admitted = Bucket(rpm / 60, depth, 0.0), 0.0, list[float]()
    for gap in gaps:
        now += gap
        if not bucket.wait(1, now):
            bucket.take(1, now)
            admitted.append(now)
    for first, start in enumerate(admitted):
        for last in range(first, len(admitted)):
            span = admitted[last] - start
            assert last - first + 1 <= depth + span * rpm / 60 + 1e-6


@given(rpm=st.floats(1, 100_000), need=st.floats(0.1, 500), depth=st.floats(1, 50), spent=st.floats(0, 50))
def test_who_waits_as_long_as_told_is_admitted(rpm: float, need: float, depth: float, spent: float) -> None:
    bucket = Bucket(rpm / 60, depth, 0.0)
    bucket.take(spent, 0.0)
    wait = bucket.wait(need, 0.0)
    if wait > 0.001:
        assert bucket.wait(need, wait * 0.99) > 0
    assert bucket.wait(need, wait + 1e-6) == 0


def test_a_client_that_keeps_the_rate_uses_all_of_it_and_is_never_refused() -> None:
    limiter = Limiter(Settings(rpm=600), 0.0)
    assert all(admit(limiter, 1, index / 10) is None for index in range(6000))


def test_a_client_that_fires_at_will_gets_the_rate_and_the_depth() -> None:
    limiter = Limiter(Settings(rpm=600, request_depth=5), 0.0)
    admitted = sum(admit(limiter, 1, step / 1000) is None for step in range(10_000))
    assert 104 <= admitted <= 105


def test_requests_larger_than_the_token_bucket_are_served_at_the_stated_rate() -> None:
    limiter = Limiter(Settings(tpm=60_000), 0.0)
    admitted = sum(admit(limiter, 2500, step / 100) is None for step in range(6000))
    # 60 s of 1,000 tokens and one request on credit.
    assert 23 <= admitted <= 25


@pytest.mark.parametrize(("rpm", "depth"), [(600, 2), (60_000, 50), (1, 2), (2400, 2), (2_400_000, 2000)])
def test_the_depth_is_two_requests_or_50_ms(rpm: float, depth: float) -> None:
    (limit,) = Limiter(Settings(rpm=rpm), 0.0).limits
    assert limit.enforced.depth == depth


def test_headers_count_down_from_the_limit_and_tell_the_time_until_it_is_whole() -> None:
    limiter = Limiter(Settings(rpm=600, request_depth=10, tpm=60_000), 0.0)
    for _ in range(4):
        assert admit(limiter, 100, 0.0) is None
    assert told(limiter, 0.0) == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "596",
        "x-ratelimit-reset-requests": "400ms",
        "x-ratelimit-limit-tokens": "60000",
        "x-ratelimit-remaining-tokens": "59600",
        "x-ratelimit-reset-tokens": "400ms",
    }
    assert told(limiter, 0.2)["x-ratelimit-remaining-requests"] == "598"
    assert told(limiter, 9.0)["x-ratelimit-reset-requests"] == "0s"


@given(spent=st.integers(0, 10), now=st.floats(0, 3), rpm=st.integers(60, 100_000))
def test_remaining_and_reset_together_give_the_limit_and_the_rate(spent: int, now: float, rpm: int) -> None:
    limiter = Limiter(Settings(rpm=rpm, request_depth=10), 0.0)
    for _ in range(spent):
        admit(limiter, 1, 0.0)
    (limit,) = limiter.limits
    headers = told(limiter, now)
    whole = limit.stated.reset(now)
    assert math.isclose(limit.stated.level(now) + whole * rpm / 60, rpm, abs_tol=1e-6)
    assert headers["x-ratelimit-remaining-requests"] == str(int(limit.stated.level(now) + 1e-9))
    assert headers["x-ratelimit-reset-requests"] == go_duration(whole)


def test_debt_is_told_as_nothing_remaining_and_a_longer_reset() -> None:
    limiter = Limiter(Settings(tpm=3000), 0.0)
    for _ in range(2):
        assert admit(limiter, 3000, 0.0) is None or admit(limiter, 3000, 60.0) is None
    headers = told(limiter, 60.0)
    assert headers["x-ratelimit-remaining-tokens"] == "0"
    assert headers["x-ratelimit-reset-tokens"] == "1m0s"


def test_without_limits_there_are_no_headers() -> None:
    assert Limiter(Settings(), 0.0).headers(0.0) == ""


def test_a_refusal_is_openais_sentence_with_the_time_of_the_next_place() -> None:
    limiter = Limiter(Settings(rpm=600), 0.0)
    refused = [admit(limiter, 1, 0.0) for _ in range(3)][-1]
    assert refused
    assert refused.kind == "requests"
    assert refused.wait == pytest.approx(0.1)
    assert said(refused)["error"]["message"].startswith(
        "Rate limit reached for gpt-x in organization org-simulated on requests per min (RPM): "
        "Limit 600, Used 600, Requested 1. Please try again in 100ms. Visit "
    )


def test_a_request_over_the_minutes_tokens_is_told_that_it_never_fits() -> None:
    refused = admit(Limiter(Settings(tpm=1000), 0.0), 1001, 0.0)
    assert refused
    assert (refused.kind, refused.wait) == ("tokens", None)
    message = said(refused)["error"]["message"]
    assert message.startswith("Request too large for gpt-x in organization")
    assert "Limit 1000, Requested 1001" in message


def test_a_request_refused_for_its_tokens_takes_no_request_either() -> None:
    limiter = Limiter(Settings(rpm=600, tpm=6000), 0.0)
    assert admit(limiter, 100, 0.0) is None
    assert admit(limiter, 50, 0.0)
    assert told(limiter, 0.0)["x-ratelimit-remaining-requests"] == "599"


def test_changing_one_limit_keeps_the_level_of_the_other() -> None:
    old = Limiter(Settings(rpm=600, tpm=60_000), 0.0)
    admit(old, 500, 0.0)
    new = Limiter(Settings(rpm=1200, tpm=60_000), 0.0)
    new.keep(old)
    assert told(new, 0.0)["x-ratelimit-remaining-tokens"] == "59500"
    assert told(new, 0.0)["x-ratelimit-remaining-requests"] == "1200"


@pytest.mark.parametrize(
    ("style", "lines"),
    [
        ("dialect", "retry-after: 2\r\nretry-after-ms: 1200\r\n"),
        ("both", "retry-after: 2\r\nretry-after-ms: 1200\r\n"),
        ("ms", "retry-after-ms: 1200\r\n"),
        ("seconds", "retry-after: 2\r\n"),
        ("date", "retry-after: Thu, 01 Jan 1970 00:00:12 GMT\r\n"),
        ("gateway", "llm_provider-retry-after: 2\r\n"),
        ("none", ""),
        ("=soon", "retry-after: soon\r\n"),
    ],
)
def test_the_wait_is_named_in_the_style_asked_for(style: str, lines: str) -> None:
    limiter = Limiter(Settings(retry_after=style), 0.0, epoch=10.0)
    assert limiter.answer("throttle", 0.0, 1.2).headers == lines


def test_a_window_admits_its_limit_and_begins_with_a_request_or_with_the_wall_clock() -> None:
    loose, aligned = Window(3, 60, None), Window(3, 60, 1000.0)
    for window in (loose, aligned):
        for _ in range(3):
            assert window.wait(1, 5.0) == 0
            window.take(1, 5.0)
    assert (loose.wait(1, 5.0), aligned.wait(1, 5.0)) == (60, 15)
    assert (loose.wait(1, 20.0), aligned.wait(1, 20.0)) == (45, 0)
    assert aligned.reset(20.0) == 60


def test_a_need_over_the_window_is_met_in_a_fresh_one_alone() -> None:
    window = Window(10, 60, None)
    assert window.wait(25, 0.0) == 0
    window.take(25, 0.0)
    assert window.level(0.0) < 0
    assert window.wait(1, 1.0) == 59


# Of each dialect at 600 requests a minute, at 1,000,000,000 seconds since 1970, after as many requests at once as it
# admits: how many that is, headers of the last that was admitted, and the refusal of the next.
DIALECTS: list[tuple[str, int, dict[str, str], int, dict[str, str], str]] = [
    ("openai", 2, {"x-ratelimit-remaining-requests": "598", "x-ratelimit-reset-requests": "200ms"}, 429,
     {"retry-after": "1", "retry-after-ms": "100"}, "Please try again in 100ms"),
    ("groq", 20, {"x-ratelimit-remaining-requests": "14380", "x-ratelimit-reset-requests": "2m0s",
                 "x-ratelimit-reset-tokens": "40ms"}, 429, {"retry-after": "1"}, "requests per minute (RPM): Limit 600"),
    ("anthropic", 20, {"anthropic-ratelimit-requests-remaining": "580",
                      "anthropic-ratelimit-requests-reset": "2001-09-09T01:46:42Z"}, 429, {"retry-after": "1"},
     "600 requests per minute"),
    ("mistral", 600, {"x-ratelimit-remaining-req-minute": "0"}, 429, {}, '"code":"1300"'),
    ("cerebras", 600, {"x-ratelimit-reset-requests-minute": "20.000000", "x-ratelimit-remaining-requests-day": "499400"},
     429, {"retry-after": "60"}, '"code":"request_quota_exceeded"'),
    ("together", 10, {"x-ratelimit-limit": "10", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"}, 503, {},
     "dynamic_request_limited"),
    ("azure", 100, {"x-ratelimit-remaining-requests": "500", "x-ratelimit-reset-requests": "10",
                    "x-ratelimit-renewalperiod-requests": "60", "x-ratelimit-abusepenalty-active": "False"}, 429,
     {"retry-after": "10", "retry-after-ms": "10000", "x-ratelimit-type": "Requests"}, "retry after 10 seconds"),
    ("gemini", 600, {}, 429, {}, '[{"error":{"code":429,'),
    ("apisix", 100, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "10"}, 503, {}, "<html>"),
    ("nginx", 20, {}, 503, {}, "<html>"),
    ("ietf", 100, {"RateLimit": '"default";r=0;t=10', "RateLimit-Policy": '"default";q=100;w=10'}, 429,
     {"Retry-After": "10"}, "quota-exceeded"),
    ("dashscope", 20, {}, 429, {}, '"code":"limit_requests"'),
    ("openrouter", 600, {}, 429, {"X-RateLimit-Reset": "1000000060000"}, '"X-RateLimit-Reset":"1000000060000"'),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "admitted", "headers", "status", "refused", "text"), DIALECTS)
def test_a_dialect_limits_tells_and_refuses_in_its_own_way(  # noqa: PLR0917  # a row of the table
    dialect: str, admitted: int, headers: dict[str, str], status: int, refused: dict[str, str], text: str
) -> None:
    limiter = Limiter(Settings(dialect=dialect, rpm=600), 0.0, epoch=1e9)
    for _ in range(admitted):
        assert admit(limiter, 10, 0.0) is None
    assert headers.items() <= told(limiter, 0.0).items()
    refusal = admit(limiter, 10, 0.0)
    assert refusal
    assert refusal.answer.status == status
    assert dict(line.split(": ") for line in refusal.answer.headers.splitlines()) == refused | (
        {"x-should-retry": "true"} if dialect == "anthropic" else {}
    ) | ({"X-RateLimit-Limit": "600", "X-RateLimit-Remaining": "0"} if dialect == "openrouter" else {})
    assert text in refusal.answer.body.decode()


@pytest.mark.parametrize("dialect", providers.table("simulated"))
def test_every_answer_of_every_dialect_can_be_given(dialect: str) -> None:
    table = providers.table("simulated")
    assert table[dialect]["about"]
    assert table[dialect]["source"]
    limiter = Limiter(Settings(dialect=dialect), 0.0)
    facts = {"model": "m", "limit": 1, "tokens": 2, "need": 3, "used": 1, "name": "n", "unit": "requests"}
    for name in {*table["openai"]["answers"], *table[dialect]["answers"], "418", "500", "522"}:
        if not name.endswith("x"):
            answer = limiter.answer(name, 0.0, **facts)
            assert answer.status >= 400
            assert "{" not in answer.body.decode().replace('{"', "").replace("[{", "").replace("{}", "")


def test_the_dialects_are_documented_in_their_own_words() -> None:
    text = (Path(__file__).parents[1] / "docs" / "sim.md").read_text()
    for name, table in providers.table("simulated").items():
        assert f"| `{name}` | {table['about']} |" in text


def test_the_throttle_of_tokens_can_bear_the_code_of_an_empty_account() -> None:
    limiter = Limiter(Settings(dialect="dashscope", tpm=600), 0.0)
    assert admit(limiter, 500, 0.0) is None
    refused = admit(limiter, 500, 0.0)
    assert refused
    assert said(refused)["error"]["code"] == "insufficient_quota"


def test_a_days_limit_is_a_budget_beside_the_minutes() -> None:
    limiter = Limiter(Settings(dialect="groq", rpm=60_000, rpd=3), 0.0)
    refused = [admit(limiter, 1, 0.0) for _ in range(4)][-1]
    assert refused
    assert refused.wait == pytest.approx(86_400 / 3)
    assert "requests per day (RPD): Limit 3" in said(refused)["error"]["message"]
