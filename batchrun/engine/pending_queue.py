"""The queue of rows: fresh ones from the journal, due retries, and rows that wait for an equal request."""

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING

from batchrun.engine.bytes_held import BytesHeld
from batchrun.engine.prefixes import Groups, Prefix
from batchrun.journal import PAGE_BYTES
from batchrun.media import encoded_size
from batchrun.models import FRESH, Outcome, Pending, Request, SharedReply, State
from batchrun.retry import GiveUp

if TYPE_CHECKING:
    from batchrun.engine.attempt import Attempt
    from batchrun.engine.lane import Lane
    from batchrun.engine.late_replies import Late

AHEAD = 2000  # Rows fetched from the journal at a time
MOST_DUE = 10 * AHEAD  # No fresh rows are handed out above this: it bounds memory
_FIRST = 0.0  # Due time of a row that is handed out before all others
ELSEWHERE = 0.618  # Fraction of the remaining input to skip; joined inputs seldom have a seam there
# The next rows from a position, and where to continue (None: the end)
Fetch = Callable[[int], Awaitable[tuple[list[Pending], int | None]]]


class GroupVerdict(Enum):
    SHARE = auto()  # Followers (`journal.duplicates`) share the reply
    FAIL_ALIKE = auto()
    SEND_NEXT = auto()  # The first is sent, the others wait


def group_verdict(outcome: Outcome) -> GroupVerdict:
    if outcome.state is State.DONE or outcome.post:
        return GroupVerdict.SHARE
    return GroupVerdict.FAIL_ALIKE if outcome.permanent else GroupVerdict.SEND_NEXT


@dataclass(frozen=True, slots=True)
class Followers:
    """A group of rows to fetch."""

    representative: int | None = None  # None: rows that share replies
    source: int = 0  # The representative's row, which ended with `outcome`
    outcome: Outcome | None = None
    after: int = 0
    reduces: bool = False  # Complete reduce rows: `target`, or all
    target: int | None = None


FetchFollowers = Callable[[Followers], Awaitable[tuple[list[Pending], int | None]]]


@dataclass(slots=True, eq=False)
class RowState:
    """A row in progress. Sizes are bytes."""

    row: Pending
    number: int
    attempts: int
    deadlines: int
    asks: int
    request: Request | None = None  # If it differs from `first_request`
    lane: "Lane | None" = None
    attempt: "Attempt | None" = None
    handed_on: bool = False  # The verdict was performed
    reused: SharedReply | None = None
    shared_outcome: Outcome | None = None
    represents: int | None = None  # The row whose followers wait
    from_batch: bool = False
    elsewhere: bool = False  # Taken from far ahead
    refusals: int = 0  # In succession
    failed_at: frozenset[int] = frozenset()
    gave_up: GiveUp | None = None  # Before the fallback
    first_request: Request | None = None  # As rendered
    shared: tuple[Prefix, ...] = ()
    marks: tuple[Prefix, ...] = ()
    added: frozenset[str] = frozenset()
    tier: str | None = None
    tier_since: float | None = None  # Its tier has lacked capacity
    tiers_left: frozenset[str] = frozenset()
    late: "Late | None" = None
    over: bool = False  # The outcome is decided
    size: int = 0  # In the journal
    counted: int = 0  # Now, in `BytesHeld`
    waiting: int = 0  # Of these, until it is sent
    held: int = 0  # Measured
    left: bool = False  # The request was sent
    reply: int = 0  # Reserved for it

    @property
    def fetched(self) -> int:
        """Bytes that are in memory before it is sent."""
        return self.size if type(self.row.encoded) is bytes else 0

    @classmethod
    def of(cls, row: Pending) -> "RowState":
        history, size = row.history, len(row.text) + len(row.encoded)
        if history is FRESH and row.reused is None and row.parts is None and not row.files:  # nearly every row
            return cls(row, 0, 0, 0, 0, represents=row.seq if row.awaited else None, size=size)
        size += len(history.reply or "") + (0 if row.reused is None else len(row.reused.body))
        size += (0 if row.parts is None else row.parts.size) + (encoded_size(row.files) if row.files else 0)
        shared_outcome = None if row.parts is None else row.parts.failed
        tries = history.number, history.attempts, history.deadlines, history.asks
        gave_up = None if history.gave_up is None else GiveUp(*history.gave_up, permanent=True)
        return cls(
            row,
            *tries,
            shared_outcome=shared_outcome,
            represents=row.seq if row.awaited else None,
            size=size,
            gave_up=gave_up,
        )


class PendingQueue:
    """Input order, due retries first. One loop, no threads."""

    def __init__(
        self,
        fetch: Fetch,
        fetch_followers: FetchFollowers,
        rows: int = 0,
        groups: Groups | None = None,
        *,
        most_bytes: float = math.inf,
    ) -> None:
        self._groups = groups
        self.bytes = BytesHeld(most_bytes)
        self.bytes.when_sent = self._wake_for_room
        self._fresh_bytes = 0
        self._rows = rows
        self._early: set[int] = set()  # rows that were taken from far ahead
        self._fetch = fetch
        self._fetch_followers = fetch_followers
        self._loop = asyncio.get_running_loop()
        self._fresh: deque[RowState] = deque()
        self._groups_due: deque[Followers] = deque([Followers()])
        self._reduces = False
        self._reducing: set[int] = set()  # reduce rows that were handed out
        self._reduced: set[int] = set()  # those with an outcome, which a look that is under way may not have seen
        self._due: list[tuple[float, int, RowState]] = []
        self._order = itertools.count()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._woken = 0  # waiters that will look for a row
        self._out = 0
        self._after: int | None = 0
        # Takes fresh rows that need not be handed out, and returns the others
        self.direct: Callable[[list[Pending]], Awaitable[list[Pending]]] | None = None
        self._closed = False
        self._fetching: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def next(self) -> RowState | None:
        """Returns None at the end. Raises StorageError."""
        while not self._closed:
            if (state := self.take()) is not None:
                return state
            if not self.more:
                self._wake(len(self._waiters))
                return None
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            self._arm()
            try:
                await waiter
            finally:
                self._woken -= waiter.done() and not waiter.cancelled()
        return None

    @property
    def more(self) -> bool:
        return bool(self._out or self._due or self._at_hand or self._groups_due or self._after is not None)

    @property
    def _at_hand(self) -> int:
        return len(self._fresh) + (0 if self._groups is None else self._groups.waiting)

    async def take_from_ahead(self, lane: "Lane") -> RowState | None:
        """Hand out next, before all that are due, a row from far ahead."""
        state = None
        if self._after is not None:
            rows, _ = await self._fetch(self._after + int((self._rows - self._after) * ELSEWHERE))
            ahead = (row for row in rows if self._unread(row) and row.seq not in self._early)
            if (row := next(ahead, None)) is not None:
                self._early.add(row.seq)
                state = RowState.of(row)
        if (
            state is None
            and self._fresh
            and self._fresh[-1].shared_outcome is None
            and self._fresh[-1].row.reused is None
        ):
            state = self._fresh.pop()
            self._fresh_bytes -= state.fetched
        if state is not None:
            state.elsewhere, state.lane = True, lane
            self.bytes.hand_out(state, state.size)
            heapq.heappush(self._due, (_FIRST, next(self._order), state))
            self._wake(1)
        return state

    @property
    def has_first(self) -> bool:
        return bool(self._due) and self._due[0][0] == _FIRST

    def _unread(self, row: Pending) -> bool:
        return self._after is not None and row.position > self._after

    def enter(self, state: RowState) -> None:
        self._out += 1
        self.bytes.hand_out(state, state.size)

    def count_page(self, rows: int) -> None:
        """Count more rows (or fewer) that `direct` took."""
        self._out += rows
        if not self._out and not self.more:
            self._wake(len(self._waiters))
        else:
            self._wake_for_room()

    def hand_back(self, states: list[RowState]) -> None:
        """Rows that `direct` took are handed out after all."""
        self._out -= len(states)
        self._fresh.extendleft(reversed(states))
        self._fresh_bytes += sum(state.fetched for state in states)
        self._wake(len(states))

    @property
    def lacks_bytes(self) -> bool:
        return self.bytes.lacking or bool(
            self._at_hand and self._waiters and not self.bytes.has_room(self._next_size())
        )

    def restart(self) -> None:
        if not self._out and not self._due and not self._at_hand:
            self._after = 0
            self._reducing.clear()
            if self._reduces:
                self.reduce()

    def released(self, *states: RowState) -> None:
        if self._groups is not None:
            due = [found for state in states for found in self._groups.released(state)]
            self._fresh.extendleft(reversed(due))
            self._wake(len(due))

    def put_back(self, state: RowState, seconds: float) -> None:
        self._out -= 1
        self.bytes.over(state, state.size)
        heapq.heappush(self._due, (self._loop.time() + seconds, next(self._order), state))
        self._arm()

    def finished(self, state: RowState) -> None:
        self._out -= 1
        self.bytes.over(state, 0)
        if not self._out and not self.more:
            self._wake(len(self._waiters))
        else:
            self._wake_for_room()

    def _wake_for_room(self) -> None:
        if self._waiters and self._at_hand > self._woken and self._has_room():
            self._wake(1)

    def ended(self, state: RowState, outcome: Outcome) -> None:
        """Hand out its followers and reduce row next."""
        row = state.row
        if self._reducing and row.seq in self._reducing:
            self._reduced.add(row.seq)
        if row.target is not None:
            self.reduce(row.target)
        if state.represents is not None:
            self._groups_due.append(
                Followers(
                    state.represents, state.row.seq, outcome, state.row.seq if state.row.seq != state.represents else 0
                )
            )
            self._wake(1)

    def recall(self, failed: Iterable[tuple[int, Outcome]]) -> None:
        self._groups_due.extend(Followers(seq, seq, outcome) for seq, outcome in failed)

    def reduce(self, target: int | None = None) -> None:
        self._reduces = True
        self._groups_due.append(Followers(reduces=True, target=target))
        self._wake(1)

    def close(self) -> None:
        self._closed = True
        self.bytes.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._fetching is not None:
            self._fetching.cancel()
        self._wake(len(self._waiters))

    @property
    def next_due(self) -> float | None:
        """Loop time, if only retries are left."""
        fresh = self._at_hand or self._groups_due or self._after is not None
        held_up = len(self._due) >= MOST_DUE or self.lacks_bytes
        return self._due[0][0] if self._due and (not fresh or held_up) else None

    def take(self) -> RowState | None:
        state = None if self._closed else self._take()
        if state is not None:
            self._wake_for_room()
        return state

    def _take(self) -> RowState | None:
        fresh, groups, due = self._fresh, self._groups, self._due
        if due:
            if due[0][0] <= self._loop.time():
                self._out += 1
                if len(due) == MOST_DUE:
                    self._wake(len(self._waiters))  # there is room again
                return heapq.heappop(due)[2]
            if len(due) >= MOST_DUE:
                return None
        if (len(fresh) if groups is None else self._at_hand) < AHEAD // 2 and self._fresh_bytes < PAGE_BYTES // 2:
            self._fetch_ahead()
        if not self._has_room():
            return None
        state = (fresh.popleft() if fresh else None) if groups is None else groups.next_of(fresh, self._loop.time())
        if state is not None:
            self._out += 1
            self._fresh_bytes -= state.fetched
            self.bytes.hand_out(state, state.size + int(self.bytes.beside))
        return state

    def _has_room(self) -> bool:
        size = self._next_size()
        return self.bytes.has_room(size) and self.bytes.may_wait(size)

    def _next_size(self) -> int:
        return self._fresh[0].size if self._fresh else self._fresh_bytes // (self._at_hand or 1)

    def _fetch_ahead(self) -> None:
        if self._closed:
            return
        if self._fetching is not None:
            if self._fetching.done():
                self._fetching.result()  # it failed, also where nothing is left to be fetched
        elif self._groups_due or self._after is not None:
            self._fetching = self._loop.create_task(self._fetch_more())

    async def _fetch_more(self) -> None:
        try:
            if self._groups_due:
                await self._take_followers(self._groups_due[0])
            elif self._after is not None:
                states = [RowState.of(row) for row in await self._next_fresh(self._after)]
                self._fresh_bytes += sum(state.fetched for state in states)
                self._fresh.extend(
                    states if self._groups is None else await asyncio.to_thread(self._groups.arranged, states)
                )
            self._fetching = None
        finally:
            # Of long rows a page has few: waking a waiter for each worker would cost more than sending them.
            self._wake(max(1, min(self._at_hand, self.bytes.room_for(self._fresh_bytes / (self._at_hand or 1)))))

    async def _next_fresh(self, after: int) -> list[Pending]:
        while True:
            rows, last = await self._fetch(after)
            if self._early:
                rows = [row for row in rows if row.seq not in self._early]
            if self.direct is not None:
                rows = await self.direct(rows)
            self._after = last
            if rows or last is None or self._groups_due:
                return rows
            after = last

    async def _take_followers(self, followers: Followers) -> None:
        self._reducing -= self._reduced
        self._reduced.clear()
        rows, after = await self._fetch_followers(followers)
        states = [RowState.of(row) for row in rows if row.seq not in self._reducing]
        if followers.reduces:
            self._reducing.update(state.row.seq for state in states)
        if followers.representative is not None and followers.outcome is not None:
            after = _decide(states, followers.representative, followers.outcome, after)
        self._fresh.extendleft(reversed(states))
        self._fresh_bytes += sum(state.fetched for state in states)
        if after is None:
            self._groups_due.popleft()
        else:
            self._groups_due[0] = replace(followers, after=after)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due and self._waiters:
            self._timer = self._loop.call_at(self._due[0][0], self._on_due)

    def _on_due(self) -> None:
        self._timer = None
        now = self._loop.time()
        self._wake(sum(1 for when, _, _ in self._due if when <= now))
        self._arm()

    def _wake(self, count: int) -> None:
        while count > 0 and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._woken += 1
                count -= 1


def _decide(states: list[RowState], representative: int, outcome: Outcome, after: int | None) -> int | None:
    match group_verdict(outcome):
        case GroupVerdict.SHARE:
            return after
        case GroupVerdict.FAIL_ALIKE:
            for state in states:
                state.shared_outcome, state.reused = outcome, state.row.reused
            return after
        case GroupVerdict.SEND_NEXT:
            del states[1:]
            for state in states:
                state.row, state.represents = state.row._replace(reused=None), representative
            return None
