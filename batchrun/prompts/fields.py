"""Keys that both formats of prompt files have, and places in a file, for errors."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

from batchrun.errors import PromptError
from batchrun.models import Endpoint
from batchrun.prompts.definition import InputField, Message, did_you_mean

if TYPE_CHECKING:
    from yaml.nodes import Node

_INPUT_KEYS = [
    *("name", "kind", "type", "description", "required", "default", "example", "sample", "enumValues", "enum"),
    *("items", "properties", "is_required", "json_schema"),
]
FILE_KINDS = frozenset({"image", "audio", "file"})
_TYPES = frozenset(
    [
        *("string", "str", "text", "integer", "int", "number", "float", "double", "boolean", "bool", "array"),
        *("list", "object", "dict", "any"),
    ]
)


class Place(NamedTuple):
    path: str
    node: "Node | None" = None
    first_line: int = 1  # of the YAML in the file
    line: int | None = None  # of the key

    def under(self, key: str | int) -> Self:
        for number, (name, value) in enumerate(self._members()):
            if key in (number, None if name is None else name.value):
                mark = (value if name is None else name).start_mark
                return self._replace(node=value, line=self.first_line + mark.line)
        return self._replace(node=None)

    def error(self, message: str, hint: str | None = None, *, key: str | None = None) -> PromptError:
        """About this value, or its member `key`."""
        line = self.line if key is None else self.under(key).line
        where = self.path if line is None else f"{self.path}:{line}"
        return PromptError(f"{where}: {message}", hint, line)

    def _members(self) -> list[tuple[Any, Any]]:
        # pairs of key (None in a list) and value
        value: Any = None if self.node is None else self.node.value
        listed = cast("list[Any]", value) if isinstance(value, list) else []
        return [pair if isinstance(pair, tuple) else (None, pair) for pair in listed]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A file's content, before its templates are checked."""

    title: str = ""
    description: str = ""
    model: str | None = None
    endpoint: Endpoint | None = None
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    inputs: dict[str, InputField] = field(default_factory=dict[str, InputField])
    outputs: dict[str, Any] | None = None
    checks: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()


def known_keys(node: dict[str, Any], known: list[str], place: Place, where: str) -> None:
    """`x-…` is free for notes. Raises PromptError."""
    for key in map(str, node):
        if key not in known and not key.startswith(("x-", "x_")):
            raise place.error(
                f"`{key}` is not known in {where}{did_you_mean(key, known)}",
                f"Known: {', '.join(known)}. Notes can be put into `metadata` or a key that starts with `x-`.",
                key=key,
            )


def text_of(node: dict[str, Any], key: str, place: Place) -> str:
    value = node.get(key)
    if value is None:
        return ""
    if isinstance(value, dict | list | bool):
        raise place.error(f"`{key}` must be a text", key=key)
    return str(value).strip()


def mapping_of(node: dict[str, Any], key: str, place: Place) -> dict[str, Any]:
    value = node.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise place.error(f"`{key}` must be a mapping of `name: value` lines", key=key)
    return {str(name): item for name, item in cast("dict[Any, Any]", value).items()}


def unresolved(value: Any, what: str, place: Place) -> None:
    """`${env:…}` and `${file:…}` could read this machine: PromptError."""
    if isinstance(value, str) and value.startswith(("${env:", "${file:")):
        raise place.error(
            f"{what} is {value!r}, which is not resolved", "Write the value, or set it on the command line."
        )


def inputs_of(inputs: Any, place: Place, *, samples: bool) -> dict[str, InputField]:
    """A bare value is a default (Prompty 2.x), with `samples` an example (1.x)."""
    if inputs is None:
        return {}
    if isinstance(inputs, dict):
        named = [(str(name), value, place.under(str(name))) for name, value in cast("dict[Any, Any]", inputs).items()]
    elif isinstance(inputs, list):
        listed = [(value, place.under(number)) for number, value in enumerate(cast("list[Any]", inputs))]
        named = [(_name_of(value, at), value, at) for value, at in listed]
    else:
        raise place.error("`inputs` must be a mapping or a list")
    if len({name for name, _, _ in named}) < len(named):
        raise place.error("an input appears twice in `inputs`")
    return {name: _input(name, value, at, samples) for name, value, at in named}


def _name_of(value: Any, place: Place) -> str:
    if isinstance(value, str):
        return value
    name = cast("dict[str, Any]", value).get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or not name:
        raise place.error("each of `inputs` needs a `name`")
    return name


def _input(name: str, value: Any, place: Place, samples: bool) -> InputField:
    if value is None:
        return InputField()
    if isinstance(value, str) and value in _TYPES:
        return InputField(kind=value)
    if not isinstance(value, dict):
        unresolved(value, f"the input `{name}`", place)
        return InputField() if samples else InputField(has_default=True, default=value)
    return _declared(name, cast("dict[str, Any]", value), place)


def _declared(name: str, value: dict[str, Any], place: Place) -> InputField:
    known_keys(value, _INPUT_KEYS, place, f"the input `{name}`")
    kind, description = value.get("kind", value.get("type")), value.get("description")
    if kind == "thread":
        raise place.error(f"the input `{name}` is of kind `{kind}`; inputs are text, JSON values and files")
    default = value.get("default")
    unresolved(default, f"the default of `{name}`", place.under("default"))
    return InputField(
        kind=kind if isinstance(kind, str) else None,
        description=str(description).strip() if description is not None else None,
        has_default="default" in value or value.get("required") is False,
        default=default,
    )
