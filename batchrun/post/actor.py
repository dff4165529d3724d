"""What runs in an actor of a Ray cluster: a worker of post-processing, whose shards come and go as bytes.

Results are plain data, since an exception of a user's own may not survive the way back.
"""

from typing import Any

from batchrun.cluster.messages import PIECE, pieces
from batchrun.post.event_loop import StrangerError
from batchrun.post.plain import pack_done, unpack_shard
from batchrun.post.worker import Setup, initialize, refusal, run


class Actor:
    """One worker. Its calls are made one at a time."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []

    def load(self, specs: tuple[str, ...], *rest: Any) -> tuple[str | None, ...] | None:
        """Import the functions, given the fields of a Setup; what is wrong with them, as those of a Failure, else None."""
        initialize(Setup(tuple(specs), *rest))
        failure = refusal()
        return None if failure is None else tuple(failure)

    def run(self, *data: bytes) -> bytes | int:
        """One packed shard in pieces. Returns the packed Done, or None for a shard that counts on rows which this actor does
        not have; where that is more than a piece, the number of pieces to ask for."""
        try:
            done = run(unpack_shard(b"".join(data)))
        except StrangerError:
            done = None
        result = pack_done(done)
        if len(result) <= PIECE:
            return result
        self._rest = pieces(result)
        return len(self._rest)

    def piece(self, number: int) -> bytes:
        """One piece of the result of the last shard."""
        return self._rest[number]
