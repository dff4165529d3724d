"""What the batch APIs of vendors accept: `providers/batches.toml` and the user's own lines."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchrun import providers
from batchrun.errors import RefusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """One line of `providers/batches.toml`."""

    dialect: str
    shape: str
    lines: int
    bytes: int
    window: str
    endpoints: tuple[str, ...]
    metadata: bool
    days: int
    factor: float | None = None
    tokens: int | None = None
    purpose: str = "batch"
    ready: bool = False
    cached: bool = True

    def check(self, endpoint: str) -> None:
        """Raises RefusedError."""
        if endpoint not in self.endpoints:
            raise RefusedError(
                f"the batches of {self.dialect} do not accept {endpoint}, only {', '.join(self.endpoints)}",
                "send these rows live, without --batch",
            )


def vendor(dialect: str, own: Mapping[str, Any] | None = None) -> Vendor:
    # `any` for an unknown dialect
    known, mine = providers.table("batches"), own or {}
    name = dialect if dialect in known or dialect in mine else "any"
    line: dict[str, Any] = {**known["any"], **known.get(name, {}), **mine.get(name, {})}
    line["endpoints"] = tuple(line["endpoints"])
    return Vendor(dialect=dialect, **line)


def check_vendor(own: Mapping[str, Any]) -> None:
    """Raises ValueError."""
    kinds: dict[str, tuple[type, ...]] = {"shape": (str,), "window": (str,), "purpose": (str,), "endpoints": (list,)}
    kinds |= {"metadata": (bool,), "ready": (bool,), "cached": (bool,), "factor": (int, float)}
    kinds |= dict.fromkeys(("lines", "bytes", "tokens", "days"), (int,))
    for name, value in own.items():
        if name not in kinds:
            raise ValueError(f"unknown key {name}; one of {', '.join(sorted(kinds))}")
        if not isinstance(value, kinds[name]) or (bool not in kinds[name] and isinstance(value, bool)):
            raise ValueError(f"{name} must be {' or '.join(kind.__name__ for kind in kinds[name])}")
        if isinstance(value, int | float) and value < (0 if bool in kinds[name] or name == "factor" else 1):
            raise ValueError(f"{name} must not be {value}")
    if not re.fullmatch(r"[1-9]\d{0,3}[hd]", str(own.get("window", "24h"))):
        raise ValueError("window must be hours or days, such as 24h or 7d")
    if own.get("shape", "openai") not in ("openai", "mistral", "anthropic"):
        raise ValueError("shape must be openai, mistral or anthropic")
