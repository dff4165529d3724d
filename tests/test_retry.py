"""What an answer means for its row and for the run: the tables, and what holds for every answer there can be."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.engine.monitors import probing_of
from batchrun.models import Fault, Flag, History
from batchrun.retry import (
    ALIKE,
    BUDGET_PER_SUCCESS,
    BUDGET_START,
    DEADLINES,
    GARBAGE_TRIES,
    ONE_ROW_429S,
    SUSPECTS,
    THROTTLED_FOR,
    Answer,
    AskAgain,
    Done,
    GiveUp,
    Health,
    Meaning,
    Meanings,
    Next,
    Policy,
    Refusal,
    RetryIn,
    StopRun,
    Tries,
    Verdict,
    decide,
    plain,
    resume_step,
)

FIRST = Tries(1, 0, 0)
OK = Answer(200)
QUOTA = Answer(429, type="insufficient_quota", code="insufficient_quota", message="You exceeded your quota")
NO_CREDIT = Answer(
    400,
    type="invalid_request_error",
    message="Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to …",
)
THROTTLED = Answer(429, type="requests", code="rate_limit_exceeded", message="slow down")
UNAUTHORIZED = Answer(401, code="invalid_api_key", message="Incorrect API key")
OVERLOADED = Answer(503, message="overloaded")
LOST = Answer(0, Fault.RESET)
REFUSED = Answer(0, Fault.REFUSED, sent=False)
DEADLINE = Answer(0, Fault.DEADLINE)
DISGUISED = Answer(500, type="internal_server_error", retry_after=2.0, disguised=True)
BAD = Answer(400, code="invalid_value", message="too short")
TOO_LONG = Answer(400, code="context_length_exceeded", message="too long")


_MEANINGS = Meanings("openai")


def test_a_plain_answer_is_a_reply_and_no_more():
    assert plain(2.5) == Answer(200, left=2.5)


def understood(answer: Answer) -> Answer:
    """The answer with what the table says of it, as the engine judges it."""
    if answer.status in (0, 200) or answer.meaning is not None:
        return answer
    said = Refusal(answer.status, answer.type, answer.code, answer.message)
    return answer._replace(meaning=_MEANINGS.of(said))


def healthy() -> Health:
    """Something has succeeded."""
    health = Health()
    health.observe(OK, 0, 0.0)
    return health


def verdict(
    answer: Answer,
    health: Health | None = None,
    *,
    tries: Tries = FIRST,
    policy: Policy | None = None,
    seq: int = 1,
    now: float = 10.0,
    elsewhere: bool = False,
) -> Verdict:
    """What is decided about the answer once it is observed, in a run where something has succeeded."""
    health, answer = healthy() if health is None else health, understood(answer)
    health.observe(answer, seq, now, elsewhere=elsewhere)
    return decide(answer, tries, health, policy or Policy(), now)


NEW, LATER = False, True
STOPS = [
    ("an empty account", QUOTA, (NEW, LATER)),
    ("an empty account that announces a wait", QUOTA._replace(retry_after=1.0), (NEW, LATER)),
    ("a bill that is not paid", Answer(402), (NEW, LATER)),
    ("an empty account, as Anthropic says it", NO_CREDIT, (NEW, LATER)),
    ("a wrong key", UNAUTHORIZED, (NEW,)),
    ("a key that may not", Answer(403), (NEW,)),
    ("an unknown model", Answer(404, code="model_not_found"), (NEW,)),
    ("a wrong base URL", Answer(404, html=True), (NEW,)),
    ("a redirect", Answer(307), (NEW,)),
    *(("an unknown model as 400", Answer(400, code=code), (NEW,)) for code in ("unknown_model", "invalid_model")),
    *(
        ("a billing code", Answer(status, code=code), (NEW, LATER))
        for code in ("billing_error", "insufficient_funds", "Arrearage", "exceeded_current_quota_error")
        for status in (400, 403, 429)
    ),
    ("a model that the plan does not have", Answer(429, message="Quota exceeded, limit: 0, model: m"), (NEW, LATER)),
]


@pytest.mark.parametrize(("answer", "later"), [(answer, when) for _, answer, whens in STOPS for when in whens])
def test_what_is_about_the_whole_run_stops_it(answer: Answer, later: bool) -> None:
    assert isinstance(verdict(answer, healthy() if later else Health()), StopRun)


GIVEN_UP = [
    ("403 for one row", Answer(403), LATER),
    ("404 for one row", Answer(404, code="model_not_found"), LATER),
    ("an unknown model for one row", Answer(400, code="unknown_model"), LATER),
    ("a redirect for one row", Answer(308), LATER),
    *((f"{status} in a row that is wrong", Answer(status, code="x"), NEW) for status in (400, 413, 422)),
    *((f"{status} in a row that is wrong", Answer(status, code="x"), LATER) for status in (400, 413, 422)),
    ("the content filter", Answer(400, code="content_filter"), LATER),
    ("a request that never fits", Answer(429, message="Request too large for gpt"), LATER),
    ("a request over the limit", Answer(429, message="on tokens: Limit 1,000, Used 0, Requested 2,000."), LATER),
    *((f"{status}, whatever that is", Answer(status), LATER) for status in (100, 204, 299, 418, 451)),
    ("a reply that is too large", Answer(0, Fault.TOO_LARGE), LATER),
]


@pytest.mark.parametrize(("answer", "later"), [(answer, when) for _, answer, when in GIVEN_UP])
def test_what_is_about_the_row_fails_it_for_good_after_one_call(answer: Answer, later: bool) -> None:
    given_up = verdict(answer, healthy() if later else Health())
    assert isinstance(given_up, GiveUp)
    assert given_up.permanent
    assert given_up.cause


PASSING = [
    *(Answer(status, message="m") for status in (408, 409, 500, 502, 503, 504, 520, 521, 524, 529, 599, 600)),
    *(Answer(0, fault) for fault in Fault if fault not in (Fault.TOO_LARGE, Fault.ENCODING, Fault.OUTAGE, Fault.LOST)),
    *(Answer(200, defect=why) for why in ("HTML", "an empty body", "null", "[]", "cut JSON", "no choices")),
]


@pytest.mark.parametrize("answer", PASSING)
@pytest.mark.parametrize("later", [NEW, LATER])
def test_what_may_pass_is_tried_again(answer: Answer, later: bool) -> None:
    again = verdict(answer, healthy() if later else Health())
    assert isinstance(again, RetryIn)
    assert 0 <= again.seconds < 5
    assert again.counts == (answer.sent or not later)


@pytest.mark.parametrize("answer", [OVERLOADED, Answer(409), LOST])
def test_a_row_has_so_many_attempts_and_then_has_failed_for_now(answer: Answer) -> None:
    assert isinstance(verdict(answer, tries=Tries(4, 0, 0)), RetryIn)
    last = verdict(answer, tries=Tries(5, 0, 0))
    assert isinstance(last, GiveUp)
    assert not last.permanent
    assert isinstance(verdict(answer, tries=Tries(2, 0, 0), policy=Policy(max_attempts=2)), GiveUp)


def test_garbage_and_deadlines_have_fewer_attempts() -> None:
    garbage = Answer(200, defect="null")
    assert isinstance(verdict(garbage, tries=Tries(GARBAGE_TRIES - 1, 0, 0)), RetryIn)
    assert isinstance(verdict(garbage, tries=Tries(GARBAGE_TRIES, 0, 0)), GiveUp)
    assert isinstance(verdict(garbage, tries=Tries(GARBAGE_TRIES + 1, 0, 2)), RetryIn)  # two of them were replies
    assert isinstance(verdict(garbage, tries=Tries(5, 0, 3)), GiveUp)
    assert isinstance(verdict(DEADLINE, tries=Tries(1, DEADLINES - 1, 0)), RetryIn)
    assert isinstance(verdict(DEADLINE, tries=Tries(2, DEADLINES, 0)), GiveUp)


def test_the_wait_is_at_least_what_the_provider_asks_for() -> None:
    again = verdict(OVERLOADED._replace(retry_after=30.0))
    assert isinstance(again, RetryIn)
    assert again.seconds >= 30


def test_waits_grow_with_full_jitter_and_are_capped() -> None:
    waits = [
        verdict(OVERLOADED, tries=Tries(attempt, 0, 0), policy=Policy(99)) for attempt in (1, 3, 30) for _ in "x" * 200
    ]
    seconds = [again.seconds for again in waits if isinstance(again, RetryIn)]
    early, late, last = seconds[:200], seconds[200:400], seconds[400:]
    assert max(early) < max(late) <= max(last) <= 60
    assert min(last) < 10


@pytest.mark.parametrize("answer", [THROTTLED, DISGUISED])
def test_a_429_costs_the_row_nothing_however_often_it_comes(answer: Answer) -> None:
    health = healthy()
    for _ in range(1000):
        assert verdict(answer, health, tries=Tries(1000, 0, 0)) == RetryIn(0.0, counts=False)
    assert health.budget == healthy().budget
    assert not health.breaker_open


def test_half_an_hour_of_429s_without_a_success_stops_the_run() -> None:
    health = healthy()
    verdict(THROTTLED, health, now=100.0)
    assert isinstance(verdict(THROTTLED, health, now=100 + THROTTLED_FOR - 1), RetryIn)
    assert isinstance(verdict(THROTTLED, health, now=100 + THROTTLED_FOR), StopRun)
    health.observe(OK, 1, 100 + THROTTLED_FOR)
    assert isinstance(verdict(THROTTLED, health, now=101 + THROTTLED_FOR), RetryIn)


@pytest.mark.parametrize(("asked", "stops"), [(59.0, False), (61.0, True), (None, False)])
def test_a_wait_over_max_wait_stops_the_run(asked: float | None, stops: bool) -> None:
    for answer in (THROTTLED, OVERLOADED):
        found = verdict(answer._replace(retry_after=asked), policy=Policy(max_wait=60.0))
        assert isinstance(found, StopRun if stops else RetryIn)
        assert isinstance(verdict(answer._replace(retry_after=asked)), RetryIn)


def test_a_401_after_a_success_is_confirmed_by_one_more_call() -> None:
    health = healthy()
    assert verdict(UNAUTHORIZED._replace(left=5.0), health, now=10.0) == RetryIn(0.0, counts=False)
    in_flight_too = UNAUTHORIZED._replace(left=6.0)
    assert verdict(in_flight_too, health, now=10.5) == RetryIn(0.0, counts=False)
    assert isinstance(verdict(UNAUTHORIZED._replace(left=10.1), health, now=11.0), StopRun)


def test_a_success_after_a_suspect_401_clears_it() -> None:
    health = healthy()
    verdict(UNAUTHORIZED._replace(left=5.0), health, now=10.0)
    health.observe(OK._replace(left=9.0), 2, 10.5)
    assert health.suspect_since == 10.0
    health.observe(OK._replace(left=10.5), 2, 11.0)
    assert isinstance(verdict(UNAUTHORIZED._replace(left=11.0), health, now=12.0), RetryIn)


@pytest.mark.parametrize("answer", [BAD, OVERLOADED, LOST, Answer(500), Answer(400, code="no_db_connection")])
def test_when_the_first_rows_all_fail_alike_the_run_stops(answer: Answer) -> None:
    health = Health()
    found = [verdict(answer, health, seq=seq, elsewhere=seq == ALIKE) for seq in range(ALIKE + 1)]
    assert not any(isinstance(each, StopRun) for each in found[: ALIKE - 1])
    assert isinstance(found[-1], StopRun)
    assert understood(answer).cause in found[-1].message


@pytest.mark.parametrize(
    "answer", [TOO_LONG, Answer(413), Answer(400, code="content_filter"), Answer(0, Fault.TOO_LARGE)]
)
def test_causes_of_the_rows_own_never_stop_a_run_before_its_first_success(answer: Answer) -> None:
    health = Health()
    assert all(isinstance(verdict(answer, health, seq=seq), GiveUp) for seq in range(3 * ALIKE))


@pytest.mark.parametrize(
    "answers",
    [
        [Answer(502), Answer(503), LOST, DEADLINE],
        [Answer(200, defect="HTML, not JSON"), Answer(200, defect="an empty body"), Answer(200, defect="no choices")],
    ],
)
def test_a_provider_that_fails_everybody_in_several_ways_is_found_out_too(answers: list[Answer]) -> None:
    health = Health()
    found = [verdict(answers[seq % len(answers)], health, seq=seq, elsewhere=seq == ALIKE) for seq in range(ALIKE + 1)]
    assert isinstance(found[-1], StopRun)


def test_the_same_row_again_and_other_causes_are_not_alike() -> None:
    health = Health()
    for _ in range(3 * ALIKE):
        verdict(OVERLOADED, health, seq=1)
    assert not health.doubtful
    for seq in range(3 * ALIKE):
        verdict(OVERLOADED if seq % 10 else BAD, health, seq=seq)
    assert not health.all_alike


def test_429s_are_not_failures_alike() -> None:
    health = Health()
    for seq in range(2 * ALIKE):
        health.observe(THROTTLED, seq, 1.0)
    assert not health.doubtful


RUNS_MATTER = [BAD, Answer(403), Answer(404, code="model_not_found"), Answer(200, defect="no choices"), Answer(418)]


@pytest.mark.parametrize("answer", RUNS_MATTER)
def test_rows_in_succession_that_fail_alike_stop_a_run_that_had_success(answer: Answer) -> None:
    health = healthy()
    for seq in range(2 * ALIKE):
        assert not isinstance(verdict(answer, health, seq=seq), StopRun)
        assert health.in_doubt(seq)
        assert health.doubtful == (seq >= ALIKE - 1)
    assert isinstance(verdict(answer, health, seq=99, elsewhere=True), StopRun)


@pytest.mark.parametrize("answer", RUNS_MATTER)
def test_a_success_that_left_after_the_first_failure_shows_that_the_others_are_their_rows_own(answer: Answer) -> None:
    health = healthy()
    for seq in range(2 * ALIKE):
        verdict(answer, health, seq=seq, now=10.0)
        health.observe(OK._replace(left=9.9), 100 + seq, 10.1)  # it was on its way
    assert health.doubtful
    health.observe(OK._replace(left=10.1), 200, 10.3)
    assert health.undoubted
    assert not health.in_doubt(3)


def test_one_row_again_other_causes_and_rows_that_are_too_long_are_no_succession() -> None:
    for answers in ([BAD], [BAD, Answer(422, code="y")], [TOO_LONG]):
        health = healthy()
        for seq in range(6 * ALIKE):
            verdict(answers[seq % len(answers)], health, seq=1 if answers == [BAD] else seq, elsewhere=seq > ALIKE)
        assert not health.all_alike


def test_a_row_from_elsewhere_that_is_answered_clears_all_others() -> None:
    health = healthy()
    for seq in range(ALIKE):
        verdict(BAD, health, seq=seq, now=10.0)
    health.observe(OK._replace(left=11.0), 500, 12.0, elsewhere=True)
    assert health.undoubted


def test_replies_of_which_none_fits_the_schema_stop_the_run_and_name_two_ways_on() -> None:
    health, misfit = Health(), OK._replace(complaint="not JSON")
    found = [verdict(misfit, health, seq=seq, tries=Tries(1, 0, 1)) for seq in range(ALIKE)]
    assert all(isinstance(each, AskAgain) for each in found[:-1])
    assert isinstance(found[-1], StopRun)
    assert "response_format" in str(found[-1].hint)
    assert "--schema-retries 0" in str(found[-1].hint)


@pytest.mark.parametrize("policy", [Policy(), Policy(schema_retries=0)])
def test_replies_that_do_not_fit_do_not_stop_a_run_in_which_one_fitted_or_the_user_wants_no_other_try(
    policy: Policy,
) -> None:
    health, misfit = Health(fitted=policy.schema_retries > 0), OK._replace(complaint="not JSON")
    found = [verdict(misfit, health, seq=seq, tries=Tries(1, 0, 1), policy=policy) for seq in range(3 * ALIKE)]
    assert not any(isinstance(each, StopRun) for each in found)


def test_json_that_the_provider_refused_is_asked_for_again_like_a_reply_that_does_not_fit() -> None:
    refused = Answer(400, code="json_validate_failed", message="Failed to generate JSON.")
    assert isinstance(verdict(refused, tries=Tries(1, 0, 1)), AskAgain)
    assert isinstance(verdict(refused, tries=Tries(3, 0, 3)), GiveUp)


LOADING = Answer(503, message="Loading model")


@pytest.mark.parametrize("later", [NEW, LATER])
def test_a_server_that_loads_its_model_is_waited_for_and_no_attempt_is_used(later: bool) -> None:
    health = healthy() if later else Health()
    for seq in range(3 * ALIKE):
        found = verdict(LOADING, health, seq=seq, now=100.0 + seq, tries=Tries(1, 0, 0))
        assert isinstance(found, RetryIn)
        assert not found.counts
    assert health.loading_since == 100.0
    assert isinstance(verdict(LOADING, health, now=701.0), StopRun)
    health.observe(OK, 1, 702.0)
    assert health.loading_since is None


UNCLEAR = QUOTA._replace(meaning=Meaning.UNCLEAR)


def test_a_quota_that_may_be_a_limit_of_a_minute_is_doubted_for_a_minute_by_six_tries_at_most() -> None:
    health, tries = healthy(), []
    health.observe(UNCLEAR, 1, 100.0)
    health.observe(UNCLEAR._replace(left=99.9), 2, 100.1)
    health.observe(OK._replace(left=99.0), 3, 100.2)
    while True:
        probing = probing_of(health)
        assert probing is not None
        now = (tries[-1] if tries else 100.0) + probing.every
        tries.append(now)
        health.observe(UNCLEAR._replace(left=now), 1, now)
        if isinstance(decide(UNCLEAR, FIRST, health, Policy(), now), StopRun):
            break
    assert len(tries) <= 6
    assert 160.0 <= tries[-1] <= 170.0


@pytest.mark.parametrize("meaning", [Meaning.UNCLEAR, Meaning.QUOTA])
def test_a_quota_that_has_once_passed_is_a_limit_of_a_rate_from_then_on(meaning: Meaning) -> None:
    health, refused = healthy(), QUOTA._replace(meaning=meaning, retry_after=3.0)
    health.observe(refused, 1, 100.0)
    assert probing_of(health) is not None
    health.observe(OK._replace(left=101.0), 1, 101.1)
    assert probing_of(health) is None
    for now in (200.0, 290.0):
        health.observe(refused._replace(left=now), 1, now)
        assert probing_of(health) is None
        assert decide(refused, FIRST, health, Policy(), now) == RetryIn(0.0, counts=False)


def test_a_days_quota_is_waited_for_where_the_announced_wait_is_long_and_stops_the_run_where_it_does_not_help() -> None:
    used_up, health = Answer(429, message="on tokens per day (TPD): Limit 9"), healthy()
    assert isinstance(verdict(used_up._replace(retry_after=3.0), health, now=100.0), RetryIn)
    assert isinstance(verdict(used_up._replace(retry_after=432.0), health, now=900.0), RetryIn)
    assert isinstance(verdict(used_up._replace(retry_after=3.0), health, now=900.0), StopRun)


def test_a_row_that_alone_is_refused_while_others_are_answered_fails_for_now() -> None:
    health = healthy()
    for _ in range(ONE_ROW_429S - 1):
        assert isinstance(verdict(THROTTLED, health, seq=7), RetryIn)
        health.observe(OK, 8, 1.0)
    last = verdict(THROTTLED, health, seq=7)
    assert isinstance(last, GiveUp)
    assert not last.permanent


@pytest.mark.parametrize(("others", "answered"), [(True, True), (False, False)])
def test_a_row_that_is_refused_like_others_or_while_nothing_is_answered_waits_on(others: bool, answered: bool) -> None:
    health = healthy()
    for _ in range(5 * ONE_ROW_429S):
        assert isinstance(verdict(THROTTLED, health, seq=7), RetryIn)
        if others:
            health.observe(THROTTLED, 9, 1.0)
        if answered:
            health.observe(OK, 8, 1.0)


def test_when_the_provider_is_down_no_row_loses_an_attempt() -> None:
    health = healthy()
    found = [verdict(OVERLOADED, health, seq=seq, tries=Tries(5, 0, 0)) for seq in range(3 * ALIKE)]
    assert [isinstance(each, GiveUp) for each in found] == [True] * (ALIKE - 1) + [False] * (2 * ALIKE + 1)
    assert health.breaker_open
    assert all(isinstance(each, RetryIn) and not each.counts for each in found[ALIKE:])


@pytest.mark.parametrize("answer", [OK, BAD, THROTTLED, UNAUTHORIZED, Answer(404)])
def test_any_answer_below_500_closes_the_breaker(answer: Answer) -> None:
    health = healthy()
    for seq in range(ALIKE):
        health.observe(LOST, seq, 1.0)
    assert health.breaker_open
    health.observe(answer._replace(left=1.5), 1, 2.0)
    assert not health.breaker_open
    assert health.down_since is None


def test_rows_that_fail_while_others_are_answered_are_no_outage_when_they_are_the_last() -> None:
    health = healthy()
    for seq in range(2 * ALIKE):
        verdict(Answer(500), health, seq=seq)
        health.observe(OK, 1000 + seq, 1.0)
    found = [verdict(Answer(500), health, seq=seq, tries=Tries(5, 0, 0), now=9000.0) for seq in range(2 * ALIKE)]
    assert all(isinstance(each, GiveUp) for each in found)
    assert not health.breaker_open


def test_a_few_rows_that_fail_at_the_end_use_up_their_attempts() -> None:
    health = healthy()
    for attempt in range(1, 5):
        found = [verdict(LOST, health, seq=seq, tries=Tries(attempt, 0, 0)) for seq in range(8)]
        assert all(isinstance(each, RetryIn) and each.counts for each in found)
    assert isinstance(verdict(LOST, health, seq=0, tries=Tries(5, 0, 0)), GiveUp)


def test_no_more_rows_are_suspected_than_memory_is_set_aside_for() -> None:
    health = healthy()
    for seq in range(SUSPECTS + 100):
        health.observe(Answer(500), seq, 1.0)
        health.observe(OK, -1, 1.0)
    assert len(health.suspects) == SUSPECTS
    assert SUSPECTS + 99 in health.suspects


def test_one_row_that_always_fails_is_no_outage() -> None:
    health = healthy()
    for attempt in range(1, 5):
        assert isinstance(verdict(Answer(500), health, seq=7, tries=Tries(attempt, 0, 0)), RetryIn)
    assert isinstance(verdict(Answer(500), health, seq=7, tries=Tries(5, 0, 0)), GiveUp)


def test_what_was_on_its_way_when_the_breaker_opened_does_not_close_it() -> None:
    health = Health(succeeded=True)
    for seq in range(ALIKE):
        health.observe(Answer(500, left=1.0), seq, 5.0)
    health.observe(Answer(200, left=4.9), 100, 5.1)
    assert health.breaker_open
    health.observe(Answer(200, left=5.1), 101, 5.2)
    assert not health.breaker_open


def test_a_provider_that_accepts_no_connection_is_down_until_something_that_left_since_is_answered() -> None:
    health = Health()
    health.unreachable(1.0)
    assert not health.breaker_open  # nothing has succeeded: the cause may be ours
    health.observe(Answer(200, left=1.0), 1, 2.0)
    health.unreachable(3.0)
    assert health.breaker_open
    health.observe(Answer(404, left=3.5), 2, 4.0)
    assert not health.breaker_open


@pytest.mark.parametrize("fault", [Fault.OUTAGE, Fault.LOST])
def test_an_attempt_that_was_lost_in_an_outage_or_with_its_sender_costs_nothing_and_says_nothing(fault: Fault) -> None:
    health, answer = Health(succeeded=True), Answer(0, fault)
    for seq in range(5 * ALIKE):
        health.observe(answer, seq, 5.0)
        assert decide(answer, Tries(9, 9, 0), health, Policy(), 5.0) == RetryIn(0.0, counts=False)
    assert answer.possibly_billed
    assert not health.breaker_open
    assert health.undoubted


def test_a_breaker_never_opens_before_anything_succeeded() -> None:
    health = Health()
    for _ in range(3 * ALIKE):
        health.observe(LOST, 1, 1.0)
    assert not health.breaker_open


def test_a_provider_that_stays_down_is_given_up() -> None:
    health, policy = healthy(), Policy(give_up_after=600)
    for seq in range(ALIKE):
        verdict(REFUSED, health, seq=seq, policy=policy, now=100.0)
    assert isinstance(verdict(REFUSED, health, policy=policy, now=699.0), RetryIn)
    stop = verdict(REFUSED, health, policy=policy, now=700.0)
    assert isinstance(stop, StopRun)
    assert "10 minutes" in stop.message


def test_the_run_has_a_budget_of_retries_that_grows_with_success() -> None:
    health = healthy()
    health.observe(OK, 0, 0.0)
    may = int(BUDGET_START + 2 * BUDGET_PER_SUCCESS)
    found: list[Verdict] = []
    for seq in range(may + 1):
        health.streak_rows.clear()  # scattered failures, not an outage
        found.append(verdict(Answer(409), health, seq=seq))
    assert all(isinstance(each, RetryIn) for each in found[:-1])
    last = found[-1]
    assert isinstance(last, GiveUp)
    assert not last.permanent
    assert "budget" in last.message


EMPTY = Answer(200, complaint="900 tokens out, only reasoning_content", flags=frozenset({Flag.EMPTY}))
CUT = Answer(200, flags=frozenset({Flag.TRUNCATED}), limited=True)
REPLIES = [
    ("a reply", OK, Policy(), Done),
    ("a cut reply", OK._replace(flags=frozenset({Flag.TRUNCATED})), Policy(), Done),
    ("a refusal", OK._replace(flags=frozenset({Flag.REFUSED})), Policy(), Done),
    (
        "a cut reply that shall fail",
        OK._replace(flags=frozenset({Flag.TRUNCATED})),
        Policy(fail_on=frozenset({Flag.TRUNCATED})),
        GiveUp,
    ),
    (
        "a refusal where only cut ones fail",
        OK._replace(flags=frozenset({Flag.REFUSED})),
        Policy(fail_on=frozenset({Flag.TRUNCATED})),
        Done,
    ),
    ("a reply that does not fit", OK._replace(complaint="not JSON"), Policy(), AskAgain),
    ("one that does not fit and is never asked again", OK._replace(complaint="x"), Policy(schema_retries=0), GiveUp),
    ("a cut reply that does not fit", Answer(200, complaint="x", flags=frozenset({Flag.TRUNCATED})), Policy(), GiveUp),
    ("a refusal where JSON is due", Answer(200, complaint="x", flags=frozenset({Flag.REFUSED})), Policy(), GiveUp),
    ("one that ended oddly", OK._replace(flags=frozenset({Flag.ODD})), Policy(), Done),
    (
        "one that ended oddly and does not fit",
        Answer(200, complaint="x", flags=frozenset({Flag.ODD})),
        Policy(),
        AskAgain,
    ),
    ("one without an answer", EMPTY, Policy(), AskAgain),
    ("one without an answer that may be", EMPTY, Policy(fail_on=frozenset()), AskAgain),
    ("one without an answer that is never asked for a fit", EMPTY, Policy(schema_retries=0), AskAgain),
    ("a cut reply that may have more room", CUT, Policy(retry_truncated=1), AskAgain),
    ("a cut reply of a request without a limit", CUT._replace(limited=False), Policy(retry_truncated=1), Done),
    (
        "a cut reply that does not fit and may have room",
        CUT._replace(complaint="x"),
        Policy(retry_truncated=1),
        AskAgain,
    ),
]


@pytest.mark.parametrize(("_name", "answer", "policy", "kind"), REPLIES, ids=[row[0] for row in REPLIES])
def test_a_reply_stands_is_asked_again_or_fails(_name: str, answer: Answer, policy: Policy, kind: type) -> None:
    assert isinstance(verdict(answer, policy=policy, tries=Tries(1, 0, int(answer.complaint is not None))), kind)


def test_a_reply_that_does_not_fit_is_asked_again_as_often_as_the_user_wants() -> None:
    misfit = OK._replace(complaint="at $: required")
    found = [verdict(misfit, tries=Tries(asks, 0, asks), policy=Policy(schema_retries=2)) for asks in (1, 2, 3)]
    assert [type(each) for each in found] == [AskAgain, AskAgain, GiveUp]


@pytest.mark.parametrize(
    ("answer", "fail_on", "kind"),
    [
        (EMPTY, {Flag.EMPTY}, GiveUp),
        (EMPTY, set[Flag](), Done),
        (EMPTY._replace(checked=True), set[Flag](), GiveUp),
        (EMPTY._replace(flags=frozenset({Flag.EMPTY, Flag.ODD})), {Flag.EMPTY}, GiveUp),
    ],
)
def test_a_reply_without_an_answer_is_asked_for_once_more(answer: Answer, fail_on: set[Flag], kind: type) -> None:
    policy = Policy(fail_on=frozenset(fail_on), schema_retries=9)
    first, second = (verdict(answer, tries=Tries(asks, 0, asks), policy=policy) for asks in (1, 2))
    assert isinstance(first, AskAgain)
    assert isinstance(second, kind)
    if isinstance(second, GiveUp):
        assert (second.cause, second.permanent) == ("empty", True)
        assert "900 tokens out, only reasoning_content" in second.message


def test_a_cut_reply_gets_more_room_as_often_as_the_user_wants() -> None:
    found = [verdict(CUT, tries=Tries(asks, 0, asks), policy=Policy(retry_truncated=2)) for asks in (1, 2, 3)]
    assert found == [AskAgain("the reply is truncated", more_room=True)] * 2 + [Done()]
    assert CUT.cause == "truncated"


UNREADABLE = [
    Answer(200, defect="not JSON", message="x", unreadable=True),
    Answer(0, Fault.ENCODING, message="Can not decode content-encoding: br", unreadable=True),
]


@pytest.mark.parametrize("answer", UNREADABLE)
def test_one_answer_that_nobody_can_read_stops_a_run_in_which_nothing_has_succeeded(answer: Answer) -> None:
    stop = verdict(answer, Health())
    assert isinstance(stop, StopRun)
    assert answer.message in stop.message
    assert not answer.down
    later = [verdict(answer, tries=Tries(number, 0, 0)) for number in (1, 2, 3)]
    assert [type(each) for each in later] == [RetryIn, RetryIn, GiveUp]


PAID = [
    (LOST, True),
    (DEADLINE, True),
    (OVERLOADED, True),
    (Answer(408), True),
    (REFUSED, False),
    (THROTTLED, False),
    (DISGUISED, False),
    (BAD, False),
    (OK, False),
]


@pytest.mark.parametrize(("answer", "maybe"), PAID)
def test_what_may_have_been_paid_is_said(answer: Answer, maybe: bool) -> None:
    assert answer.possibly_billed == maybe


def test_the_provider_s_words_are_in_what_is_said() -> None:
    for answer in (UNAUTHORIZED, QUOTA):
        stop = verdict(answer, Health())
        assert isinstance(stop, StopRun)
        assert answer.message in stop.message
        assert stop.hint


answers = st.builds(
    Answer,
    status=st.sampled_from(
        [0, 100, 200, 204, 301, 307, 400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 429, 500, 503, 529, 600, 999]
    ),
    fault=st.none() | st.sampled_from(list(Fault)),
    sent=st.booleans(),
    type=st.sampled_from(["", "insufficient_quota", "requests", "server_error"]),
    code=st.sampled_from(["", "insufficient_quota", "model_not_found", "context_length_exceeded"])
    | st.text(max_size=8),
    message=st.text(max_size=40)
    | st.sampled_from(["Limit 10 Requested 99", "Limit , Requested ,", "Limit 9 Requested " + "9" * 5000]),
    meaning=st.none() | st.sampled_from(list(Meaning)),
    param=st.sampled_from(["", "temperature"]),
    endpoint=st.sampled_from(["", "/v1/embeddings"]),
    html=st.booleans(),
    defect=st.none() | st.text(max_size=5),
    complaint=st.none() | st.text(max_size=5),
    flags=st.frozensets(st.sampled_from(list(Flag))),
    retry_after=st.none() | st.floats(0, 1e9),
    left=st.floats(0, 1e6),
    disguised=st.booleans(),
)
tries = st.builds(Tries, st.integers(0, 10**6), st.integers(0, 10), st.integers(0, 10))
policies = st.builds(
    Policy,
    st.integers(1, 100),
    st.integers(0, 5),
    st.floats(0, 1e6),
    st.none() | st.floats(0, 1e6),
    st.frozensets(st.sampled_from(list(Flag))),
)


@given(st.lists(st.tuples(answers, st.integers(0, 30), tries), min_size=1, max_size=60), policies)
@settings(max_examples=60)
def test_every_answer_has_a_verdict_and_every_wait_is_finite(
    story: list[tuple[Answer, int, Tries]], policy: Policy
) -> None:
    health = Health()
    for step, (answer, seq, used) in enumerate(story):
        health.observe(answer, seq, float(step))
        found = decide(answer, used, health, policy, float(step))
        assert isinstance(found, Done | RetryIn | AskAgain | GiveUp | StopRun)
        if isinstance(found, RetryIn):
            assert math.isfinite(found.seconds)
            assert found.seconds >= 0
        if isinstance(found, Done):
            assert answer.status == 200
            assert answer.defect is None
        assert health.budget >= 0


GOES_ON = [
    ("never tried", History(0, 0, 0, 0, False, None), Next.SEND),
    ("tried, an answer without a reply", History(1, 1, 0, 0, False, None), Next.SEND),
    ("an attempt without an answer", History(1, 0, 0, 0, True, None), Next.SEND),
    ("a reply and no outcome", History(1, 1, 0, 0, False, "{}"), Next.JUDGE),
    ("a reply that did not fit and no outcome", History(1, 1, 0, 1, False, "{}"), Next.JUDGE),
    ("asked again, and no answer", History(2, 1, 0, 1, True, "{}"), Next.SEND),
]


@pytest.mark.parametrize(("_name", "history", "needs"), GOES_ON, ids=[row[0] for row in GOES_ON])
def test_what_a_row_of_the_journal_needs(_name: str, history: History, needs: Next) -> None:
    assert resume_step(history) is needs


@pytest.mark.parametrize(
    ("said", "option"),
    [
        (Answer(400, code="unsupported_parameter", message="response_format type is unavailable"), "response_format="),
        (Answer(422, type="extra_forbidden", param="max_completion_tokens"), 'limit = "max_tokens"'),
        (
            Answer(
                400, code="unsupported_parameter", message="'max_tokens' is not supported, use 'max_completion_tokens'"
            ),
            'limit = "max_completion_tokens"',
        ),
        (Answer(400, code="unsupported_value", message="'temperature' does not support 0"), "--param temperature=1"),
        (Answer(400, code="unknown_parameter", message="`stream` is required"), "--param stream=false"),
    ],
)
def test_a_refusal_that_names_a_parameter_names_the_option_that_changes_it(said: Answer, option: str) -> None:
    found = verdict(said)
    assert isinstance(found, GiveUp)
    assert option in found.message
    health = Health()
    stop = [verdict(said, health, seq=seq, elsewhere=seq == ALIKE) for seq in range(ALIKE + 1)][-1]
    assert isinstance(stop, StopRun)
    assert option in str(stop.hint)


@pytest.mark.parametrize("status", [404, 405, 501])
def test_the_endpoint_that_a_server_does_not_have_is_named(status: int) -> None:
    stop = verdict(Answer(status, message="Not Found", endpoint="/v1/embeddings"), Health())
    assert isinstance(stop, StopRun)
    assert "/v1/embeddings" in str(stop.hint)
