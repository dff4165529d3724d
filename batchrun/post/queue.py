"""The queue between a paid reply and its outcome: rows come in one by one, go through the functions in shards, and come
out in shards.

Theory. Sending a row to a process costs about 100 µs alone and 5 µs in a shard of 64 or more, so rows are gathered into
shards, sized by what the last ones took (`shard_size`). Work that is too short for a process is done in a thread here: with
`auto` the first rows are timed in that thread, and the queue moves to a pool as soon as it is certain that they are
slower.

Coroutine functions have an async worker for each worker instead: rows in flight on its event loop, which is handed more as they
end.

A shard that does not come back is run again, one row at a time, so that only the row at fault fails; a function may
therefore be called twice for a row. The rows in the queue are bounded: `put` waits while there are too many.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any

from batchrun.child_processes import without_secrets
from batchrun.cluster.driver import driver_environ
from batchrun.post.async_worker import AsyncWorker
from batchrun.post.chain import Chain
from batchrun.post.cluster import Cluster, OneActor
from batchrun.post.driver import prepared
from batchrun.post.event_loop import GRACE, EventLoopWorker, worker
from batchrun.post.inline import Inline
from batchrun.post.load import load
from batchrun.post.pool import LostError, Pool, cores
from batchrun.post.reply import Done, Item, Result, Shard, Task, internal_error
from batchrun.post.shard_size import CERTAIN, ShardSizer
from batchrun.post.worker import Setup

log = logging.getLogger(__name__)

LINGER = 4.0
"""Seconds that the queue works on for after `end_soon` when no more rows come: what is left can be done later,
from the journal, and costs nothing."""
CLUSTER_SHARD = 0.25
"""Seconds of work in a shard for a cluster: the way there costs the driver a millisecond."""
CLUSTER_BYTES = 1_000_000
"""Characters of its rows at most."""
_token: Callable[[Task], Any] = itemgetter(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the user chose. `workers` is None for auto, 0 for the thread; with `ray`, the address of a Ray cluster or
    `auto`, it is the greatest number of workers there. `batch` is whether the rows are OpenAI Batch requests. `secret_names` and `secret_values` name what workers must not find in their environment."""

    specs: tuple[str, ...]
    workers: int | None = None
    ray: str | None = None
    timeout: float = 60.0
    concurrency: int = 16
    batch: bool = False
    secret_names: frozenset[str] = frozenset()
    secret_values: tuple[str, ...] = ()


Deliver = Callable[[list[tuple[Any, Result]]], Awaitable[None]]


class PostQueue:
    """Post-processing of one run. Make it inside the loop that runs it.

    `deliver` is awaited with the results of each shard and raises nothing, `busy` is called when `put` begins to wait
    and when it ends. `environ` is what workers' environment is made from. Raises RefusedError where the functions
    cannot be loaded.
    """

    def __init__(
        self,
        choices: Choices,
        deliver: Deliver,
        *,
        environ: dict[str, str],
        busy: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._choices = choices
        self._deliver = deliver
        self._busy = busy
        self._environ = without_secrets(environ, choices.secret_names, choices.secret_values)
        self._functions = load(choices.specs)
        self._awaits = any(function.is_coroutine for function in self._functions)
        self._queue: deque[Task] = deque()
        self._inside = 0
        self._outside = 0
        self._under_way: set[asyncio.Task[None]] = set()
        self._running = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._dispatching = False
        self._closed = False
        self._hurried = False
        self._room = 0
        self._sizer = ShardSizer() if choices.ray is None else ShardSizer(CLUSTER_SHARD)
        self.workers = 0
        """Worker processes, 0 for the thread; on a cluster those that work."""
        self.blocked: dict[str, float] = {}
        """The longest time that coroutine functions kept their event loop from turning, by name, where it is long."""
        self._backends: list[Pool | Inline | Cluster] = []
        self._async_workers: list[AsyncWorker] = []
        self._retired: list[Pool | Inline | Cluster] = []
        self._cluster: Cluster | None = None
        if choices.ray is None:
            self._employ(choices.workers or 0)
        else:
            self._employ_cluster(choices.ray, environ)

    @property
    def inside(self) -> int:
        """Rows that have come in and have not come out."""
        return self._inside

    async def join(self) -> None:
        """Join the cluster, where there is one, before anything is put in. Raises RefusedError."""
        if self._cluster is not None:
            await self._cluster.join()

    def start(self) -> None:
        """Have the workers started, so that they are up when the first reply comes."""
        for backend in self._backends:
            if isinstance(backend, Pool):
                backend.start()

    async def put(self, token: Any, item: Item, ready: "asyncio.Future[None] | None" = None) -> None:
        """Take a row in; waits while the queue is full. The row is not touched before `ready` is done; `token` comes
        back with its result."""
        if self._inside >= self._room:
            await self._have_room()
        self._inside += 1
        if ready is None:
            self._queue.append((token, item))
            if not self._dispatching:
                self._soon()
        elif ready.done():
            self._enter((token, item), ready)
        else:
            ready.add_done_callback(partial(self._enter, (token, item)))

    async def _have_room(self) -> None:
        self._outside += 1
        try:
            while self._inside >= self._room and not self._closed and not self._hurried:
                self._room = self._fitting_room()
                if self._inside >= self._room:
                    await self._wait()
        finally:
            self._outside -= 1

    def _enter(self, task: Task, ready: "asyncio.Future[None]") -> None:
        if ready.cancelled() or ready.exception() is not None:
            self._leave(1)  # the reply is not safe: whoever wrote it hears of that
        else:
            self._queue.append(task)
            self._soon()

    def end_soon(self) -> int:
        """No `put` waits any more, and `drain` end after `LINGER` at the latest. Returns the rows that
        this concerns now."""
        self._hurried = True
        if self._cluster is not None:
            self._cluster.leave()
        self._wake()
        return self._inside + self._outside

    async def drain(self) -> None:
        """Wait until every row is out, or the queue is abandoned."""
        end: asyncio.TimerHandle | None = None
        while self._inside and not self._closed:
            if self._hurried and end is None:
                end = asyncio.get_running_loop().call_later(LINGER, self.abandon)
            await self._wait(quietly=True)
        if end is not None:
            end.cancel()

    def abandon(self) -> None:
        """Take nothing more in and let nothing more out."""
        self._closed = True
        for task in self._under_way:
            task.cancel()
        self._wake()

    async def close(self) -> None:
        """Stop, and let no worker be left; what is inside does not come out."""
        self.abandon()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await asyncio.gather(*(backend.close() for backend in (*self._backends, *self._retired)))

    def _fitting_room(self) -> int:
        """Rows that may be inside: enough for every worker to have a shard and another one to come."""
        if self._async_workers:
            return max(64, 2 * sum(async_worker.capacity for async_worker in self._async_workers))
        return max(64, 3 * self._slots * self._sizer.size)

    @property
    def _slots(self) -> int:
        """Shards that are handed out at a time: one more for each worker than it can work on."""
        if self._cluster is not None:
            return self.workers + -(-self.workers // 4)  # one at a time for each, and some that are ready to go
        if self.workers:
            return 2 * self.workers
        return 1 if self._probing else 2

    @property
    def _probing(self) -> bool:
        return self._may_move and self._sizer.to_probe > 0

    @property
    def _may_move(self) -> bool:
        """From the thread to worker processes."""
        return self._choices.workers is None and self._cluster is None and not self.workers

    def _soon(self) -> None:
        """Hand rows out when what is happening now has happened, so that rows that come together stay together."""
        if not self._dispatching:
            self._dispatching = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatching = False
        if self._closed:
            return
        for async_worker in self._async_workers:
            if not async_worker.serving and (self._queue or async_worker.held):
                async_worker.serving = True
                self._spawn(self._serve(async_worker))
        while self._queue and not self._awaits and self._running < self._slots:
            tasks = self._next_tasks()
            self._running += 1
            self._spawn(self._run(tasks))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _serve(self, async_worker: AsyncWorker) -> None:
        """Keep an async worker in rows as long as there are any."""
        while (tasks := async_worker.take(self._queue, self._share(async_worker))) or async_worker.held:
            results, done = await async_worker.turn(tasks)
            if results:
                self._spawn(self._hand_out(results))
            if done is not None:
                self._learn(done)
                continue
            self._after_loss()
            if self._cluster is not None:
                async_worker.hand_on(
                    next((other for other in self._async_workers if other is not async_worker), self._left_over)
                )
                self._soon()
                break
        async_worker.serving = False

    def _share(self, async_worker: AsyncWorker) -> int:
        """The rows that the async worker may take to have its fair part of all."""
        if async_worker not in self._async_workers:
            return 0
        rows = len(self._queue) + sum(each.held for each in self._async_workers)
        share = -(-rows // len(self._async_workers)) - async_worker.held
        return min(share, self._sizer.to_probe - async_worker.held) if self._probing else share

    def _next_tasks(self) -> list[Task]:
        """The rows of the next shard; for a cluster of at most `CLUSTER_BYTES`."""
        size = self._next_size()
        if self._cluster is None:
            return [self._queue.popleft() for _ in range(size)]
        tasks: list[Task] = []
        length = 0
        while self._queue and len(tasks) < size:
            item = self._queue[0][1]
            length += len(item.text) + len(item.row) + len(item.value or "")
            if tasks and length > CLUSTER_BYTES:
                break
            tasks.append(self._queue.popleft())
        return tasks

    def _next_size(self) -> int:
        """Rows for the next shard: a full one, or an even share of what there is."""
        waiting = len(self._queue)
        if self._probing:
            return min(waiting, self._sizer.to_probe)
        share = -(-waiting // (self._slots - self._running))
        return max(1, min(self._sizer.size, share, waiting))

    async def _run(self, tasks: list[Task]) -> None:
        try:
            results = await self._through(tasks)
        except Exception as error:
            log.exception("a shard of %d rows: internal error", len(tasks))
            results = [internal_error(error)] * len(tasks)
        self._running -= 1
        self._soon()
        await self._hand_out(list(zip(map(_token, tasks), results, strict=False)))

    async def _hand_out(self, results: list[tuple[Any, Result]]) -> None:
        await self._deliver(results)
        self._leave(len(results))

    async def _through(self, tasks: list[Task]) -> list[Result]:
        """The results of the shard, or of its beginning; the rest goes back into the queue."""
        items = [item for _, item in tasks]
        try:
            done = await self._shard(items)
        except LostError as lost:
            self._after_loss()
            if len(items) == 1:
                return [lost.failure]
            log.warning("a shard of %d rows is run again row by row: %s", len(items), lost)
            return await self._one_by_one(items)
        self._learn(done)
        if len(done.results) < len(tasks):
            self._queue.extendleft(reversed(tasks[len(done.results) :]))
        return done.results

    async def _shard(self, items: list[Item]) -> Done:
        shard = Shard(items, CERTAIN if self._probing else None)
        return await self._backends[0].run(shard, self._choices.timeout, GRACE if len(items) > 1 else 0.0)

    async def _one_by_one(self, items: list[Item]) -> list[Result]:
        results: dict[int, Result] = {}
        rest = iter(enumerate(items))

        async def some() -> None:
            for place, item in rest:
                try:
                    results[place] = (await self._shard([item])).results[0]
                except LostError as lost:
                    results[place] = lost.failure

        await asyncio.gather(*(some() for _ in range(max(1, self.workers))))
        return [results[place] for place in range(len(items))]

    def _learn(self, done: Done) -> None:
        for name, seconds in done.blocked.items():
            self.blocked[name] = max(seconds, self.blocked.get(name, 0.0))
        self._sizer.learn(done)
        if self._may_move and self._sizer.is_slow:
            self._move()

    def _after_loss(self) -> None:
        """What hangs in the thread is better off in a process that can be killed."""
        if self._may_move:
            self._move()

    def _move(self) -> None:
        """From the thread to worker processes."""
        log.info("post-processing moves to %d worker processes", cores())
        self._retired += self._backends
        before = self._async_workers
        self._employ(cores())
        for async_worker in before:
            async_worker.hand_on(self._async_workers[0])
        self._soon()

    def _employ(self, workers: int) -> None:
        """Have rows done by so many worker processes, or with 0 in the thread; each event loop has a pool of its own,
        so that rows meet the process again that has rows in flight."""
        self.workers = workers
        if not workers:
            backends: list[Pool] | list[Inline] = [Inline(self._made_worker)]
        else:
            pools = [1] * workers if self._awaits else [workers]
            backends = [Pool(count, self._setup, self._environ) for count in pools]
        self._backends = [*backends]
        if self._awaits:
            self._async_workers = [self._async_worker_of(backend) for backend in backends]

    def _employ_cluster(self, address: str, environ: dict[str, str]) -> None:
        """Have rows done in actors of a cluster, once it is joined."""
        choices = self._choices
        make = partial(
            prepared, choices.specs, choices.secret_values, self._setup, driver_environ(self._environ, environ)
        )
        make = partial(make, asyncio.get_running_loop())
        self._cluster = Cluster(address, make, most=choices.workers, apart=self._awaits, changed=self._recount)
        self._left_over = self._async_worker_of(OneActor())
        self._backends = [self._cluster]

    def _recount(self) -> None:
        """Take the actors that there are by now; what an actor that is lost left over goes to the next."""
        assert self._cluster is not None
        actors = self._cluster.actors
        self.workers = len(actors)
        if self._awaits:
            known = {async_worker.backend: async_worker for async_worker in self._async_workers}
            self._async_workers = [known.get(actor) or self._async_worker_of(actor) for actor in actors.values()]
            if self._async_workers:
                self._left_over.hand_on(self._async_workers[0])
        self._soon()
        self._wake()

    def _async_worker_of(self, backend: Pool | Inline | OneActor) -> AsyncWorker:
        choices, twice = self._choices, self._cluster is not None
        return AsyncWorker(backend, concurrency=choices.concurrency, timeout=choices.timeout, twice=twice)

    @property
    def _setup(self) -> Setup:
        """What a worker has to know."""
        choices = self._choices
        return Setup(choices.specs, choices.concurrency, choices.timeout, choices.batch)

    def _made_worker(self, begin: Callable[[], None]) -> Chain | EventLoopWorker:
        choices = self._choices
        return worker(
            self._functions,
            concurrency=choices.concurrency,
            timeout=choices.timeout,
            batch=choices.batch,
            begin=begin,
        )

    def _leave(self, count: int) -> None:
        self._inside -= count
        if self._waiters and (self._inside < self._fitting_room() or not self._inside):
            self._wake()

    async def _wait(self, *, quietly: bool = False) -> None:
        waiter = asyncio.get_running_loop().create_future()
        if not quietly and not self._waiters:
            self._busy(True)
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if not quietly and not self._waiters:
                self._busy(False)

    def _wake(self) -> None:
        """Wake all waiting `put`s to look again: as many as workers at most."""
        for waiter in islice(tuple(self._waiters), None):
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
