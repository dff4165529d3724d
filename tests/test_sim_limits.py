"""The simulated provider's buckets: exact over a minute, and what the headers and 429s say of them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.sim import Settings
from batchrun.sim.bucket import Bucket
from batchrun.sim.limiter import Limiter, retry_after
from batchrun.sim.times import go_duration, http_date


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
    bucket, now, admitted = Bucket("requests", rpm, depth, 0.0), 0.0, list[float]()
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
    bucket = Bucket("tokens", rpm, depth, 0.0)
    bucket.take(spent, 0.0)
    wait = bucket.wait(need, 0.0)
    if wait > 0.001:
        assert bucket.wait(need, wait * 0.99) > 0
    assert bucket.wait(need, wait + 1e-6) == 0


def test_a_client_that_keeps_the_rate_uses_all_of_it_and_is_never_refused() -> None:
    limiter = Limiter(Settings(rpm=600), 0.0)
    assert all(limiter.admit(1, "m", index / 10) is None for index in range(6000))


def test_a_client_that_fires_at_will_gets_the_rate_and_the_depth() -> None:
    limiter = Limiter(Settings(rpm=600, request_depth=5), 0.0)
    admitted = sum(limiter.admit(1, "m", step / 1000) is None for step in range(10_000))
    assert 104 <= admitted <= 105


def test_requests_larger_than_the_token_bucket_are_served_at_the_stated_rate() -> None:
    limiter = Limiter(Settings(tpm=60_000), 0.0)
    admitted = sum(limiter.admit(2500, "m", step / 100) is None for step in range(6000))
    # 60 s of 1,000 tokens and one request on credit.
    assert 23 <= admitted <= 25


@pytest.mark.parametrize(("rpm", "depth"), [(600, 2), (60_000, 50), (1, 2), (2400, 2), (2_400_000, 2000)])
def test_the_depth_is_two_requests_or_50_ms(rpm: float, depth: float) -> None:
    limiter = Limiter(Settings(rpm=rpm), 0.0)
    assert limiter.requests
    assert limiter.requests.depth == depth


def test_headers_state_limit_level_and_time_until_whole() -> None:
    limiter = Limiter(Settings(rpm=600, request_depth=10, tpm=60_000), 0.0)
    for _ in range(4):
        assert limiter.admit(100, "m", 0.0) is None
    assert told(limiter, 0.0) == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "6",
        "x-ratelimit-reset-requests": "400ms",
        "x-ratelimit-limit-tokens": "60000",
        "x-ratelimit-remaining-tokens": "600",
        "x-ratelimit-reset-tokens": "400ms",
    }
    assert told(limiter, 0.2)["x-ratelimit-remaining-requests"] == "8"
    assert told(limiter, 9.0)["x-ratelimit-reset-requests"] == "0s"


@given(spent=st.integers(0, 10), now=st.floats(0, 3), rpm=st.integers(1, 100_000))
def test_remaining_and_reset_together_give_the_depth(spent: int, now: float, rpm: int) -> None:
    limiter = Limiter(Settings(rpm=rpm, request_depth=10), 0.0)
    for _ in range(spent):
        limiter.admit(1, "m", 0.0)
    assert limiter.requests
    headers = told(limiter, now)
    whole = limiter.requests.whole(now)
    assert int(headers["x-ratelimit-remaining-requests"]) <= 10
    assert math.isclose(limiter.requests.level(now) + whole * rpm / 60, 10, abs_tol=1e-6)
    assert headers["x-ratelimit-reset-requests"] == go_duration(whole)


def test_debt_is_told_as_nothing_remaining_and_a_longer_reset() -> None:
    limiter = Limiter(Settings(tpm=60_000), 0.0)
    assert limiter.admit(3000, "m", 0.0) is None
    headers = told(limiter, 0.0)
    assert headers["x-ratelimit-remaining-tokens"] == "0"
    assert headers["x-ratelimit-reset-tokens"] == "3s"


def test_without_limits_there_are_no_headers() -> None:
    assert Limiter(Settings(), 0.0).headers(0.0) == ""


def test_a_refusal_is_openais_sentence_with_the_time_of_the_next_place() -> None:
    limiter = Limiter(Settings(rpm=600), 0.0)
    refused = [limiter.admit(1, "gpt-x", 0.0) for _ in range(3)][-1]
    assert refused
    assert refused.kind == "requests"
    assert refused.wait == pytest.approx(0.1)
    assert refused.message.startswith(
        "Rate limit reached for gpt-x in organization org-simulated on requests per min (RPM): "
        "Limit 600, Used 600, Requested 1. Please try again in 100ms. Visit "
    )


def test_a_request_over_the_minutes_tokens_is_told_that_it_never_fits() -> None:
    refused = Limiter(Settings(tpm=1000), 0.0).admit(1001, "m", 0.0)
    assert refused
    assert (refused.kind, refused.wait) == ("tokens", None)
    assert refused.message.startswith("Request too large for m in organization")
    assert "Limit 1000, Requested 1001" in refused.message


def test_a_request_refused_for_its_tokens_takes_no_request_either() -> None:
    limiter = Limiter(Settings(rpm=600, tpm=6000), 0.0)
    assert limiter.admit(100, "m", 0.0) is None
    assert limiter.admit(50, "m", 0.0)
    assert told(limiter, 0.0)["x-ratelimit-remaining-requests"] == "1"


def test_refused_requests_count_only_if_told_to() -> None:
    waits = list[float]()
    for count_rejected in (False, True):
        limiter = Limiter(Settings(rpm=60, count_rejected=count_rejected), 0.0)
        refused = [limiter.admit(1, "m", 0.0) for _ in range(5)][-1]
        assert refused
        waits.append(refused.wait or 0)
    assert waits == pytest.approx([1.0, 3.0])


def test_changing_one_limit_keeps_the_level_of_the_other() -> None:
    old = Limiter(Settings(rpm=600, tpm=60_000), 0.0)
    old.admit(500, "m", 0.0)
    new = Limiter(Settings(rpm=1200, tpm=60_000), 0.0)
    new.keep(old)
    assert told(new, 0.0)["x-ratelimit-remaining-tokens"] == "500"
    assert told(new, 0.0)["x-ratelimit-remaining-requests"] == "2"


@pytest.mark.parametrize(
    ("style", "lines"),
    [
        ("both", "retry-after: 2\r\nretry-after-ms: 1200\r\n"),
        ("ms", "retry-after-ms: 1200\r\n"),
        ("seconds", "retry-after: 2\r\n"),
        ("gateway", "llm_provider-retry-after: 2\r\n"),
        ("none", ""),
        ("=soon", "retry-after: soon\r\n"),
    ],
)
def test_the_wait_is_named_in_the_style_asked_for(style: str, lines: str) -> None:
    assert retry_after(style, 1.2) == lines


def test_the_wait_can_be_a_date() -> None:
    assert retry_after("date", 5).startswith("retry-after: ")
    assert retry_after("date", 5).endswith(" GMT\r\n")
