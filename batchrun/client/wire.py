"""The connection to the provider: its interface, and its errors as faults."""

import ssl
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, NamedTuple, Protocol

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError, DecompressSizeError, HttpProcessingError
from yarl import URL

from batchrun.models import Endpoint, Fault

# the largest reply that is read, decompressed
MAX_REPLY_BYTES = 64 * 1024 * 1024

UNSENT = "there was no connection yet"
# called before every request
Token = Callable[[], Awaitable[str]]


# status, headers, decompressed body
Answer = tuple[int, Mapping[str, str], bytes]


class Recipe(NamedTuple):
    urls: Mapping[Endpoint, URL]
    headers: Mapping[str, str]


NO_RECIPE = Recipe({}, {})


class TooLargeError(Exception):
    pass


class UnsentError(Exception):
    pass


class Wire(Protocol):
    """`post` tries once, follows no redirect, returns every answer, and raises `WIRE_ERRORS`.

    After `renew` no open connection is reused.
    """

    async def open(self) -> None: ...

    def post(self, endpoint: Endpoint, body: bytes) -> Coroutine[Any, Any, Answer]: ...

    def renew(self) -> None: ...

    async def close(self) -> None: ...


# all that an exchange may raise, apart from cancellation
WIRE_ERRORS = (aiohttp.ClientError, OSError, HttpProcessingError, TooLargeError)

_LONGEST_DETAIL = 500

_RULES: tuple[tuple[type[BaseException], Fault], ...] = (
    (TooLargeError, Fault.TOO_LARGE),
    (aiohttp.ClientConnectorDNSError, Fault.DNS),
    (aiohttp.ClientProxyConnectionError, Fault.PROXY),
    (aiohttp.ClientHttpProxyError, Fault.PROXY),
    (aiohttp.ClientConnectorCertificateError, Fault.TLS),
    (aiohttp.ClientSSLError, Fault.TLS),
    (aiohttp.ConnectionTimeoutError, Fault.CONNECT),
    (aiohttp.ClientConnectorError, Fault.CONNECT),
    (aiohttp.ClientConnectionError, Fault.RESET),
    (aiohttp.ClientPayloadError, Fault.RESET),
    (aiohttp.ClientError, Fault.PROTOCOL),
    (HttpProcessingError, Fault.PROTOCOL),
    (ssl.SSLError, Fault.RESET),
    (TimeoutError, Fault.RESET),
    (OSError, Fault.RESET),
)

_BEFORE_SENDING = frozenset({Fault.DNS, Fault.REFUSED, Fault.TLS, Fault.PROXY, Fault.CONNECT})


class Verdict(NamedTuple):
    # `sent` is False only if it certainly was not
    fault: Fault
    detail: str
    sent: bool


def explain(error: BaseException) -> Verdict:
    """The detail may quote the server and is not masked."""
    fault = _fault(error)
    detail = " ".join(str(error).split()) or type(error).__name__
    return Verdict(fault, detail[:_LONGEST_DETAIL], fault not in _BEFORE_SENDING)


def _fault(error: BaseException) -> Fault:
    fault = next((fault for kind, fault in _RULES if isinstance(error, kind)), Fault.PROTOCOL)
    if fault is Fault.CONNECT and isinstance(error, aiohttp.ClientConnectorError):
        return Fault.REFUSED if isinstance(error.os_error, ConnectionRefusedError) else Fault.CONNECT
    if fault is Fault.RESET and isinstance(error.__cause__, ContentEncodingError):
        return Fault.ENCODING
    if fault is Fault.RESET and isinstance(error.__cause__, DecompressSizeError):
        return Fault.PROTOCOL
    return fault
