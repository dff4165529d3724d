"""A worker of post-processing on a Ray cluster, with plain data for shards and results."""

from functools import partial
from typing import Any, cast

from batchrun.cluster.messages import PIECE, pack, pieces, unpack
from batchrun.models import Usage
from batchrun.post.event_loop import UnknownRowsError
from batchrun.post.reply import Done, Failure, Item, Result, Shard, Value
from batchrun.post.worker import Setup, initialize, refusal, run

_new = cast("Any", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]  generic, and here of types of its own
_value: partial[Value] = partial(_new, Value)  # Value(…) in a tenth of a microsecond


def pack_shard(shard: Shard) -> bytes:
    return pack(shard)


def unpack_shard(data: bytes) -> Shard:
    items, stop_after, first, held = unpack(data)
    unpacked = [
        Item(text, row, value, None if usage is None else Usage(*usage), *rest)
        for text, row, value, usage, *rest in items
    ]
    return Shard(unpacked, stop_after, first, held)


def pack_done(done: Done | None) -> bytes:
    """None: the worker cannot take the shard."""
    return pack(None if done is None else done._replace(numbers=list(done.numbers)))


def unpack_done(data: bytes) -> Done | None:
    fields = unpack(data)
    if fields is None:
        return None
    results: list[Result] = [_value(each) if len(each) == 2 else Failure(*each) for each in fields[0]]
    return Done(results, *fields[1:])


class Actor:
    """Its calls are made one at a time."""

    def __init__(self) -> None:
        self._runs = 0
        self._pieces: tuple[list[bytes], list[bytes]] = [], []  # of two runs: the next may come before they are fetched

    def load(self, specs: tuple[str, ...], *rest: Any) -> tuple[str | None, ...] | None:
        # takes the fields of a Setup; returns those of a Failure
        initialize(Setup(tuple(specs), *rest))
        failure = refusal()
        return None if failure is None else tuple(failure)

    def run(self, *data: bytes) -> bytes | tuple[int, int]:
        """Returns a packed Done, or the number of the run and how many pieces it has."""
        try:
            done = run(unpack_shard(b"".join(data)))
        except UnknownRowsError:
            done = None
        result = pack_done(done)
        if len(result) <= PIECE:
            return result
        self._runs += 1
        self._pieces[self._runs % 2][:] = pieces(result)
        return self._runs, -(-len(result) // PIECE)

    def piece(self, run: int, place: int) -> bytes:
        return self._pieces[run % 2][place]
