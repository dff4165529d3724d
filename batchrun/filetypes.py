"""A file's media type by its content, and the size of a picture. Pure."""

import struct
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from batchrun.providers import table

HEAD = 256 * 1024  # bytes of a file that suffice: a JPEG has its size after metadata and colour profile

# JPEG markers of a frame, which has the size (ITU T.81, table B.1)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class Kind(NamedTuple):
    # `format`: as audio; `suffix`: the usual one
    kind: str
    type: str
    format: str
    suffix: str


class _Magic(NamedTuple):
    start: bytes
    at: int
    also: bytes
    kind: Kind


@cache
def _magics() -> tuple[_Magic, ...]:
    return tuple(
        _Magic(
            bytes.fromhex(line["magic"]),
            line.get("at", 0),
            bytes.fromhex(line.get("also", "")),
            Kind(line["kind"], line["type"], line.get("format", ""), line["suffix"]),
        )
        for line in table("media")["types"]
    )


@cache
def known_types() -> Mapping[str, Kind]:
    return {magic.kind.type: magic.kind for magic in _magics()}


def type_of(head: bytes) -> Kind | None:
    for start, at, also, kind in _magics():
        if head.startswith(start) and head.startswith(also, at):
            return kind
    return None


def is_known(head: bytes) -> bool:
    return type_of(head) is not None


def pixels(head: bytes, type: str) -> tuple[int, int]:
    """(width, height), (0, 0) if unreadable."""
    try:
        return _SIZES[type](head) if type in _SIZES else (0, 0)
    except (struct.error, IndexError):
        return 0, 0


def _png(head: bytes) -> tuple[int, int]:
    return struct.unpack(">II", head[16:24])


def _gif(head: bytes) -> tuple[int, int]:
    return struct.unpack("<HH", head[6:10])


def _jpeg(head: bytes) -> tuple[int, int]:
    at = 2
    while head[at] == 0xFF:
        marker = head[at + 1]
        if marker == 0xFF:
            at += 1  # a fill byte
            continue
        if marker in _FRAMES:
            height, width = struct.unpack(">HH", head[at + 5 : at + 9])
            return width, height
        (length,) = struct.unpack(">H", head[at + 2 : at + 4])
        at += 2 + length
    return 0, 0


def _webp(head: bytes) -> tuple[int, int]:
    # lossy, lossless and extended form (RFC 9649)
    form = head[12:16]
    if form == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if form == b"VP8L":
        (bits,) = struct.unpack("<I", head[21:25])
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", head[26:30])
    return width & 0x3FFF, height & 0x3FFF


_SIZES: Mapping[str, Any] = {"image/png": _png, "image/gif": _gif, "image/jpeg": _jpeg, "image/webp": _webp}
