"""What an answer means for its row and the run.

An answer is judged in this order, first match wins:

1. A 200 with a reply: done; but one that does not fit the schema is requested again, an empty one once. An error inside
   a 200 is judged by its code as a status.
2. An empty account, a spending cap or a model not on the plan, under any status (`meaning`): the run stops.
3. Any other 429, or its equivalent (`limits.refusals`): the gate has closed for all; the row loses no attempt. A
   request that can never fit the limit fails.
4. Answers about the configuration (401; before any success 403, 404, redirects, unknown models): the run stops. A 401
   after a success is confirmed by one more call.
5. Answers that may pass (408, 409, 425, 499, 5xx, a lost connection, the deadline, a 200 without a reply): retried with
   full jitter [1], within the row's attempts and the run's budget [2]; then failed, *retryable*.
6. All else is about the row: failed *permanently*.

If 20 rows in succession failed alike, for a cause not their own, no request sent since succeeded, and a row from
elsewhere in the input fails alike too, the run stops; also if no reply ever fits the schema. No other row is sent to
that lane meanwhile.

After 20 connection or server failures in succession following a success, or when no connection is accepted, a breaker
opens: one try per second, until a request sent since is answered below 500. While failures come from 20 rows or more,
no row loses attempts. Repeated failures of one row while others are answered do not count, or the last failing rows of a
run would look like an outage.

[1] https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
[2] https://sre.google/sre-book/handling-overload/ ("retry budget")
"""

from batchrun.retry.answer import Answer, plain
from batchrun.retry.decision import (
    DEADLINES,
    DONE,
    GARBAGE_TRIES,
    THROTTLED_FOR,
    AskAgain,
    Done,
    GiveUp,
    Next,
    Policy,
    RetryIn,
    StopRun,
    Tries,
    Verdict,
    decide,
    resume_step,
)
from batchrun.retry.health import ALIKE, BUDGET_PER_SUCCESS, BUDGET_START, DOUBTED_FOR, ONE_ROW_429S, SUSPECTS, Health
from batchrun.retry.meaning import Meaning, Meanings, Refusal, compiled

__all__ = [
    "ALIKE",
    "BUDGET_PER_SUCCESS",
    "BUDGET_START",
    "DEADLINES",
    "DONE",
    "DOUBTED_FOR",
    "GARBAGE_TRIES",
    "ONE_ROW_429S",
    "SUSPECTS",
    "THROTTLED_FOR",
    "Answer",
    "AskAgain",
    "Done",
    "GiveUp",
    "Health",
    "Meaning",
    "Meanings",
    "Next",
    "Policy",
    "Refusal",
    "RetryIn",
    "StopRun",
    "Tries",
    "Verdict",
    "compiled",
    "decide",
    "plain",
    "resume_step",
]
