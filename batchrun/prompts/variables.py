"""Where each variable of a prompt gets its value: `--set`, else the row's column, else the default of `inputs`.

Null counts as absent unless the template tests it.
"""

import json
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any, cast

from batchrun.errors import PromptError
from batchrun.prompts.definition import Prompt, did_you_mean, nearest

_JSON_KINDS = frozenset(
    ["integer", "int", "number", "float", "double", "boolean", "bool", "array", "list", "object", "dict"]
)


ABSENT = object()
"""The value of a missing column."""


def cell(fields: Mapping[str, Any], column: str) -> Any:
    """The value of a column, or `ABSENT`; `data.text` is also a member of `data`."""
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
    """Raises PromptError for unknown names and for variables without a source; `columns` are empty if unknown."""
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
    """Raises PromptError for names that are unknown or given twice."""
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
