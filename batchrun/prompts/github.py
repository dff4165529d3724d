"""GitHub's `.prompt.yml`, without `testData` and `evaluators`.

https://docs.github.com/en/github-models/use-github-models/storing-prompts-in-github-repositories; fields:
github/gh-models, `pkg/prompt/prompt.go`.
"""

import json
from typing import Any, cast

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from batchrun.prompts.definition import Message
from batchrun.prompts.fields import Parts, inputs_of, known_keys, mapping_of, text_of, unresolved
from batchrun.prompts.place import Place
from batchrun.prompts.yaml_text import read_mapping

_KEYS = [
    "name",
    "description",
    "model",
    "modelParameters",
    "responseFormat",
    "jsonSchema",
    "messages",
    "testData",
    "evaluators",
    "inputs",
]
_ROLES = ("system", "developer", "user", "assistant")


def parts(text: str, path: str) -> Parts:
    """The content of a `.prompt.yml`. Raises PromptError."""
    data, node = read_mapping(text, path=path)
    place = Place(path, node)
    known_keys(data, _KEYS, place, "the file")
    options = mapping_of(data, "modelParameters", place)
    for name, value in options.items():
        unresolved(value, f"the parameter `{name}`", place.under("modelParameters").under(name))
    schema = _schema(data, place)
    if schema is None and data.get("responseFormat") == "json_object":
        options["response_format"] = {"type": "json_object"}
    return Parts(
        title=text_of(data, "name", place),
        description=text_of(data, "description", place),
        model=text_of(data, "model", place) or None,
        options=options,
        inputs=inputs_of(data.get("inputs"), place.under("inputs"), samples=False),
        outputs=schema,
        messages=_messages(data, node, place.under("messages")),
    )


def _messages(data: dict[str, Any], node: MappingNode | None, place: Place) -> tuple[Message, ...]:
    listed = data.get("messages")
    if not isinstance(listed, list) or not listed:
        raise place.error("`messages` must be a list of `role` and `content`")
    lines = _content_lines(node)
    found: list[Message] = []
    for number, item in enumerate(cast("list[Any]", listed)):
        message = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
        role, content = str(message.get("role", "")).lower(), message.get("content")
        if role not in _ROLES or not isinstance(content, str):
            problem = f"message {number + 1} needs a `role` ({', '.join(_ROLES)}) and a text as `content`"
            raise place.under(number).error(problem)
        if content.strip():
            found.append(Message(role, content.strip("\n"), lines[number] if number < len(lines) else 1))
    return tuple(found)


def _content_lines(node: MappingNode | None) -> list[int]:
    """The line, from 1, of each message's content."""
    listed = _member(node, "messages")
    if not isinstance(listed, SequenceNode):
        return []
    contents = [_member(item, "content") for item in listed.value]
    return [
        1 + content.start_mark.line + (isinstance(content, ScalarNode) and content.style in ("|", ">"))
        if content
        else 1
        for content in contents
    ]


def _member(node: Node | None, name: str) -> Node | None:
    if not isinstance(node, MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def _schema(data: dict[str, Any], place: Place) -> dict[str, Any] | None:
    form, given = data.get("responseFormat"), data.get("jsonSchema")
    if form not in (None, "text", "json_object", "json_schema"):
        raise place.error(
            f"`responseFormat` is {form!r}", "Write text, json_object or json_schema.", key="responseFormat"
        )
    if form != "json_schema":
        return None
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise place.error(f"`jsonSchema` is not JSON: {error}", key="jsonSchema") from None
    schema = cast("dict[str, Any]", given).get("schema") if isinstance(given, dict) else None
    if not isinstance(schema, dict):
        raise place.error("`jsonSchema` needs `name` and `schema`", key="jsonSchema")
    return cast("dict[str, Any]", schema)
