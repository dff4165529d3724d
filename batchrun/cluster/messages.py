"""Messages between processes as plain data: nothing of it can be code.

In the form of msgpack, which Ray needs as well, so that it is on every node; JSON takes ten times as long for texts.
"""

import asyncio
import importlib
import struct
from functools import cache
from typing import Any, BinaryIO

_LENGTH = struct.Struct("<Q")
PIECE = 90_000
"""Bytes in one argument or result at most. Ray carries what has less than 100 kB in the message itself; anything larger
goes through its object store, which costs three times as much and may end on a disk."""


def pieces(data: bytes) -> list[bytes]:
    """The data in pieces that are carried in a message."""
    return [data[start : start + PIECE] for start in range(0, len(data), PIECE)]


@cache
def _msgpack() -> Any:
    """Of the extra: loaded with a cluster only."""
    return importlib.import_module("msgpack")


def pack(value: Any) -> bytes:
    """Lists, texts, bytes, numbers and None as bytes; texts may have lone surrogates."""
    return _msgpack().packb(value, unicode_errors="surrogatepass")


def unpack(data: bytes) -> Any:
    """What was packed, with tuples for lists."""
    return _msgpack().unpackb(data, use_list=False, unicode_errors="surrogatepass", strict_map_key=False)


def packed(message: Any) -> bytes:
    """One message as it is written, its length in eight bytes first."""
    data = pack(message)
    return _LENGTH.pack(len(data)) + data


def write(pipe: BinaryIO, message: Any) -> None:
    """Write one message. Raises OSError where the other end is closed."""
    pipe.write(packed(message))
    pipe.flush()


def read(pipe: BinaryIO) -> Any:
    """The next message. Raises EOFError at the end."""
    header = pipe.read(_LENGTH.size)
    data = pipe.read(_LENGTH.unpack(header)[0]) if len(header) == _LENGTH.size else b""
    if not data:
        raise EOFError
    return unpack(data)


async def received(stream: asyncio.StreamReader) -> Any:
    """The next message, on an event loop. Raises EOFError at the end."""
    header = await stream.readexactly(_LENGTH.size)
    return unpack(await stream.readexactly(_LENGTH.unpack(header)[0]))
