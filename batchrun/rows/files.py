"""Directories and globs: each file is a row, or files of rows are one input."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from batchrun.display import printable
from batchrun.errors import InputError
from batchrun.models import Invalid
from batchrun.rows.check import ROW_LIMIT, Record, encodable, invalid, string
from batchrun.rows.detect import BY_SUFFIX
from batchrun.rows.source import BOM, GZIP_MAGIC, ZSTD_MAGICS, encoding_hint, suffix_of, translated

_ROWS = {
    **{suffix: format for suffix, format in BY_SUFFIX.items() if format in ("jsonl", "csv", "tsv")},
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_NEVER_TEXT = frozenset({"jsonl", "parquet", "arrow"})
NEEDS_CONTENT = ".json"  # rows or one document
_BESIDE = "_"  # prefix of marker files of Spark and Hive (`_SUCCESS`)


def is_glob(source: str) -> bool:
    return glob.has_magic(source)


def files_of(source: str) -> list[tuple[str, Path]]:
    """Names from outside the current directory are relative to a glob's fixed part."""
    if os.path.isdir(source):
        return in_directory(Path(source))
    found = matching(source)
    if not any(os.path.isabs(name) or os.path.normpath(name).startswith("..") for name, _ in found):
        return found
    fixed = os.path.dirname(source[: re.search(r"[*?\[]|\Z", source).start()])  # pyright: ignore[reportOptionalMemberAccess]  the end is always found
    return [(Path(os.path.relpath(path, fixed or ".")).as_posix(), path) for _, path in found]


def in_directory(directory: Path) -> list[tuple[str, Path]]:
    """Sorted, without hidden files and links. Raises InputError."""
    name = printable(str(directory))
    with translated(name):
        found = sorted((path.relative_to(directory).as_posix(), path) for path in _below(directory))
    if not found:
        raise InputError(f"There are no files in the directory {name}.")
    return found


def matching(pattern: str) -> list[tuple[str, Path]]:
    """Raises InputError."""
    found = [(name, Path(name)) for name in sorted(glob.iglob(pattern, recursive=True)) if Path(name).is_file()]
    if not found:
        raise InputError(f"No file matches {printable(pattern)}.")
    return found


def files_of_rows(found: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """All, if their suffixes are of one format."""
    wanted = [file for file in found if not file[1].name.startswith(_BESIDE)]
    suffixes = {suffix_of(name) for name, _ in wanted}
    one_json = NEEDS_CONTENT in suffixes and len(suffixes) > 1
    formats = {_ROWS.get(suffix) for suffix in suffixes}
    return wanted if len(formats) == 1 and None not in formats and not one_json else []


def among_others(found: Sequence[tuple[str, Path]]) -> tuple[str, str] | None:
    """CSV and TSV may be documents and do not count."""
    rows = next(
        (
            (name, _ROWS[suffix_of(name)])
            for name, _ in found
            if _ROWS.get(suffix_of(name)) in _NEVER_TEXT and suffix_of(name) != NEEDS_CONTENT
        ),
        None,
    )
    if rows is None:
        return None
    return next(((rows[0], name) for name, _ in found if _ROWS.get(suffix_of(name)) != rows[1]), None)


def read_files(
    files: Sequence[tuple[str, Path]], encoding: str | None, *, sent: bool = False
) -> Iterator[Record | Invalid]:
    """Numbered from 1; with `sent` without text."""
    for number, (name, path) in enumerate(files, 1):
        if encodable(name):
            yield _named(number, {"path": name, "name": path.name}) if sent else _record(number, name, path, encoding)
        else:
            yield invalid(number, name, "a name that is not UTF-8")


def _no_text(data: bytes, encoding: str | None) -> str:
    if encoding is not None:
        return f"not text in {encoding}"
    if data.startswith((GZIP_MAGIC, *ZSTD_MAGICS)):
        return "compressed: unpack it first"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) and len(data) % 2 == 0:
        return "text in UTF-16: read it with --encoding utf-16, or save it as UTF-8"
    if b"\0" in data:
        return "a binary file"
    return f"not text in UTF-8: state its encoding (for example --encoding {encoding_hint(data)}), or remove the file"


def _below(directory: Path) -> Iterator[Path]:
    # An unreadable directory raises OSError: files must not vanish.
    for folder, folders, names in os.walk(directory, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(folder, name) for name in names if not name.startswith("."))
        yield from (path for path in paths if path.is_file())


def _raise(error: OSError) -> NoReturn:
    raise error


def _record(number: int, name: str, path: Path, encoding: str | None) -> Record | Invalid:
    try:
        with path.open("rb") as file:
            data = file.read(ROW_LIMIT + 1)
    except OSError as error:
        return invalid(number, name, f"cannot be read: {error.strerror}")
    if len(data) > ROW_LIMIT:
        return invalid(number, name, f"larger than {ROW_LIMIT // 1024**2} MiB")
    from batchrun.rows.texts import UnreadableError, document_text  # noqa: PLC0415  readers of XML and HTML

    try:
        text = document_text(data, suffix_of(name))
        if text is None:
            text = data.decode(encoding) if encoding else data.removeprefix(BOM).decode()
    except UnreadableError as error:
        return invalid(number, name, str(error))
    except UnicodeDecodeError:
        return invalid(number, name, _no_text(data, encoding))
    if "\0" in text:
        return invalid(number, name, "a binary file")
    return _named(number, {"path": name, "name": path.name, "text": text})


def _named(number: int, fields: dict[str, str]) -> Record:
    return number, "{" + ",".join(f"{string(key)}:{string(value)}" for key, value in fields.items()) + "}", fields
