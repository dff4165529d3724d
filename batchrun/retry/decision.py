"""The table: the verdict on an answer, first match wins; and what a row needs that an earlier process left."""

from collections.abc import Callable
from enum import Enum, auto

from tenacity import RetryCallState, stop_after_attempt, wait_random_exponential

from batchrun.models import Fault, Flag, History
from batchrun.retry.answer import Answer
from batchrun.retry.health import ALIKE, DOUBTED_FOR, LONELY, Health
from batchrun.retry.meaning import OF_WHAT_WAS_ADDED, Meaning, option_for
from batchrun.retry.verdict import AskAgain, Done, GiveUp, Policy, RetryIn, StopRun, Tries, Verdict

DEADLINES = 2
"""Attempts of one row that may end by the deadline."""
GARBAGE_TRIES = 3
"""Attempts of one row that may bring a 200 that is no reply."""
EMPTY_ASKS = 1
"""Times that a row is asked again because its reply has no answer in it."""
THROTTLED_FOR = 1800.0
"""Seconds of 429s without one success that stop the run."""

_STOPPED = {
    Meaning.EMPTY: (
        "the account's quota or credit is used up",
        "add credit or raise the limit with the provider; then resume with the command below",
    ),
    Meaning.NOT_ON_PLAN: (
        "the account's plan does not have this model",
        "give the run's own command again with another model, or change the plan with the provider and resume",
    ),
    Meaning.NO_TIER: (
        "the model is not offered in this service tier",
        "give the run's own command again with another --tier, such as --tier standard, or with another model",
    ),
}
_DOUBTED = {
    Meaning.UNCLEAR: (
        "the provider reports a used-up quota, and a minute's wait did not help",
        "add credit or raise the limit with the provider; then resume with the command below",
    ),
    Meaning.QUOTA: (
        "the quota of the day is used up, and the provider announces no wait that helps",
        "resume with the command below when the quota is available again",
    ),
}
_ANOTHER = "a web page answers in the provider's place: look at the firewall or proxy in between, then resume"
_LATER = {
    (False, False): "what worked before does not work now, so the cause is not in the rows; fix it and resume",
    (
        False,
        True,
    ): "does the provider still have the model? Look there, and resume when it has; another one is a new run",
    (True, False): _ANOTHER,
    (True, True): _ANOTHER,
}
"""What to do about rows that are refused alike after others were answered: by a web page, and as if not there."""
_WEB_PAGE = "the answer is a web page: is the base URL right, with its /v1?"

_DONE = Done()
_backoff = wait_random_exponential(multiplier=0.5, max=60)


def decide(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict:
    """The verdict on an answer that `health` has observed; `now` in monotonic seconds."""
    if answer.accepted:
        return _judge_reply(answer, tries, health, policy)
    if answer.meaning is not None and answer.meaning in _STOPPED:
        said, hint = _STOPPED[answer.meaning]
        return StopRun(_said(answer, said), hint)
    if answer.meaning is Meaning.NEVER_FITS:
        return GiveUp(answer.cause, _said(answer, "the request is larger than the limit"), permanent=True)
    for rule in _RULES:
        verdict = rule(answer, tries, health, policy, now)
        if verdict is not None:
            return verdict
    hint = _option(answer)
    said = _said(answer, "the provider refused the request")
    return GiveUp(answer.cause, f"{said}; {hint}" if hint else said, permanent=True)


def _judge_reply(answer: Answer, tries: Tries, health: Health, policy: Policy) -> Verdict:
    flags, complaint = answer.flags, answer.complaint
    if not flags:
        return _DONE if complaint is None else _misfit(answer, complaint, tries, health, policy)
    room = answer.limited and policy.retry_truncated and tries.asks <= policy.retry_truncated
    if room and Flag.TRUNCATED in flags:
        return AskAgain("the reply is truncated", more_room=True)
    if Flag.EMPTY in flags:
        return _without_answer(answer, tries, health, policy)
    if failing := sorted(flags & policy.fail_on):
        return GiveUp(failing[0], f"the reply is {failing[0]}, which --fail-on makes a failure", permanent=True)
    return _DONE if complaint is None else _misfit(answer, complaint, tries, health, policy)


def _misfit(answer: Answer, complaint: str, tries: Tries, health: Health, policy: Policy) -> Verdict:
    """A reply that does not fit the schema or fails a check. Without --schema-retries the user has said what becomes of such rows."""
    if unlikely := sorted(answer.flags & {Flag.TRUNCATED, Flag.REFUSED, Flag.FILTERED}):
        said = f"the reply is {unlikely[0]} and does not fit the schema: {complaint}"
        return GiveUp(unlikely[0], said, permanent=True)
    if health.none_fits and policy.schema_retries and answer.check is not None:
        return StopRun(
            f"the replies to {len(health.misfits)} rows fail checks, and none passes: {complaint}",
            "choose another model or prompt, or leave checks out (--check none)",
        )
    if health.none_fits and policy.schema_retries:
        return StopRun(
            f"the replies to {len(health.misfits)} rows do not fit the schema, and none does: {complaint}",
            "give the run's own command again with a model or server that keeps to a schema, or say how this one is asked "
            "for it (--param 'response_format={…}'); with --schema-retries 0 such rows fail and the run continues",
        )
    if tries.asks > policy.schema_retries:
        return GiveUp(answer.cause, complaint, permanent=True)
    return AskAgain(complaint)


def _without_answer(answer: Answer, tries: Tries, health: Health, policy: Policy) -> Verdict:
    """A reply without an answer was paid for, and the next one may be alike: one more call, then no other."""
    if health.none_fits and Flag.EMPTY in policy.fail_on:
        return StopRun(
            f"the replies to {len(health.misfits)} rows have no answer, and none has: {answer.complaint}",
            "raise --max-output-tokens, or have the model think less; with --fail-on -empty such rows are done",
        )
    if tries.asks <= EMPTY_ASKS:
        return AskAgain(f"no answer: {answer.complaint}")
    if Flag.EMPTY not in policy.fail_on and not answer.checked:
        return _DONE
    hint = "" if answer.checked else "; --fail-on -empty takes such rows for done"
    return GiveUp(answer.cause, f"a reply without an answer, twice: {answer.complaint}{hint}", permanent=True)


def _refused_json(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    """The provider itself found that the model's JSON does not fit."""
    return _misfit(answer, answer.message, tries, health, policy) if answer.misfit else None


def _lost(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    """It says nothing of the row, nor of the provider, who answers others."""
    return RetryIn(0.0, counts=False) if answer.fault in (Fault.OUTAGE, Fault.LOST) else None


def _added(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    """The tier of the next attempt is chosen anew, and waited for there; what is not taken is left out."""
    if answer.meaning not in OF_WHAT_WAS_ADDED:
        return None
    if answer.waited >= THROTTLED_FOR:
        return StopRun(
            _said(answer, f"no capacity in the service tier for {_duration(answer.waited)}"),
            "resume later with the command below, or with a tier to fall back to, such as --tier flex,standard",
        )
    return RetryIn(0.0, counts=False)


def _loading(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    if answer.meaning is not Meaning.LOADING:
        return None
    waited = 0.0 if health.loading_since is None else now - health.loading_since
    if waited >= policy.give_up_after:
        return StopRun(
            _said(answer, f"the server has been loading its model for {_duration(waited)}"),
            "resume with the command below when it is ready",
        )
    return RetryIn(answer.retry_after or 0.0, counts=False)


def _throttled(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    if not answer.throttled:
        return None
    if (stop := _asked_too_much(answer, policy)) is not None:
        return stop
    refused = 0.0 if health.throttled_since is None else now - health.throttled_since
    if answer.meaning is not None and health.doubts(answer) and refused >= DOUBTED_FOR:
        said, hint = _DOUBTED[answer.meaning]
        return StopRun(_said(answer, said), hint)
    if health.lonely[1] >= LONELY:
        return GiveUp(
            answer.cause, _said(answer, f"{LONELY} times refused while other rows were answered"), permanent=False
        )
    if refused >= THROTTLED_FOR:
        return StopRun(
            _said(answer, f"nothing but 429s for {_duration(refused)}"), "resume later with the command below"
        )
    return RetryIn(0.0, counts=False)


def _asked_too_much(answer: Answer, policy: Policy) -> StopRun | None:
    if policy.max_wait is None or (answer.retry_after or 0) <= policy.max_wait:
        return None
    return StopRun(
        _said(answer, f"the provider asks to wait {answer.retry_after:.0f} s, longer than --max-wait allows"),
        "resume later with the command below",
    )


def _configuration(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    if answer.meaning is Meaning.KEY:
        return _unauthorized(answer, health, now)
    if not _about_configuration(answer) or health.succeeded:
        return None
    return StopRun(
        _said(answer, f"the provider answered {answer.status} before anything succeeded"), _scope_hint(answer)
    )


def _unauthorized(answer: Answer, health: Health, now: float) -> Verdict:
    if not health.succeeded or (health.suspect_since is not None and answer.left >= health.suspect_since):
        return StopRun(_said(answer, "the provider refused the key"), "check the key that the profile names")
    if health.suspect_since is None:
        health.suspect_since = now
    return RetryIn(0.0, counts=False)


def _scope_hint(answer: Answer) -> str:
    if 300 <= answer.status < 400:
        return "the host redirects; name the final address with --base-url"
    if answer.html:
        return _WEB_PAGE
    if answer.status in (404, 405, 501) and answer.meaning is not Meaning.MODEL and answer.endpoint:
        return (
            f"check the base URL (--base-url), whether it has {answer.endpoint} (--endpoint), and the model (--model); "
            "give the run's own command again"
        )
    if answer.status in (400, 404, 422):
        return "check the model and the base URL; give the run's own command again with another one"
    return "check that the key may use this model"


def _unreadable(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    """Each such answer is paid: one is enough to see that all will be alike."""
    if not answer.unreadable or health.succeeded:
        return None
    return StopRun(
        _said(answer, f"the provider answers what cannot be read: {answer.defect or answer.cause}"),
        "is the base URL right, with its /v1? A proxy in between may change the answers",
    )


def _all_alike(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    if not health.all_alike or answer.throttled or answer.of_the_row or answer.kind != health.alike:
        return None
    which = f"{ALIKE} rows in succession" if health.succeeded else f"the first {ALIKE} rows"
    return StopRun(_said(answer, f"{which} all failed alike ({answer.cause})"), _hint(answer, health))


def _option(answer: Answer) -> str | None:
    """The option that changes the parameter which a refusal names."""
    return option_for(f"{answer.param} {answer.message}") if answer.meaning is Meaning.PARAMETER else None


def _hint(answer: Answer, health: Health) -> str:
    if (option := _option(answer)) is not None:
        return option
    if health.succeeded:
        return _LATER[answer.html, answer.meaning is Meaning.MODEL or answer.status == 404]
    if answer.html:
        return _WEB_PAGE
    if _about_configuration(answer):
        return _scope_hint(answer)
    return "nothing has succeeded, so the cause is not in the rows; fix it and resume"


def _about_configuration(answer: Answer) -> bool:
    scope = answer.status in (403, 404, 405, 501) or 300 <= answer.status < 400 or answer.meaning is Meaning.MODEL
    return scope and not answer.of_the_row


def _may_pass(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    garbage = answer.status == 200 or answer.unreadable
    if not (answer.down or garbage or answer.meaning is Meaning.PASSES):
        return None
    if (stop := _asked_too_much(answer, policy)) is not None:
        return stop
    wait = max(_backoff(_attempt(tries.attempts)), answer.retry_after or 0.0)
    if _is_the_providers(answer, health):
        return _given_up(answer, health, policy, now) or RetryIn(wait, counts=False)
    if _used_up(answer, tries, policy):
        hint = f"; {_WEB_PAGE}" if answer.html and garbage and not health.succeeded else ""
        return GiveUp(
            answer.cause, _said(answer, f"{answer.cause} after {tries.attempts} attempts{hint}"), permanent=False
        )
    if not health.spend():
        return GiveUp(answer.cause, f"{answer.cause}; the run's retry budget is spent", permanent=False)
    return RetryIn(wait, counts=True)


def _given_up(answer: Answer, health: Health, policy: Policy, now: float) -> StopRun | None:
    if health.down_since is None or now - health.down_since < policy.give_up_after:
        return None
    return StopRun(
        _said(answer, f"the provider has been down for {_duration(now - health.down_since)}"),
        "resume with the command below when it is back",
    )


def _is_the_providers(answer: Answer, health: Health) -> bool:
    """Whether the failure says nothing about the row: nothing was sent for it, or the provider fails all requests."""
    return answer.down and health.succeeded and (not answer.sent or health.ailing)


def _used_up(answer: Answer, tries: Tries, policy: Policy) -> bool:
    most = GARBAGE_TRIES if answer.status == 200 or answer.unreadable else policy.max_attempts
    deadline = answer.fault is Fault.DEADLINE and tries.deadlines >= DEADLINES
    return deadline or stop_after_attempt(min(most, policy.max_attempts))(_attempt(tries.attempts))


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def _attempt(number: int) -> RetryCallState:
    """The part of tenacity's call state that its waits and stops read."""
    state = RetryCallState(None, None, (), {})  # pyright: ignore[reportArgumentType] - no call is made: the state only carries the number
    state.attempt_number = number
    return state


def _said(answer: Answer, sentence: str) -> str:
    return f"{sentence}: {answer.message}" if answer.message else sentence


_Rule = Callable[[Answer, Tries, Health, Policy, float], Verdict | None]
_RULES: tuple[_Rule, ...] = (
    _lost,
    _added,
    _loading,
    _throttled,
    _configuration,
    _unreadable,
    _all_alike,
    _refused_json,
    _may_pass,
)


class Next(Enum):
    """What a row of the journal needs when a run is resumed."""

    SEND = auto()
    JUDGE = auto()


def go_on(history: History, *, reused: bool = False) -> Next:
    """What an unfinished row needs, from the journal alone; `reused` is whether the reply to an equal request answers it.

    | the journal says                              | the row is                                                      |
    |---|---|
    | a reply is recorded or shared, no outcome     | judged: post-processing and outcome, no call; `decide` asks it  |
    |                                               | again where it does not fit the schema and tries are left       |
    | an attempt left and no answer is known        | sent again, the lost attempt counted as maybe paid              |
    | no attempt, attempts without a reply, or      | sent                                                            |
    | failed, retryable                             |                                                                 |

    Rows that are done, skipped, or failed permanently are not asked about: `journal.pending` leaves them out. A row
    whose request has changed is drift and is settled before the run begins.
    """
    if reused:
        return Next.JUDGE
    return Next.SEND if history.reply is None or history.open else Next.JUDGE
