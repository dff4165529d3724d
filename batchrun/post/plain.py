"""Shards and results as plain data without code."""

from functools import partial
from typing import Any, cast

from batchrun.cluster.messages import pack, unpack
from batchrun.models import Usage
from batchrun.post.reply import Done, Failure, Item, Result, Shard, Value

_new = cast("Any", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]  generic, and here of types of its own
_value: partial[Value] = partial(_new, Value)
"""Value(…) in a tenth of a microsecond."""


def pack_shard(shard: Shard) -> bytes:
    return pack(shard)


def unpack_shard(data: bytes) -> Shard:
    items, stop_after, first, held = unpack(data)
    return Shard([_item(*fields) for fields in items], stop_after, first, held)


def _item(text: str, row: str, value: str | None, usage: tuple[Any, ...] | None, *rest: Any) -> Item:
    return Item(text, row, value, None if usage is None else Usage(*usage), *rest)


def pack_done(done: Done | None) -> bytes:
    """Packs None for a shard that the worker cannot take."""
    return pack(None if done is None else done._replace(numbers=list(done.numbers)))


def unpack_done(data: bytes) -> Done | None:
    fields = unpack(data)
    if fields is None:
        return None
    results: list[Result] = [_value(each) if len(each) == 2 else Failure(*each) for each in fields[0]]
    return Done(results, *fields[1:])
