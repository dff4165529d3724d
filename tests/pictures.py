"""Tiny pictures and other files, made for tests."""

import struct
import zlib
from pathlib import Path


def png(width: int, height: int, colour: tuple[int, int, int] = (255, 0, 0)) -> bytes:
    """A picture of one colour."""
    rows = b"".join(b"\0" + bytes(colour) * width for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def jpeg(width: int, height: int, metadata: int = 100) -> bytes:
    """The beginning of one, with so many bytes of metadata before its first frame."""
    segment = b"\xff\xe1" + struct.pack(">H", metadata + 2) + b"\0" * metadata
    return b"\xff\xd8" + segment + b"\xff\xc0" + struct.pack(">HBHH", 17, 8, height, width) + b"\0" * 20


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0" * 10


def webp(width: int, height: int) -> bytes:
    """An extended one."""
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + sizes


WAV = b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 28
MP3 = b"ID3\x04" + b"\0" * 40
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"


def folder(path: Path, count: int = 3) -> list[Path]:
    """So many different pictures in a folder."""
    path.mkdir(exist_ok=True)
    paths = [path / f"{number}.png" for number in range(count)]
    for number, one in enumerate(paths):
        one.write_bytes(png(10 + number, 5))
    return paths
