"""A worker of post-processing on a Ray cluster. Results are plain data, as a user's exception may not survive pickling."""

from typing import Any

from batchrun.cluster.messages import PIECE, pieces
from batchrun.post.event_loop import UnknownRowsError
from batchrun.post.plain import pack_done, unpack_shard
from batchrun.post.worker import Setup, initialize, refusal, run


class Actor:
    """Its calls are made one at a time."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []

    def load(self, specs: tuple[str, ...], *rest: Any) -> tuple[str | None, ...] | None:
        """Takes the fields of a Setup; returns those of a Failure where the functions cannot be imported."""
        initialize(Setup(tuple(specs), *rest))
        failure = refusal()
        return None if failure is None else tuple(failure)

    def run(self, *data: bytes) -> bytes | int:
        """Run a packed shard; returns the packed Done (None where it counts on unknown rows), or its number of pieces."""
        try:
            done = run(unpack_shard(b"".join(data)))
        except UnknownRowsError:
            done = None
        result = pack_done(done)
        if len(result) <= PIECE:
            return result
        self._rest = pieces(result)
        return len(self._rest)

    def piece(self, number: int) -> bytes:
        return self._rest[number]
