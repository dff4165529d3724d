"""Records and events as JSON values."""

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import Any, cast

from batchrun import account
from batchrun.models import Bill
from batchrun.pricing import usd

MONEY = frozenset((*account.MONEY, "charged"))
"""Members that are counted in picodollars."""

NAMES = {
    "held": "blocked_by",
    "requests_fill": "requests_available",
    "tokens_fill": "tokens_available",
    "dollars": "cost",
    "dollars_were": "actual_cost",
    "seconds_were": "actual_seconds",
}
"""Members that have another name in JSON than in the code; the names in JSON stay as they are (docs/events.md)."""


def public(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values by their names in JSON."""
    return {NAMES.get(name, name): value for name, value in values.items()}


def plain(event: Any) -> dict[str, Any]:
    """An event as JSON values; nested records become objects, sets sorted lists, enums their names."""
    if dataclasses.is_dataclass(event):
        names = [item.name for item in dataclasses.fields(event)]
        return public({name: _named(name, getattr(event, name)) for name in names})
    return public({name: _named(name, value) for name, value in zip(event._fields, event, strict=True)})


def _named(name: str, value: Any) -> Any:
    """The value of a member; money, which is counted in picodollars, becomes US dollars."""
    return usd(value) if name in MONEY and value is not None else _value(value)


def _value(value: Any) -> Any:
    if isinstance(value, Bill):
        return {kind: usd(cost) for kind, cost in value._asdict().items()}
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
        return plain(value)
    if isinstance(value, frozenset):
        return sorted(str(item) for item in cast("frozenset[object]", value))
    if isinstance(value, tuple):
        return [_value(item) for item in cast("tuple[object, ...]", value)]
    return value
