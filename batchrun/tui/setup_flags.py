"""The setup as flags and as a command, and what it lacks."""

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from batchrun.display import sizes
from batchrun.models import Invalid, Kind, Row
from batchrun.plan.options import FLAG_OF

if TYPE_CHECKING:
    from batchrun.prompts import Prompt

FROM_VALUE, FROM_DEFAULT = "value", "default"
_ORDER = (
    *("input", "prompt", "set", "columns", "id_column", "sheet", "encoding", "path", "blank", "profile", "model"),
    *("base_url", "endpoint", "params", "headers", "concurrency", "rpm", "tpm", "limit", "sample", "output"),
    *("format", "output_column"),
)


class Head(NamedTuple):
    name: str
    kind: Kind
    format: str
    columns: tuple[str, ...]
    id_column: str | None
    size: int | None
    rows: list[Row | Invalid]

    @property
    def summary(self) -> str:
        size = "" if self.size is None else f" · {sizes(self.size)[0]}"
        identity = f"id from {self.id_column}" if self.id_column else "rows identified by content"
        return f"{self.format} · {self.kind}{size} · {identity} · {', '.join(self.columns)}"


class Origin(NamedTuple):
    kind: str
    text: str = ""

    def holds(self, columns: Sequence[str] | None, *, default: bool) -> bool:
        """`columns` is None before the input is read."""
        if self.kind == FROM_DEFAULT or columns is None:
            return default or self.kind != FROM_DEFAULT
        return self.text != "" and (self.kind != "column" or self.text in columns)


def has_default(prompt: "Prompt", name: str) -> bool:
    return name in prompt.defaults or name in prompt.optional


def guess(prompt: "Prompt", name: str, columns: Sequence[str]) -> Origin:
    if name in columns:
        return Origin("column", name)
    if has_default(prompt, name):
        return Origin(FROM_DEFAULT)
    plain = {column.casefold().replace("_", ""): column for column in columns}
    near = plain.get(name.casefold().replace("_", ""))
    return Origin("column", near) if near is not None else Origin(FROM_VALUE)


def variable_flags(origins: Mapping[str, Origin]) -> dict[str, Any]:
    given = {name: origin.text for name, origin in origins.items() if origin.kind == FROM_VALUE and origin.text}
    mapped = {name: origin.text for name, origin in origins.items() if origin.kind == "column" and origin.text != name}
    return {**({"set": given} if given else {}), **({"columns": mapped} if mapped else {})}


def command(flags: Mapping[str, Any]) -> str:
    words = ["batchrun"]
    names = [*(name for name in _ORDER if name in flags), *(name for name in flags if name not in _ORDER)]
    for name in names:
        option = FLAG_OF.get(name, "--" + name.replace("_", "-"))
        value = flags[name]
        if isinstance(value, Mapping):
            sign = ":" if name == "headers" else "="
            for key, text in value.items():  # pyright: ignore[reportUnknownVariableType]  tables of texts
                words += [option, f"{key}{sign}{text}"]
        elif isinstance(value, list | tuple):
            for text in value:  # pyright: ignore[reportUnknownVariableType]  tables as the command line gives them
                words += [option, f"{text}"]
        elif value is True:
            words.append(option)
        elif value not in (None, False, ""):
            words += [option, f"{value}"]
    return shlex.join(words)


KEY = "key"


class Item(NamedTuple):
    name: str
    met: bool
    field: str  # an id in the form, or `variable:NAME`


def checklist(
    *, prompt: bool, source: bool, typed: Mapping[str, str], missing: Sequence[str], key: bool
) -> tuple[Item, ...]:
    """`missing`: variables without a value in the current row."""
    names = list(dict.fromkeys((*typed, *missing)))
    variables = [Item(name, name not in missing and bool(typed.get(name, "x")), f"variable:{name}") for name in names]
    return (
        Item("prompt", prompt, "prompt"),
        Item("input", source, "input"),
        *variables,
        Item(KEY, key, "profile"),
    )


def first_missing(items: Sequence[Item]) -> Item | None:
    return next((item for item in items if not item.met), None)
