"""Compressed bodies without a header that says so; the others aiohttp decompresses."""

import sys
import zlib

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
COMPRESSED = frozenset({_GZIP[:1], _ZSTD[:1]})
"""First bytes of bodies for `undone`; JSON never starts with them."""


def undone(body: bytes, most: int) -> bytes:
    """The body decompressed (gzip, zstd); unchanged where it is broken or grows over `most` bytes."""
    try:
        if body.startswith(_GZIP):
            unpacker = zlib.decompressobj(wbits=31)
            plain, whole = unpacker.decompress(body, most), unpacker.eof
        elif body.startswith(_ZSTD):
            frame = zstd.ZstdDecompressor()
            plain, whole = frame.decompress(body, most), frame.eof
        else:
            return body
    except (zlib.error, zstd.ZstdError):
        return body
    return plain if whole else body
