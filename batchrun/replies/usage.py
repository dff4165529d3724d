"""The usage that a body states, read by `providers/usage.toml`.

Only whole numbers from 0 to 10^12 are token counts; anything else makes the usage unknown, not zero.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache, lru_cache, partial
from operator import itemgetter
from typing import Any, NamedTuple, TypeGuard, cast

from batchrun import providers
from batchrun.models import PICODOLLARS, Usage, made
from batchrun.replies.json_text import Json, is_object

_MOST_TOKENS = 10**12
_KINDS = (
    *("cached", "written", "written_long", "reasoning"),
    *("input_audio", "output_audio", "input_image", "output_image"),
)
_MOST_CHARACTERS = 7  # per token of a whole reply, at most on average

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Shape:
    when: frozenset[str]
    input: str
    output: str
    total: str
    beside: frozenset[str]  # kinds that are not part of input or output
    members: tuple[tuple[str, dict[str, str]], ...]  # kinds by name, and by the object they are in ('' for usage)
    counts: Callable[[dict[str, Any]], tuple[Any, ...]]  # reads input, output and total, None for missing ones
    more: bool = True  # may state a cost or a tier


class _Cost(NamedTuple):
    member: Path
    per_usd: int
    also: tuple[Path, ...]  # members to add if `also_when` is true
    also_when: str


def usage_of(body: dict[str, Any], inputs: int = 1) -> Usage | None:
    """None if it is not credible."""
    usage: Json = body.get("usage")
    if type(usage) is not dict or (shape := _shape_of(tuple(usage))) is None:
        return None
    given, output, total = shape.counts(usage)
    if output is None and shape.output not in usage and (total == given or shape.total not in usage):
        output = 0  # of an embedding
    if not (type(given) is int and 0 <= given <= _MOST_TOKENS and type(output) is int and 0 <= output <= _MOST_TOKENS):
        return None
    kinds: dict[str, int] = {}
    for parent, names in shape.members:
        inside: Json = usage[parent] if parent else usage
        if type(inside) is dict and any(inside.values()):
            _add_kinds(kinds, names, inside)
    if kinds and shape.beside:
        given += sum(kinds.get(kind, 0) for kind in ("cached", "written") if kind in shape.beside)
        output += kinds.get("reasoning", 0) if "reasoning" in shape.beside else 0
    if total != given + output and _is_count(total) and total > given + output:
        output = total - given
    cost = _cost(usage) if shape.more else None
    tier = _tier(body, usage) if shape.more or "service_tier" in body else None
    if not kinds and cost is None:
        stated = made(Usage, (given, output, 0, 0, 0, 0, 0, 0, 0, 0, tier, None))
    else:
        parts = {kind: count for kind, count in kinds.items() if count <= (given if kind in _OF_INPUT else output)}
        stated = Usage(
            given, output, parts.pop("cached", 0), parts.pop("reasoning", 0), tier=tier, **parts, charged=cost
        )
    choices: Json = body.get("choices")
    return stated if type(choices) is not list or len(choices) < 2 else _of_all(stated, choices, inputs)


_OF_INPUT = frozenset({"cached", "written", "written_long", "input_audio", "input_image"})


def _add_kinds(kinds: dict[str, int], names: dict[str, str], inside: dict[str, Any]) -> None:
    # The largest of a kind counts.
    for name, count in inside.items():
        if count and (kind := names.get(name)) and _is_count(count) and count > kinds.get(kind, 0):
            kinds[kind] = count


def _tier(body: dict[str, Any], usage: dict[str, Any]) -> str | None:
    # `default` for the standard one
    named = body.get("service_tier") or usage.get("service_tier")
    if usage.get("speed") == "fast":
        named = "fast"
    if not named or type(named) is not str or named == "auto":
        return None
    named = named.lower()
    return _tiers().get(named, named[:40])


def tier_named(name: Any) -> str | None:
    """The requested tier, None for the standard one."""
    tier = _tiers().get(name.lower(), name.lower()) if isinstance(name, str) else None
    return None if tier == "default" else tier


def _cost(usage: dict[str, Any]) -> int | None:
    # in picodollars, rounded up
    for cost in _costs():
        if cost.member[0] not in usage:
            continue
        amounts = [_number(usage, cost.member)]
        if amounts[0] is None:
            continue
        if usage.get(cost.also_when):
            amounts += [_number(usage, path) for path in cost.also]
        return sum(math.ceil(amount * PICODOLLARS / cost.per_usd) for amount in amounts if amount is not None)
    return None


def _number(usage: dict[str, Any], path: Path) -> Decimal | None:
    value: Any = usage
    for name in path:
        value = value.get(name) if is_object(value) else None
    if type(value) not in (int, float) or not 0 <= value <= 10**12:
        return None
    return Decimal(str(value))


def _of_all(usage: Usage, choices: list[Any], inputs: int) -> Usage:
    # Where the output is too small for all texts, the server counts one choice (llama.cpp's, xllamacpp 2026.10).
    written = sum(len(text) for choice in choices if isinstance(text := _text(choice), str))
    if written <= _MOST_CHARACTERS * usage.output:
        return usage
    output, reasoning = usage.output * len(choices), usage.reasoning * len(choices)
    return usage._replace(input=usage.input * inputs, output=output, reasoning=reasoning)


def _text(choice: Any) -> Any:
    if not is_object(choice):
        return None
    message = choice.get("message")
    return message.get("content") if is_object(message) else choice.get("text")


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= _MOST_TOKENS


@cache
def _shapes() -> tuple[_Shape, ...]:
    return tuple(_shape(line) for line in providers.table("usage")["shape"])


def _shape(line: dict[str, Any]) -> _Shape:
    inside: dict[str, list[tuple[str, str]]] = {}
    for kind in _KINDS:
        for path in cast("list[str]", line.get(kind, [])):
            parent, _, name = path.rpartition(".")
            inside.setdefault(parent, []).append((name, kind))
    members = tuple((parent, dict(names)) for parent, names in inside.items())
    beside = frozenset(line.get("beside", ()))
    counts = line["input"], line["output"], line.get("total", "")
    return _Shape(frozenset(line["when"]), *counts, beside, members, partial(_counts_of, counts))


def _counts_of(names: tuple[str, ...], usage: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(map(usage.get, names))


@lru_cache(256)
def _shape_of(names: tuple[str, ...]) -> _Shape | None:
    # Most replies of a run have the same members.
    shape = next((shape for shape in _shapes() if shape.when <= set(names)), None)
    if shape is None:
        return None
    members = [
        (parent, kinds)
        for parent, kinds in shape.members
        if parent in names or (not parent and kinds.keys() & set(names))
    ]
    counted = shape.input, shape.output, shape.total
    more = {"service_tier", "speed", *(cost.member[0] for cost in _costs())}
    return replace(
        shape,
        members=tuple(members),
        counts=itemgetter(*counted) if set(names).issuperset(counted) else shape.counts,
        more=not more.isdisjoint(names),
    )


@cache
def _costs() -> tuple[_Cost, ...]:
    return tuple(
        _Cost(
            tuple(line["member"].split(".")),
            line["per_usd"],
            tuple(tuple(path.split(".")) for path in line.get("also", ())),
            line.get("also_when", ""),
        )
        for line in providers.table("usage")["cost"]
    )


@cache
def _tiers() -> dict[str, str]:
    return {name: tier for tier, names in providers.table("usage")["tiers"].items() for name in names}
