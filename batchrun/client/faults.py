"""Errors of the wire as faults, and whether the request may have reached the provider."""

import ssl
from typing import NamedTuple

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError, DecompressSizeError, HttpProcessingError

from batchrun.client.wire import TooLargeError
from batchrun.models import Fault

WIRE_ERRORS = (aiohttp.ClientError, OSError, HttpProcessingError, TooLargeError)
"""All that an exchange may raise, apart from cancellation."""

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
    """`sent` is False only where the request certainly did not leave."""

    fault: Fault
    detail: str
    sent: bool


def explain(error: BaseException) -> Verdict:
    """Classify one of `WIRE_ERRORS`. The detail may quote the server and is not masked."""
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
