"""YAML as plain data, with the core schema of YAML 1.2 (`no` is a text); GitHub's `.prompt.yml`.

Aliases are refused, since a few can expand to gigabytes. GitHub's format:
https://docs.github.com/en/github-models/use-github-models/storing-prompts-in-github-repositories and github/gh-models,
`pkg/prompt/prompt.go`.
"""

import json
import re
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, cast

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from batchrun.errors import PromptError
from batchrun.prompts.definition import Message
from batchrun.prompts.fields import Parts, Place, inputs_of, known_keys, mapping_of, text_of, unresolved

if TYPE_CHECKING:
    from yaml import SafeLoader
else:
    # PyYAML may be built without libyaml; the loader written in Python reads the same.
    SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_DEPTH = 40
_CORE: list[tuple[str, str, list[str]]] = [
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", list("-+0123456789.")),
]
_KEYS = [
    *("name", "description", "model", "modelParameters", "responseFormat", "jsonSchema", "messages", "testData"),
    *("evaluators", "inputs"),
]
_ROLES = ("system", "developer", "user", "assistant")


class _Loader(SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012  the base class declares it so

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise _refusal("a key must be a plain word", key.start_mark)
            if key.value in seen:
                raise _refusal(f"`{key.value}` appears twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in _CORE:
    cast("Any", _Loader).add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first)


def read_mapping(text: str, *, path: str, first_line: int = 1) -> tuple[dict[str, Any], MappingNode | None]:
    """Raises PromptError."""
    try:
        _refuse_bombs(text)
        loader = _Loader(text)
        try:
            node: Node | None = loader.get_single_node()
            data: Any = None if node is None else cast("Any", loader).construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise PromptError(*_explain(error, path, first_line)) from None
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{path}: the YAML cannot be read: {error}") from None
    if data is None:
        return {}, None
    if not isinstance(data, dict) or not isinstance(node, MappingNode):
        raise PromptError(f"{path}:{first_line}: expected lines of `key: value`", None, first_line)
    return {str(key): value for key, value in cast("dict[Any, Any]", data).items()}, node


def _refusal(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _refuse_bombs(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("aliases (`*name`) are not allowed", event.start_mark)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _refusal("nested too deeply", event.start_mark)


def _explain(error: yaml.YAMLError, path: str, first_line: int) -> tuple[str, str | None, int | None]:
    if not isinstance(error, yaml.MarkedYAMLError):
        return f"{path}: not YAML: {str(error).splitlines()[0]}", None, None
    mark = error.problem_mark or error.context_mark
    line = first_line + (mark.line if mark else 0)
    problem = error.problem or error.context or "not YAML"
    hint = None
    if "could not determine a constructor" in problem:
        hint = "Tags like `!!python/object` are never followed; write plain text, numbers, lists and mappings."
    elif "alias" in problem:
        hint = "Write the value out where it is needed."
    elif "mapping values are not allowed" in problem or "could not find expected ':'" in problem:
        hint = "Put quotes around a value that contains `: `."
    return f"{path}:{line}: {problem}", hint, line


def github_parts(text: str, path: str) -> Parts:
    """Raises PromptError."""
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
    # from 1
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
