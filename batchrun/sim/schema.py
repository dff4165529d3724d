"""A small JSON value that satisfies a JSON schema of structured outputs; `pattern` and conditionals are ignored."""

import math
from collections.abc import Callable, Mapping
from typing import Any

_DEEP = 5
_FORMATS = {
    "date-time": "2000-01-01T00:00:00Z",
    "date": "2000-01-01",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "simulated@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_Schema = Mapping[str, Any]


def example(schema: Any, text: str) -> Any:
    """A value with every property and an item in every array, as far as the depth allows; strings are the text."""
    return _value(schema, text, schema, 0)


def _value(schema: Any, text: str, root: Any, depth: int) -> Any:
    if not isinstance(schema, dict):
        return text
    rule: dict[str, Any] = _resolved(schema, root)  # pyright: ignore[reportUnknownArgumentType]  # foreign JSON
    if "const" in rule:
        return rule["const"]
    if enum := rule.get("enum"):
        return enum[0]
    if choices := rule.get("anyOf") or rule.get("oneOf"):
        plain = [choice for choice in choices if not _is_null(choice)]
        # A null ends a recursive schema.
        pick = choices[-1] if depth > _DEEP and len(plain) < len(choices) else (plain or choices)[0]
        return _value(pick, text, root, depth + 1)
    return _MAKERS.get(_type(rule), _string)(rule, text, root, depth)


def _resolved(schema: dict[str, Any], root: Any) -> dict[str, Any]:
    rule = schema
    for _ in range(20):
        reference = rule.get("$ref")
        if not isinstance(reference, str):
            break
        rule = {**{name: value for name, value in rule.items() if name != "$ref"}, **_lookup(reference, root)}
    for part in rule.get("allOf", ()):
        rule = _merged(rule, _resolved(part, root))
    return rule


def _lookup(reference: str, root: Any) -> dict[str, Any]:
    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        found = found.get(name, {}) if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # foreign JSON
    return found if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownVariableType]  # foreign JSON


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    properties = {**one.get("properties", {}), **other.get("properties", {})}
    return {**one, **other, **({"properties": properties} if properties else {})}


def _type(rule: _Schema) -> str:
    stated = rule.get("type")
    if isinstance(stated, list):
        names: list[Any] = [name for name in stated if name != "null"]  # pyright: ignore[reportUnknownVariableType]  # foreign JSON
        return str(names[0]) if names else "null"
    if isinstance(stated, str):
        return stated
    if "properties" in rule:
        return "object"
    return "array" if "items" in rule or "prefixItems" in rule else "string"


def _is_null(choice: Any) -> bool:
    return isinstance(choice, dict) and choice.get("type") == "null"  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # foreign JSON


def _object(rule: _Schema, text: str, root: Any, depth: int) -> Any:
    properties: dict[str, Any] = rule.get("properties", {})
    required: list[str] = rule.get("required", [])
    wanted = required if depth > _DEEP else [*properties, *(name for name in required if name not in properties)]
    return {name: _value(properties.get(name, {}), text, root, depth + 1) for name in wanted}


def _array(rule: _Schema, text: str, root: Any, depth: int) -> Any:
    heads: list[Any] = rule.get("prefixItems", [])
    count = max(int(rule.get("minItems", 0)), len(heads), 0 if depth > _DEEP else 1)
    count = min(count, int(rule.get("maxItems", count)))
    kinds = [heads[place] if place < len(heads) else rule.get("items", {}) for place in range(count)]
    values = [_value(kind, text, root, depth + 1) for kind in kinds]
    return [_distinct(value, place) for place, value in enumerate(values)] if rule.get("uniqueItems") else values


def _distinct(value: Any, place: int) -> Any:
    if not place or isinstance(value, bool):
        return value
    return value + place if isinstance(value, int | float) else f"{value} {place}" if isinstance(value, str) else value


def _string(rule: _Schema, text: str, _root: Any, _depth: int) -> Any:
    value = _FORMATS.get(rule.get("format", ""), text)
    return value.ljust(int(rule.get("minLength", 0)), ".")[: int(rule.get("maxLength", len(value) + 100_000))]


def _number(rule: _Schema, _text: str, _root: Any, _depth: int) -> Any:
    low, high = _bounds(rule, 1e-6)
    step = rule.get("multipleOf")
    if step:
        return math.ceil(low / step) * step if low > 0 or high < 0 else 0
    return low if low > 0 else min(high, 0)


def _integer(rule: _Schema, _text: str, _root: Any, _depth: int) -> Any:
    low, high = _bounds(rule, 1)
    step = int(rule.get("multipleOf", 1))
    if low > 0:
        return math.ceil(low / step) * step
    return math.floor(min(high, 0) / step) * step


def _bounds(rule: _Schema, apart: float) -> tuple[float, float]:
    low = max(rule.get("minimum", -math.inf), rule.get("exclusiveMinimum", -math.inf) + apart)
    high = min(rule.get("maximum", math.inf), rule.get("exclusiveMaximum", math.inf) - apart)
    return low, high


def _boolean(_rule: _Schema, _text: str, _root: Any, _depth: int) -> Any:
    return True


def _null(_rule: _Schema, _text: str, _root: Any, _depth: int) -> Any:
    return None


_MAKERS: dict[str, Callable[[_Schema, str, Any, int], Any]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "null": _null,
}
