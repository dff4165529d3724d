"""Posting a JSON document to the user's address, with certificates, proxy and limits as for the provider."""

import os

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from batchrun.client.session import SessionWire
from batchrun.client.trust import proxy_for, tls_context
from batchrun.client.wire import Recipe, TooLargeError
from batchrun.errors import RefusedError

_MAX_ANSWER_BYTES = 1024 * 1024


async def deliver(address: str, body: bytes, *, ca_file: str | None) -> str | None:
    """Post the document; returns the error, without the address, which may be secret, or None. A redirect is an error."""
    try:
        url = URL(address)
        tls, proxy = tls_context(ca_file), proxy_for(url, os.environ)
    except RefusedError as error:
        return error.message
    headers = CIMultiDict({"content-type": "application/json", "user-agent": "batchrun"})
    wire = SessionWire(Recipe({}, headers), tls=tls, proxy=proxy, max_reply_bytes=_MAX_ANSWER_BYTES)
    try:
        await wire.open()
        status, _, _ = await wire.carry(url, None, body)
    except TooLargeError:
        return None  # it was taken
    except (aiohttp.ClientError, OSError) as error:
        return type(error).__name__
    finally:
        await wire.close()
    return None if 200 <= status < 300 else f"status {status}"
