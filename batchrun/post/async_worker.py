"""The rows on the event loop of one worker.

Rows of a lost worker are run again, each alone, so that only the row at fault fails.
"""

import asyncio
import logging
from collections import deque
from typing import Any

from batchrun.post.cluster import OneActor
from batchrun.post.event_loop import GRACE, TURN
from batchrun.post.inline import Inline
from batchrun.post.pool import LostError, Pool
from batchrun.post.reply import Done, Result, Shard, Task, internal_error

log = logging.getLogger(__name__)

MOST = 2000  # rows ahead at most
_FADE = 0.8  # weight of earlier turns


class AsyncWorker:
    """`twice`: a row that was lost alone is run again too."""

    def __init__(
        self, backend: Pool | Inline | OneActor, *, concurrency: int, timeout: float, twice: bool = False
    ) -> None:
        self.backend = backend
        self.serving = False
        self._concurrency = concurrency
        self._timeout = timeout
        self._twice = twice
        self._rows: dict[int, Task] = {}
        self._alone: deque[Task] = deque()
        self._one_by_one = False
        self._number = 0
        self._seconds = TURN
        self._ended = 0.0

    @property
    def held(self) -> int:
        return len(self._rows) + len(self._alone)

    @property
    def capacity(self) -> int:
        # as many ahead as ended in two turns
        return self._concurrency + min(MOST, int(2 * TURN * self._ended / self._seconds))

    def take(self, queue: deque[Task], most: int) -> list[Task]:
        if self._rows and (self._one_by_one or self._alone):
            return []
        self._one_by_one = bool(self._alone)
        if self._one_by_one:
            return [self._alone.popleft()]
        count = max(0, min(most, self.capacity - len(self._rows), len(queue)))
        return [queue.popleft() for _ in range(count)]

    async def turn(self, tasks: list[Task]) -> tuple[list[tuple[Any, Result]], Done | None]:
        """(token, result) of ended rows; None for a lost worker."""
        shard = Shard([item for _, item in tasks], first=self._number, held=len(self._rows))
        self._rows.update(enumerate(tasks, self._number))
        self._number += len(tasks)
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            done = await self.backend.run(shard, self._timeout, grace=GRACE)
        except LostError as lost:
            return self._after_loss(lost), None
        except Exception as error:
            log.exception("rows for an event loop: internal error")
            return self._after_loss(LostError(internal_error(error))), None
        self._seconds = _FADE * self._seconds + clock() - began
        self._ended = _FADE * self._ended + len(done.results)
        ended = zip(done.numbers, done.results, strict=True)
        return [(self._rows.pop(number)[0], result) for number, result in ended], done

    def _after_loss(self, lost: LostError) -> list[tuple[Any, Result]]:
        rows = list(self._rows.values())
        self._rows.clear()
        if len(rows) == 1 and (self._one_by_one or not self._twice):
            return [(rows[0][0], lost.failure)]
        log.warning("%d rows in flight are run again one by one: %s", len(rows), lost)
        self._alone.extend(rows)
        return []

    def transfer(self, other: "AsyncWorker") -> None:
        # of the rows that run alone
        other._alone.extend(self._alone)
        self._alone.clear()
