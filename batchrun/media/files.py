"""The files that a variable names, their JSON in the journal, and their content in a request."""

import glob
import hashlib
import os
import re
from binascii import b2a_base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import orjson

from batchrun.display import printable, sizes
from batchrun.filetypes import HEAD, known_types, pixels, type_of
from batchrun.models import File

_SHOWN = 120  # characters of a path in a message
# where a body names a file; a row's text cannot match, as its quotation marks are escaped
_PLACE = re.compile(rb'"(?:url|image_url|file_data|data)":"(?:data:[\w./+-]+;base64,)?(sha256:([0-9a-f]{64}))"')


class MediaError(Exception):
    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def is_address(path: str) -> bool:
    """Whether the provider fetches it by itself."""
    return path.lower().startswith(("http://", "https://", "data:"))


def look(name: str, kind: str, value: Any, folders: Sequence[Path], takes: Mapping[str, Any]) -> list[File]:
    """`value`: a path (searched in each of `folders`), a pattern, an https address, or a list of these. Raises
    MediaError.
    """
    values = cast("list[Any]", value) if isinstance(value, list) else [value]
    found: list[File] = []
    for one in values:
        if one is None or (isinstance(one, str) and not one.strip()):
            continue
        if not isinstance(one, str):
            raise MediaError(f"`{name}` is {type(one).__name__}, but an input of kind {kind} is a path or an address")
        if is_address(one):
            found.append(_address(name, kind, one))
        else:
            found += [_checked(name, kind, _file(str(path), name), takes) for path in _paths(name, one, folders)]
    most = takes.get(f"{kind}s")
    if most is not None and len(found) > most:
        raise MediaError(
            f"`{name}` names {len(found)} files, but the provider accepts {most} of kind {kind} per request"
        )
    return found


def _address(name: str, kind: str, address: str) -> File:
    if not address.lower().startswith("https://"):
        raise MediaError(
            f"`{name}` is {printable(address, 40)}, which cannot be sent",
            "Write a path, a pattern, or an https:// address.",
        )
    if kind == "audio":
        raise MediaError(f"`{name}` is an address, but audio is sent as data", "Write the path of a file.")
    return File(name, address)


def _paths(name: str, value: str, folders: Sequence[Path]) -> Iterator[Path]:
    # in the first folder that has any
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
            what = "is a directory" if (folder / wanted).is_dir() else "is not a file"
            raise MediaError(f"`{name}`: {printable(value, _SHOWN)} {what}")
    raise MediaError(f"`{name}`: there is no file {printable(value, _SHOWN)}")


def _file(path: str, name: str) -> File:
    shown = printable(path, _SHOWN)
    try:
        status = os.stat(path)
        return _read(os.path.abspath(path), status.st_size, status.st_mtime)._replace(input=name)
    except OSError as error:
        raise MediaError(f"`{name}`: {shown} cannot be read: {error.strerror or error}") from None


@lru_cache(maxsize=1000)
def _read(path: str, size: int, modified: float) -> File:
    # without the name of an input
    with open(path, "rb") as stream:
        head = stream.read(HEAD)
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    kind = type_of(head)
    type = kind.type if kind is not None else ""
    return File("", path, size, type, digest, modified, *pixels(head, type))


def _checked(name: str, kind: str, file: File, takes: Mapping[str, Any]) -> File:
    shown = printable(file.path, _SHOWN)
    if not file.size:
        raise MediaError(f"`{name}`: {shown} is empty")
    types: Sequence[str] = takes.get(kind, ())
    if file.type not in types:
        known = known_types()
        names = ", ".join(dict.fromkeys(known[type].suffix.upper() if type in known else type for type in types))
        is_it = f"is {known[file.type].suffix.upper()}" if file.type in known else "is of an unknown type"
        raise MediaError(f"`{name}`: {shown} {is_it} by its content; the provider accepts these {kind} types: {names}")
    most = takes.get(f"{kind}_bytes")
    if most is not None and file.size > most:
        size, limit = sizes(file.size, most)
        raise MediaError(f"`{name}`: {shown} has {size}, but the provider accepts {kind} files of at most {limit}")
    return file


def to_json(files: Iterable[File], folder: Path) -> str:
    """Paths in the journal's project are relative to `folder`, so that both can be moved."""
    noted = [{**file._asdict(), "path": _noted(file.path, folder)} for file in files]
    return orjson.dumps(noted).decode() if noted else ""


def from_json(text: str, folder: Path) -> tuple[File, ...]:
    """With absolute paths."""
    if not text:
        return ()
    files = (File(**noted) for noted in orjson.loads(text))
    return tuple(
        file if is_address(file.path) else file._replace(path=os.path.normpath(folder.absolute() / file.path))
        for file in files
    )


def encoded_size(text: str) -> int:
    """Bytes of a row's files in its body."""
    return sum(File(**noted).encoded for noted in orjson.loads(text))


def _noted(path: str, folder: Path) -> str:
    project = folder.absolute().parent
    if is_address(path) or not Path(path).is_relative_to(project):
        return path
    return Path(os.path.relpath(path, folder.absolute())).as_posix()


class ChangedError(Exception):
    """A file is missing, unreadable or changed since intake."""


def filled(body: bytes, files: Sequence[File]) -> bytes:
    """With contents in base64. Blocks. Raises ChangedError."""
    held = {file.sha256.encode(): file for file in files if file.sha256}
    pieces: list[bytes] = []
    after = 0
    for place in _PLACE.finditer(body):
        file = held.get(place[2])
        if file is not None:
            pieces += [body[after : place.start(1)], b2a_base64(content(file), newline=False)]
            after = place.end(1)
    return b"".join([*pieces, body[after:]])


def form(body: bytes, files: Sequence[File]) -> bytes:
    """As a multipart form (RFC 7578). Blocks. Raises ChangedError."""
    fields: dict[str, Any] = orjson.loads(body)
    boundary = f"batchrun-{hashlib.sha256(body).hexdigest()}".encode()
    held = {f"sha256:{file.sha256}": file for file in files}
    pieces: list[bytes] = []
    for name, value in fields.items():
        if name == "file":
            file = held[value]
            suffix = known_types()[file.type].suffix
            head = f'name="file"; filename="audio.{suffix}"\r\nContent-Type: {file.type}'
            pieces += [_field(boundary, head), content(file), b"\r\n"]
            continue
        several = isinstance(value, list)
        for one in cast("list[Any]", value) if several else [value]:
            text = one if isinstance(one, str) else orjson.dumps(one).decode()
            pieces += [_field(boundary, f'name="{name}{"[]" if several else ""}"'), text.encode(), b"\r\n"]
    return b"".join([*pieces, b"--%b--\r\n" % boundary])


def _field(boundary: bytes, head: str) -> bytes:
    return b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n" % (boundary, head.encode())


def content(file: File) -> bytes:
    """Raises ChangedError."""
    try:
        with open(file.path, "rb") as stream:
            data = stream.read()
    except OSError as error:
        raise ChangedError(_missing(file, error)) from None
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise ChangedError(_changed(file))
    return data


def why_changed(file: File) -> str | None:
    # A file is read only if its size is the same and its time is not.
    if not file.sha256:
        return None
    try:
        status = os.stat(file.path)
        if status.st_size == file.size and status.st_mtime == file.modified:
            return None
        if status.st_size == file.size:
            with open(file.path, "rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256:
                    return None
    except OSError as error:
        return _missing(file, error)
    return _changed(file)


def _missing(file: File, error: OSError) -> str:
    return f"{printable(file.path, 200)} cannot be read: {error.strerror or error}"


def _changed(file: File) -> str:
    return f"{printable(file.path, 200)} has changed since its row was read"
