"""Keeping secrets out of texts: providers echo them, libraries quote them."""

import base64
import ipaddress
from collections.abc import Iterable
from urllib.parse import quote

_SHORTEST = 8
_REPLACEMENT = "[key]"


class Mask:
    """Replaces secrets: plain, as base64, in a URL, with escaped slashes, cut off at the end.

    One under eight characters is a placeholder (`EMPTY`, `ollama`) and stays.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._spellings: list[str] = []
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        spellings = {form for secret in secrets if len(secret) >= _SHORTEST for form in _spellings(secret)}
        self._spellings = sorted({*self._spellings, *spellings}, key=len, reverse=True)

    def also(self, other: "Mask") -> None:
        self._spellings = sorted({*self._spellings, *other._spellings}, key=len, reverse=True)

    def text(self, text: str) -> str:
        for spelling in self._spellings:
            text = text.replace(spelling, _REPLACEMENT)
        for spelling in self._spellings:
            text = _without_beginning(text, spelling)
        return text


def _without_beginning(text: str, secret: str) -> str:
    # a secret can be cut off at the end
    start = text.find(secret[:_SHORTEST], max(0, len(text) - len(secret)))
    while start >= 0:
        if secret.startswith(text[start:]):
            return text[:start] + _REPLACEMENT
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
    """RFC 6761, RFC 1122, RFC 4291."""
    host = host.rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
