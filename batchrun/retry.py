"""What an answer means for its row and for the run, and what a journaled row still needs.

Theory. An attempt's answer is judged in this order, first match wins:

1.  A 200 with a reply: done; but a reply that does not fit the schema is asked again, and a flagged one may be a failure.
2.  An empty account (402, or a 429 with a billing code, whatever Retry-After says): the run stops, rows stay pending.
3.  Any other 429: the gate has closed for everybody; the row goes back and loses nothing. Only a request that can never
    fit the limit is given up.
4.  Answers about the whole configuration (401; 403, 404, redirects and unknown models before anything succeeded): the
    run stops. A 401 after a success is confirmed by one more call. Later, 403 and 404 are about their row.
5.  Answers that may pass (408, 409, 5xx, a lost connection, the deadline, a 200 that is no reply): retried with full
    jitter [1], within the row's attempts and the run's budget [2]; then the row has failed *for now*.
6.  Everything else is about the row: it has failed *for good*, after one call.

Two rules look at more than one row. When nothing has succeeded and the first 20 rows failed alike, the cause is not in
the rows: the run stops. When 20 connection or server failures follow each other after a success, the provider is down:
a breaker opens and the engine tries once a second until an answer below 500 closes it; while such failures come from 20
rows or more, nobody loses attempts. A row that failed while others were answered is itself suspect: its further
failures say nothing about the provider, or the last rows of a run, all poisonous, would look like an outage.

`Health` folds the answers into what these rules ask; `decide` is a pure function of an answer, the row's tries, the
health and the policy. Waits and stops are tenacity's objects; nothing here sleeps.

[1] https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
[2] https://sre.google/sre-book/handling-overload/ ("retry budget")
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

from tenacity import RetryCallState, stop_after_attempt, wait_random_exponential

from batchrun.models import Fault, Flag, History

ALIKE = 20
"""Rows that must fail alike before anything succeeded, and failures in a row that open the breaker."""
DEADLINES = 2
"""Attempts of one row that may end by the deadline."""
GARBAGE_TRIES = 3
"""Attempts of one row that may bring a 200 that is no reply."""
SUSPECTS = 10_000
"""Rows that are remembered to have failed while others were answered."""
THROTTLED_FOR = 1800.0
"""Seconds of 429s without one success that stop the run."""
BUDGET_START = 50.0
BUDGET_PER_SUCCESS = 0.5
"""Retries a run may make: a start, and so much for each row that was answered."""

BILLING = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "billing_error",
        "credit_balance_exhausted",
        "insufficient_balance",
        "insufficient_funds",
        "payment_required",
    }
)
UNKNOWN_MODEL = frozenset(
    {"model_not_found", "unknown_model", "invalid_model", "model_not_available", "deploymentnotfound"}
)
TOO_LARGE = re.compile(
    r"Request too large|Limit (?P<limit>\d[\d,]{0,18}).*?Requested (?P<requested>\d[\d,]{0,18})", re.IGNORECASE
)

_backoff = wait_random_exponential(multiplier=0.5, max=60)


class Answer(NamedTuple):
    """One attempt's answer, as far as verdicts ask.

    `status` is 0 without a whole answer, then `fault` says why; `type`, `code` and `message` are the error body's.
    `defect` is why a 200 body is no reply; `complaint` why a reply does not fit the schema; `html` marks an HTML body.
    `left` is when the request left, in the engine's monotonic seconds. `disguised` marks a 429 that a gateway passes on
    as its own failure.
    """

    status: int
    fault: Fault | None = None
    sent: bool = True
    type: str = ""
    code: str = ""
    message: str = ""
    html: bool = False
    defect: str | None = None
    complaint: str | None = None
    flags: frozenset[Flag] = frozenset()
    retry_after: float | None = None
    left: float = 0.0
    disguised: bool = False

    @property
    def accepted(self) -> bool:
        """A 200 that carries a reply, whatever is thought of the reply."""
        return self.status == 200 and self.defect is None

    @property
    def billing(self) -> bool:
        """The account is empty or not in order."""
        return self.status == 402 or (self.status in (403, 429) and not BILLING.isdisjoint((self.code, self.type)))

    @property
    def throttled(self) -> bool:
        """A 429 that is about a rate."""
        return (self.status == 429 or self.disguised) and not self.billing

    @property
    def down(self) -> bool:
        """The provider did not answer, or answered for its own failure."""
        if self.disguised:
            return False
        return self.status >= 500 or (self.fault is not None and self.fault is not Fault.TOO_LARGE)

    @property
    def maybe_paid(self) -> bool:
        """The request was sent, no reply came, and nothing says that it was turned away."""
        return self.sent and not self.disguised and (self.status in (0, 408, 409) or self.status >= 500)

    @property
    def cause(self) -> str:
        """A short stable phrase to group failures by."""
        if self.complaint is not None:
            return "does not fit the schema"
        if self.defect is not None:
            return self.defect
        if self.fault is not None:
            return str(self.fault)
        return f"{self.status} {self.code or self.type}".strip()


@dataclass(frozen=True, slots=True)
class Policy:
    """The user's choices that verdicts ask for; durations in seconds."""

    max_attempts: int = 5
    schema_retries: int = 2
    give_up_after: float = 600.0
    max_wait: float | None = None
    fail_on: frozenset[Flag] = frozenset()


class Tries(NamedTuple):
    """What the row has used up, this attempt included."""

    attempts: int
    deadlines: int
    asks: int


class Done(NamedTuple):
    """The reply stands."""


class RetryIn(NamedTuple):
    """Send the row again after `seconds`; `counts` is whether the attempt counts against the row."""

    seconds: float
    counts: bool


class AskAgain(NamedTuple):
    """Send the row again, showing the model its reply and `complaint`."""

    complaint: str


class GiveUp(NamedTuple):
    """The row has failed; `final` is for good, else only for now."""

    cause: str
    message: str
    final: bool


class StopRun(NamedTuple):
    """The run ends; this row and all others that are not finished stay pending."""

    message: str
    hint: str | None


Verdict = Done | RetryIn | AskAgain | GiveUp | StopRun


@dataclass(slots=True)
class Health:
    """What the answers so far say about the provider; `observe` each before `decide` judges it."""

    succeeded: bool = False
    streak: int = 0
    streak_rows: set[int] = field(default_factory=set[int])
    suspects: dict[int, None] = field(default_factory=dict[int, None])
    down_since: float | None = None
    throttled_since: float | None = None
    suspect_since: float | None = None
    alike: str | None = None
    alike_rows: set[int] = field(default_factory=set[int])
    budget: float = BUDGET_START

    def observe(self, answer: Answer, seq: int, now: float) -> None:
        """Fold one answer of the row `seq`; `now` in monotonic seconds."""
        if answer.accepted:
            self.suspects.pop(seq, None)
            self._note_success(answer)
        elif answer.down and seq not in self.suspects:
            self._note_down(seq, now)
        elif answer.status and not answer.down:
            self._note_answer()
        if answer.throttled and self.throttled_since is None:
            self.throttled_since = now
        if not self.succeeded and not answer.throttled:
            self._note_alike(answer, seq)

    @property
    def breaker_open(self) -> bool:
        """The provider was there and is down now."""
        return self.succeeded and self.streak >= ALIKE

    @property
    def ailing(self) -> bool:
        """Failures are the provider's, not the rows'."""
        return self.succeeded and len(self.streak_rows) >= ALIKE

    @property
    def all_alike(self) -> bool:
        """Nothing has succeeded and the first rows all failed in the same way."""
        return not self.succeeded and len(self.alike_rows) >= ALIKE

    def spend(self) -> bool:
        """Take one retry from the run's budget; False when it is spent."""
        if self.budget < 1:
            return False
        self.budget -= 1
        return True

    def _note_success(self, answer: Answer) -> None:
        self.succeeded = True
        self.budget += BUDGET_PER_SUCCESS
        self.throttled_since = None
        self.alike_rows.clear()
        if self.suspect_since is not None and answer.left >= self.suspect_since:
            self.suspect_since = None
        self._note_answer()

    def _note_answer(self) -> None:
        if self.streak_rows:
            self._suspect()
        self.streak = 0
        self.down_since = None

    def _suspect(self) -> None:
        self.suspects |= dict.fromkeys(self.streak_rows)
        self.streak_rows.clear()
        while len(self.suspects) > SUSPECTS:
            del self.suspects[next(iter(self.suspects))]

    def _note_down(self, seq: int, now: float) -> None:
        self.streak += 1
        self.streak_rows.add(seq)
        if self.down_since is None:
            self.down_since = now

    def _note_alike(self, answer: Answer, seq: int) -> None:
        if answer.cause != self.alike:
            self.alike_rows.clear()
            self.alike = answer.cause
        self.alike_rows.add(seq)


def decide(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict:
    """The verdict on an answer that `health` has observed; `now` in monotonic seconds."""
    if answer.accepted:
        return _judge_reply(answer, tries, policy)
    if answer.billing:
        return StopRun(
            _said(answer, "the account's quota or credit is used up"),
            "add credit or raise the limit with the provider; then the command below goes on",
        )
    for rule in _RULES:
        verdict = rule(answer, tries, health, policy, now)
        if verdict is not None:
            return verdict
    return GiveUp(answer.cause, _said(answer, "the provider refused the request"), final=True)


def _judge_reply(answer: Answer, tries: Tries, policy: Policy) -> Verdict:
    failing = sorted(answer.flags & policy.fail_on)
    if failing:
        return GiveUp(failing[0], f"the reply is {failing[0]}, which --fail-on makes a failure", final=True)
    if answer.complaint is None:
        return Done()
    if answer.flags & {Flag.TRUNCATED, Flag.REFUSED, Flag.FILTERED}:
        flag = min(answer.flags)
        return GiveUp(flag, f"the reply is {flag} and does not fit the schema: {answer.complaint}", final=True)
    if tries.asks > policy.schema_retries:
        return GiveUp(answer.cause, answer.complaint, final=True)
    return AskAgain(answer.complaint)


def _throttled(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    if not answer.throttled:
        return None
    if _can_never_fit(answer.message):
        return GiveUp("429 request too large", _said(answer, "the request is larger than the limit"), final=True)
    if policy.max_wait is not None and (answer.retry_after or 0) > policy.max_wait:
        return StopRun(
            f"the provider asks to wait {answer.retry_after:.0f} s, longer than --max-wait allows",
            "go on later with the command below",
        )
    if health.throttled_since is not None and now - health.throttled_since >= THROTTLED_FOR:
        minutes = (now - health.throttled_since) / 60
        return StopRun(
            _said(answer, f"nothing but 429s for {minutes:.0f} minutes"), "go on later with the command below"
        )
    return RetryIn(0.0, counts=False)


def _configuration(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    if answer.status == 401:
        return _unauthorized(answer, health, now)
    scope = answer.status in (403, 404) or 300 <= answer.status < 400
    unknown_model = answer.status == 400 and answer.code.lower() in UNKNOWN_MODEL
    if not (scope or unknown_model) or health.succeeded:
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
        return "the answer is a web page: is the base URL right, with its /v1?"
    if answer.status in (400, 404):
        return "check the model (--model) and the base URL (--base-url)"
    return "check that the key may use this model"


def _all_alike(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    if not health.all_alike or answer.throttled:
        return None
    return StopRun(
        _said(answer, f"the first {ALIKE} rows all failed alike ({answer.cause})"),
        "nothing has succeeded, so the cause is not in the rows; mend it and go on",
    )


def _may_pass(answer: Answer, tries: Tries, health: Health, policy: Policy, now: float) -> Verdict | None:
    garbage = answer.status == 200
    if not (answer.down or garbage or answer.status in (408, 409)):
        return None
    wait = max(_backoff(_attempt(tries.attempts)), answer.retry_after or 0.0)
    if _is_the_providers(answer, health):
        return _given_up(answer, health, policy, now) or RetryIn(wait, counts=False)
    if _used_up(answer, tries, policy):
        return GiveUp(answer.cause, _said(answer, f"{answer.cause} after {tries.attempts} attempts"), final=False)
    if not health.spend():
        return GiveUp(answer.cause, f"{answer.cause}; the run's retry budget is spent", final=False)
    return RetryIn(wait, counts=True)


def _given_up(answer: Answer, health: Health, policy: Policy, now: float) -> StopRun | None:
    if health.down_since is None or now - health.down_since < policy.give_up_after:
        return None
    return StopRun(
        _said(answer, f"the provider has been down for {_duration(now - health.down_since)}"),
        "go on with the command below when it is back",
    )


def _is_the_providers(answer: Answer, health: Health) -> bool:
    """Whether the failure says nothing about the row: nothing left for it, or the provider fails everybody."""
    return answer.down and health.succeeded and (not answer.sent or health.ailing)


def _used_up(answer: Answer, tries: Tries, policy: Policy) -> bool:
    most = GARBAGE_TRIES if answer.status == 200 else policy.max_attempts
    deadline = answer.fault is Fault.DEADLINE and tries.deadlines >= DEADLINES
    return deadline or stop_after_attempt(min(most, policy.max_attempts))(_attempt(tries.attempts))


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def _attempt(number: int) -> RetryCallState:
    """The part of tenacity's call state that its waits and stops read."""
    state = RetryCallState(None, None, (), {})  # pyright: ignore[reportArgumentType] - no call is made: the state only carries the number
    state.attempt_number = number
    return state


def _can_never_fit(message: str) -> bool:
    found = TOO_LARGE.search(message)
    if found is None:
        return False
    if found["limit"] is None:
        return True
    return int(found["requested"].replace(",", "")) > int(found["limit"].replace(",", ""))


def _said(answer: Answer, sentence: str) -> str:
    return f"{sentence}: {answer.message}" if answer.message else sentence


_Rule = Callable[[Answer, Tries, Health, Policy, float], Verdict | None]
_RULES: tuple[_Rule, ...] = (_throttled, _configuration, _all_alike, _may_pass)


class Next(Enum):
    """What a row of the journal needs when a run goes on."""

    SEND = auto()
    JUDGE = auto()


def go_on(history: History) -> Next:
    """What an unfinished row needs, from the journal alone.

    | the journal says                              | the row is                                                      |
    |---|---|
    | a reply is recorded, no outcome               | judged: post-processing and outcome, no call; `decide` asks it  |
    |                                               | again where it does not fit the schema and tries are left       |
    | an attempt left and no answer is known        | sent again, the lost attempt counted as maybe paid              |
    | no attempt, attempts without a reply, or      | sent                                                            |
    | failed for now                                |                                                                 |

    Rows that are done, skipped, or failed for good are not asked about: the journal's window leaves them out. A row
    whose request has changed is drift and is settled before the run begins.
    """
    return Next.SEND if history.reply is None or history.open else Next.JUDGE
