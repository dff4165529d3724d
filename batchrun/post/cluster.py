"""Shards in actors of a Ray cluster, which is joined and never started: a backend of the queue beside the local pool.

Theory. There is a slot for each whole processor of each node, and in each an actor, which has imported the functions once.
An actor is given one shard at a time, since all that are queued at an actor die with it, and none before it has answered,
since an actor that cannot be placed waits for ever. Shards that are ready wait here, so that an actor that is through has
the next one at once.

What Ray says of a lost actor does not tell whether it died of a row, was killed, or lost its machine before it began. So a
row that is alone in its shard is at fault only where it was lost twice, and a shard whose node is gone is tried once more as
it is.
"""

import asyncio
import itertools
import logging
import math
from collections.abc import Callable, Iterable, Sequence

from batchrun.cluster.address import JOIN, found, refusal_of
from batchrun.cluster.driver import ActorLostError, DriverLostError, Node
from batchrun.display import printable
from batchrun.errors import RefusedError
from batchrun.post.chain import timed_out
from batchrun.post.driver import Driver
from batchrun.post.plain import pack_shard, unpack_done
from batchrun.post.pool import LostError
from batchrun.post.reply import Done, Failure, Shard
from batchrun.post.worker import Setup

log = logging.getLogger(__name__)

FIRST = 10.0
"""Seconds that the start of a run waits for the first actor, to hear whether it can import the functions."""
LOOK = 5.0
"""Seconds between looks at the nodes of the cluster."""
TRIP = 2.0
"""Seconds beyond its time after which a shard is given up: the way there and back is no work."""
NO_WORKER = 600.0
"""Seconds without any actor after which rows fail."""
_RETRY, _LONGEST_RETRY = 1.0, 30.0
"""Seconds before another actor is made where one could not be, at first and at most."""


_DIED = Failure("post: worker died", "the worker process ended")
_NODE = Failure("post: worker died", "the worker's node left the cluster, or cannot be reached")


class _ActorGoneError(LostError):
    """An actor was lost with a shard."""

    def __init__(self, failure: Failure, *, by_node: bool) -> None:
        super().__init__(failure)
        self.by_node = by_node


class _Order:
    """A packed shard that waits for an actor: a row in it may take `seconds`, and all of it `grace` more."""

    def __init__(self, shard: bytes, seconds: float, grace: float) -> None:
        self.shard = shard
        self.seconds = seconds
        self.grace = grace
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def lose(self, failure: Failure, *, by_node: bool) -> None:
        """Say that the actor was lost."""
        if not self.answer.done():
            self.answer.set_exception(_ActorGoneError(failure, by_node=by_node))


class OneActor:
    """One actor as a backend of its own, for rows that stay in flight on it. Once it is lost it stays so."""

    def __init__(self) -> None:
        self.orders: asyncio.Queue[_Order] = asyncio.Queue()
        self.is_lost = False

    async def run(self, shard: Shard, seconds: float, grace: float = 0.0) -> Done:
        """One shard, as `Pool.run`. Raises LostError."""
        if self.is_lost:
            raise LostError(_NODE)
        order = _Order(pack_shard(shard), seconds, grace)
        self.orders.put_nowait(order)
        done = unpack_done(await order.answer)
        if done is None:
            raise LostError(_DIED)
        return done

    def lose(self) -> None:
        """Lose what waits for it."""
        self.is_lost = True
        while not self.orders.empty():
            self.orders.get_nowait().lose(_NODE, by_node=True)

    async def close(self) -> None:
        """The cluster ends it."""


class Cluster:
    """Make and use it on one event loop. `make` makes a driver and says what actors are set up with; it is called in a
    thread. `most` is the greatest number of actors, None for all processors. With `apart` shards are not given to `run`,
    but to one of `actors`. `changed` hears when `actors` changes."""

    def __init__(
        self,
        address: str,
        make: Callable[[], tuple[Driver, Setup]],
        *,
        most: int | None = None,
        apart: bool = False,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._address = address
        self._make = make
        self._most = most
        self._apart = apart
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._orders: asyncio.Queue[_Order] = asyncio.Queue()
        self._slots: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._busy: set[tuple[str, int]] = set()
        self._keeping: asyncio.Task[None] | None = None
        self._driver: Driver | None = None
        self._setup: Setup | None = None
        self._first: asyncio.Future[Failure | None] = self._loop.create_future()
        self._left = asyncio.Event()
        self._since = math.inf
        self.actors: dict[int, OneActor] = {}
        """Those that have answered, by number."""

    async def join(self) -> None:
        """Become a member of the cluster, and have actors made.

        Raises RefusedError where there is no cluster, it cannot be joined, or its first actor cannot import the functions.
        """
        joining = self._loop.create_task(self._join())
        leaving = self._loop.create_task(self._left.wait())
        await asyncio.wait({joining, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not joining.done():
            joining.cancel()
            await asyncio.wait([joining])
            return
        joining.result()
        self._since = self._loop.time()
        self._keeping = self._loop.create_task(self._keep())
        await asyncio.wait({self._first, leaving}, timeout=FIRST, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if self._first.done() and (refusal := self._first.result()) is not None:
            await self.close()
            raise RefusedError(
                f"the workers on the Ray cluster cannot use --post: {refusal.message}",
                "install there what the functions import; nothing was sent",
            )

    async def _join(self) -> None:
        self._driver, self._setup = await asyncio.to_thread(self._make)
        try:
            async with asyncio.timeout(JOIN):
                await self._driver.join(found(self._address))
        except (TimeoutError, OSError, RuntimeError, ActorLostError) as error:
            await self._driver.close()
            raise refusal_of(self._address, error) from error
        except BaseException:
            await self._driver.close()
            raise

    def start(self) -> None:
        """Nothing: actors are being made since it was joined."""

    async def run(self, shard: Shard, seconds: float, grace: float = 0.0) -> Done:
        """One shard, as `Pool.run`. Raises LostError."""
        data = pack_shard(shard)
        alone = len(shard.items) == 1
        try:
            return await self._once(data, alone, seconds, grace)
        except _ActorGoneError as lost:
            if not (alone or lost.by_node):
                raise
            log.warning("a shard of %d rows is tried once more: %s", len(shard.items), lost)
        return await self._once(data, alone, seconds, grace)

    async def _once(self, data: bytes, alone: bool, seconds: float, grace: float) -> Done:
        order = _Order(data, seconds, grace)
        self._orders.put_nowait(order)
        done = unpack_done(await order.answer)
        assert done is not None
        if alone and done.seconds > seconds:
            raise LostError(timed_out(seconds))  # it came back only since the way was given time as well
        return done

    async def close(self) -> None:
        """Leave the cluster; its actors end."""
        self._left.set()
        tasks = [*self._slots.values(), *([self._keeping] if self._keeping is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail(Failure("post: stopped", "the run has left the cluster"))
        if self._driver is not None:
            await self._driver.close()

    def leave(self) -> None:
        """Wait no longer in `join`."""
        self._left.set()

    async def _keep(self) -> None:
        """Have an actor in each slot that there is, until cancelled."""
        while True:
            assert self._driver is not None
            try:
                self._fit(await self._driver.nodes())
            except (ActorLostError, RuntimeError) as lost:
                log.warning("the Ray cluster is out of reach: %s", printable(str(lost), 300))
                await self._join_again()
            now = self._loop.time()
            self._since = math.inf if self.actors else min(self._since, now)
            if now - self._since > NO_WORKER:
                self._fail(Failure("post: no workers", f"the Ray cluster has had no worker for {NO_WORKER:.0f} s"))
            await asyncio.sleep(LOOK)

    async def _join_again(self) -> None:
        """Once more, without the actors of before."""
        for task in self._slots.values():
            task.cancel()
        await asyncio.gather(*self._slots.values(), return_exceptions=True)
        self._slots.clear()
        try:
            if self._driver is not None:
                await self._driver.close()
            await self._join()
        except RefusedError as error:
            log.warning("%s", error)

    def _fit(self, nodes: Sequence[Node]) -> None:
        """Begin with slots that are new, and let go of those that are gone."""
        wanted = slots_of(nodes, self._most)
        self._let_go({slot for slot, task in self._slots.items() if task.done() or slot not in wanted})
        for slot in wanted:
            if slot not in self._slots:
                self._slots[slot] = self._loop.create_task(self._hold(slot))

    def _let_go(self, slots: Iterable[tuple[str, int]]) -> None:
        """Give those up that are not at work; what is at work notices itself."""
        for slot in slots:
            if slot not in self._busy:
                self._slots.pop(slot).cancel()

    async def _hold(self, slot: tuple[str, int]) -> None:
        """One actor after the other in this slot."""
        driver, setup, wait = self._driver, self._setup, _RETRY
        assert driver is not None
        assert setup is not None
        while True:
            number = next(self._numbers)
            try:
                refusal = await driver.create(number, slot[0], setup)
                if not self._first.done():
                    self._first.set_result(refusal)
                wait = _RETRY
                await self._work(driver, number, slot)
            except (ActorLostError, RuntimeError) as lost:
                log.warning("no worker on the node %s: %s", slot[0][:8], printable(str(lost), 300))
                await asyncio.sleep(wait)
                wait = min(_LONGEST_RETRY, 2 * wait)
            finally:
                driver.kill(number)

    async def _work(self, driver: Driver, number: int, slot: tuple[str, int]) -> None:
        """Shards through an actor, one at a time, until it is lost."""
        own = self.actors[number] = OneActor()
        self._changed()
        orders = own.orders if self._apart else self._orders
        try:
            while True:
                order = await orders.get()
                if order.answer.done():
                    continue  # it was given up
                self._busy.add(slot)
                try:
                    async with asyncio.timeout(order.seconds + order.grace + TRIP):
                        result = await driver.run(number, order.shard)
                except TimeoutError:
                    order.lose(timed_out(order.seconds), by_node=False)
                    return
                except DriverLostError:
                    orders.put_nowait(order)  # nothing is lost: another driver takes its place
                    return
                except (ActorLostError, RuntimeError) as lost:
                    by_node = isinstance(lost, ActorLostError) and lost.by_node
                    log.warning("a worker on the node %s is lost: %s", slot[0][:8], printable(str(lost), 300))
                    order.lose(_NODE if by_node else _DIED, by_node=by_node)
                    if by_node:
                        self._let_go({other for other in self._slots if other[0] == slot[0] and other != slot})
                    return
                except asyncio.CancelledError:
                    order.lose(_NODE, by_node=True)
                    raise
                finally:
                    self._busy.discard(slot)
                if not order.answer.done():
                    order.answer.set_result(result)
        finally:
            del self.actors[number]
            self._changed()
            own.lose()

    def _fail(self, failure: Failure) -> None:
        while not self._orders.empty():
            order = self._orders.get_nowait()
            if not order.answer.done():
                order.answer.set_exception(LostError(failure))


def slots_of(nodes: Sequence[Node], most: int | None) -> list[tuple[str, int]]:
    """The slots that the nodes offer, one for each processor, at most so many and spread over all nodes."""
    slots = [(place, node.id) for node in nodes for place in range(node.processors)]
    return [(node, place) for place, node in sorted(slots)[:most]]
