"""One HTTP exchange with the provider: addresses, trust, the wire, and what went wrong on it.

It sends a request once and tells what came back. It knows nothing of rows, limits or retries, and it does not judge
an answer: that is for `replies` and `retry`.
"""

from batchrun.client.calls import Calls
from batchrun.client.exchange import Client
from batchrun.client.trust import Target
from batchrun.client.wire import MAX_REPLY_BYTES, Token, UnsentError

__all__ = ["MAX_REPLY_BYTES", "Calls", "Client", "Target", "Token", "UnsentError"]
