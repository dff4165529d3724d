"""Base URLs: their form, and where a key may be sent."""

from urllib.parse import SplitResult, urlsplit

from batchrun import secrecy
from batchrun.errors import RefusedError
from batchrun.models import Endpoint


def check_base_url(text: str, where: str = "base URL") -> str:
    """Without its last slash. Raises RefusedError."""
    url = text.strip().rstrip("/")
    parts = _split(url, where)
    if parts.scheme not in ("http", "https"):
        raise RefusedError(f"{where} must begin with https:// or http://", "for example https://api.openai.com/v1")
    if "@" in parts.netloc:
        raise RefusedError(f"{where} contains a user name or password", "put the key where the profile reads it")
    if not parts.hostname or parts.query or parts.fragment or not url.isprintable() or " " in url:
        plain = url.partition("#")[0].partition("?")[0]  # a key may follow
        shown = plain if plain == url else f"{plain}…"
        raise RefusedError(
            f"{where} is not a plain address: {shown}", "scheme, host and path only, as in https://host/v1"
        )
    for endpoint in Endpoint:
        if url.endswith(short := endpoint.removeprefix("/v1")):
            raise RefusedError(f"{where} ends with an endpoint: {url}", f"omit {short}; --endpoint selects it")
    return url


def _split(url: str, where: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise RefusedError(f"{where} is not an address: {error}") from error
    return parts


def host_of(base_url: str) -> str:
    return urlsplit(base_url).netloc or "simulated provider"


def is_loopback(base_url: str) -> bool:
    return secrecy.is_loopback(urlsplit(base_url).hostname or "localhost")


def check_secrecy(base_url: str, *, secret: bool, insecure_http: bool) -> None:
    """Raises RefusedError if a key would be sent unencrypted to another machine."""
    if secret and not insecure_http and base_url.startswith("http://") and not is_loopback(base_url):
        raise RefusedError(
            f"the key would be sent unencrypted to {host_of(base_url)}",
            "use an https:// address, or add --insecure-http if this network is yours",
        )
