"""When a request may be sent: requests and tokens per minute, concurrency, and what the provider states about them.

All requests to one limit scope (host, key, model) pass one `Gate`, first in first out:

    admit ──► (the journal commits the attempt) ──► leave ──► … exchange … ──► settle
                                                      └─► cancel

The first of these that holds the next request back is the reason shown to users:

1. *Paused* by the user.
2. *Cool-down* after a 429 (`cooldown`): until Retry-After or a jittered back-off, for all requests.
3. *Half-open*: single requests while the provider is down, loads its model or reports a used-up quota.
4. *First only*: while rows fail alike, only the one from elsewhere that is tried.
5. *Concurrency* (`concurrency`): up to the cap, from 16 while a larger number completes more, or by the server's queue
(`queue`).
6. *Requests* (`buckets.Spacing`): the lowest of the user's, the stated and the learned rate (`learning`); half of it
for two seconds after a cool-down.
7. *Tokens* (`buckets.TokenBucket`): reserved by an estimate, settled with the usage.
8. *Stated limits* (`stated`): their meaning is inferred from how figures move (`inference`). One that is not understood
bounds only by `remaining`; one per hour or longer is a budget without a rate.

One timer wakes the first in the queue. `leave` exists because the journal's commit lies between admission and sending:
the gate may close meanwhile, and a slow commit releases many requests at once.

A 429 counts once per burst: requests sent before the gate closed change nothing again. Random 429s (`random_429s`)
change nothing; their Retry-After applies to their own request. Headers count if they answer a later request than the
last ones used, and `remaining` less what was sent since. Times are the loop's.
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
