"""Names, formats and columns of outputs; `{path}` makes one per document."""

import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from batchrun.errors import RefusedError
from batchrun.models import Kind

STREAM = "-"
_DEVICES = frozenset({"/dev", "/dev/fd", "/proc/self/fd"})
_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
}
ROW_SUFFIXES = tuple(_FORMATS)
_ALIKE = frozenset({"csv", "tsv"})


def default_output(stem: str, kind: Kind, prompt: str | None, form: str) -> str:
    middle = {Kind.ROWS: prompt or "output", Kind.BATCH: "results", Kind.BODIES: "output"}[kind]
    return f"{stem}.{middle}.{form}"


def default_format(kind: Kind, input_format: str) -> str:
    return input_format if kind is Kind.ROWS and input_format in _ALIKE else "jsonl"


def is_device(output: str | Path) -> bool:
    path = Path(os.path.abspath(output))  # links such as /dev/stdout are not followed
    return path.exists() and (not path.is_file() or str(path.parent) in _DEVICES)


def document_format(output: str, chosen: str | None) -> str:
    if chosen is not None:
        return "jsonl" if chosen == "rows" else chosen
    return "jsonl" if output == STREAM else _FORMATS.get(Path(output).suffix.lower(), DOCUMENT)


def output_format(output: str, chosen: str | None, kind: Kind) -> str:
    """Raises RefusedError."""
    chosen = "jsonl" if chosen == "rows" else chosen
    if chosen is not None and chosen not in _FORMATS.values():
        raise RefusedError(f"--format must be jsonl, csv, tsv, parquet or xlsx, not {chosen}")
    found = chosen or _by_suffix(output)
    if kind is Kind.BATCH and found != "jsonl":
        raise RefusedError("results of an OpenAI Batch file are written as JSONL", "name the output NAME.jsonl")
    if found == "xlsx" and output == STREAM:
        raise RefusedError("an Excel workbook cannot be written to standard output", "name a file: --output NAME.xlsx")
    return found


def _by_suffix(output: str) -> str:
    suffix = Path(output).suffix.lower()
    if output == STREAM or not suffix or not Path(output).name.strip(".-"):
        return "jsonl"
    if suffix not in _FORMATS:
        raise RefusedError(
            f"the format of {output} is unknown",
            "use the suffix .jsonl, .csv, .tsv, .parquet or .xlsx, or add --format with one of these",
        )
    return _FORMATS[suffix]


def errors_path(output: Path) -> Path:
    output = one_path(output)
    return output.with_name(f"{output.stem}.errors.jsonl")


def partial_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.partial")


def written_beside(output: Path) -> tuple[Path, ...]:
    return (output,) if is_device(output) else (output, errors_path(output), partial_path(output))


def check_output(output: str) -> None:
    """Raises RefusedError."""
    if output == STREAM:
        return
    if is_pattern(output):
        output = str(one_path(output))
        directory = Path(output).parent
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RefusedError(
                f"{directory}: cannot be created: {error.strerror}", "choose another --output"
            ) from error
    parent = Path(output).parent
    try:
        if Path(output).is_dir():
            raise RefusedError(f"{output}: the output is a directory", "use a file in it")
        if not parent.is_dir():
            raise RefusedError(f"{parent}: no such directory for the output", f"mkdir -p {parent}")
        writable = is_device(output) or os.access(parent, os.W_OK | os.X_OK)
    except PermissionError:
        writable = False
    if not writable:
        raise RefusedError(f"{parent}: no permission to write the output there", "choose another --output")


def check_not_input(output: str, sources: Iterable[str | None]) -> None:
    """Raises RefusedError if the output replaces an input or would be read as one."""
    if output == STREAM:
        return
    targets = {path.resolve() for path in written_beside(Path(output))}
    for source in sources:
        if not source or source == STREAM:
            continue
        place = Path(source).expanduser()
        if place.resolve() in targets:
            what = "output" if place.resolve() == Path(output).resolve() else f"run with the output {output}"
            raise RefusedError(f"the {what} would overwrite the input {source}", "choose another --output")
        if any(_is_among(path, place) for path in targets):
            raise RefusedError(
                f"the output would be read as part of {source} the next time", "choose an --output elsewhere"
            )


def _is_among(path: Path, place: Path) -> bool:
    if place.is_dir():
        folder = place.resolve()
        hidden = path.is_relative_to(folder) and any(part[0] == "." for part in path.relative_to(folder).parts)
        return path.is_relative_to(folder) and not hidden
    return not place.exists() and path.parent == place.parent.resolve() and fnmatch(path.name, place.name)


def output_fields(schema: Mapping[str, Any] | None, *, column_chosen: bool) -> tuple[str, ...]:
    properties = schema.get("properties") if schema and not column_chosen else None
    return tuple(properties) if isinstance(properties, dict) else ()  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  names of a JSON object


def check_clash(added: Iterable[str], columns: Iterable[str]) -> None:
    """Raises RefusedError for columns of the input."""
    clash = [name for name in added if name in set(columns)]
    if clash:
        raise RefusedError(
            f"the input already has a column {', '.join(clash)}",
            "use another with --output-column NAME",
        )


PATH = "{path}"
MANY = "documents"
DOCUMENT = "document"


def input_format(format: str) -> str:
    return f"{format} document"


def is_document(format: str) -> bool:
    return format == MANY or format.endswith(" document")


def is_pattern(output: str | Path) -> bool:
    return PATH in str(output)


def one_path(output: str | Path) -> Path:
    return Path(str(output).replace(PATH, MANY))


def file_for(output: str | Path, path: str) -> Path:
    return Path(str(output).replace(PATH, path))


def target_language(chosen: str | None, variables: dict[str, str]) -> str | None:
    from batchrun.documents import code_of  # noqa: PLC0415  its table of languages: not to look at runs

    if chosen is not None:
        return code_of(chosen) or chosen
    named = (variables[name] for name in ("target_language", "language", "lang", "locale") if name in variables)
    return next((code for name in named if (code := code_of(name)) is not None), None)
