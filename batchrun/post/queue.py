"""The queue between a paid reply and its outcome: rows come in singly, and go through the functions in shards.

Sending a row to a process costs about 100 µs alone and 5 µs in a shard of 64. With `auto` the first rows are timed in a
thread, and the queue moves to a pool if they are slower. A lost shard is run again row by row, so that only the row at
fault fails; a function may be called twice for a row.
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
from batchrun.post.cluster import Cluster, OneActor, prepared
from batchrun.post.event_loop import GRACE, EventLoopWorker, worker
from batchrun.post.inline import Inline
from batchrun.post.load import load
from batchrun.post.pool import LostError, Pool, cores
from batchrun.post.reply import Done, Item, Result, Shard, Task, internal_error
from batchrun.post.shard_size import CERTAIN, ShardSizer
from batchrun.post.worker import Setup

log = logging.getLogger(__name__)

LINGER = 4.0  # seconds that the queue works on after `end_soon`; the rest can be done later at no cost
CLUSTER_SHARD = 0.25  # seconds of work in a shard, as sending one costs the driver a millisecond
CLUSTER_BYTES = 1_000_000  # characters of its rows at most
_token: Callable[[Task], Any] = itemgetter(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Secrets are kept out of workers' environment."""

    specs: tuple[str, ...]
    workers: int | None = None  # None for auto, 0 for the thread; with `ray` the most
    ray: str | None = None  # an address or `auto`
    timeout: float = 60.0
    concurrency: int = 16
    batch: bool = False  # rows are OpenAI Batch requests
    secret_names: frozenset[str] = frozenset()
    secret_values: tuple[str, ...] = ()


Deliver = Callable[[list[tuple[Any, Result]]], Awaitable[None]]


class PostQueue:
    """`deliver` is awaited with results and raises nothing; `busy` is called when `put` begins and ends to wait.

    Raises RefusedError if the functions cannot be loaded.
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
        self._ending = False
        self._room = 0
        self._sizer = ShardSizer() if choices.ray is None else ShardSizer(CLUSTER_SHARD)
        self.workers = 0  # 0 for the thread; on a cluster those that have answered
        # the longest time that each coroutine function blocked its event loop
        self.blocked: dict[str, float] = {}
        self._backends: list[Pool | Inline | Cluster] = []
        self._async_workers: list[AsyncWorker] = []
        self._retired: list[Pool | Inline | Cluster] = []
        self._cluster: Cluster | None = None
        if choices.ray is None:
            self._use_workers(choices.workers or 0)
        else:
            self._use_cluster(choices.ray, environ)

    @property
    def inside(self) -> int:
        return self._inside

    async def join(self) -> None:
        """Raises RefusedError."""
        if self._cluster is not None:
            await self._cluster.join()

    def start(self) -> None:
        for backend in self._backends:
            if isinstance(backend, Pool):
                backend.start()

    async def put(self, token: Any, item: Item, ready: "asyncio.Future[None] | None" = None) -> None:
        """Waits while the queue is full. The row starts when `ready` is done."""
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
            while self._inside >= self._room and not self._closed and not self._ending:
                self._room = self._fitting_room()
                if self._inside >= self._room:
                    await self._wait()
        finally:
            self._outside -= 1

    def _enter(self, task: Task, ready: "asyncio.Future[None]") -> None:
        if ready.cancelled() or ready.exception() is not None:
            self._leave(1)  # the reply is not stored, which its writer learns by itself
        else:
            self._queue.append(task)
            self._soon()

    def end_soon(self) -> int:
        """Returns the rows inside, which get `LINGER` seconds."""
        self._ending = True
        if self._cluster is not None:
            self._cluster.leave()
        self._wake()
        return self._inside + self._outside

    async def drain(self) -> None:
        end: asyncio.TimerHandle | None = None
        while self._inside and not self._closed:
            if self._ending and end is None:
                end = asyncio.get_running_loop().call_later(LINGER, self.abandon)
            await self._wait(quietly=True)
        if end is not None:
            end.cancel()

    def abandon(self) -> None:
        self._closed = True
        for task in self._under_way:
            task.cancel()
        self._wake()

    async def close(self) -> None:
        # rows inside are dropped
        self.abandon()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await asyncio.gather(*(backend.close() for backend in (*self._backends, *self._retired)))

    def _fitting_room(self) -> int:
        # A shard for every worker and another to come.
        if self._async_workers:
            return max(64, 2 * sum(async_worker.capacity for async_worker in self._async_workers))
        return max(64, 3 * self._slots * self._sizer.size)

    @property
    def _slots(self) -> int:
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
        # from the thread to worker processes
        return self._choices.workers is None and self._cluster is None and not self.workers

    def _soon(self) -> None:
        # Rows that come together stay together.
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
        while (tasks := async_worker.take(self._queue, self._share(async_worker))) or async_worker.held:
            results, done = await async_worker.turn(tasks)
            if results:
                self._spawn(self._hand_out(results))
            if done is not None:
                self._learn(done)
                continue
            self._after_loss()
            if self._cluster is not None:
                async_worker.transfer(
                    next((other for other in self._async_workers if other is not async_worker), self._left_over)
                )
                self._soon()
                break
        async_worker.serving = False

    def _share(self, async_worker: AsyncWorker) -> int:
        if async_worker not in self._async_workers:
            return 0
        rows = len(self._queue) + sum(each.held for each in self._async_workers)
        share = -(-rows // len(self._async_workers)) - async_worker.held
        return min(share, self._sizer.to_probe - async_worker.held) if self._probing else share

    def _next_tasks(self) -> list[Task]:
        waiting = len(self._queue)
        size = self._sizer.share(waiting, self._slots)
        if self._probing:
            size = min(waiting, self._sizer.to_probe)
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

    async def _run(self, tasks: list[Task]) -> None:
        try:
            results = await self._results_of(tasks)
        except Exception as error:
            log.exception("a shard of %d rows: internal error", len(tasks))
            results = [internal_error(error)] * len(tasks)
        self._running -= 1
        self._soon()
        await self._hand_out(list(zip(map(_token, tasks), results, strict=False)))

    async def _hand_out(self, results: list[tuple[Any, Result]]) -> None:
        await self._deliver(results)
        self._leave(len(results))

    async def _results_of(self, tasks: list[Task]) -> list[Result]:
        # the rest of the shard goes back into the queue
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
        # What hangs in a thread is moved to processes, which can be killed.
        if self._may_move:
            self._move()

    def _move(self) -> None:
        log.info("post-processing moves to %d worker processes", cores())
        self._retired += self._backends
        before = self._async_workers
        self._use_workers(cores())
        for async_worker in before:
            async_worker.transfer(self._async_workers[0])
        self._soon()

    def _use_workers(self, workers: int) -> None:
        # Each event loop has its own pool, so that rows in flight stay in their process.
        self.workers = workers
        if not workers:
            backends: list[Pool] | list[Inline] = [Inline(self._make_worker)]
        else:
            pools = [1] * workers if self._awaits else [workers]
            backends = [Pool(count, self._setup, self._environ) for count in pools]
        self._backends = [*backends]
        if self._awaits:
            self._async_workers = [self._async_worker_of(backend) for backend in backends]

    def _use_cluster(self, address: str, environ: dict[str, str]) -> None:
        choices = self._choices
        make = partial(
            prepared, choices.specs, choices.secret_values, self._setup, driver_environ(self._environ, environ)
        )
        make = partial(make, asyncio.get_running_loop())
        self._cluster = Cluster(address, make, most=choices.workers, apart=self._awaits, changed=self._recount)
        self._left_over = self._async_worker_of(OneActor())
        self._backends = [self._cluster]

    def _recount(self) -> None:
        # Rows of a lost actor go to the next.
        assert self._cluster is not None
        actors = self._cluster.actors
        self.workers = len(actors)
        if self._awaits:
            known = {async_worker.backend: async_worker for async_worker in self._async_workers}
            self._async_workers = [known.get(actor) or self._async_worker_of(actor) for actor in actors.values()]
            if self._async_workers:
                self._left_over.transfer(self._async_workers[0])
        self._soon()
        self._wake()

    def _async_worker_of(self, backend: Pool | Inline | OneActor) -> AsyncWorker:
        choices, twice = self._choices, self._cluster is not None
        return AsyncWorker(backend, concurrency=choices.concurrency, timeout=choices.timeout, twice=twice)

    @property
    def _setup(self) -> Setup:
        choices = self._choices
        return Setup(choices.specs, choices.concurrency, choices.timeout, choices.batch)

    def _make_worker(self, begin: Callable[[], None]) -> Chain | EventLoopWorker:
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
        for waiter in islice(tuple(self._waiters), None):
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
