"""What the simulated provider makes of pictures, audio and documents: it says what they are."""

import re
from base64 import b64decode
from typing import Any

from batchrun.filetypes import pixels, type_of
from batchrun.providers import table

_KINDS = {"image_url": "image", "input_image": "image", "input_audio": "audio", "file": "file", "input_file": "file"}
_SIMULATED = table("media")["simulated"]


def said_of(part: dict[str, Any]) -> tuple[str, int] | None:
    """What is said of a part of a message that has a file, and its tokens; None for a part that has none.

    Raises ValueError for content that is not base64 or of no known type.
    """
    kind = _KINDS.get(part.get("type") or "")
    if kind is None:
        return None
    held: dict[str, Any] = part.get(part["type"], part)
    given: str = next(held[name] for name in _MEMBERS if held.get(name))
    if given.startswith("https://"):
        return f"a file at {given}", _SIMULATED[kind]["tokens"]
    return said_of_data(kind, b64decode(given.partition("base64,")[2] or given, validate=True))


def form_of(body: bytes) -> dict[str, Any] | None:
    """The fields of a form: texts, and bytes for a file (RFC 7578); None where it is none."""
    divider, line, _ = body.partition(b"\r\n")
    if not line or not divider.startswith(b"--"):
        return None
    fields: dict[str, Any] = {}
    for piece in body.split(divider)[1:-1]:
        head, _, value = piece.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if name is None:
            return None
        value = value.removesuffix(b"\r\n")
        fields[name[1].decode()] = value if b"filename=" in head else value.decode()
    return fields


_NAME = re.compile(rb' name="([^"]+)"')
_MEMBERS = ("url", "image_url", "data", "file_data", "file_url")


def said_of_data(kind: str, data: bytes) -> tuple[str, int]:
    """The same of the content of a file. Raises ValueError where its type is not known."""
    found = type_of(data)
    if found is None:
        raise ValueError("a file of no known type")
    width, height = pixels(data, found.type)
    told = _SIMULATED[kind]
    values = {"type": found.suffix.upper(), "width": width, "height": height, "bytes": len(data)}
    return told["text"].format_map(values), told["tokens"]
