"""Records and events as JSON values."""

import dataclasses
from enum import Enum
from typing import Any, cast

from batchrun import account
from batchrun.models import Bill
from batchrun.pricing import usd

MONEY = frozenset((*account.MONEY, "charged"))


def plain(event: Any) -> dict[str, Any]:
    """JSON values: nested records become objects, sets sorted lists, enums their names, picodollars US dollars."""
    if dataclasses.is_dataclass(event):
        names = [item.name for item in dataclasses.fields(event)]
        return {name: _named(name, getattr(event, name)) for name in names}
    return {name: _named(name, value) for name, value in zip(event._fields, event, strict=True)}


def _named(name: str, value: Any) -> Any:
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
