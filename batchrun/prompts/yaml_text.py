"""YAML as configuration: plain data, with the core schema of YAML 1.2 (`no` is a text).

Aliases are refused, since a few can expand to gigabytes.
"""

import re
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, cast

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from batchrun.errors import PromptError

if TYPE_CHECKING:
    from yaml import SafeLoader
else:
    # PyYAML may be built without libyaml; the loader written in Python reads the same.
    SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_DEPTH = 40


class _Loader(SafeLoader):
    """Safe YAML with the core schema."""

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


_CORE: list[tuple[str, str, list[str]]] = [
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", list("-+0123456789.")),
]
for _tag, _pattern, _first in _CORE:
    cast("Any", _Loader).add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first)


def read_mapping(text: str, *, path: str, first_line: int = 1) -> tuple[dict[str, Any], MappingNode | None]:
    """The mapping in `text`, and its nodes. Raises PromptError."""
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
    """Message, hint and line of a PromptError."""
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
