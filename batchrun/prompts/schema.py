"""What a prompt says of its outputs, as a JSON schema.

Prompty 2.x lists properties (`name`, `kind`, `description`, `required`, `enumValues`, `items`, `properties`), 1.x maps
names to types, and either may be a JSON schema already. Structured Outputs wants every object closed and every
property required; an optional property is therefore one that may be null
(https://platform.openai.com/docs/guides/structured-outputs#supported-schemas).
"""

from collections.abc import Mapping
from typing import Any, cast

from batchrun.errors import PromptError
from batchrun.prompts.definition import did_you_mean

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


def output_schema(outputs: Any, path: str) -> dict[str, Any] | None:
    """The JSON schema of the reply, None where the prompt wants plain text. Raises PromptError."""
    if outputs is None or outputs in ({}, []):
        return None
    if _is_schema(outputs):
        return _rooted(outputs, path)
    return _object(_properties(outputs, path), path)


def forms_schema(forms: Mapping[str, str]) -> dict[str, Any]:
    """The schema of a reply that has a text for each plural form; `forms` says by key what each is for."""
    return {
        "type": "object",
        "properties": {name: {"type": "string", "description": use} for name, use in forms.items()},
        "required": list(forms),
        "additionalProperties": False,
    }


def is_strict(schema: Any) -> bool:
    """Whether `schema` keeps the rules of strict Structured Outputs: objects closed, every property required."""
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


def _rooted(schema: dict[str, Any], path: str) -> dict[str, Any]:
    if "type" in schema and schema["type"] != "object":
        raise PromptError(
            f"{path}: `outputs` is a schema of type {schema['type']!r}; a reply is one object",
            "Write `type: object` and put the value into a property.",
        )
    return schema


def _properties(outputs: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(outputs, dict):
        return [(str(name), field) for name, field in cast("dict[Any, Any]", outputs).items()]
    if not isinstance(outputs, list):
        raise PromptError(f"{path}: `outputs` must be a JSON schema, a list of properties or a mapping of them")
    named: list[tuple[str, Any]] = []
    for field in cast("list[Any]", outputs):
        given = cast("dict[str, Any]", field) if isinstance(field, dict) else {}
        name = given.get("name")
        if not isinstance(name, str) or not name:
            raise PromptError(f"{path}: each property of `outputs` needs a `name`")
        if any(name == other for other, _ in named):
            raise PromptError(f"{path}: the output `{name}` appears twice")
        named.append((name, given))
    return named


def _object(properties: list[tuple[str, Any]], path: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: _property(name, field, path) for name, field in properties},
        "required": [name for name, _ in properties],
        "additionalProperties": False,
    }


def _property(name: str, field: Any, path: str) -> dict[str, Any]:
    if isinstance(field, str):
        field = {"kind": field}
    if not isinstance(field, Mapping):
        raise PromptError(f"{path}: the output `{name}` must be a type or a mapping with `kind`")
    given = cast("Mapping[str, Any]", field)
    for key in given:
        if key not in _PROPERTY_KEYS:
            near = did_you_mean(str(key), _PROPERTY_KEYS)
            raise PromptError(f"{path}: `{key}` is not known in the output `{name}`{near}")
    schema = _typed(name, given, path)
    if isinstance(given.get("description"), str):
        schema["description"] = given["description"]
    return schema


def _typed(name: str, given: Mapping[str, Any], path: str) -> dict[str, Any]:
    kind = given.get("kind", given.get("type", "string"))
    if not isinstance(kind, str) or kind not in _KINDS:
        near = did_you_mean(str(kind), _KINDS)
        raise PromptError(f"{path}: {kind!r} is not a kind of output (`{name}`){near}")
    schema: dict[str, Any] = {"type": _KINDS[kind]}
    if schema["type"] == "object":
        inner = given.get("properties")
        schema = _object(_properties([] if inner is None else inner, path), path)
    elif schema["type"] == "array":
        schema["items"] = _property(f"{name} items", given.get("items", "string"), path)
    values = given.get("enumValues", given.get("enum"))
    if isinstance(values, list):
        schema["enum"] = values
    return schema if given.get("required", True) is not False else _or_null(schema)


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    schema["type"] = [schema["type"], "null"]
    if "enum" in schema:
        schema["enum"] = [*schema["enum"], None]
    return schema
