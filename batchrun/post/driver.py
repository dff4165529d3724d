"""Ray's driver with workers of post-processing for actors."""

import asyncio
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from batchrun.cluster import bundle
from batchrun.cluster.driver import DriverProcess, Node
from batchrun.errors import RefusedError
from batchrun.post.reply import Failure
from batchrun.post.worker import Setup

_ACTOR = "batchrun.post.actor:Actor"


class Driver(Protocol):
    """A member of a cluster, as `DriverProcess`, whose actors are workers of post-processing."""

    async def join(self, address: str) -> None:
        """Join the cluster. Raises OSError, or RuntimeError with what Ray says."""
        ...

    async def nodes(self) -> list[Node]:
        """The nodes that are there."""
        ...

    async def create(self, number: int, node: str, setup: Setup) -> Failure | None:
        """Have an actor on a node; returns when it has imported the functions, or what prevents that. Where the node is
        full it waits. Raises ActorLostError."""
        ...

    async def run(self, number: int, shard: bytes) -> bytes:
        """A packed Shard through an actor; the packed Done. Raises ActorLostError."""
        ...

    def kill(self, number: int) -> None:
        """End an actor, whatever it is doing."""
        ...

    async def close(self) -> None:
        """Leave the cluster; its actors end."""
        ...


class PostDriver(DriverProcess):
    """A Driver in a process of its own."""

    async def create(self, number: int, node: str, setup: Setup) -> Failure | None:
        """As the protocol has it."""
        failure = await self.make(number, node, _ACTOR, 1, tuple(setup))
        return None if failure is None else Failure(*failure)

    async def run(self, number: int, shard: bytes) -> bytes:
        """As the protocol has it."""
        return await self.carry(number, shard)


def prepared(
    specs: Sequence[str],
    hidden: Sequence[str],
    setup: Setup,
    environ: Mapping[str, str],
    loop: asyncio.AbstractEventLoop,
) -> tuple[PostDriver, Setup]:
    """A driver with a folder that holds these functions, and what its actors are set up with. Raises RefusedError as
    `bundle.fill`, and for a folder that cannot be written."""
    folder = Path(tempfile.mkdtemp(prefix="batchrun-ray-"))
    try:
        return PostDriver(folder, environ, loop), setup._replace(specs=bundle.fill(folder, specs, hidden))
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise RefusedError(f"what lies beside the function cannot be copied: {error}") from error
        raise
