"""What the setup says, as the flags a command line would give and as that very command; and the look at it beforehand.

Pure but for reading the input's head and the prompt file, which the setup does in a thread.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from batchrun import prompts, rows
from batchrun.errors import BatchrunError, InputError, RefusedError
from batchrun.models import Endpoint, Invalid, Kind, Row
from batchrun.prompts import Prompt, Renderer, RenderError
from batchrun.tui import requests

HEAD = 100
"""Rows of the input that are shown."""
STREAM = "-"
FROM_VALUE, FROM_DEFAULT = "value", "default"
_SPELLED = {"params": "param", "headers": "header", "columns": "column"}
_ORDER = (
    *(
        "input",
        "prompt",
        "set",
        "columns",
        "id_column",
        "profile",
        "model",
        "base_url",
        "endpoint",
        "params",
        "headers",
    ),
    *("concurrency", "rpm", "tpm", "limit", "sample", "output", "format", "output_column"),
)


class Head(NamedTuple):
    """The beginning of an input: what it is, and its first rows."""

    name: str
    kind: Kind
    format: str
    columns: tuple[str, ...]
    id_column: str | None
    size: int | None
    rows: list[Row | Invalid]

    @property
    def said(self) -> str:
        """The input in a line."""
        size = "" if self.size is None else f" · {_bytes(self.size)}"
        identity = f"id from {self.id_column}" if self.id_column else "rows known by content"
        return f"{self.format} · {self.kind}{size} · {identity} · {', '.join(self.columns)}"


def read_head(source: str, id_column: str | None, *, has_prompt: bool) -> Head:
    """Open an input and read its first rows; blocks. Raises InputError."""
    if source == STREAM:
        raise InputError("the app cannot read standard input", "name a file, or run it without the app")
    found = rows.open_input(source, id_column=id_column, has_prompt=has_prompt)
    return Head(found.name, found.kind, found.format, found.columns, found.id_column, found.size, found.head(HEAD))


def _bytes(size: int) -> str:
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= limit:
            return f"{size / limit:.1f} {unit}"
    return f"{size} B"


class Origin(NamedTuple):
    """Where a variable has its value from: a column by name, a value for all rows, or the prompt's default."""

    kind: str
    text: str = ""

    def fits(self, columns: Sequence[str]) -> bool:
        """Whether an input with these columns has it."""
        return self.kind != "column" or self.text in columns


def guess(prompt: Prompt, name: str, columns: Sequence[str]) -> Origin:
    """Where a variable most likely has its value from: a column of its name, its default, else to be typed."""
    if name in columns:
        return Origin("column", name)
    if name in prompt.defaults or name in prompt.optional:
        return Origin(FROM_DEFAULT)
    plain = {column.casefold().replace("_", ""): column for column in columns}
    near = plain.get(name.casefold().replace("_", ""))
    return Origin("column", near) if near is not None else Origin(FROM_VALUE)


def variable_flags(origins: Mapping[str, Origin]) -> dict[str, Any]:
    """The flags that say where variables come from; nothing for what would be so anyway."""
    given = {name: origin.text for name, origin in origins.items() if origin.kind == FROM_VALUE and origin.text}
    mapped = {name: origin.text for name, origin in origins.items() if origin.kind == "column" and origin.text != name}
    return {**({"set": given} if given else {}), **({"columns": mapped} if mapped else {})}


def command(flags: Mapping[str, Any]) -> str:
    """The command that does the same without a screen, to copy."""
    words = ["batchrun"]
    names = [*(name for name in _ORDER if name in flags), *(name for name in flags if name not in _ORDER)]
    for name in names:
        option = "--" + _SPELLED.get(name, name).replace("_", "-")
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


class Asked(NamedTuple):
    """What decides the request of a row: the prompt, the kind of input, the model, and the flags of the variables."""

    prompt: Prompt | None
    kind: Kind
    model: str | None
    variables: Mapping[str, str]
    columns: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Preview:
    """The request of one row as it would be sent, or why it would not. `missing` names variables without a value."""

    text: str
    tokens: int = 0
    missing: tuple[str, ...] = ()
    trouble: str | None = None


def preview(asked: Asked, row: Row | None) -> Preview:
    """What this row sends; variables that are missing stand in the text as ⟨name⟩."""
    if row is None:
        return Preview("", trouble="choose an input to see a request")
    try:
        return _previewed(asked, row)
    except RenderError as error:
        return _with_gaps(asked, row, error)
    except BatchrunError as error:
        return Preview("", trouble=error.message)


def _with_gaps(asked: Asked, row: Row, error: RenderError) -> Preview:
    """The same row with marks for what it lacks."""
    filled = {**row.fields, **{name: f"⟨{name}⟩" for name in error.missing}}
    mapped = {name: column for name, column in asked.columns.items() if name not in error.missing}
    try:
        shown = _previewed(asked._replace(columns=mapped), row._replace(fields=filled))
    except BatchrunError:
        return Preview("", missing=error.missing, trouble=error.message)
    return Preview(shown.text, shown.tokens, error.missing, error.message)


def _previewed(asked: Asked, row: Row) -> Preview:
    request = _renderer(asked).render(row)
    return Preview(requests.readable(request), requests.tokens(len(request.body)))


def _renderer(asked: Asked) -> Renderer:
    prompt = asked.prompt
    if asked.kind is Kind.BATCH:
        return prompts.batch_renderer()
    if prompt is None and asked.kind is Kind.BODIES:
        return prompts.body_renderer(endpoint=Endpoint.CHAT, model=asked.model, params={}, id_column=None)
    if prompt is None:
        raise RefusedError("rows need a prompt")
    return prompts.renderer(
        prompt,
        endpoint=prompt.endpoint or Endpoint.CHAT,
        model=asked.model,
        params={},
        variables=asked.variables,
        columns=asked.columns,
    )


def place_to_save(path: Path) -> Path:
    """Where an edited prompt is saved: its own file; one that comes with batchrun is copied to ./prompts first."""
    shipped = prompts.default_places()[-1].resolve()
    inside = path.resolve().is_relative_to(shipped) and not shipped.is_relative_to(Path.cwd())
    return Path("prompts") / path.name if inside else path
