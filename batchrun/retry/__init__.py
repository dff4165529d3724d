"""What an answer means for its row and for the run, and what a journaled row still needs.

Theory. An attempt's answer is judged in this order, first match wins:

1.  A 200 with a reply: done; but a reply that does not fit the schema is asked again, one without an answer once, and a
    flagged one may be a failure. An error inside a 200 is judged as the status that its code is.
2.  An empty account, a cap on spending or a model that the plan does not have, by whatever status, code or words
    (`meaning`), whatever Retry-After says: the run stops, rows stay pending.
3.  Any other 429, and what means the same under another status (also what `limits.refusals` finds to): the gate has closed for all rows; the row goes back and
    loses nothing. Only a request that can never fit the limit is given up.
4.  Answers about the whole configuration (401; 403, 404, redirects and unknown models before anything succeeded): the
    run stops. A 401 after a success is confirmed by one more call. Later, 403 and 404 are about their row.
5.  Answers that may pass (408, 409, 425, 499, 5xx, a 4xx whose words say so, a lost connection, the deadline, a 200 that
    is no reply): retried with full jitter [1], within the row's attempts and the run's budget [2]; then the row has
    failed, *retryable*.
6.  Everything else is about the row: it has failed *permanently*, after one call.

Two rules look at more than one row. When 20 rows one after another failed alike, for a cause that is not the row's own
(too long, too large, filtered), no request that left since the first of them succeeded, and a row from elsewhere in the
input fails alike as well, the cause is not in the rows: the run stops, and these rows stay pending. The same holds for
replies where none fits the schema. All ways in which a 200 is no reply are alike, and before the first success all in
which a provider is down.

When 20 connection or server failures follow each other after a success, or the host accepts no connection while nothing
comes, the provider is down: a breaker opens and the engine tries once a second, on fresh connections, until an answer
below 500 to a request that left since then closes it. An attempt that hangs since before is ended when new connections
are accepted again (`engine/outage`); its row loses nothing. While such failures come from 20 rows or more, no row
loses attempts. A row that failed while others were answered is itself suspect: its further failures say nothing about
the provider, or the last rows of a run, all of them failing, would look like an outage.

`health` folds the answers into what these rules ask; `decision` is a pure function of an `answer`, the row's tries, the
health and the policy to a `verdict`; `go_on` is the same for a row that an earlier process left. Waits and stops are
tenacity's objects; nothing here sleeps.

[1] https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
[2] https://sre.google/sre-book/handling-overload/ ("retry budget")
"""

from batchrun.retry.answer import Answer, plain
from batchrun.retry.decision import DEADLINES, GARBAGE_TRIES, THROTTLED_FOR, Next, decide, go_on
from batchrun.retry.health import ALIKE, BUDGET_PER_SUCCESS, BUDGET_START, DOUBTED_FOR, LONELY, SUSPECTS, Health
from batchrun.retry.meaning import Meaning, Meanings, Refusal, compiled
from batchrun.retry.verdict import AskAgain, Done, GiveUp, Policy, RetryIn, StopRun, Tries, Verdict

__all__ = [
    "ALIKE",
    "BUDGET_PER_SUCCESS",
    "BUDGET_START",
    "DEADLINES",
    "DOUBTED_FOR",
    "GARBAGE_TRIES",
    "LONELY",
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
    "go_on",
    "plain",
]
