"""Where the output goes: its default name, its format, its columns, and what it may not overwrite."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from batchrun.errors import RefusedError
from batchrun.models import Kind

STREAM = "-"
_DEVICES = frozenset({"/dev", "/dev/fd", "/proc/self/fd"})
_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}


def default_output(stem: str, kind: Kind, prompt: str | None, form: str | None) -> str:
    """The output's name where none is chosen, in the current directory: `reviews.translate.jsonl`."""
    middle = {Kind.ROWS: prompt or "output", Kind.BATCH: "results", Kind.BODIES: "output"}[kind]
    return f"{stem}.{middle}.{form or 'jsonl'}"


def is_device(output: str | Path) -> bool:
    """Whether the output is a pipe or a device: written to as it is, with nothing beside it."""
    path = Path(os.path.abspath(output))  # links such as /dev/stdout are not followed
    return path.exists() and (not path.is_file() or str(path.parent) in _DEVICES)


def output_format(output: str, chosen: str | None, kind: Kind) -> str:
    """The format of the output: the chosen one, else by suffix, else JSONL. Raises RefusedError."""
    found = chosen or _by_suffix(output)
    if kind is Kind.BATCH and found != "jsonl":
        raise RefusedError("results of an OpenAI Batch file are written as JSONL", "name the output NAME.jsonl")
    return found


def _by_suffix(output: str) -> str:
    suffix = Path(output).suffix.lower()
    if output == STREAM or not suffix or not Path(output).name.strip(".-"):
        return "jsonl"
    if suffix not in _FORMATS:
        raise RefusedError(
            f"cannot tell the format of {output}",
            "name it .jsonl, .csv or .parquet, or add --format jsonl, csv or parquet",
        )
    return _FORMATS[suffix]


def check_not_input(output: str, sources: Iterable[str | None]) -> None:
    """Refuses an output that is a file which is read: the input or the prompt."""
    if output == STREAM:
        return
    target = Path(output).resolve()
    for source in sources:
        if source and source != STREAM and Path(source).resolve() == target:
            raise RefusedError(f"the output would overwrite {source}, which is read", "choose another --output")


def output_fields(schema: Mapping[str, Any] | None, *, column_chosen: bool) -> tuple[str, ...]:
    """The columns an output schema adds: its properties, unless a column for the whole value was chosen."""
    properties = schema.get("properties") if schema and not column_chosen else None
    return tuple(properties) if isinstance(properties, dict) else ()  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  names of a JSON object


def check_clash(added: Iterable[str], columns: Iterable[str]) -> None:
    """Refuses columns to add that the input already has."""
    clash = [name for name in added if name in set(columns)]
    if clash:
        raise RefusedError(
            f"the input already has a column {', '.join(clash)}",
            "name another with --output-column NAME",
        )
