"""What the journal has of the files of a row, as JSON."""

import os
from collections.abc import Iterable
from pathlib import Path

import orjson

from batchrun.media.values import is_address
from batchrun.models import File


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
