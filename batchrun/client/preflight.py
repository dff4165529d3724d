"""Connecting once before the first request: a wrong address is one error, not a thousand."""

import asyncio
import base64
import errno
import socket
import ssl

from yarl import URL

from batchrun.client.trust import authority, is_loopback
from batchrun.errors import HostError


async def reach(url: URL, proxy: URL | None, tls: ssl.SSLContext | None, *, seconds: float) -> None:
    """Raises HostError."""
    try:
        async with asyncio.timeout(seconds):
            await _connect(url, proxy, tls)
    except TimeoutError as error:
        raise HostError(
            f"{authority(proxy or url)} does not answer within {seconds:g} s.",
            "Check the address and the network, and whether a proxy is needed (HTTPS_PROXY).",
        ) from error


async def _connect(url: URL, proxy: URL | None, tls: ssl.SSLContext | None) -> None:
    reader, writer = await _dial(proxy or url, is_proxy=proxy is not None)
    try:
        if proxy is not None and proxy.scheme == "https":
            await _start_tls(writer, proxy, ssl.create_default_context())
        if proxy is not None and tls is not None:
            await _tunnel(reader, writer, url, proxy)
        if tls is not None:
            await _start_tls(writer, url, tls)
    finally:
        writer.transport.abort()


async def _dial(url: URL, *, is_proxy: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    peer = "The proxy" if is_proxy else "The host"
    try:
        return await asyncio.open_connection(url.host, url.port)
    except socket.gaierror as error:
        raise HostError(
            f"{peer} {url.host} is not found: {error.strerror}.",
            "Check HTTPS_PROXY." if is_proxy else "Check the spelling of base_url, and the network.",
        ) from error
    except OSError as error:
        raise HostError(f"{peer} {authority(url)} cannot be reached: {_reason(error)}.", _dial_hint(url)) from error


def _reason(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    # Several addresses were tried: asyncio puts the messages of all into one error without a number.
    if error.errno is None and str(error).count(f"[Errno {errno.ECONNREFUSED}]") > 1:
        return "connection refused"
    return (error.strerror or str(error)).lower()


_LOCAL_SERVERS = {11434: "ollama serve", 8000: "vllm serve MODEL", 8080: "llama-server -m MODEL"}


def _dial_hint(url: URL) -> str:
    if not is_loopback(url.host or ""):
        return "Check base_url and the network, and whether a proxy is needed (HTTPS_PROXY)."
    command = _LOCAL_SERVERS.get(url.port or 0)
    start = f" Start it with `{command}`." if command else ""
    return f"Is the server running on this machine, and on port {url.port}?{start}"


async def _tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: URL, proxy: URL) -> None:
    # RFC 9110, section 9.3.6
    host = f"{url.host_subcomponent}:{url.port}"
    writer.write(f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{_proxy_authorization(proxy)}\r\n".encode())
    try:
        answer = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError) as error:
        raise HostError(f"The proxy {authority(proxy)} does not answer in HTTP.", "Check HTTPS_PROXY.") from error
    status = answer.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    if len(status) < 2 or status[1] != "200":
        answered = " ".join(status[1:])[:80]
        hint = (
            "The proxy requires a user name and a password: HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT."
            if "407" in status
            else None
        )
        raise HostError(f"The proxy {authority(proxy)} refuses to connect to {host}: {answered}", hint)


def _proxy_authorization(proxy: URL) -> str:
    if not proxy.user:
        return ""
    credentials = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
    return f"Proxy-Authorization: Basic {credentials}\r\n"


async def _start_tls(writer: asyncio.StreamWriter, url: URL, tls: ssl.SSLContext) -> None:
    try:
        await writer.start_tls(tls, server_hostname=url.host)
    except ssl.SSLCertVerificationError as error:
        message, hint = _certificate(error)
        raise HostError(f"The certificate of {authority(url)} cannot be trusted: {message}.", hint) from error
    except ssl.SSLError as error:
        plain = error.reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"}
        reason = (error.reason or str(error)).replace("_", " ").lower()
        reason, hint = ("it does not use TLS on this port", _NOT_TLS) if plain else (reason, None)
        raise HostError(f"TLS with {authority(url)} failed: {reason}.", hint) from error
    except OSError as error:
        raise HostError(f"{authority(url)} closed the connection at the start of TLS.", _NOT_TLS) from error


_CA_HINT = "If you trust its issuer, pass the issuer's certificate with --ca-file or SSL_CERT_FILE."


def _certificate(error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    match error.verify_code:  # X509_V_ERR_* of OpenSSL's x509_vfy.h
        case 10:
            return "it has expired", "The server's owner must renew it; check the clock of this machine."
        case 9:
            return "it is not valid yet", "Check the clock of this machine."
        case 62 | 64:
            return "it belongs to another host", "Check base_url; a proxy or a captive portal may be in between."
        case 18 | 19:
            return "it is self-signed", _CA_HINT
        case _:
            return error.verify_message, _CA_HINT


_NOT_TLS = "If it is an HTTP server without TLS, write http:// in base_url."
