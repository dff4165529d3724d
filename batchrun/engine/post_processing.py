"""Passes replies through post-processing.

A reply is committed before a function runs, so that resuming post-processes what an abandoned run left.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from typing import NamedTuple

import orjson

from batchrun import post
from batchrun.engine.judge import Judged
from batchrun.engine.pending_queue import PendingQueue, RowState
from batchrun.engine.snapshots import row_finished
from batchrun.errors import BatchrunError, RefusedError
from batchrun.events import Event, PostChanged, Resumed, Waiting, WaitReason
from batchrun.journal import Journal
from batchrun.models import Kind, Outcome, State
from batchrun.plan import Plan
from batchrun.plan.config import every_profile
from batchrun.plan.profiles import BUILT_IN
from batchrun.plan.tables import secrets_of
from batchrun.post import Failure, Item, Result
from batchrun.secrecy import Mask

log = logging.getLogger(__name__)


class Judgement(NamedTuple):
    state: RowState
    outcome: Outcome


class PostProcessing:
    def __init__(  # noqa: PLR0913  the run's own parts, by name
        self,
        plan: Plan,
        journal: Journal,
        queue: PendingQueue,
        *,
        secrets: tuple[str, ...],
        emit: Callable[[Event], None],
        failed: Callable[[BatchrunError], None],
    ) -> None:
        self._journal = journal
        self._emit = emit
        self._queue = queue
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._reported = (0, -1)
        self._post_queue: post.PostQueue | None = None
        self._mask = Mask()
        self._on_cluster = plan.ray is not None
        if plan.post:
            choices = choices_of(plan, secrets)
            self._mask.add(*choices.secret_values)
            self._post_queue = post.PostQueue(choices, self._deliver, environ=dict(os.environ), busy=self._report_busy)

    async def start(self) -> None:
        """Joins a cluster. Raises RefusedError."""
        if self._post_queue is not None:
            await self._post_queue.join()
            self._post_queue.start()

    async def put(
        self, state: RowState, judged: Judged, outcome: Outcome, stored: "asyncio.Future[None] | None"
    ) -> bool:
        """Wait for room; `stored` is the reply's commit. False without post-processing."""
        if self._post_queue is None:
            return False
        await self._post_queue.put(Judgement(state, outcome), item_of(state, judged), stored)
        return True

    async def drain(self) -> None:
        if self._post_queue is not None:
            await self._post_queue.drain()

    def end_soon(self) -> int:
        """Returns the rows left to a resume."""
        return 0 if self._post_queue is None else self._post_queue.end_soon()

    def abandon(self) -> None:
        if self._post_queue is not None:
            self._post_queue.abandon()

    async def close(self) -> None:
        if self._post_queue is not None:
            await self._post_queue.close()

    def report(self) -> None:
        if self._post_queue is None:
            return
        inside = (self._post_queue.inside, self._post_queue.workers)
        if inside != self._reported:
            self._reported = inside
            self._emit(PostChanged(*inside, self._loop.time(), self._on_cluster))

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(
            f"{name} is a coroutine function that blocked its event loop for up to {seconds * 1000:.0f} ms: "
            "await slow operations, or make it a plain function"
            for name, seconds in sorted(self._post_queue.blocked.items() if self._post_queue is not None else ())
        )

    async def _deliver(self, results: list[tuple[Judgement, Result]]) -> None:
        ended = [(judgement.state, outcome_of(judgement.outcome, result, self._mask)) for judgement, result in results]
        try:
            for written in [self._journal.finish(state.row.seq, outcome, state.reused) for state, outcome in ended]:
                await written
            now = self._loop.time()
            for state, outcome in ended:
                self._emit(row_finished(state, outcome, now))
                self._queue.ended(state, outcome)
                self._queue.finished(state)
        except BatchrunError as error:
            self._failed(error)
        except Exception as error:
            log.exception("outcomes of post-processing: internal error")
            self._failed(BatchrunError(f"internal error: {type(error).__name__}: {error}"))

    def _report_busy(self, busy: bool) -> None:
        now = self._loop.time()
        self._emit(Waiting(WaitReason.POST, None, now) if busy else Resumed(now))


def choices_of(plan: Plan, secrets: tuple[str, ...]) -> "post.Choices":
    """No worker may see `secrets`."""
    names = {profile.api_key_env for profile in BUILT_IN.values()} | {plan.api_key_env}
    with contextlib.suppress(RefusedError):  # a file that has changed since the plan was made
        names |= {profile.api_key_env for profile in every_profile()}
    return post.Choices(
        specs=plan.post,
        workers=plan.workers,
        ray=plan.ray,
        timeout=plan.post_timeout,
        concurrency=plan.post_concurrency,
        batch=plan.kind is Kind.BATCH,
        secret_names=frozenset(name for name in names if name),
        secret_values=(*secrets, *secrets_of(plan.headers, os.environ)),
    )


def item_of(state: RowState, judged: Judged) -> Item:
    row, reply = state.row, judged.reply
    if reply is None:
        raise ValueError("a row without a reply cannot be post-processed")
    value = judged.value
    if value is None and reply.text is None:
        value = orjson.dumps(reply.value).decode()
    return Item(reply.text or "", row.text, value, reply.usage, reply.finish, row.line, row.key)


def outcome_of(before: Outcome, result: Result, mask: Mask) -> Outcome:
    """`mask` removes secrets from a function's errors."""
    if isinstance(result, Failure):
        message, trace = mask.text(result.message), result.trace and mask.text(result.trace)
        return Outcome(State.FAILED, True, result.cause, message, frozenset(), None, post=True, trace=trace)
    return before._replace(value=before.value if result.output is None else result.output, added=result.added)
