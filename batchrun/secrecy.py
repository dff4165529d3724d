"""Where secrets may go, and how they are kept out of what people read: providers echo them, libraries quote them."""

import base64
import ipaddress
from collections.abc import Iterable
from urllib.parse import quote

_SHORTEST = 8
_SAID = "[key]"


class Mask:
    """Takes known secrets out of texts: as they are, as base64, as they stand in a URL, with escaped slashes; also the
    beginning of one where a text was cut off in the middle of it.

    A secret shorter than eight characters is a placeholder (`EMPTY`, `ollama`) and stays.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._spellings: list[str] = []
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        """Take these out from now on as well."""
        spellings = {form for secret in secrets if len(secret) >= _SHORTEST for form in _spellings(secret)}
        self._spellings = sorted({*self._spellings, *spellings}, key=len, reverse=True)

    def also(self, other: "Mask") -> None:
        """Take out what another takes out as well."""
        self._spellings = sorted({*self._spellings, *other._spellings}, key=len, reverse=True)

    def text(self, text: str) -> str:
        """The text without the secrets."""
        for spelling in self._spellings:
            text = text.replace(spelling, _SAID)
        for spelling in self._spellings:
            text = _without_beginning(text, spelling)
        return text


def _without_beginning(text: str, secret: str) -> str:
    """The text without the beginning of the secret that it ends with, if it does."""
    start = text.find(secret[:_SHORTEST], max(0, len(text) - len(secret)))
    while start >= 0:
        if secret.startswith(text[start:]):
            return text[:start] + _SAID
        start = text.find(secret[:_SHORTEST], start + 1)
    return text


def _spellings(secret: str) -> set[str]:
    forms = {secret, quote(secret, safe=""), secret.replace("/", "\\/")}
    for shift in range(3):
        # Inside a longer text (`user:KEY`) base64 depends on the offset: keep the digits that only the secret decides.
        encoded = base64.b64encode(b"\0" * shift + secret.encode()).decode()
        start, end = (shift * 8 + 5) // 6, (shift + len(secret)) * 8 // 6
        forms |= {encoded[start:end], encoded[start:end].translate(str.maketrans("+/", "-_"))}
    return forms


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine by name or by address (RFC 6761, RFC 1122, RFC 4291)."""
    host = host.rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
