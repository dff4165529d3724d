"""When a request may be sent: requests and tokens per minute, concurrency, and what the provider states about them.

All requests to one limit scope (host, key, model) pass one `Gate`, first in first out:

    admit ──► (the journal commits the attempt) ──► leave ──► … exchange … ──► settle
                                                      └─► cancel

The first of these that holds the next request back is the reason shown to users:

1. *Paused* by the user.
2. *Cool-down* after a 429 (`cooldown`): until Retry-After or a jittered back-off.
3. *Half-open*: single requests while the provider is down, loads its model or reports a used-up quota.
4. *First only*: while rows fail alike, only the one from elsewhere that is tried.
5. *Concurrency* (`concurrency`).
6. *Requests* (`buckets.Spacing`): the lowest of the user's, the stated and the learned rate.
7. *Tokens* (`buckets.TokenBucket`): reserved by an estimate, settled with the usage.
8. *Stated limits* (`stated`).

A 429 counts once per burst: requests sent before the gate closed change nothing again. Headers count only if they
answer a later request than the last ones used. Times are the loop's.

**Concurrency.** Slow start doubles the limit until a round completes no more per second than the last; Little's law
then gives a sufficient size. Later a smaller size that completes as much is better (the rest only queued at the
provider), a larger one must complete more. A 429 about concurrency cuts the limit to the number let through beside it.
If a server reports its queue (`queue`), that decides.

**Learned rate** (`learning`). *Start*: the rate doubles until the first 429. *Search*: from just below what was
admitted then, it grows ever faster. *Hold*: it falls below the rate of a refused request and returns along a cubic (as
RFC 9438 does with a window). If 429s continue after four falls, a large share means a lower limit, a small one is
random, unless single requests in succession were refused with pauses (a used-up window). The search begins again when
headers show room, or when so many answers without a 429 would be chance in 1 of 20 cases. What a bucket admits from one
refusal to the next bounds its rate (`rates.Refill`). Figures without a source were tuned over all cells of
benchmarks/limits_lab.py.

**Random 429s** (`random_429s`) change nothing; their Retry-After applies to their own request. A limit refuses nothing
below it, and more the further it is exceeded. So two measures use the *size* at which requests were sent (requests per
second, or number in flight): the *score*, Page's CUSUM (E. S. Page, Continuous Inspection Schemes, Biometrika 41,
1954), of the log likelihood ratio of twice the usual share plus 0.05; and the *proven* size, the largest that every
limit admits. Three 429s to clearly smaller requests, at most about a tenth of the requests meanwhile, are random. An
alarm of the score always counts as a limit and resets what was proven.

**Stated limits** do not state their refill, unless their window is named. Answers are tested against hypotheses, as
intervals that include all rounding; a contradicted one is out until the limit changes:

* FULL: `reset` is the time until the limit is full. Then (limit - remaining) / reset is the refill, equal in all
  answers; or, if the provider holds less than it states, the fall of `remaining` over the growth of `reset`.
* END: `reset` is the time until the window ends, on which all answers of a window agree.
* REFILL: else, `remaining` falls by less than was sent; the difference is the refill.

While none or several are left, only `remaining` counts. A limit per hour or longer is a budget without a rate. If a
bucket refuses although it has room, requests are spaced at its refill, until `remaining` stays near the limit.

**Unnamed refusals** (`refusals`): a server with N slots refuses exactly while N requests are there, a rate limit at any
number. So the same number beside the refused one in three bursts, with never more let through, shows a limit of
concurrency.
"""

from batchrun.limits.gate import Gate
from batchrun.limits.headers import (
    NO_HINTS,
    Hints,
    Stated,
    hints,
    parse_duration,
    parse_number,
    parse_reset,
    parse_retry_after,
)
from batchrun.limits.pages import PageGate
from batchrun.limits.queue import Queue
from batchrun.limits.queue import read as read_queue
from batchrun.limits.records import (
    Feedback,
    GateClosed,
    GateView,
    HandedBack,
    Limits,
    NeverFits,
    PagePermit,
    Permit,
    Throttle,
)

__all__ = [
    "NO_HINTS",
    "Feedback",
    "Gate",
    "GateClosed",
    "GateView",
    "HandedBack",
    "Hints",
    "Limits",
    "NeverFits",
    "PageGate",
    "PagePermit",
    "Permit",
    "Queue",
    "Stated",
    "Throttle",
    "hints",
    "parse_duration",
    "parse_number",
    "parse_reset",
    "parse_retry_after",
    "read_queue",
]
