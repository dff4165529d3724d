"""The address, the proxy, the certificates and secret headers."""

import ipaddress
import ssl
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from yarl import URL

from batchrun.errors import RefusedError
from batchrun.secrecy import is_loopback


class Target(NamedTuple):
    """Without credentials."""

    host: str
    proxy: str | None

    def __str__(self) -> str:
        return f"{self.host} through {self.proxy}" if self.proxy else self.host


def parse_base_url(base_url: str) -> URL:
    """Raises RefusedError."""
    try:
        url = URL(base_url)
    except ValueError as error:
        raise RefusedError(f"base_url is not a URL: {error}", _URL_HINT) from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise RefusedError(f"base_url is not an http or https URL: {_shown(url)}", _URL_HINT)
    if url.raw_user or url.raw_password:
        raise RefusedError(
            "base_url contains credentials", "Put the key into the variable that api_key_env of the profile names."
        )
    return url


_URL_HINT = "Write it with scheme, host and path, such as https://api.openai.com/v1."


def check_key(key: str) -> None:
    """Raises RefusedError."""
    if not key.isascii():
        raise RefusedError("The API key contains characters outside ASCII.", _KEY_HINT)
    if any(character.isspace() or not character.isprintable() for character in key):
        raise RefusedError("The API key contains a blank, a line break or a control character.", _KEY_HINT)
    if '"' in key or "'" in key:
        raise RefusedError("The API key contains quotes.", _KEY_HINT)


_KEY_HINT = "Copy the key again, without quotes and without a line break."


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises RefusedError (RFC 9110, section 5)."""
    for name, value in headers.items():
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise RefusedError(f"{name!r} is not a valid header name.", "Use letters, digits, - and _ only.")
        if not value.isascii() or not value.isprintable():
            raise RefusedError(f"The value of the header {name} contains a control or non-ASCII character.")


def check_plain_http(url: URL, *, secret: bool, allowed: bool) -> None:
    """Raises RefusedError for a secret sent to another machine."""
    if url.scheme == "http" and secret and not allowed and not is_loopback(url.host or ""):
        raise RefusedError(
            f"The key would cross the network unencrypted to {authority(url)}.",
            "Use https, omit the key if the server needs none, or allow it with allow_insecure_http.",
        )


def proxy_for(url: URL, environ: Mapping[str, str]) -> URL | None:
    """Raises RefusedError. Lower case wins, as in curl."""
    host = url.host or ""
    if is_loopback(host):
        return None
    proxies = _proxies(environ)
    address = proxies.get(url.scheme) or proxies.get("all")
    if not address or _goes_direct(host, url.port, proxies["no"]):
        return None
    return _proxy_url(address)


def _goes_direct(host: str, port: int | None, exceptions: str) -> bool:
    for entry in exceptions.lower().replace(",", " ").split():
        name = entry.removesuffix(f":{port}").lstrip(".")
        if entry == "*" or host == name or host.endswith(f".{name}") or _in_network(host, name):
            return True
    return False


def _in_network(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    names = ("http", "https", "all", "no")
    found = {name: environ.get(f"{name}_proxy", environ.get(f"{name.upper()}_PROXY", "")) for name in names}
    if "REQUEST_METHOD" in environ:  # a CGI process: HTTP_PROXY is a header of the visitor
        found["http"] = environ.get("http_proxy", "")
    return found


def _proxy_url(address: str) -> URL:
    try:
        proxy = URL(address if "://" in address else f"http://{address}")
    except ValueError as error:
        raise RefusedError("The proxy in the environment is not a URL.", _PROXY_HINT) from error
    if proxy.scheme not in {"http", "https"} or not proxy.host:
        raise RefusedError(f"The proxy {_shown(proxy)} is not an HTTP proxy.", _PROXY_HINT)
    return proxy


_PROXY_HINT = "Set HTTPS_PROXY to http://host:port, or name the provider's host in NO_PROXY."


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Certificates of the system and of `ca_file`. Raises RefusedError."""
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:
            reason = error.strerror or "it holds no certificate"
            raise RefusedError(f"The CA file {ca_file} cannot be used: {reason}.") from error
    return context


def is_private(url: URL) -> bool:
    """Plain HTTP, a private address or name (RFC 1918, 4193, 6762, 8375, ICANN on `.internal`)."""
    host = (url.host or "").rstrip(".")
    if url.scheme == "http" or is_loopback(host) or ("." not in host.removeprefix("[") and ":" not in host):
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host.endswith((".local", ".internal", ".home.arpa"))


def authority(url: URL) -> str:
    return url.host_port_subcomponent or ""


def _shown(url: URL) -> str:
    return str(url.with_user(None)) if url.raw_user else str(url)


_SECRET_NAMES = ("auth", "cookie", "key", "secret", "token")


def secret_values(headers: Iterable[tuple[str, str]]) -> list[str]:
    """Secret headers' values, with and without their scheme."""
    values = [value for name, value in headers if any(word in name.lower() for word in _SECRET_NAMES)]
    return [part for value in values for part in {value, value.rpartition(" ")[2]}]
