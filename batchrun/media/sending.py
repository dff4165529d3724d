"""The content of files, put into a request when it is sent."""

import hashlib
import os
import re
from binascii import b2a_base64
from collections.abc import Sequence
from typing import Any, cast

import orjson

from batchrun.display import printable
from batchrun.filetypes import known_types
from batchrun.models import File

_PLACE = re.compile(rb'"(?:url|image_url|file_data|data)":"(?:data:[\w./+-]+;base64,)?(sha256:([0-9a-f]{64}))"')
"""Where a body names a file. A row's text cannot match, as its quotation marks are escaped."""


class ChangedError(Exception):
    """A file is missing, unreadable or changed since intake."""


def filled(body: bytes, files: Sequence[File]) -> bytes:
    """The body with its files' content in base64. Blocks. Raises ChangedError."""
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
    """A transcription as a multipart form (RFC 7578). Blocks. Raises ChangedError."""
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
    """The bytes of a file. Raises ChangedError."""
    try:
        with open(file.path, "rb") as stream:
            data = stream.read()
    except OSError as error:
        raise ChangedError(_missing(file, error)) from None
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise ChangedError(_changed(file))
    return data


def why_changed(file: File) -> str | None:
    """Why a file cannot be sent, or None; reads it only where its size is the same and its time is not."""
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
