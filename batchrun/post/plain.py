"""Shards, what comes of them, and messages between processes, as plain data: nothing of it can be code.

In the form of msgpack, which Ray needs as well, so that it is on every node; JSON takes ten times as long for texts.
"""

import importlib
import struct
from functools import cache, partial
from typing import Any, BinaryIO, cast

from batchrun.models import Usage
from batchrun.post.reply import Done, Failure, Item, Result, Shard, Value

_LENGTH = struct.Struct("<Q")
_new = cast("Any", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]  generic, and here of types of its own
_value: partial[Value] = partial(_new, Value)
"""What Value(…) comes to, by a way that takes it a tenth of a microsecond."""


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


def pack_shard(shard: Shard) -> bytes:
    """A shard as bytes."""
    return pack(shard)


def unpack_shard(data: bytes) -> Shard:
    """The shard again."""
    items, stop_after, first, held = unpack(data)
    return Shard([_item(*fields) for fields in items], stop_after, first, held)


def _item(text: str, row: str, value: str | None, usage: tuple[Any, ...] | None, *rest: Any) -> Item:
    return Item(text, row, value, None if usage is None else Usage(*usage), *rest)


def pack_done(done: Done | None) -> bytes:
    """What came of a shard as bytes; None for a shard that the worker cannot take."""
    return pack(None if done is None else done._replace(numbers=list(done.numbers)))


def unpack_done(data: bytes) -> Done | None:
    """What came of a shard again."""
    fields = unpack(data)
    if fields is None:
        return None
    results: list[Result] = [_value(each) if len(each) == 2 else Failure(*each) for each in fields[0]]
    return Done(results, *fields[1:])


def write(pipe: BinaryIO, message: Any) -> None:
    """Write one message, its length in eight bytes first. Raises OSError where nobody reads any more."""
    data = pack(message)
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def read(pipe: BinaryIO) -> Any:
    """The next message. Raises EOFError at the end."""
    header = pipe.read(_LENGTH.size)
    data = pipe.read(_LENGTH.unpack(header)[0]) if len(header) == _LENGTH.size else b""
    if not data:
        raise EOFError
    return unpack(data)
