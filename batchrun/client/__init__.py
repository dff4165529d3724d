"""One HTTP exchange with the provider, without retries."""

from batchrun.client.late_certificates import import_aiohttp

import_aiohttp()

from batchrun.client.calls import Calls  # noqa: E402  imports aiohttp
from batchrun.client.exchange import Client  # noqa: E402  imports aiohttp
from batchrun.client.trust import Target, tls_context  # noqa: E402  imports aiohttp
from batchrun.client.wire import MAX_REPLY_BYTES, Token, UnsentError  # noqa: E402  imports aiohttp

__all__ = ["MAX_REPLY_BYTES", "Calls", "Client", "Target", "Token", "UnsentError", "tls_context"]
