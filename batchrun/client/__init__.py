"""One HTTP exchange with the provider: addresses, trust, the connection, and its errors. No judging, no retries."""

from batchrun.client.calls import Calls
from batchrun.client.exchange import Client
from batchrun.client.trust import Target
from batchrun.client.wire import MAX_REPLY_BYTES, Token, UnsentError

__all__ = ["MAX_REPLY_BYTES", "Calls", "Client", "Target", "Token", "UnsentError"]
