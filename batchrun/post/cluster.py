"""Shards in actors of a Ray cluster: a backend of the queue.

An actor works on one shard at a time, and gets none before it has answered, as an actor that cannot be placed waits
forever. A second shard may wait in it, so that it is not idle while an answer and the next shard are under way. If the
actor is lost, that shard has not begun, and goes to another actor as if it had not been sent; rows that run alone never
wait in an actor. Ray does not report whether an actor died of a row, was killed, or lost its machine. So a row alone in
its shard is at fault only when lost twice, and a shard whose node is gone is run once more.
"""

import asyncio
import itertools
import logging
import math
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from batchrun.cluster import bundle
from batchrun.cluster.address import JOIN, found, refusal_of
from batchrun.cluster.driver import ActorLostError, DriverLostError, DriverProcess, Node
from batchrun.cluster.messages import PIECE
from batchrun.display import printable
from batchrun.errors import RefusedError
from batchrun.post.actor import pack_shard, unpack_done
from batchrun.post.chain import timed_out
from batchrun.post.pool import LostError
from batchrun.post.reply import Done, Failure, Shard
from batchrun.post.worker import Setup

log = logging.getLogger(__name__)

FIRST = 10.0  # seconds that a run waits for the first actor
POLL = 5.0  # seconds between checks of the nodes
TRANSFER = 2.0  # seconds for a shard beyond its time
NO_WORKER = 600.0  # seconds without any actor after which rows fail
_RETRY, _LONGEST_RETRY = 1.0, 30.0  # seconds before an actor is made again


_DIED = Failure("post: worker died", "the worker process ended")
_NODE = Failure("post: worker died", "the worker's node left the cluster or cannot be reached")


_ACTOR = "batchrun.post.actor:Actor"


class Driver(Protocol):
    async def join(self, address: str) -> None:
        """Raises OSError, or RuntimeError with Ray's message."""
        ...

    async def nodes(self) -> list[Node]: ...

    async def create(self, number: int, node: str, setup: Setup) -> Failure | None:
        """Returns why functions cannot be imported. Raises ActorLostError."""
        ...

    async def run(self, number: int, shard: bytes) -> bytes:
        """From a packed Shard to a packed Done. Raises ActorLostError."""
        ...

    def kill(self, number: int) -> None: ...

    async def close(self) -> None: ...


class PostDriver(DriverProcess):
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
    """With a folder of these functions. Raises RefusedError."""
    folder = Path(tempfile.mkdtemp(prefix="batchrun-ray-"))
    try:
        return PostDriver(folder, environ, loop), setup._replace(specs=bundle.fill(folder, specs, hidden))
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise RefusedError(f"the files beside the function cannot be copied: {error}") from error
        raise


class _ActorGoneError(LostError):
    def __init__(self, failure: Failure, *, by_node: bool) -> None:
        super().__init__(failure)
        self.by_node = by_node


class Order:
    """A shard to be run: a row may take `seconds`, all of it `grace` more."""

    def __init__(self, shard: bytes, seconds: float, grace: float, *, may_wait: bool = False) -> None:
        self.shard = shard
        self.seconds = seconds
        self.grace = grace
        self.may_wait = may_wait  # in an actor, or let another wait behind it
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def lose(self, failure: Failure, *, by_node: bool) -> None:
        if not self.answer.done():
            self.answer.set_exception(_ActorGoneError(failure, by_node=by_node))


class OneActor:
    """The orders of an actor. Once lost it stays so."""

    def __init__(self, driver: Driver | None = None, number: int = 0) -> None:
        self.is_lost = False
        self.sent: deque[tuple[Order, asyncio.Task[bytes]]] = deque()  # the first is at work, a second waits in it
        self.since = 0.0  # when the first was sent, or began after the one before it
        self._driver = driver
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._came = asyncio.Event()
        self._small = True

    async def run(self, shard: Shard, seconds: float, grace: float = 0.0) -> Done:
        """As `Pool.run`, for rows that stay in flight."""
        if self.is_lost:
            raise LostError(_NODE)
        order = Order(pack_shard(shard), seconds, grace)
        self.send(order)
        done = unpack_done(await order.answer)
        if done is None:
            raise LostError(_DIED)
        return done

    def takes(self, order: Order) -> bool:
        # A large result is fetched in pieces, which would wait for the shard behind it.
        waits = order.may_wait and self._small and len(self.sent) == 1 and self.sent[0][0].may_wait
        return not self.sent or waits

    def send(self, order: Order) -> None:
        assert self._driver is not None
        if not self.sent:
            self.since = self._loop.time()
        self.sent.append((order, self._loop.create_task(self._driver.run(self._number, order.shard))))
        self._came.set()

    async def first(self) -> tuple[Order, asyncio.Task[bytes]]:
        while not self.sent:
            self._came.clear()
            await self._came.wait()
        return self.sent[0]

    def answered(self, result: bytes) -> None:
        self._small = len(result) <= PIECE
        self.since = self._loop.time()

    def lose(self) -> list[Order]:
        # returns orders that have not begun
        self.is_lost = True
        orders = [order for order, _ in self.sent]
        for _, call in self.sent:
            call.add_done_callback(lambda call: call.cancelled() or call.exception())
            call.cancel()
        self.sent.clear()
        return orders

    async def close(self) -> None: ...


class Cluster:
    """`make`, called in a thread, returns a driver and the setup of actors.

    With `apart` shards go to one of `actors` instead of `run`.
    """

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
        self._orders: deque[Order] = deque()  # that no actor has
        self._slots: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._busy: set[tuple[str, int]] = set()
        self._keeping: asyncio.Task[None] | None = None
        self._driver: Driver | None = None
        self._setup: Setup | None = None
        self._first: asyncio.Future[Failure | None] = self._loop.create_future()
        self._left = asyncio.Event()
        self._since = math.inf
        self.actors: dict[int, OneActor] = {}  # by number, once they have answered

    async def join(self) -> None:
        """Raises RefusedError, also if the first actor cannot import the functions."""
        joining = self._loop.create_task(self._join())
        leaving = self._loop.create_task(self._left.wait())
        await asyncio.wait({joining, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not joining.done():
            joining.cancel()
            await asyncio.wait([joining])
            return
        joining.result()
        self._since = self._loop.time()
        self._keeping = self._loop.create_task(self._keep_slots())
        await asyncio.wait({self._first, leaving}, timeout=FIRST, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if self._first.done() and (refusal := self._first.result()) is not None:
            await self.close()
            raise RefusedError(
                f"the workers on the Ray cluster cannot use --post: {refusal.message}",
                "install the packages that the functions import on every node; no request was sent",
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

    def start(self) -> None: ...

    async def run(self, shard: Shard, seconds: float, grace: float = 0.0) -> Done:
        """As `Pool.run`."""
        data = pack_shard(shard)
        alone = len(shard.items) == 1
        try:
            return await self._once(data, alone, seconds, grace)
        except _ActorGoneError as lost:
            if not (alone or lost.by_node):
                raise
            log.warning("a shard of %d rows is run once more: %s", len(shard.items), lost)
        return await self._once(data, alone, seconds, grace)

    async def _once(self, data: bytes, alone: bool, seconds: float, grace: float) -> Done:
        order = Order(data, seconds, grace, may_wait=not alone)
        self._orders.append(order)
        self._send_orders()
        done = unpack_done(await order.answer)
        assert done is not None
        if alone and done.seconds > seconds:
            raise LostError(timed_out(seconds))  # it came back only because of the time for the transfer
        return done

    async def close(self) -> None:
        self._left.set()
        tasks = [*self._slots.values(), *([self._keeping] if self._keeping is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail(Failure("post: stopped", "the run has left the cluster"))
        if self._driver is not None:
            await self._driver.close()

    def leave(self) -> None:
        self._left.set()

    async def _keep_slots(self) -> None:
        while True:
            assert self._driver is not None
            try:
                self._adjust_slots(await self._driver.nodes())
            except (ActorLostError, RuntimeError) as lost:
                log.warning("the Ray cluster cannot be reached: %s", printable(str(lost), 300))
                await self._join_again()
            now = self._loop.time()
            self._since = math.inf if self.actors else min(self._since, now)
            if now - self._since > NO_WORKER:
                self._fail(Failure("post: no workers", f"the Ray cluster has had no worker for {NO_WORKER:.0f} s"))
            await asyncio.sleep(POLL)

    async def _join_again(self) -> None:
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

    def _adjust_slots(self, nodes: Sequence[Node]) -> None:
        wanted = slots_of(nodes, self._most)
        self._release({slot for slot, task in self._slots.items() if task.done() or slot not in wanted})
        for slot in wanted:
            if slot not in self._slots:
                self._slots[slot] = self._loop.create_task(self._fill_slot(slot))

    def _release(self, slots: Iterable[tuple[str, int]]) -> None:
        # except slots at work, which notice by themselves
        for slot in slots:
            if slot not in self._busy:
                self._slots.pop(slot).cancel()

    async def _fill_slot(self, slot: tuple[str, int]) -> None:
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
                log.warning("no worker starts on the node %s: %s", slot[0][:8], printable(str(lost), 300))
                await asyncio.sleep(wait)
                wait = min(_LONGEST_RETRY, 2 * wait)
            finally:
                driver.kill(number)

    async def _work(self, driver: Driver, number: int, slot: tuple[str, int]) -> None:
        own = self.actors[number] = OneActor(driver, number)
        self._changed()
        self._send_orders()
        try:
            while True:
                order, call = await own.first()
                self._busy.add(slot)
                try:
                    async with asyncio.timeout(order.seconds + order.grace + TRANSFER):
                        result = await call
                except DriverLostError:
                    return  # nothing is lost: another driver takes its place
                except TimeoutError:
                    order.lose(timed_out(order.seconds), by_node=False)
                    return
                except (ActorLostError, RuntimeError) as lost:
                    by_node = isinstance(lost, ActorLostError) and lost.by_node
                    log.warning("a worker on the node %s is lost: %s", slot[0][:8], printable(str(lost), 300))
                    order.lose(_NODE if by_node else _DIED, by_node=by_node)
                    if by_node:
                        self._release({other for other in self._slots if other[0] == slot[0] and other != slot})
                    return
                except asyncio.CancelledError:
                    order.lose(_NODE, by_node=True)
                    raise
                finally:
                    self._busy.discard(slot)
                own.sent.popleft()
                own.answered(result)
                if not order.answer.done():
                    order.answer.set_result(result)
                self._send_orders()
        finally:
            del self.actors[number]
            self._changed()
            self._put_back(own.lose())

    def _send_orders(self) -> None:
        # an order that was given up is not sent
        while self._orders:
            order = self._orders[0]
            actor = None if order.answer.done() else receiver(self.actors.values(), order)
            if actor is not None:
                actor.send(order)
            elif not order.answer.done():
                break
            self._orders.popleft()

    def _put_back(self, orders: Sequence[Order]) -> None:
        # They are not counted as lost, and wait in no actor again: if one of them had begun and ended the actor, so
        # quickly that the answer before it was lost, it would end others alike.
        for order in reversed(orders):
            order.may_wait = False
            if self._apart:
                order.lose(_NODE, by_node=True)
            elif not order.answer.done():
                self._orders.appendleft(order)
        self._send_orders()

    def _fail(self, failure: Failure) -> None:
        while self._orders:
            order = self._orders.popleft()
            if not order.answer.done():
                order.answer.set_exception(LostError(failure))


def receiver(actors: Iterable[OneActor], order: Order) -> OneActor | None:
    """Of the actors that can take the order: an idle one, or else the one that has been at work for longest."""
    able = (actor for actor in actors if actor.takes(order))
    return min(able, key=lambda actor: (len(actor.sent), actor.since), default=None)


def slots_of(nodes: Sequence[Node], most: int | None) -> list[tuple[str, int]]:
    """(node, number), spread over all nodes."""
    slots = [(place, node.id) for node in nodes for place in range(node.processors)]
    return [(node, place) for place, node in sorted(slots)[:most]]
