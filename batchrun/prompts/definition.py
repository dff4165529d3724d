"""What a prompt is, and where its variables get their values: `--set`, else the column, else the default.

Null counts as absent unless the template tests it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from shlex import quote
from typing import Any, NamedTuple, Protocol, cast

from batchrun.errors import PromptError
from batchrun.models import Endpoint, Request, Row

_JSON_KINDS = frozenset(
    ["integer", "int", "number", "float", "double", "boolean", "bool", "array", "list", "object", "dict"]
)
ABSENT = object()  # the value of a missing column


class RenderError(PromptError):
    """`missing`: the variables without a value."""

    def __init__(self, message: str, hint: str | None = None, missing: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint)
        self.missing = missing


class InputField(NamedTuple):
    kind: str | None = None
    description: str | None = None
    has_default: bool = False
    default: Any = None  # applies if `has_default`


class Message(NamedTuple):
    role: str
    template: str
    line: int  # of the template's start in the file


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt that has passed every check."""

    name: str  # the file's, without suffix: safe in a file name
    title: str
    description: str
    path: str
    source: str
    model: str | None
    endpoint: Endpoint | None
    options: Mapping[str, Any]  # body parameters as spelled in the file
    inputs: Mapping[str, InputField]
    outputs: dict[str, Any] | None  # the JSON schema of the reply
    messages: tuple[Message, ...]
    variables: frozenset[str]
    optional: frozenset[str]  # may be absent from a row, because the template tests them
    nullable: frozenset[str]  # may be null
    checks: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict[str, str])  # variables with a kind: image, audio or file

    @property
    def defaults(self) -> dict[str, Any]:
        return {name: field.default for name, field in self.inputs.items() if field.has_default}


class Renderer(Protocol):
    """Equal rows give equal bytes."""

    def render(self, row: Row) -> Request:
        """Raises RenderError."""
        ...


def nearest(name: str, known: Mapping[str, Any] | frozenset[str] | tuple[str, ...] | list[str]) -> str | None:
    """Whatever its case and separators."""
    plain = {_plain(candidate): candidate for candidate in sorted(known)}
    close = get_close_matches(_plain(name), plain, n=1, cutoff=0.6)
    return plain[close[0]] if close else None


def did_you_mean(name: str, known: Mapping[str, Any] | frozenset[str] | tuple[str, ...] | list[str]) -> str:
    """`; did you mean …?`, or nothing."""
    near = nearest(name, known)
    return f"; did you mean `{near}`?" if near else ""


def _plain(name: str) -> str:
    return name.casefold().replace("_", "").replace("-", "").replace(" ", "")


def cell(fields: Mapping[str, Any], column: str) -> Any:
    """Or `ABSENT`; `data.text` is also a member of `data`."""
    value = fields.get(column, ABSENT)
    if value is not ABSENT or "." not in column:
        return value
    found: Any = fields
    for name in column.split("."):
        found = cast("dict[str, Any]", found).get(name, ABSENT) if isinstance(found, dict) else ABSENT
    return found


def check_variables(
    prompt: Prompt, columns: Sequence[str], variables: Mapping[str, str], column_map: Mapping[str, str]
) -> None:
    """Raises PromptError for unknown names, and variables without a source."""
    check_names(prompt, variables, column_map)
    if not columns:
        return
    for name, column in column_map.items():
        if column not in columns and column.partition(".")[0] not in columns:
            near = did_you_mean(column, tuple(columns))
            raise PromptError(f"--column {name}={column}: the input has no column `{column}`{near}", _has(columns))
    known = set(columns) | set(variables) | set(column_map) | set(prompt.defaults) | prompt.optional
    missing = sorted(prompt.variables - known)
    if missing:
        raise PromptError(*_unfilled(prompt, missing, columns))


def check_names(prompt: Prompt, variables: Mapping[str, str], column_map: Mapping[str, str]) -> None:
    """Raises PromptError."""
    known = prompt.variables | frozenset(prompt.inputs)
    for option, names in (("--set", variables), ("--column", column_map)):
        for name in names:
            if name not in known:
                listed = ", ".join(sorted(known)) or "none"
                raise PromptError(
                    f"{option} {name}=…: the prompt `{prompt.name}` has no variable `{name}`{did_you_mean(name, known)}",
                    f"Its variables: {listed}.",
                )
    for name in variables:
        if name in column_map:
            raise PromptError(f"`{name}` has both --set and --column", "Use only one of them.")


def fixed_values(prompt: Prompt, variables: Mapping[str, str]) -> dict[str, Any]:
    """The values of `--set`, as JSON if declared so."""
    return {name: _typed(prompt, name, text) for name, text in variables.items()}


def _typed(prompt: Prompt, name: str, text: str) -> Any:
    field = prompt.inputs.get(name)
    if field is None or field.kind not in _JSON_KINDS:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise PromptError(f"--set {name}={text}: `{name}` is declared as {field.kind}", "Write it as JSON.") from None


def _unfilled(prompt: Prompt, missing: list[str], columns: Sequence[str]) -> tuple[str, str]:
    listed = ", ".join(f"`{name}`" for name in missing)
    taken = prompt.variables & set(columns)
    spare = tuple(column for column in columns if column not in taken)
    pairs = [(name, nearest(name, spare)) for name in missing]
    if len(missing) == 1 and len(spare) == 1:
        pairs = [(missing[0], spare[0])]
    options = [
        f"--column {quote(f'{name}={column}')}" if column else f"--column {name}=COLUMN or --set {name}=VALUE"
        for name, column in pairs
    ]
    message = f"the input has no column for {listed}, which the prompt `{prompt.name}` needs"
    return message, f"{_has(columns)} Try {', '.join(options)}, or set a default in the prompt."


def _has(columns: Sequence[str]) -> str:
    shown = ", ".join(columns[:20]) + (" …" if len(columns) > 20 else "")
    return f"The input has: {shown}."
