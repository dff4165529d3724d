"""Contents of messages that are lists of parts: how each endpoint spells a text and a file.

A file is named by its digest where its content is to stand (`media.filled`). `[parts]` of providers/media.toml has the
shapes.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

import orjson

from batchrun.models import Endpoint, File
from batchrun.prompts.definition import RenderError
from batchrun.providers import table

MARKDOWN = re.compile(r"!\[[^\]\n]*\]\(\s*(\{\{-?\s*(\w+)\s*-?\}\})\s*\)")
"""A picture as Markdown has it, its address a variable."""
_GAP = re.compile(r"\{(\w+)(?::(\w*))?\}")


def unwrapped(template: str, names: Mapping[str, str]) -> str:
    """The template with each `![…]({{ name }})` of a variable that names files as the variable alone."""
    return MARKDOWN.sub(lambda found: found[1] if found[2] in names else found[0], template)


def part(endpoint: Endpoint, kind: str, file: File, detail: str | None) -> Any:
    """A file as a part of a message; `kind` is image, audio or file. Raises RenderError for an address that is not taken."""
    shapes = table("media")["parts"][endpoint]
    if file.sha256:
        known = _types()[file.type]
        data = f"sha256:{file.sha256}"
        url, name = f"data:{file.type};base64,{data}", f"{kind}.{known['suffix']}"
        values = {"url": url, "data": data, "format": known.get("format"), "name": name, "detail": detail}
        return _filled(shapes[kind], values)
    if kind != "image" and f"{kind}_link" not in shapes:
        raise RenderError(f"`{file.input}` is an address, which {endpoint} does not take", "Write the path of a file.")
    return _filled(shapes.get(f"{kind}_link", shapes[kind]), {"url": file.path, "detail": detail})


def content(endpoint: Endpoint, pieces: Sequence[str | Sequence[Any]]) -> Any:
    """The content of a message: texts and parts in turn. Line ends beside a part are left out, and texts that are blank;
    without any part it is a text."""
    if len(pieces) == 1 and isinstance(pieces[0], str):
        return pieces[0]
    shape = table("media")["parts"][endpoint]["text"]
    found: list[Any] = []
    for piece in pieces:
        if not isinstance(piece, str):
            found += piece
        elif text := piece.strip("\n"):
            found += [_filled(shape, {"text": text})] if text.strip() else []
    return found


def transcription(pieces: Sequence[str | Sequence[Any]]) -> bytes:
    """The members of a transcription with its recording and the text of its prompt. Raises RenderError unless there is just
    one recording."""
    recordings = [part for piece in pieces if not isinstance(piece, str) for part in piece]
    if len(recordings) != 1:
        raise RenderError(f"{len(recordings)} recordings, and a transcription is of one", "Give each its own row.")
    text = "".join(piece for piece in pieces if isinstance(piece, str)).strip()
    return orjson.dumps({"file": recordings[0], **({"prompt": text} if text else {})})[1:-1]


@cache
def _types() -> Mapping[str, Mapping[str, Any]]:
    return {line["type"]: line for line in reversed(table("media")["types"])}


def _filled(shape: Any, values: Mapping[str, str | None]) -> Any:
    """The shape with its gaps filled; members whose gap has no value are left out."""
    if isinstance(shape, dict):
        made = {name: _filled(member, values) for name, member in cast("dict[str, Any]", shape).items()}
        return {name: member for name, member in made.items() if member is not None}
    gap = _GAP.fullmatch(shape)
    return shape if gap is None else values.get(gap[1]) or gap[2]
