"""Prices that were looked up today, in the user's cache directory.

A run that finds its own there does not import genai-prices, which takes 0.13 s of CPU.

They are valid for one day (UTC), and for the files of genai-prices and of batchrun that made them, as Python's compiled
files are. `prices.json` begins with a digest of both and of its content; where that does not agree, it is ignored.
"""

import datetime
import hashlib
import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from batchrun import user_directories

NAME = "prices.json"
MOST = 100  # prices in the file


def key_of(model: str, base_url: str) -> str:
    """Without the address, which can contain what only its user may know."""
    return hashlib.sha256(f"{model}\n{base_url}".encode()).hexdigest()


def validity(package: str, made_by: str, day: datetime.date) -> str:
    """The package's version and files, the file `made_by` and the day. Raises OSError where there are no such files."""
    spec = find_spec(package)  # does not import it
    if spec is None or spec.origin is None:
        raise FileNotFoundError(package)
    files = [made_by, *sorted(entry.path for entry in os.scandir(Path(spec.origin).parent) if entry.is_file())]
    states = [(path, (found := os.stat(path)).st_size, found.st_mtime_ns) for path in files]
    return repr((version(package), states, day.isoformat()))


def read(valid: str) -> Mapping[str, Any]:
    """Price by key; nothing if there is no file for `valid`, or others can write to its directory."""
    try:
        folder = _folder()
        found = folder.stat()
        if hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or found.st_mode & 0o022):
            return {}
        digest, _, content = (folder / NAME).read_bytes().partition(b"\n")
    except OSError:
        return {}
    return json.loads(content) if digest == _digest(valid, content) else {}


def add(valid: str, key: str, price: Any) -> None:
    """`price`: as `json` writes it. Does nothing where the file cannot be written."""
    prices = {**read(valid), key: price}
    if len(prices) > MOST:
        return
    content = json.dumps(prices, separators=(",", ":")).encode()
    try:
        folder = _folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        building = folder / f"{NAME}.{os.getpid()}"
        building.write_bytes(_digest(valid, content) + b"\n" + content)
        building.replace(folder / NAME)
    except OSError:
        pass


def _folder() -> Path:
    # raises FileNotFoundError without a home directory
    folder = user_directories.cache()
    if folder is None:
        raise FileNotFoundError
    return folder


def _digest(valid: str, content: bytes) -> bytes:
    return hashlib.sha256(valid.encode() + b"\n" + content).hexdigest().encode()
