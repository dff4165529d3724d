"""A prompt's outputs as a JSON schema.

Prompty 2.x lists properties, 1.x maps names to types. Structured Outputs requires every property, so an optional one
may be null (https://platform.openai.com/docs/guides/structured-outputs#supported-schemas).
"""

from collections.abc import Mapping
from typing import Any, cast

from batchrun.prompts.definition import did_you_mean
from batchrun.prompts.fields import Place

_KINDS = {
    "string": "string",
    "str": "string",
    "text": "string",
    "integer": "integer",
    "int": "integer",
    "number": "number",
    "float": "number",
    "boolean": "boolean",
    "bool": "boolean",
    "array": "array",
    "list": "array",
    "object": "object",
    "dict": "object",
    "null": "null",
}
_PROPERTY_KEYS = (
    *("name", "kind", "type", "description", "required", "default", "example", "enumValues", "enum", "items"),
    *("properties", "additionalProperties", "json_schema"),
)


def output_schema(outputs: Any, place: Place) -> dict[str, Any] | None:
    """None for plain text. Raises PromptError."""
    if outputs is None or outputs in ({}, []):
        return None
    if _is_schema(outputs):
        return _rooted(outputs, place)
    return _object(_properties(outputs, place))


def forms_schema(forms: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": "string", "description": use} for name, use in forms.items()},
        "required": list(forms),
        "additionalProperties": False,
    }


def is_strict(schema: Any) -> bool:
    """For Structured Outputs: objects closed, every property required."""
    if isinstance(schema, list):
        return all(map(is_strict, cast("list[Any]", schema)))
    if not isinstance(schema, dict):
        return True
    node = cast("dict[str, Any]", schema)
    properties = node.get("properties")
    if node.get("type") == "object" or isinstance(properties, dict):
        names = set(cast("dict[str, Any]", properties or {}))
        if node.get("additionalProperties") is not False or set(node.get("required") or ()) != names:
            return False
    return all(is_strict(value) for key, value in node.items() if key not in {"enum", "const", "default", "examples"})


def _is_schema(outputs: Any) -> bool:
    if not isinstance(outputs, dict):
        return False
    node = cast("dict[str, Any]", outputs)
    if "$schema" in node or "$ref" in node or isinstance(node.get("anyOf"), list):
        return True
    return isinstance(node.get("type"), str) and (isinstance(node.get("properties"), dict) or set(node) == {"type"})


def _rooted(schema: dict[str, Any], place: Place) -> dict[str, Any]:
    if "type" in schema and schema["type"] != "object":
        raise place.error(
            f"`outputs` is a schema of type {schema['type']!r}; a reply is one object",
            "Write `type: object` and put the value into a property.",
            key="type",
        )
    return schema


def _properties(outputs: Any, place: Place) -> list[tuple[str, Any, Place]]:
    if isinstance(outputs, dict):
        fields = cast("dict[Any, Any]", outputs).items()
        return [(str(name), field, place.under(str(name))) for name, field in fields]
    if not isinstance(outputs, list):
        raise place.error("`outputs` must be a JSON schema, a list of properties or a mapping of them")
    named: list[tuple[str, Any, Place]] = []
    for number, field in enumerate(cast("list[Any]", outputs)):
        at = place.under(number)
        given = cast("dict[str, Any]", field) if isinstance(field, dict) else {}
        name = given.get("name")
        if not isinstance(name, str) or not name:
            raise at.error("each property of `outputs` needs a `name`")
        if any(name == other for other, _, _ in named):
            raise at.error(f"the output `{name}` appears twice")
        named.append((name, given, at))
    return named


def _object(properties: list[tuple[str, Any, Place]]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: _property(name, field, place) for name, field, place in properties},
        "required": [name for name, _, _ in properties],
        "additionalProperties": False,
    }


def _property(name: str, field: Any, place: Place) -> dict[str, Any]:
    if isinstance(field, str):
        field = {"kind": field}
    if not isinstance(field, Mapping):
        raise place.error(f"the output `{name}` must be a type or a mapping with `kind`")
    given = cast("Mapping[str, Any]", field)
    for key in given:
        if key not in _PROPERTY_KEYS:
            near = did_you_mean(str(key), _PROPERTY_KEYS)
            raise place.error(f"`{key}` is not known in the output `{name}`{near}", key=str(key))
    schema = _typed(name, given, place)
    if isinstance(given.get("description"), str):
        schema["description"] = given["description"]
    return schema


def _typed(name: str, given: Mapping[str, Any], place: Place) -> dict[str, Any]:
    kind = given.get("kind", given.get("type", "string"))
    if not isinstance(kind, str) or kind not in _KINDS:
        near = did_you_mean(str(kind), _KINDS)
        raise place.error(
            f"{kind!r} is not a kind of output (`{name}`){near}", key="kind" if "kind" in given else "type"
        )
    schema: dict[str, Any] = {"type": _KINDS[kind]}
    if schema["type"] == "object":
        inner = given.get("properties")
        schema = _object(_properties([] if inner is None else inner, place.under("properties")))
    elif schema["type"] == "array":
        schema["items"] = _property(f"{name} items", given.get("items", "string"), place.under("items"))
    values = given.get("enumValues", given.get("enum"))
    if isinstance(values, list):
        schema["enum"] = values
    if given.get("required", True) is False:
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    return schema
