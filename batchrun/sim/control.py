"""The control endpoints of a simulated provider, called from outside."""

import json
from typing import Any
from urllib.parse import urlsplit


def stats(base_url: str, *, prompts: bool = True) -> dict[str, Any]:
    """What the provider at this base URL has seen; without `prompts` only the sums. Raises OSError."""
    return _call(base_url, "GET", "/_sim/stats" if prompts else "/_sim/stats?summary")


def log(base_url: str) -> list[dict[str, Any]]:
    """Every call that has ended, in that order; empty unless `Settings.record` is set. Raises OSError."""
    return _call(base_url, "GET", "/_sim/log")


def change(base_url: str, **values: Any) -> None:
    """Change settings by their names and JSON values. Raises ValueError for what is refused, OSError."""
    _call(base_url, "POST", "/_sim/settings", values)


def down(base_url: str, seconds: float) -> None:
    """Make it refuse connections for so many seconds. Raises OSError."""
    _call(base_url, "POST", "/_sim/down", {"seconds": seconds})


def _call(base_url: str, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    from http.client import HTTPConnection  # noqa: PLC0415  # 15 ms that the server's own start shall not pay

    connection = HTTPConnection(urlsplit(base_url).netloc, timeout=10)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        told = json.loads(answer.read())
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(told["error"]["message"])
    return told
