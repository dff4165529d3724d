"""When a request may leave: requests and tokens per minute, concurrency, and what the provider says of them.

Theory of operation
-------------------
All requests of a run to one limit scope (host, key, model) pass one `Gate`, first in first out:

    admit ──► (the journal commits the attempt) ──► leave ──► … exchange … ──► settle
                                                      └─► cancel

The first in the queue may leave when nothing of this list holds it back; the first thing that does is the reason
that every user interface shows:

1. *Paused* by the user.
2. *Closed* after a 429 (`closing`): until Retry-After, or a jittered back-off, for all requests.
3. *Trickle*: single requests, while the provider is down, loads its model or speaks of a used up quota.
4. *Concurrency* (`concurrency`): a window under the cap, from 16 upwards while a larger one completes more, or as the
   server's own queue says (`queue`).
5. *Requests* (`buckets.Spacing`): spaced at the lowest of the user's rate, the rate of a window that answers state,
   and the rate that 429s have taught (`learning.LearnedRate`); after a closing at half of it, which returns over two seconds.
6. *Tokens* (`buckets.TokenBucket`): reserved by an estimate (`learning.Estimate`), settled with the actual usage.
7. *What remains* of each limit that answers state (`stated.StatedLimit`): what they mean is inferred from how their
   figures move (`inference`), never assumed; one that is not understood holds nothing back but by what remains. A limit
   for an hour or longer is a budget: it gives no pace.

There is no polling: a request that cannot be admitted is a future in a queue, and one timer wakes the first. `leave` exists
because the journal's commit lies between admission and departure: the gate may have closed meanwhile, a slow commit
lets many go at once, and what the provider counts is when a request arrives.

A 429 is news only once: requests that left before the gate closed belong to the same burst, and change no rate and no
window again. 429s at random, which come whatever the rate or the window (`chance`), are no news at all: the gate stays
open, no rate is lowered and no window cut, and the wait that such a 429 announces is kept by its own request alone
(`settle` returns it). Headers are news only when they answer a later request than the last ones used, and `remaining`
is believed less what has left since that request left. All times are of the loop's monotonic time; a machine
that was suspended finds every bucket filled once, not more.
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
from batchrun.limits.queue import Queue
from batchrun.limits.queue import read as read_queue
from batchrun.limits.records import (
    Feedback,
    GateClosed,
    GateView,
    HandedBack,
    Limits,
    NeverFits,
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
