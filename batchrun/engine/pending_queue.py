"""The rows that are at hand: fresh ones streamed from the journal, and those that wait for their retry or for a row with an equal request.

Workers ask for the next row and put rows back with the time they are due; no worker sleeps for a row. Memory is
bounded whatever the length of the input and of its rows: what is fetched ahead by rows and by bytes, what has been
handed out and has no outcome by the number of workers and by `--max-bytes-in-flight`. A row that does not fit waits until others
have ended, but one always passes, however large. What a row takes beside its text is known only later: the longer body
that its prompt makes of it, and its reply. So it counts from the start what rows took on average lately.

Rows of equal requests (`journal.duplicates`) come in groups of followers: those that share a reply from the start are handed out
before anything is sent, those that wait for a row when that has its outcome. What they get is this:

| the row that was sent                       | those that wait for it                                          |
|---|---|
| is done, or failed in post-processing only  | share its reply, and judge and post-process it as their own  |
| failed permanently                          | have failed alike                                               |
| failed, retryable                           | the first of them is sent, the others wait for that one         |
| has no outcome: the run ends                | stay as they are                                                |
"""

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
from batchrun.models import Outcome, Pending, Request, SharedReply, State
from batchrun.retry import GiveUp

if TYPE_CHECKING:
    from batchrun.engine.attempt import Attempt
    from batchrun.engine.lane import Lane

AHEAD = 2000
"""Rows fetched from the journal at a time."""
MOST_DUE = 10 * AHEAD
"""Rows that wait for their retry at most, before fresh ones are handed out: memory must not grow with the input where a
provider that answers some rows puts off all others."""
ELSEWHERE = 0.618
"""Where in what is left of the input a row is taken from that shall not be like those before it: at no even fraction,
at which inputs that were put together have their seams."""
Fetch = Callable[[int], Awaitable[tuple[list[Pending], int | None]]]
"""From a position: the next rows after it, and the position to go on from, None at the end."""


class GroupVerdict(Enum):
    """What becomes of the rows that wait for one that has ended."""

    SHARE = auto()
    FAIL_ALIKE = auto()
    SEND_NEXT = auto()


def group_verdict(outcome: Outcome) -> GroupVerdict:
    """What the outcome of a row means for those of equal requests that wait for it."""
    if outcome.state is State.DONE or outcome.post:
        return GroupVerdict.SHARE
    return GroupVerdict.FAIL_ALIKE if outcome.permanent else GroupVerdict.SEND_NEXT


@dataclass(frozen=True, slots=True)
class Followers:
    """Rows of equal requests on their way: those behind the row `after` that wait for the row `representative`.

    `source` was sent for them and ended with `outcome`. Without one: the rows that share replies from the
    start. Where it `reduces`: reduce rows whose parts are done, the row `target` or, for none, all.
    """

    representative: int | None = None
    source: int = 0
    outcome: Outcome | None = None
    after: int = 0
    reduces: bool = False
    target: int | None = None


FetchFollowers = Callable[[Followers], Awaitable[tuple[list[Pending], int | None]]]
"""The next rows of a group of followers, and the row to go on behind, None at its end."""


@dataclass(slots=True, eq=False)
class RowState:
    """A row on its way, with what it has used up.

    `number`, `attempts`, `deadlines` and `asks` are as in its history, and `refusals` how often in a row it was turned away.

    What it sends: `request`, where it is not simply the rendered row; `first_request` before anything was asked again.
    What it rests on instead: `given`, the outcome that it shares with an equal request, or the `reused` reply to one;
    `represents` is the row whose place it takes for those that wait for it.

    Where: `lane` is where it is sent, or was last; `failed_at` are lanes that failed under it; `gave_up` is why it goes to
    a fallback lane. `elsewhere` is whether it was taken from far ahead in the input, to see whether what other rows met is
    theirs. `tier` is the service tier that its attempt asks for, `tier_since` when it first wanted one that had no
    capacity, `tiers_left` are those that it waited for in vain.

    `attempt` is the attempt under way; `from_batch` is whether a batch has answered it, `handed_on` whether that answer's
    verdict has been performed. `shared` are the beginnings that its request shares with others, the longest last, `marks`
    those that are marked in the request that was sent, `added` the members that it got then.

    Bytes: `size` is what the journal has of it, nearly: its text, and a reply that it begins with; `counted` what it counts
    for while it has no outcome, `held` what it was found to hold; `left` is whether its request has left, `reply` what its
    reply counts for then.
    """

    row: Pending
    number: int
    attempts: int
    deadlines: int
    asks: int
    request: Request | None = None
    lane: "Lane | None" = None
    attempt: "Attempt | None" = None
    handed_on: bool = False
    reused: SharedReply | None = None
    given: Outcome | None = None
    represents: int | None = None
    from_batch: bool = False
    elsewhere: bool = False
    refusals: int = 0
    failed_at: frozenset[int] = frozenset()
    gave_up: GiveUp | None = None
    first_request: Request | None = None
    shared: tuple[Prefix, ...] = ()
    marks: tuple[Prefix, ...] = ()
    added: frozenset[str] = frozenset()
    tier: str | None = None
    tier_since: float | None = None
    tiers_left: frozenset[str] = frozenset()
    size: int = 0
    counted: int = 0
    held: int = 0
    left: bool = False
    reply: int = 0

    @classmethod
    def of(cls, row: Pending) -> "RowState":
        """The state that goes on where the row's history ends."""
        history = row.history
        size = len(row.text) + len(history.reply or "") + (0 if row.reused is None else len(row.reused.body))
        size += (0 if row.parts is None else row.parts.size) + (encoded_size(row.files) if row.files else 0)
        given = None if row.parts is None else row.parts.failed
        tries = history.number, history.attempts, history.deadlines, history.asks
        gave_up = None if history.gave_up is None else GiveUp(*history.gave_up, permanent=True)
        return cls(row, *tries, given=given, represents=row.seq if row.awaited else None, size=size, gave_up=gave_up)


class PendingQueue:
    """Hands out rows in input order, retries first when they are due. One loop, no threads."""

    def __init__(
        self,
        fetch: Fetch,
        fetch_followers: FetchFollowers,
        rows: int = 0,
        groups: Groups | None = None,
        *,
        most_bytes: float = math.inf,
    ) -> None:
        """`rows` is how many rows the input has; `groups` brings those next to each other that share a beginning.

        `most_bytes` is what rows without an outcome that were handed out may hold together.
        """
        self._groups = groups
        self.bytes = BytesHeld(most_bytes)
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
        self._out = 0
        self._after: int | None = 0
        self.direct: Callable[[list[Pending]], Awaitable[list[Pending]]] | None = None
        """Takes fresh rows that need not be handed out, and gives back the others."""
        self._closed = False
        self._fetching: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def next(self) -> RowState | None:
        """The next row to send; None when every row is finished or the queue is closed.

        Raises StorageError where the journal cannot be read.
        """
        while not self._closed:
            if (state := self.take()) is not None:
                return state
            if not self.more:
                self._wake(len(self._waiters))
                return None
            await self._wait()
        return None

    @property
    def more(self) -> bool:
        """Whether there are rows to hand out, or to come back."""
        return bool(self._out or self._due or self._at_hand or self._groups_due or self._after is not None)

    @property
    def _at_hand(self) -> int:
        """Fresh rows that were fetched and not handed out."""
        return len(self._fresh) + (0 if self._groups is None else self._groups.waiting)

    async def take_elsewhere(self, lane: "Lane") -> bool:
        """Hand out next a row from far ahead in the input, for that lane; False where none is left that has not been handed
        out."""
        state = None
        if self._after is not None:
            rows, _ = await self._fetch(self._after + int((self._rows - self._after) * ELSEWHERE))
            ahead = (row for row in rows if self._unread(row) and row.seq not in self._early)
            if (row := next(ahead, None)) is not None:
                self._early.add(row.seq)
                state = RowState.of(row)
        if state is None and self._fresh and self._fresh[-1].given is None and self._fresh[-1].row.reused is None:
            state = self._fresh.pop()
            self._fresh_bytes -= state.size
        if state is None:
            return False
        state.elsewhere, state.lane = True, lane
        self._fresh.appendleft(state)
        self._fresh_bytes += state.size
        self._wake(1)
        return True

    def _unread(self, row: Pending) -> bool:
        """Whether the row is still to be fetched in its turn; others may have been, while it was looked for."""
        return self._after is not None and row.position > self._after

    def enter(self, state: RowState) -> None:
        """A row is on its way that was not handed out here: its answer has come from elsewhere."""
        self._out += 1
        self.bytes.count(state, state.size)

    @property
    def lacks_bytes(self) -> bool:
        """Whether rows are at hand that wait until others, which hold too many bytes, have their outcomes."""
        return self.bytes.lacking or bool(self._at_hand and self._waiters and not self._has_room())

    def restart(self) -> None:
        """Hand out what is pending once more, from the first row; nothing may be on its way."""
        if not self._out and not self._due and not self._at_hand:
            self._after = 0
            self._reducing.clear()
            if self._reduces:
                self.reduce()

    def released(self, *states: RowState) -> None:
        """The requests of rows are over: those that waited for what they wrote into a cache are next."""
        if self._groups is not None:
            due = [found for state in states for found in self._groups.released(state)]
            self._fresh.extendleft(reversed(due))
            self._wake(len(due))

    def put_back(self, state: RowState, seconds: float) -> None:
        """The row goes out again after `seconds`."""
        self._out -= 1
        self.bytes.over(state, state.size)
        heapq.heappush(self._due, (self._loop.time() + seconds, next(self._order), state))
        self._arm()

    def finished(self, state: RowState) -> None:
        """A row that was handed out has its outcome, or is left as it is."""
        self._out -= 1
        self.bytes.over(state, 0)
        if not self._out and not self.more:
            self._wake(len(self._waiters))
        elif self._waiters and self._at_hand and self._has_room():
            self._wake(1)

    def ended(self, state: RowState, outcome: Outcome) -> None:
        """A row has its outcome: those that wait for it are next, and what it is a part of if it was the last part."""
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
        """Rows that failed in an earlier session, with their outcomes: those that still wait for them are next."""
        self._groups_due.extend(Followers(seq, seq, outcome) for seq, outcome in failed)

    def reduce(self, target: int | None = None) -> None:
        """Hand out what waits for nothing any more: all reduce rows whose parts are done, or `target` and its pieces."""
        self._reduces = True
        self._groups_due.append(Followers(reduces=True, target=target))
        self._wake(1)

    def close(self) -> None:
        """Hand out nothing more; whoever waits gets None."""
        self._closed = True
        self.bytes.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._fetching is not None:
            self._fetching.cancel()
        self._wake(len(self._waiters))

    @property
    def next_due(self) -> float | None:
        """When the earliest retry is due, in the loop's time, where nothing but retries is to be handed out."""
        fresh = self._at_hand or self._groups_due or self._after is not None
        held_up = len(self._due) >= MOST_DUE or self.lacks_bytes
        return self._due[0][0] if self._due and (not fresh or held_up) else None

    def take(self) -> RowState | None:
        """The next row where none has to be waited for, else None."""
        state = None if self._closed else self._take()
        if state is not None and self._waiters and self._at_hand and self._has_room():
            self._wake(1)
        return state

    def _take(self) -> RowState | None:
        fresh, groups, due = self._fresh, self._groups, self._due
        if due and due[0][0] <= self._loop.time():
            self._out += 1
            if len(due) == MOST_DUE:
                self._wake(len(self._waiters))  # there is room again
            return heapq.heappop(due)[2]
        if len(due) >= MOST_DUE:
            return None
        if self._fresh_bytes < PAGE_BYTES // 2 and (len(fresh) if groups is None else self._at_hand) < AHEAD // 2:
            self._fetch_ahead()
        if not self._has_room():
            return None
        state = (fresh.popleft() if fresh else None) if groups is None else groups.next_of(fresh, self._loop.time())
        if state is not None:
            self._out += 1
            self._fresh_bytes -= state.size
            self.bytes.count(state, state.size + int(self.bytes.beside))
        return state

    def _has_room(self) -> bool:
        """Whether the next row at hand does not hold too much beside those that were handed out."""
        size = self._fresh[0].size if self._fresh else self._fresh_bytes // (self._at_hand or 1)
        return self.bytes.has_room(size)

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
                states = [RowState.of(row) for row in await self._next_fresh(self._after) if row.seq not in self._early]
                self._fresh_bytes += sum(state.size for state in states)
                self._fresh.extend(
                    states if self._groups is None else await asyncio.to_thread(self._groups.arranged, states)
                )
            self._fetching = None
        finally:
            self._wake(len(self._waiters))

    async def _next_fresh(self, after: int) -> list[Pending]:
        """The next rows that are to be handed out, none at the end or where others come first."""
        while True:
            rows, last = await self._fetch(after)
            if self.direct is not None:
                rows = await self.direct(rows)
            self._after = last
            if rows or last is None or self._groups_due:
                return rows
            after = last

    async def _take_followers(self, followers: Followers) -> None:
        """The next rows of a group of followers, which come before rows that would be sent."""
        self._reducing -= self._reduced
        self._reduced.clear()
        rows, after = await self._fetch_followers(followers)
        states = [RowState.of(row) for row in rows if row.seq not in self._reducing]
        if followers.reduces:
            self._reducing.update(state.row.seq for state in states)
        if followers.representative is not None and followers.outcome is not None:
            after = _decide(states, followers.representative, followers.outcome, after)
        self._fresh.extendleft(reversed(states))
        self._fresh_bytes += sum(state.size for state in states)
        if after is None:
            self._groups_due.popleft()
        else:
            self._groups_due[0] = replace(followers, after=after)

    async def _wait(self) -> None:
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        self._arm()
        await waiter

    def _arm(self) -> None:
        """One timer for all who wait: it goes off when the earliest retry is due."""
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
                count -= 1


def _decide(states: list[RowState], representative: int, outcome: Outcome, after: int | None) -> int | None:
    """Give the rows of a group what their representative's outcome means for them; where to go on behind, None at the end."""
    match group_verdict(outcome):
        case GroupVerdict.SHARE:
            return after
        case GroupVerdict.FAIL_ALIKE:
            for state in states:
                state.given, state.reused = outcome, state.row.reused
            return after
        case GroupVerdict.SEND_NEXT:
            del states[1:]
            for state in states:
                state.row, state.represents = state.row._replace(reused=None), representative
            return None
