"""What the gate reads from the headers of a reply."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrun.limits import BucketHint, hints, parse_duration, parse_reset, parse_retry_after
from batchrun.limits.headers import LONGEST_WAIT

NOON = "Fri, 20 Nov 2026 12:00:00 GMT"
NOON_UNIX = 1795176000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12ms", 0.012),
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("7.66s", 7.66),
        ("2m59.56s", 179.56),
        ("250µs", 0.00025),
        ("1d", 86_400.0),
        (" 20 ", 20.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("-5s", None),
        ("NaN", None),
        ("inf", None),
        ("1_000", None),
        ("٣", None),
        ("1" + "0" * 400, None),
        ("1" + "0" * 400 + "s", None),
        ("999999999999", None),
        ("5 s", None),
        ("1e3", None),
    ],
)
def test_a_duration_is_read_as_go_writes_it_or_not_at_all(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "700"}, 0.7),
        ({"retry-after-ms": "700", "retry-after": "1"}, 0.7),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "3600"}, 3600.0),
        ({"retry-after": "20s"}, 20.0),
        ({"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT", "date": NOON}, 30.0),
        ({"retry-after": "Fri, 20 Nov 2026 11:00:00 GMT", "date": NOON}, 0.0),
        ({"llm_provider-retry-after": "4"}, 4.0),
        ({"retry-after": "soon", "llm_provider-retry-after": "4"}, 4.0),
        ({"x-ratelimit-reset": f"{int(NOON_UNIX + 9)}", "date": NOON}, 9.0),
        ({"x-ratelimit-reset": f"{int((NOON_UNIX + 9) * 1000)}", "date": NOON}, 9.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "NaN"}, None),
        ({"retry-after": "1" + "0" * 400}, None),
        ({"retry-after-ms": "1e400"}, None),
        ({}, None),
    ],
)
def test_the_announced_wait_of_a_429(headers: dict[str, str], seconds: float | None) -> None:
    assert hints(headers, 429, now=NOON_UNIX).retry_after == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("clock", [NOON_UNIX - 7200, NOON_UNIX + 7200, 0.0, 4e9])
def test_a_retry_after_date_is_measured_against_the_providers_clock_not_ours(clock: float) -> None:
    headers = {"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT", "date": NOON}
    assert hints(headers, 429, now=clock).retry_after == 30.0


def test_openai_limits_are_read() -> None:
    headers = {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "599",
        "x-ratelimit-reset-requests": "100ms",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    said = hints(headers, 200)
    assert said.requests == BucketHint(600.0, 599.0, pytest.approx(0.1))
    assert said.tokens == BucketHint(150_000.0, 149_984.0, 360.0)
    assert not said.looks_like_429


def test_anthropic_limits_are_read_with_their_times() -> None:
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-11-20T12:00:01.2Z",
        "anthropic-ratelimit-input-tokens-limit": "50000",
        "anthropic-ratelimit-input-tokens-remaining": "50000",
        "anthropic-ratelimit-input-tokens-reset": "2026-11-20T12:00:00Z",
        "date": NOON,
    }
    said = hints(headers, 200)
    assert said.requests == BucketHint(50.0, 49.0, pytest.approx(1.2))
    assert said.tokens == BucketHint(50_000.0, 50_000.0, 0.0)


@pytest.mark.parametrize("limit", ["-1", "0", "", "unlimited", "NaN"])
def test_limits_that_gateways_make_up_are_ignored(limit: str) -> None:
    assert hints({"x-ratelimit-limit-requests": limit, "x-ratelimit-remaining-requests": "0"}, 200).requests is None


@pytest.mark.parametrize(
    ("status", "headers", "throttled"),
    [
        (429, {}, True),
        (500, {"llm_provider-retry-after": "3"}, True),
        (500, {"retry-after": "3"}, False),
        (503, {}, False),
        (200, {"llm_provider-retry-after": "3"}, False),
        (400, {}, False),
    ],
)
def test_a_429_in_the_clothes_of_a_server_error_is_recognised(
    status: int, headers: dict[str, str], throttled: bool
) -> None:
    assert hints(headers, status).looks_like_429 is throttled


NAMES = [
    "retry-after",
    "retry-after-ms",
    "llm_provider-retry-after",
    "x-ratelimit-reset",
    "date",
    *(f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")),
    *(f"anthropic-ratelimit-{of}-{what}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")),
]
NASTY = st.one_of(
    st.text(max_size=40),
    st.floats().map(str),
    st.integers().map(str),
    st.sampled_from(["9" * 500, "9" * 5000 + "h", "Fri, 99 Nov 20260 12:00:00 GMT", "9999-12-31T23:59:59-23:59", NOON]),
    st.datetimes().map(lambda moment: moment.isoformat()),
)


@given(st.dictionaries(st.sampled_from(NAMES), NASTY), st.integers(0, 999), st.floats(0, 1e11))
@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine the first texts come late
def test_no_header_ever_raises_and_every_wait_is_finite(headers: dict[str, str], status: int, now: float) -> None:
    said = hints(headers, status, now=now)
    for bucket in (said.requests, said.tokens):
        if bucket is not None:
            assert math.isfinite(bucket.limit)
            assert bucket.limit > 0
            assert bucket.remaining is None or 0 <= bucket.remaining <= bucket.limit
            assert bucket.reset is None or 0 <= bucket.reset <= LONGEST_WAIT
    assert said.retry_after is None or 0 <= said.retry_after <= LONGEST_WAIT


@given(NASTY, st.floats(-1e12, 1e12))
def test_every_reading_of_a_time_is_none_or_a_wait(text: str, at: float) -> None:
    for seconds in (parse_duration(text), parse_reset(text, at), parse_retry_after(text, at)):
        assert seconds is None or 0 <= seconds <= LONGEST_WAIT
