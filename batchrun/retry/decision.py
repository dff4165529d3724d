"""The verdict on an answer, and what a row of an earlier process needs."""

from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from batchrun.models import Fault, Flag, History
from batchrun.retry.answer import Answer
from batchrun.retry.health import ALIKE, DOUBTED_FOR, ONE_ROW_429S, Health
from batchrun.retry.meaning import OF_ADDITIONS, Meaning, option_for

if TYPE_CHECKING:
    from tenacity import RetryCallState

DEADLINES = 2  # Attempts of one row that may end by the deadline
GARBAGE_TRIES = 3  # Attempts of one row that may return a 200 without a reply
EMPTY_ASKS = 1  # Times that a row is requested again after an empty reply
THROTTLED_FOR = 1800.0  # Seconds of 429s without one success that stop the run
_STOPPED = {
    Meaning.EMPTY: (
        "the account's quota or credit is used up",
        "add credit or raise the limit with the provider; then resume with the command below",
    ),
    Meaning.NOT_ON_PLAN: (
        "the account's plan does not have this model",
        "repeat the run's own command with another model, or change the plan with the provider and resume",
    ),
    Meaning.NO_TIER: (
        "the model is not offered in this service tier",
        "repeat the run's own command with another --tier, such as --tier standard, or with another model",
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
_ANOTHER = "a web page answered in place of the provider: check the firewall or proxy, then resume"
_LATER = {
    (False, False): "earlier requests succeeded, so the cause is not in the rows; fix it and resume",
    (
        False,
        True,
    ): "check whether the provider still has the model, and resume when it does; another model needs a new run",
    (True, False): _ANOTHER,
    (True, True): _ANOTHER,
}
# Hints for rows refused alike after a success, by (web page, as if not found).
_WEB_PAGE = "the answer is a web page: check the base URL, with its /v1"


class Policy(NamedTuple):
    max_attempts: int = 5
    schema_retries: int = 2
    give_up_after: float = 600.0  # seconds
    max_wait: float | None = None  # seconds
    fail_on: frozenset[Flag] = frozenset({Flag.EMPTY})
    retry_truncated: int = 0  # times that a truncated reply is requested again, with twice the room


class Tries(NamedTuple):
    """What the row has used up, including this attempt."""

    attempts: int
    deadlines: int
    asks: int


class Done(NamedTuple):
    pass


class RetryIn(NamedTuple):
    seconds: float
    counts: bool  # it uses an attempt


class AskAgain(NamedTuple):
    complaint: str
    more_room: bool = False  # twice the output limit, instead of the reply and the complaint


class GiveUp(NamedTuple):
    cause: str
    message: str
    permanent: bool


class StopRun(NamedTuple):
    """Unfinished rows stay pending."""

    message: str
    hint: str | None


Verdict = Done | RetryIn | AskAgain | GiveUp | StopRun


DONE = Done()


def decide(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict:
    """After `health.observe`; `now` in monotonic seconds."""
    if answer.accepted:
        return _judge_reply(answer, tries, health, policy)
    if answer.meaning is not None and answer.meaning in _STOPPED:
        reason, hint = _STOPPED[answer.meaning]
        return StopRun(_with_message(answer, reason), hint)
    if answer.meaning is Meaning.NEVER_FITS:
        return GiveUp(answer.cause, _with_message(answer, "the request is larger than the limit"), permanent=True)
    for rule in _RULES:
        verdict = rule(answer, tries, health, policy, now)
        if verdict is not None:
            return verdict
    hint = _option(answer)
    reason = _with_message(answer, "the provider refused the request")
    return GiveUp(answer.cause, f"{reason}; {hint}" if hint else reason, permanent=True)


def _judge_reply(answer: Answer, tries: Tries, health: Health, policy: Policy) -> Verdict:
    flags, complaint = answer.flags, answer.complaint
    if not flags:
        return DONE if complaint is None else _misfit(answer, complaint, tries, health, policy)
    room = answer.limited and policy.retry_truncated and tries.asks <= policy.retry_truncated
    if room and Flag.TRUNCATED in flags:
        return AskAgain("the reply is truncated", more_room=True)
    if Flag.EMPTY in flags:
        return _without_answer(answer, tries, health, policy)
    if failing := sorted(flags & policy.fail_on):
        return GiveUp(failing[0], f"the reply is {failing[0]}, which --fail-on makes a failure", permanent=True)
    return DONE if complaint is None else _misfit(answer, complaint, tries, health, policy)


def _misfit(answer: Answer, complaint: str, tries: Tries, health: Health, policy: Policy) -> Verdict:
    if unlikely := sorted(answer.flags & {Flag.TRUNCATED, Flag.REFUSED, Flag.FILTERED}):
        reason = f"the reply is {unlikely[0]} and does not fit the schema: {complaint}"
        return GiveUp(unlikely[0], reason, permanent=True)
    if health.none_fits and policy.schema_retries and answer.check is not None:
        return StopRun(
            f"none of the replies to {len(health.misfits)} rows passes its checks: {complaint}",
            "choose another model or prompt, or leave checks out (--check none)",
        )
    if health.none_fits and policy.schema_retries:
        return StopRun(
            f"none of the replies to {len(health.misfits)} rows fits the schema: {complaint}",
            "repeat the run's own command with a model or server that supports schemas, or set the format that this one "
            "accepts (--param 'response_format={…}'); with --schema-retries 0 such rows fail and the run continues",
        )
    if tries.asks > policy.schema_retries:
        return GiveUp(answer.cause, complaint, permanent=True)
    return AskAgain(complaint)


def _without_answer(answer: Answer, tries: Tries, health: Health, policy: Policy) -> Verdict:
    # It was paid for, and the next may be alike: one more call only.
    if health.none_fits and Flag.EMPTY in policy.fail_on:
        return StopRun(
            f"none of the replies to {len(health.misfits)} rows has an answer: {answer.complaint}",
            "raise --max-output-tokens, or reduce the model's thinking; with --fail-on -empty such rows count as done",
        )
    if tries.asks <= EMPTY_ASKS:
        return AskAgain(f"no answer: {answer.complaint}")
    if Flag.EMPTY not in policy.fail_on and not answer.checked:
        return DONE
    hint = "" if answer.checked else "; with --fail-on -empty such rows count as done"
    return GiveUp(answer.cause, f"two replies without an answer: {answer.complaint}{hint}", permanent=True)


def _refused_json(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    return _misfit(answer, answer.message, tries, health, policy) if answer.misfit else None


def _lost(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    # It shows nothing about the row.
    return RetryIn(0.0, counts=False) if answer.fault in (Fault.OUTAGE, Fault.LOST) else None


def _added(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    # The next attempt chooses its tier anew, and waits there.
    if answer.meaning not in OF_ADDITIONS:
        return None
    if answer.waited >= THROTTLED_FOR:
        return StopRun(
            _with_message(answer, f"no capacity in the service tier for {_duration(answer.waited)}"),
            "resume later with the command below, or with a tier to fall back to, such as --tier flex,standard",
        )
    return RetryIn(0.0, counts=False)


def _loading(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    if answer.meaning is not Meaning.LOADING:
        return None
    waited = 0.0 if health.loading_since is None else now - health.loading_since
    if waited >= policy.give_up_after:
        return StopRun(
            _with_message(answer, f"the server has been loading its model for {_duration(waited)}"),
            "resume with the command below when it is ready",
        )
    return RetryIn(answer.retry_after or 0.0, counts=False)


def _throttled(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    if not answer.throttled:
        return None
    if (stop := _wait_too_long(answer, policy)) is not None:
        return stop
    refused = 0.0 if health.throttled_since is None else now - health.throttled_since
    if answer.meaning is not None and health.doubts(answer) and refused >= DOUBTED_FOR:
        reason, hint = _DOUBTED[answer.meaning]
        return StopRun(_with_message(answer, reason), hint)
    if health.one_row_429s[1] >= ONE_ROW_429S:
        return GiveUp(
            answer.cause,
            _with_message(answer, f"refused {ONE_ROW_429S} times while other rows were answered"),
            permanent=False,
        )
    if refused >= THROTTLED_FOR:
        return StopRun(
            _with_message(answer, f"every answer for {_duration(refused)} was a 429"),
            "resume later with the command below",
        )
    return RetryIn(0.0, counts=False)


def _wait_too_long(answer: Answer, policy: Policy) -> StopRun | None:
    if policy.max_wait is None or (answer.retry_after or 0) <= policy.max_wait:
        return None
    return StopRun(
        _with_message(answer, f"the provider requires a wait of {answer.retry_after:.0f} s, longer than --max-wait"),
        "resume later with the command below",
    )


def _configuration(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    if answer.meaning is Meaning.KEY:
        return _unauthorized(answer, health, now)
    if not _about_configuration(answer) or health.succeeded:
        return None
    return StopRun(
        _with_message(answer, f"the provider answered {answer.status} before anything succeeded"), _scope_hint(answer)
    )


def _unauthorized(answer: Answer, health: Health, now: float) -> Verdict:
    if not health.succeeded or (health.suspect_since is not None and answer.left >= health.suspect_since):
        return StopRun(_with_message(answer, "the provider refused the key"), "check the key that the profile names")
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
            "repeat the run's own command with the right ones"
        )
    if answer.status in (400, 404, 422):
        return "check the model and the base URL; repeat the run's own command with the right ones"
    return "check that the key may use this model"


def _unreadable(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    # Every such answer is paid, and one shows that all are alike.
    if not answer.unreadable or health.succeeded:
        return None
    return StopRun(
        _with_message(answer, f"the provider's answer cannot be read: {answer.defect or answer.cause}"),
        "check the base URL, with its /v1; a proxy may be changing the answers",
    )


def _all_alike(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    if not health.all_alike or answer.throttled or answer.of_the_row or answer.kind != health.alike:
        return None
    which = f"{ALIKE} rows in succession" if health.succeeded else f"the first {ALIKE} rows"
    return StopRun(_with_message(answer, f"{which} all failed alike ({answer.cause})"), _hint(answer, health))


def _option(answer: Answer) -> str | None:
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
    return "no request has succeeded, so the cause is not in the rows; fix it and resume"


def _about_configuration(answer: Answer) -> bool:
    scope = answer.status in (403, 404, 405, 501) or 300 <= answer.status < 400 or answer.meaning is Meaning.MODEL
    return scope and not answer.of_the_row


def _may_pass(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    garbage = answer.status == 200 or answer.unreadable
    if not (answer.down or garbage or answer.meaning is Meaning.PASSES):
        return None
    if (stop := _wait_too_long(answer, policy)) is not None:
        return stop
    wait = max(_backoff(tries.attempts), answer.retry_after or 0.0)
    if answer.down and health.succeeded and (not answer.sent or health.is_failing):
        # The failure is the provider's, not the row's.
        return _down_too_long(answer, health, policy, now) or RetryIn(wait, counts=False)
    if _used_up(answer, tries, policy):
        hint = f"; {_WEB_PAGE}" if answer.html and garbage and not health.succeeded else ""
        return GiveUp(
            answer.cause,
            _with_message(answer, f"{answer.cause} after {tries.attempts} attempts{hint}"),
            permanent=False,
        )
    if not health.spend():
        return GiveUp(answer.cause, f"{answer.cause}; the run's retry budget is used up", permanent=False)
    return RetryIn(wait, counts=True)


def _down_too_long(answer: Answer, health: Health, policy: Policy, now: float) -> StopRun | None:
    if health.down_since is None or now - health.down_since < policy.give_up_after:
        return None
    return StopRun(
        _with_message(answer, f"the provider has been down for {_duration(now - health.down_since)}"),
        "resume with the command below when it is back",
    )


def _used_up(answer: Answer, tries: Tries, policy: Policy) -> bool:
    garbage = answer.status == 200 or answer.unreadable
    most = GARBAGE_TRIES + tries.asks if garbage else policy.max_attempts  # what was requested again was a reply
    deadline = answer.fault is Fault.DEADLINE and tries.deadlines >= DEADLINES
    if deadline:
        return True
    from tenacity import stop_after_attempt  # noqa: PLC0415  only a failure pays for it

    return stop_after_attempt(min(most, policy.max_attempts))(_attempt(tries.attempts))


def _backoff(attempts: int) -> float:
    """Seconds."""
    from tenacity import wait_random_exponential  # noqa: PLC0415  only a failure pays for it

    return wait_random_exponential(multiplier=0.5, max=60)(_attempt(attempts))


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def _attempt(number: int) -> "RetryCallState":
    from tenacity import RetryCallState  # noqa: PLC0415  only a failure pays for it

    # Only what tenacity's waits and stops read.
    state = RetryCallState(None, None, (), {})  # pyright: ignore[reportArgumentType] - no call is made: the state only carries the number
    state.attempt_number = number
    return state


def _with_message(answer: Answer, sentence: str) -> str:
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
    SEND = auto()
    JUDGE = auto()


def resume_step(history: History, *, reused: bool = False) -> Next:
    """What an unfinished row needs; `reused`: the reply to an equal request answers it.

    An attempt that was sent without an answer is sent again, and counts as possibly billed.
    """
    if reused:
        return Next.JUDGE
    return Next.SEND if history.reply is None or history.open else Next.JUDGE
