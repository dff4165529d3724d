"""Ray's driver with workers of post-processing as actors."""

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
    """A member of a cluster whose actors are workers of post-processing."""

    async def join(self, address: str) -> None:
        """Raises OSError, or RuntimeError with Ray's message."""
        ...

    async def nodes(self) -> list[Node]: ...

    async def create(self, number: int, node: str, setup: Setup) -> Failure | None:
        """Start an actor, waiting where the node is full; returns why it cannot import the functions, else None. Raises ActorLostError."""
        ...

    async def run(self, number: int, shard: bytes) -> bytes:
        """From a packed Shard to a packed Done. Raises ActorLostError."""
        ...

    def kill(self, number: int) -> None: ...

    async def close(self) -> None: ...


class PostDriver(DriverProcess):
    """A Driver in a process of its own."""

    async def create(self, number: int, node: str, setup: Setup) -> Failure | None:
        failure = await self.make(number, node, _ACTOR, 1, tuple(setup))
        return None if failure is None else Failure(*failure)

    async def run(self, number: int, shard: bytes) -> bytes:
        return await self.carry(number, shard)


def prepared(
    specs: Sequence[str],
    hidden: Sequence[str],
    setup: Setup,
    environ: Mapping[str, str],
    loop: asyncio.AbstractEventLoop,
) -> tuple[PostDriver, Setup]:
    """A driver with a folder of these functions, and the setup of its actors. Raises RefusedError."""
    folder = Path(tempfile.mkdtemp(prefix="batchrun-ray-"))
    try:
        return PostDriver(folder, environ, loop), setup._replace(specs=bundle.fill(folder, specs, hidden))
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise RefusedError(f"the files beside the function cannot be copied: {error}") from error
        raise
