"""Senders as actors of a Ray cluster.

Ray never restarts an actor or repeats a call: the hub judges what may have been sent. The key is an argument of a call;
Ray's driver process has no secrets.
"""

import asyncio
import contextlib
import itertools
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from batchrun.client.senders.frames import Pacing, Receiver
from batchrun.client.senders.states import Beat
from batchrun.cluster import bundle
from batchrun.cluster.address import JOIN, check_address, found, refusal_of
from batchrun.cluster.driver import ActorLostError, DriverProcess
from batchrun.cluster.messages import pieces
from batchrun.display import printable
from batchrun.errors import RefusedError

PACING = Pacing(slice=0.01, ahead=0.01)  # a call costs as much as many rows
BEAT = Beat(start=60.0)  # a process on a node starts slowly
LOOK = 5.0  # seconds between checks of the cluster's nodes
HINT = "install batchrun on every node of the cluster, under the same Python; nothing was sent"
_ACTOR = "batchrun.client.senders.actor:SenderActor"
_MOST_BYTES = 1_000_000  # of one call
_AGAIN = 0.2  # seconds until a call to an unreachable actor is repeated
UNREACHABLE = 1.0  # Seconds of refused calls after which a node is gone, long before the cluster reports it.


class ActorTransport:
    """At most two calls of `exchange` at a time, one of which waits for data."""

    def __init__(self, driver: DriverProcess, number: int, receiver: Receiver, ended: Callable[[int], object]) -> None:
        self._driver = driver
        self._number = number
        self._receiver = receiver
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[bytes] = deque()
        self._given: deque[tuple[int, bytes]] = deque()  # (offset, bytes) that the actor has not acknowledged
        self._offset = self._received = self._calls = 0
        self._called = -PACING.slice
        self._refused_since = 0.0
        self._again = self._is_gone = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._soon()

    def write(self, frame: bytes) -> None:
        self._unsent.append(frame)
        self._soon()

    def kill(self) -> None:
        self._driver.kill(self._number)

    async def close(self) -> None:
        # what is left of it ends with the driver
        self._end()
        self.kill()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _soon(self) -> None:
        if self._is_gone or self._timer is not None:
            return
        if self._again:
            if not self._calls:
                self._timer = self._loop.call_later(_AGAIN, self._begin)
        elif not self._calls or (self._unsent and self._calls < 2):
            self._timer = self._loop.call_at(self._called + PACING.slice, self._begin)

    def _begin(self) -> None:
        self._timer, self._called = None, self._loop.time()
        self._calls += 1
        again, self._again = self._again, False
        new, size = list[bytes](), 0
        while self._unsent and size < _MOST_BYTES:
            new.append(self._unsent.popleft())
            size += len(new[-1])
        first, data = self._offset, b"".join(new)
        if data:
            self._given.append((first, data))
            self._offset += size
        if again and self._given:
            first, data = self._given[0][0], b"".join(each for _, each in self._given)
        task = self._loop.create_task(self._call(again, first, data))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, again: bool, first: int, data: bytes) -> None:
        try:
            taken, start, given = await self._driver.call(
                self._number, "exchange", first, self._received, again, *pieces(data)
            )
        except ActorLostError as lost:
            self._again = True
            now = self._loop.time()
            self._refused_since = self._refused_since or now
            if not lost.unavailable:
                self._gone(str(lost))
            elif now - self._refused_since > UNREACHABLE:
                self.kill()
                self._gone("its node cannot be reached")
        except RuntimeError as error:
            self._gone(str(error))
        else:
            self._refused_since = 0.0
            while self._given and self._given[0][0] + len(self._given[0][1]) <= taken:
                self._given.popleft()
            if start > self._received:
                self._again = True  # the bytes before it were lost with a failed call
            elif (new := given[self._received - start :]) and not self._is_gone:
                self._received += len(new)
                self._receiver.received(new)
        finally:
            self._calls -= 1
        self._soon()

    def _gone(self, why: str) -> None:
        if not self._is_gone:
            self._end()
            self._receiver.gone(printable(why, 300))

    def _end(self) -> None:
        self._is_gone = True
        self._ended(self._number)
        if self._timer is not None:
            self._timer.cancel()


class Actors:
    """`count` senders on a cluster's nodes (None: one each); `environ` must hold no secret.

    Raises RefusedError where no cluster can be joined.
    """

    def __init__(self, address: str, count: int | None, environ: Mapping[str, str]) -> None:
        self._address = address
        self._on_each = count is None
        self._environ = environ
        self._numbers = itertools.count(1)
        self._places: dict[int, str] = {}  # the node of each sender
        self._driver: DriverProcess | None = None
        self._joining = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self.count = count or 0  # how many senders there should be

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(check_address, self._address)
        driver = await self._join()
        if self._on_each:
            self.count = max(1, len(await driver.nodes()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._driver is not None:
            await self._driver.close()

    def watch(self, resize: Callable[[int], None]) -> None:
        if self._on_each:
            self._watching = asyncio.get_running_loop().create_task(self._watch(resize))

    async def _watch(self, resize: Callable[[int], None]) -> None:
        while True:
            await asyncio.sleep(LOOK)
            if self._driver is not None:
                with contextlib.suppress(ActorLostError, RuntimeError):  # it is joined again with the next sender
                    resize(max(1, len(await self._driver.nodes())))

    async def start(self, receiver: Receiver) -> ActorTransport:
        """Raises OSError."""
        number, refusal = next(self._numbers), None
        try:
            async with self._joining:
                driver = self._driver if self._driver is not None and not self._driver.ended else await self._join()
                have = Counter(self._places.values())
                nodes = [node.id for node in await driver.nodes()]
                self._places[number] = min(sorted(nodes), key=have.__getitem__)
            refusal = await driver.make(number, self._places[number], _ACTOR, 0, (PACING.slice,))
        except (RefusedError, ActorLostError, RuntimeError, ValueError) as error:
            refusal = str(error)
            raise OSError(printable(refusal, 300)) from error
        finally:
            if refusal is not None:
                self._places.pop(number, None)
        if refusal is not None:
            driver.kill(number)
            raise OSError(printable(refusal, 300))
        return ActorTransport(driver, number, receiver, lambda number: self._places.pop(number, None))

    async def _join(self) -> DriverProcess:
        if self._driver is not None:
            await self._driver.close()
        loop, folder = asyncio.get_running_loop(), Path(tempfile.mkdtemp(prefix="batchrun-ray-"))
        driver = DriverProcess(folder, self._environ, loop)
        try:
            await asyncio.to_thread(bundle.fill, folder, ())
            async with asyncio.timeout(JOIN):
                await driver.join(found(self._address))
        except BaseException as error:
            await driver.close()
            if isinstance(error, TimeoutError | OSError | RuntimeError | ActorLostError):
                raise refusal_of(self._address, error) from error
            raise
        self._driver = driver
        return driver
