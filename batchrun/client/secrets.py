"""Headers that hold secrets."""

from collections.abc import Iterable

_SECRET_NAMES = ("auth", "cookie", "key", "secret", "token")


def secret_values(headers: Iterable[tuple[str, str]]) -> list[str]:
    """The values of secret headers, with and without their scheme."""
    values = [value for name, value in headers if any(word in name.lower() for word in _SECRET_NAMES)]
    return [part for value in values for part in {value, value.rpartition(" ")[2]}]
