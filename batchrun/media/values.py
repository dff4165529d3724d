"""From the value of a variable to the files that it names: read once to know what they are, never kept; and those files as
the journal has them (JSON)."""

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import orjson

from batchrun.display import printable
from batchrun.filetypes import HEAD, known_types, pixels, type_of
from batchrun.models import File

_SHOWN = 120
"""Characters of a path in a message."""


class MediaError(Exception):
    """A value that names no file that can be sent; `hint` is what to do, None where the message says it."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def is_address(path: str) -> bool:
    """Whether a value is an address, which the provider fetches by itself, and not a path."""
    return path.lower().startswith(("http://", "https://", "data:"))


def look(name: str, kind: str, value: Any, folders: Sequence[Path], takes: Mapping[str, Any]) -> list[File]:
    """The files that the value of the variable `name` names: a path, a pattern, an https address, or a list of such.

    `kind` is image, audio or file; a relative path is looked for in each of `folders`. `takes` are limits of the provider,
    as `[takes]` of providers/media.toml has them. None and blank name nothing. Raises MediaError.
    """
    values = cast("list[Any]", value) if isinstance(value, list) else [value]
    found: list[File] = []
    for one in values:
        if one is None or (isinstance(one, str) and not one.strip()):
            continue
        if not isinstance(one, str):
            raise MediaError(f"`{name}` is {type(one).__name__}, and an input of kind {kind} is a path or an address")
        if is_address(one):
            found.append(_address(name, kind, one))
        else:
            found += [_checked(name, kind, _file(str(path), name), takes) for path in _paths(name, one, folders)]
    most = takes.get(f"{kind}s")
    if most is not None and len(found) > most:
        raise MediaError(f"`{name}` is {len(found)} files, and the provider takes {most} of kind {kind} in a request")
    return found


def _address(name: str, kind: str, address: str) -> File:
    if not address.lower().startswith("https://"):
        raise MediaError(
            f"`{name}` is {printable(address, 40)}, which is not sent",
            "Write a path, a pattern, or an https:// address.",
        )
    if kind == "audio":
        raise MediaError(f"`{name}` is an address, and audio is sent as data", "Write the path of a file.")
    return File(name, address)


def _paths(name: str, value: str, folders: Sequence[Path]) -> Iterator[Path]:
    """The files that a path or a pattern names, in the first of the folders that has any."""
    wanted = os.path.expanduser(value)
    for folder in folders:
        path = folder / wanted
        if path.is_file():
            yield path
            return
    if glob.has_magic(wanted):
        for folder in folders:
            found = [
                path
                for one in sorted(glob.glob(wanted, root_dir=folder, recursive=True))
                if (path := folder / one).is_file()
            ]
            if found:
                yield from found
                return
        raise MediaError(f"`{name}`: no file matches {printable(value, _SHOWN)}")
    for folder in folders:
        if os.path.lexists(folder / wanted):
            what = "is a directory" if (folder / wanted).is_dir() else "is no file"
            raise MediaError(f"`{name}`: {printable(value, _SHOWN)} {what}")
    raise MediaError(f"`{name}`: there is no file {printable(value, _SHOWN)}")


def _file(path: str, name: str) -> File:
    """What is known of a file after it was read whole. Raises MediaError."""
    shown = printable(path, _SHOWN)
    try:
        status = os.stat(path)
        return _read(os.path.abspath(path), status.st_size, status.st_mtime)._replace(input=name)
    except OSError as error:
        raise MediaError(f"`{name}`: {shown} cannot be read: {error.strerror or error}") from None


@lru_cache(maxsize=1000)
def _read(path: str, size: int, modified: float) -> File:
    """The record of a file, without the name of an input; one that several rows have is read once."""
    with open(path, "rb") as stream:
        head = stream.read(HEAD)
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    kind = type_of(head)
    type = kind.type if kind is not None else ""
    return File("", path, size, type, digest, modified, *pixels(head, type))


def _checked(name: str, kind: str, file: File, takes: Mapping[str, Any]) -> File:
    """The file, if the provider takes it as an input of that kind. Raises MediaError."""
    shown = printable(file.path, _SHOWN)
    if not file.size:
        raise MediaError(f"`{name}`: {shown} is empty")
    types: Sequence[str] = takes.get(kind, ())
    if file.type not in types:
        known = known_types()
        names = ", ".join(dict.fromkeys(known[type].suffix.upper() if type in known else type for type in types))
        is_it = f"is {known[file.type].suffix.upper()}" if file.type in known else "is of no type that is known"
        raise MediaError(f"`{name}`: {shown} {is_it} by its content; of kind {kind} is sent: {names}")
    most = takes.get(f"{kind}_bytes")
    if most is not None and file.size > most:
        raise MediaError(
            f"`{name}`: {shown} has {file.size / 1e6:,.1f} MB, and the provider takes {kind} files of {most / 1e6:,.1f} MB"
        )
    return file


def to_json(files: Iterable[File], folder: Path) -> str:
    """Files as the journal in `folder` has them, empty for none. A path in the project of the journal is relative to
    `folder`, so that both can be moved together."""
    noted = [{**file._asdict(), "path": _noted(file.path, folder)} for file in files]
    return orjson.dumps(noted).decode() if noted else ""


def from_json(text: str, folder: Path) -> tuple[File, ...]:
    """The same files, their paths absolute."""
    if not text:
        return ()
    files = (File(**noted) for noted in orjson.loads(text))
    return tuple(
        file if is_address(file.path) else file._replace(path=os.path.normpath(folder.absolute() / file.path))
        for file in files
    )


def encoded_size(text: str) -> int:
    """Bytes that the files of a row have in its body."""
    return sum(File(**noted).encoded for noted in orjson.loads(text))


def _noted(path: str, folder: Path) -> str:
    project = folder.absolute().parent
    if is_address(path) or not Path(path).is_relative_to(project):
        return path
    return Path(os.path.relpath(path, folder.absolute())).as_posix()
