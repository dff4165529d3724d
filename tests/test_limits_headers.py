"""What the gate reads from the headers of a reply."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrun.limits import hints, parse_duration, parse_reset, parse_retry_after
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
        ({"retry-after-ms": "0", "retry-after": "1"}, 1.0),
        ({"retry-after": "2", "x-ratelimit-timeremaining": "55"}, 55.0),
        ({"x-retry-in": "1.5s"}, 1.5),
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


MINUTE, DAY = 60.0, 86_400.0


def _read(text: str) -> list[tuple[str, float, float | None, float | None, float | None]]:
    """Kind, limit, remaining, reset and window of every limit in the header lines."""
    headers = dict(line.strip().split(": ", 1) for line in text.strip().splitlines())
    said = hints({name.lower(): value for name, value in headers.items()} | {"date": NOON}, 200).limits
    return [(one.kind, one.limit, one.remaining, one.reset, one.window) for one in said]


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        pytest.param(
            """x-ratelimit-limit-requests: 600
            x-ratelimit-remaining-requests: 599
            x-ratelimit-reset-requests: 100ms
            x-ratelimit-limit-tokens: 150000
            x-ratelimit-remaining-tokens: 149984
            x-ratelimit-reset-tokens: 6m0s""",
            [("requests", 600, 599, 0.1, None), ("tokens", 150_000, 149_984, 360.0, None)],
            id="openai",
        ),
        pytest.param(
            """anthropic-ratelimit-requests-limit: 50
            anthropic-ratelimit-requests-remaining: 49
            anthropic-ratelimit-requests-reset: 2026-11-20T12:00:02Z
            anthropic-ratelimit-input-tokens-limit: 50000
            anthropic-ratelimit-input-tokens-remaining: 50000
            anthropic-ratelimit-output-tokens-limit: 8000
            anthropic-ratelimit-output-tokens-remaining: 7990""",
            [
                ("requests", 50, 49, 2.0, None),
                ("input", 50_000, 50_000, None, None),
                ("output", 8000, 7990, None, None),
            ],
            id="anthropic",
        ),
        pytest.param(
            """x-ratelimit-limit-requests: 600
            x-ratelimit-remaining-requests: 599
            x-ratelimit-reset-requests: 0
            x-ratelimit-renewalperiod-requests: 60""",
            [("requests", 600, 599, 0.0, MINUTE)],
            id="azure",
        ),
        pytest.param(
            """x-ratelimit-limit-req-minute: 300
            x-ratelimit-remaining-req-minute: 299
            x-ratelimit-limit-tokens-minute: 500000
            x-ratelimit-tokens-query-cost: 89""",
            [("requests", 300, 299, None, MINUTE), ("tokens", 500_000, None, None, MINUTE)],
            id="mistral",
        ),
        pytest.param(
            """ratelimitbysize-limit: 500000
            ratelimitbysize-remaining: 499000
            ratelimitbysize-reset: 38
            x-ratelimitbysize-limit-month: 1000000""",
            [("tokens", 500_000, 499_000, 38.0, None), ("tokens", 1_000_000, None, None, 30 * DAY)],
            id="mistral-by-size",
        ),
        pytest.param(
            """x-ratelimit-limit-requests-day: 500000
            x-ratelimit-remaining-requests-day: 499999
            x-ratelimit-reset-requests-day: 33011.382867""",
            [("requests", 500_000, 499_999, pytest.approx(33011.382867), DAY)],
            id="cerebras",
        ),
        pytest.param(
            """x-ratelimit-limit: 10
            x-ratelimit-remaining: 9
            x-ratelimit-reset: 1
            x-tokenlimit-limit: 30000
            x-tokenlimit-remaining: 29900""",
            [("requests", 10, 9, 1.0, None), ("tokens", 30_000, 29_900, None, None)],
            id="together",
        ),
        pytest.param(
            """x-ratelimit-limit-tokens-prompt: 3600000
            x-ratelimit-limit-tokens-generated: 36000
            x-ratelimit-remaining-tokens-generated: 35936
            x-ratelimit-over-limit: no""",
            [("input", 3_600_000, None, None, None), ("output", 36_000, 35_936, None, None)],
            id="fireworks",
        ),
        pytest.param(
            f"""x-ratelimit-limit-requests: 30
            x-ratelimit-remaining-requests: 29
            x-ratelimit-reset-requests: {int(NOON_UNIX + 30)}""",
            [("requests", 30, 29, 30.0, None)],
            id="sambanova",
        ),
        pytest.param(
            f"""x-ratelimit-limit: 20
            x-ratelimit-remaining: 0
            x-ratelimit-reset: {int((NOON_UNIX + 9) * 1000)}""",
            [("requests", 20, 0, 9.0, None)],
            id="openrouter",
        ),
        pytest.param(
            """X-RateLimit-Limit-Second: 5
            X-RateLimit-Remaining-Second: 4
            RateLimit-Limit: 5
            RateLimit-Remaining: 4
            RateLimit-Reset: 1""",
            [("requests", 5, 4, None, 1.0), ("requests", 5, 4, 1.0, None)],
            id="kong",
        ),
        pytest.param(
            """X-AI-RateLimit-Limit-180-llama2: 1000
            X-AI-RateLimit-Remaining-180-llama2: 900""",
            [("tokens", 1000, 900, None, 180.0)],
            id="kong-ai",
        ),
        pytest.param(
            """llm_provider-x-ratelimit-limit-requests: 500
            llm_provider-x-ratelimit-remaining-requests: 499
            x-ratelimit-limit-requests: 60
            x-ratelimit-remaining-requests: 59
            x-ratelimit-api_key-limit-requests: 60""",
            [("requests", 500, 499, None, None), ("requests", 60, 59, None, None)],
            id="litellm",
        ),
        pytest.param(
            """x-ratelimit-limit-project-tokens: 1000
            x-ratelimit-remaining-project-tokens: 900
            x-ratelimit-limit-tokens: 5000
            x-ratelimit-remaining-tokens: 4000""",
            [("tokens", 1000, 900, None, None), ("tokens", 5000, 4000, None, None)],
            id="project",
        ),
        pytest.param(
            """RateLimit-Limit: 100
            RateLimit-Remaining: 99
            RateLimit-Reset: 8
            RateLimit-Policy: 100;w=10""",
            [("requests", 100, 99, 8.0, 10.0)],
            id="ietf-06",
        ),
        pytest.param(
            """RateLimit: limit=300, remaining=297, reset=42
            RateLimit-Policy: 300;w=60""",
            [("requests", 300, 297, 42.0, MINUTE)],
            id="ietf-07",
        ),
        pytest.param(
            """RateLimit: "burst";r=99;t=30, "day";r=900;t=4000
            RateLimit-Policy: "burst";q=100;w=60,"day";q=1000;w=86400""",
            [("requests", 100, 99, 30.0, MINUTE), ("requests", 1000, 900, 4000.0, DAY)],
            id="ietf-structured",
        ),
        pytest.param(
            """X-RateLimit-Limit: 1, 15000
            X-RateLimit-Policy: 1;w=1, 15000;w=2592000
            X-RateLimit-Remaining: 0, 1000
            X-RateLimit-Reset: 1, 1419704""",
            [("requests", 1, 0, 1.0, 1.0), ("requests", 15_000, 1000, 1_419_704.0, 30 * DAY)],
            id="brave",
        ),
        pytest.param(
            """x-ratelimit-limit: 10, 10;w=60
            x-ratelimit-remaining: 9
            x-ratelimit-reset: 41""",
            [("requests", 10, 9, 41.0, MINUTE)],
            id="envoy",
        ),
        pytest.param("x-ratelimit-limit-requests: -1", [], id="minus-one"),
        pytest.param("x-ratelimit-limit-requests: 0", [], id="none"),
        pytest.param("x-ratelimit-limit-requests: unlimited", [], id="words"),
        pytest.param(
            "x-ratelimit-limit-requests: 5\nx-ratelimit-remaining-requests: 9",
            [("requests", 5, None, None, None)],
            id="more-left-than-there-is",
        ),
    ],
)
def test_every_way_in_which_limits_are_stated_is_read(
    text: str, limits: list[tuple[str, float, float | None, float | None, float | None]]
) -> None:
    assert _read(text) == limits


@pytest.mark.parametrize(
    ("body", "wait"),
    [
        ("Rate limit reached. Please try again in 7.66s.", 7.66),
        ("Limit 600, Used 600, Requested 1. Please try again in 100ms.", 0.1),
        ("tokens per day (TPD): Limit 100. Please try again in 7m12.5s. Visit", 432.5),
        ("please try again after 1 seconds", 1.0),
        ("Please wait 0 seconds before retrying.", 0.0),
        ("Please retry after 22 seconds.", 22.0),
        ("Please retry in 33.5s.", 33.5),
        ("Try again in 2 minutes", 120.0),
        ('{"retryDelay": "18s"}', 18.0),
        ('{"error": {"retry_after": 2.5}}', 2.5),
        ('{"reset_at": "2026-11-20 12:00:36 UTC"}', 36.0),
        ("Please try again later.", None),
    ],
)
def test_a_wait_that_only_the_text_of_a_refusal_names(body: str, wait: float | None) -> None:
    assert hints({"date": NOON}, 429, body.encode()).retry_after == (None if wait is None else pytest.approx(wait))


@pytest.mark.parametrize(
    ("body", "kind", "limit", "window"),
    [
        ("on requests per min (RPM): Limit 600, Used 600, Requested 1.", "requests", 600, MINUTE),
        ("on tokens per day (TPD): Limit 100,000, Used 99,990", "tokens", 100_000, DAY),
        ("exceed the rate limit of 38,400 output tokens per minute.", "output", 38_400, MINUTE),
        ("a Trial key, which is limited to 20 API calls / minute", "requests", 20, MINUTE),
        ("reached organization max RPM: 600, please try again", "requests", 600, MINUTE),
    ],
)
def test_a_limit_and_its_window_that_only_the_text_of_a_refusal_names(
    body: str, kind: str, limit: float, window: float
) -> None:
    answer = hints({}, 429, body.encode())
    (said,) = answer.named
    assert answer.limits == ()
    assert (said.kind, said.limit, said.window) == (kind, limit, window)


def test_names_of_headers_are_looked_at_once() -> None:
    from batchrun.limits import headers  # noqa: PLC0415  # its cache is the subject

    _read("x-ratelimit-limit-requests: 7\nx-ratelimit-reset-requests: 1s")
    before = headers._named.cache_info().misses
    _read("x-ratelimit-limit-requests: 8\nx-ratelimit-reset-requests: 2s")
    assert headers._named.cache_info().misses == before


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
    "ratelimit",
    "ratelimit-policy",
    "ratelimit-limit",
    "x-ratelimit-limit",
    "x-ratelimit-policy",
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
    body = " ".join(headers.values()).encode("utf-8", "replace")
    said = hints(headers, status, body, now=now)
    for limit in said.limits:
        assert math.isfinite(limit.limit)
        assert limit.limit > 0
        assert limit.remaining is None or 0 <= limit.remaining <= limit.limit
        assert limit.reset is None or 0 <= limit.reset <= LONGEST_WAIT
    assert said.retry_after is None or 0 <= said.retry_after <= LONGEST_WAIT


@given(NASTY, st.floats(-1e12, 1e12))
def test_every_reading_of_a_time_is_none_or_a_wait(text: str, at: float) -> None:
    for seconds in (parse_duration(text), parse_reset(text, at), parse_retry_after(text, at)):
        assert seconds is None or 0 <= seconds <= LONGEST_WAIT
