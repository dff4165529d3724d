"""Keeps keys out of what people read: providers echo them in answers, libraries in messages."""

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote

# Servers that need no key are given words like "none" or "ollama"; masking those would only spoil the text.
_SHORTEST_SECRET = 8
_SECRET_NAMES = ("auth", "cookie", "key", "secret", "token")


def secret_values(headers: Iterable[tuple[str, str]]) -> list[str]:
    """The values of headers whose name says that they are secret, with and without their scheme word."""
    values = [value for name, value in headers if any(word in name.lower() for word in _SECRET_NAMES)]
    return [part for value in values for part in {value, value.rpartition(" ")[2]}]


class Masker:
    """Replaces secrets by `[key]`, also where they are percent-encoded, in base64 or have escaped slashes."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str) -> None:
        """Mask this one from now on as well."""
        if len(secret) >= _SHORTEST_SECRET and secret not in self._secrets:
            self._secrets.add(secret)
            spellings = {spelling for known in self._secrets for spelling in _spellings(known)}
            longest_first = sorted(spellings, key=len, reverse=True)
            self._pattern = re.compile("|".join(re.escape(spelling) for spelling in longest_first))

    def mask(self, text: str) -> str:
        return self._pattern.sub("[key]", text) if self._pattern is not None else text


def _spellings(secret: str) -> tuple[str, ...]:
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return secret, secret.replace("/", "\\/"), quote(secret, safe=""), encoded
