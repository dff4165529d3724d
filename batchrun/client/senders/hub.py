"""The driver's side of the senders.

A lease, a journaled attempt, goes to the READY sender with the fewest, or waits here. What a LOST sender had comes back
as `Fault.LOST`, possibly billed; what was not sent raises UnsentError.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchrun.client.senders.exchanges import Kept, Lost
from batchrun.client.senders.frames import (
    BUG,
    FULL,
    NO_NAMES,
    PACING,
    UNREAD,
    Frame,
    Frames,
    Kind,
    Pacing,
    Start,
    Transport,
    boot_time,
    encoded,
)
from batchrun.client.senders.leases import Came, Completions, Lease, Pages
from batchrun.client.senders.states import BEAT, Beat, State, counted_silence, next_state, pause, shares
from batchrun.client.wire import UnsentError
from batchrun.errors import HostError, RefusedError, UnreadableError
from batchrun.events import SendersChanged
from batchrun.models import Exchange, Fault, Request, Span, made

MOST_KEPT = 4 * 1024 * 1024  # bytes of replies after which a sender is pinged, to drop what is stored
Listen = Callable[[SendersChanged], None]


class _Query:
    # `left` senders have not answered it yet
    def __init__(self, answer: asyncio.Future[None], left: int) -> None:
        self.answer, self.left = answer, left

    def answered(self, message: str | None, hint: str | None) -> None:
        self.left -= 1
        if self.answer.done():
            return
        if message is None:
            self.answer.set_result(None)
        elif self.left <= 0:
            self.answer.set_exception(HostError(message, hint))


class Sender:
    def __init__(self, number: int, hub: "Hub") -> None:
        self.number = number
        self.state = State.STARTING
        self.leases: dict[int, Lease] = {}
        self.lost: dict[int, Lost] = {}  # leases that it had when it was lost
        self.batch = self.completed = self.opened = 0
        # received completions, from the first that may not be in the journal yet
        self.frames: deque[Completions] = deque()
        self.names: dict[int, list[str]] = {NO_NAMES: []}  # names of headers by number
        self.id_at: dict[int, int | None] = {}  # `Pages.id_at` of them
        self.kept_bytes = 0
        self.ended = ""  # why it was killed
        self.silent = 0.0
        self.transport: Transport | None = None
        self._hub = hub
        self._frames = Frames()

    def write(self, kind: Kind, head: Any, bodies: list[bytes] | tuple[()] = ()) -> None:
        if self.transport is not None:
            self.transport.write(encoded(kind, head, bodies))

    def open(self, number: int, place: Mapping[str, Any]) -> None:
        self.write(Kind.OPEN, [self._hub.times(), number, place])

    def ping(self) -> None:
        self.kept_bytes = 0
        while self.frames and not self.frames[0].left:
            self.frames.popleft()
        self.write(Kind.PING, [self._hub.times(), self.frames[0].first if self.frames else self.completed + 1])

    def received(self, data: bytes) -> None:
        self.silent = 0.0
        for frame in self._frames.feed(data):
            self._hub.handle(self, frame)
        if self.state is State.SUSPECT:
            self._hub.update_state(self)

    def gone(self, why: str) -> None:
        self._hub.lose(self, self.ended or why)


class Hub:
    """An async context manager of `count` senders."""

    def __init__(  # noqa: PLR0913  senders are of two kinds
        self,
        start: Start,
        count: int,
        *,
        beat: Beat = BEAT,
        pacing: Pacing = PACING,
        hint: str = "see the log",
        reads_files: bool = True,
    ) -> None:
        """`reads_files`: senders are on this machine, and read bodies from their files."""
        self._start = start
        self._count = count
        self._beat = beat
        self._pacing = pacing
        self._hint = hint
        self.reads_files = reads_files
        self._listen: Listen = lambda _: None
        self.pages: Pages | None = None  # gets the answers to leases of pages
        self._loop = asyncio.get_running_loop()
        self._senders: list[Sender] = []
        self._places: list[Mapping[str, Any]] = []
        self._waiting: deque[Lease] = deque()
        self._leases = self._started_count = self._failed = self._lost = self._query_count = self._waiting_bytes = 0
        self._queries: dict[int, _Query] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._checked = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._flushes = self._closed = False
        self._flushed = -pacing.slice
        self._first: asyncio.Future[None] = self._loop.create_future()
        self._none_since: float | None = self._loop.time()

    async def __aenter__(self) -> "Hub":
        self.resize(self._count)
        self._timer = self._loop.call_later(self._beat.every, self._watch)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._first.cancel()
        ended = [sender.transport.close() for sender in self._senders if sender.transport is not None]
        await asyncio.gather(*ended, return_exceptions=True)

    def resize(self, count: int) -> None:
        self._count = count  # a surplus sender stays, but is not replaced
        for _ in range(count - len(self._senders)):
            self._add_sender()

    def add(self, place: Mapping[str, Any]) -> int:
        """Takes the head of OPEN; returns its number."""
        self._places.append(place)
        number = len(self._places) - 1
        for sender in self._senders:
            sender.open(number, place)
            self.update_state(sender)
        return number

    async def ready(self) -> None:
        """Raises RefusedError where no sender starts."""
        await asyncio.shield(self._first)

    @property
    def view(self) -> SendersChanged:
        counts = Counter(sender.state for sender in self._senders)
        alive = counts[State.STARTING], counts[State.READY], counts[State.SUSPECT]
        return SendersChanged(*alive, self._lost, "", self._loop.time())

    async def send(
        self,
        place: int,
        request: Request,
        timeout: float,  # noqa: ASYNC109  the sender keeps it
        *,
        spaced: bool = False,
    ) -> Exchange:
        """A `spaced` request is sent `ahead` seconds later, to keep its distance.

        Raises UnsentError where it was not sent, UnreadableError where its body could not be read, RuntimeError for a bug in
        the sender.
        """
        future: asyncio.Future[Exchange] = self._loop.create_future()
        lease = Lease(place, request.endpoint, request.body, timeout, future)
        lease.depart = self._loop.time() + self._pacing.ahead if spaced else 0.0
        self.send_page([lease])
        try:
            return await future
        except asyncio.CancelledError:
            if lease.sender is not None and lease.sender.leases.pop(lease.number, None) is not None:
                lease.sender.write(Kind.CANCEL, [lease.number])
            raise

    def send_page(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            self._leases += 1
            lease.number = self._leases
            self._waiting_bytes += len(lease.body)
        self._waiting.extend(leases)
        self._flush_soon()

    def abandon_pages(self) -> None:
        self._waiting = deque(lease for lease in self._waiting if lease.future is not None)
        for sender in self._senders:
            if numbers := [number for number, lease in sender.leases.items() if lease.future is None]:
                for number in numbers:
                    del sender.leases[number]
                sender.write(Kind.CANCEL, numbers)

    def subscribe(self, listen: Listen) -> None:
        self._listen = listen
        listen(self.view)

    def none_for(self, now: float) -> float:
        return 0.0 if self._none_since is None else now - self._none_since

    def recall(self) -> None:
        """Take back leases that wait or are planned for later."""
        waiting, self._waiting = self._waiting, deque()
        for lease in waiting:
            self._fail(lease, UnsentError())
        for sender in self._senders:
            sender.write(Kind.HOLD, None)

    def renew(self, place: int) -> None:
        for sender in self._senders:
            sender.write(Kind.RENEW, place)

    async def reach(self, place: int, seconds: float) -> None:
        """Raises HostError, or TimeoutError without an answer."""
        await self.ready()
        ready = [sender for sender in self._senders if sender.state is State.READY]
        self._query_count += 1
        number, answer = self._query_count, self._loop.create_future()
        self._queries[number] = _Query(answer, len(ready))
        for sender in ready:
            sender.write(Kind.REACH, [number, place, seconds])
        try:
            async with asyncio.timeout(seconds + self._beat.suspect):
                await answer
        finally:
            del self._queries[number]

    def end(self, place: int, before: float) -> int:
        """End what was sent before that time."""
        for sender in self._senders:
            sender.write(Kind.END, [place, before])
        leases = [lease for sender in self._senders for lease in sender.leases.values()]
        return sum(lease.place == place and lease.left < before for lease in leases)

    def times(self) -> tuple[float, float]:
        return self._loop.time(), boot_time()

    def handle(self, sender: Sender, frame: Frame) -> None:
        if frame.kind == Kind.COMPLETIONS:
            self._completed(sender, frame.head[1:], frame.bodies)
        elif frame.kind == Kind.NAMES:
            number, names = frame.head
            sender.names[number] = names
        elif frame.kind == Kind.UNSENT:
            for number in frame.head:
                if (lease := sender.leases.pop(number, None)) is not None:
                    self._fail(lease, UnsentError())
        elif frame.kind == Kind.REACHED:
            number, *result = frame.head
            if (query := self._queries.get(number)) is not None:
                query.answered(*result)
        elif frame.kind == Kind.OPENED:
            sender.opened += 1
            self.update_state(sender)

    def _completed(self, sender: Sender, completions: list[Any], bodies: bytes) -> None:
        leases, names, place = sender.leases, sender.names, 0
        frame, pages, together = Completions(sender.completed + 1, len(completions)), self.pages, list[Came]()
        sender.frames.append(frame)
        sender.completed += len(completions)
        sender.kept_bytes += len(bodies)
        self._failed = 0
        stored = frame.stored
        for number, status, fault, sent, left, ended, detail, named, values, length in completions:
            place += length
            lease, body = leases.pop(number, None), bodies[place - length : place]
            if status == 200 and not fault and pages is not None and lease is not None and lease.future is None:
                if named not in sender.id_at:
                    sender.id_at[named] = pages.id_at(names[named])
                if (id_at := sender.id_at[named]) is not None:
                    together.append(made(Came, (lease, left, ended, id_at, names[named], values, body)))
                    continue
            if fault in (BUG, UNREAD):
                stored()
                if lease is not None:
                    bug = RuntimeError(f"in sender {sender.number}: {detail}")
                    self._fail(lease, bug if fault == BUG else UnreadableError(*detail))
                continue
            headers = dict(zip(names[named], values, strict=True))
            why = Fault(fault) if fault else None
            exchange = made(Kept, (status, headers, body, left, ended, why, detail, sent))
            exchange.stored = stored
            if lease is not None and lease.awaited:
                self._give(lease, exchange)
                continue
            stored()  # it was cancelled, or its sender was lost
            lost = sender.lost.pop(number, None)
            if lost is not None and lost.late is not None:
                lost.late(exchange)
        if together and pages is not None:
            pages.came(together, frame)
        if sender.kept_bytes > MOST_KEPT:
            sender.ping()

    def _give(self, lease: Lease, exchange: Exchange) -> None:
        if lease.future is not None:
            lease.future.set_result(exchange)
        elif self.pages is not None:
            self.pages.returned(lease, exchange)

    def _fail(self, lease: Lease, error: Exception) -> None:
        if lease.future is None:
            if self.pages is not None:
                self.pages.failed(lease, error)
        elif not lease.future.done():
            lease.future.set_exception(error)

    def update_state(self, sender: Sender) -> None:
        before = sender.state
        opened = sender.transport is not None and sender.opened == len(self._places) > 0
        sender.state = next_state(before, sender.silent, opened=opened, beat=self._beat)
        if sender.state is before:
            return
        if sender.state is State.LOST:
            sender.state = before
            self._end(sender)
            return
        self._emit()
        if sender.state is State.READY:
            if not self._first.done():
                self._first.set_result(None)
            self._flush_soon()

    def _end(self, sender: Sender) -> None:
        # leases return when the process has ended: no answer can come later
        if sender.transport is None or (sender.ended and sender.silent >= self._beat.lost + self._beat.suspect):
            self.lose(sender, f"no message for {sender.silent:.0f} s")
        elif not sender.ended:
            sender.ended = f"no message for {sender.silent:.0f} s"
            sender.transport.kill()

    def lose(self, sender: Sender, why: str) -> None:
        # what it had is reported as lost, as it may have been billed
        if sender.state is State.LOST or self._closed:
            return
        started, sender.state = sender.state is not State.STARTING, State.LOST
        self._lost += 1
        now = self._loop.time()
        for lease in tuple(sender.leases.values()):
            if lease.awaited:
                detail = f"sender {sender.number} was lost: {why}"
                lost = sender.lost[lease.number] = Lost(0, {}, b"", lease.left, now, Fault.LOST, detail, True)
                self._give(lease, lost)
        sender.leases.clear()
        if sender.transport is not None:
            sender.transport.kill()
        self._senders.remove(sender)
        self._emit(why)
        self._failed = 0 if sender.completed else self._failed + 1
        if not (started or self._first.done()):
            self._first.set_exception(RefusedError(f"No sender starts: {why}", self._hint))
            return
        self._loop.call_later(pause(self._failed), self._add_sender)

    def _add_sender(self) -> None:
        if self._closed or len(self._senders) >= self._count:
            return
        self._started_count += 1
        sender = Sender(self._started_count, self)
        self._senders.append(sender)
        self._emit()
        task = self._loop.create_task(self._started(sender))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _started(self, sender: Sender) -> None:
        try:
            sender.transport = await self._start(sender)
        except OSError as error:
            self.lose(sender, str(error))
            return
        for number, place in enumerate(self._places):
            sender.open(number, place)

    def _watch(self) -> None:
        now = self._loop.time()
        silence, self._checked = counted_silence(now - self._checked, self._beat), now
        for sender in tuple(self._senders):
            sender.silent += silence
            sender.ping()
            self.update_state(sender)
        self._timer = self._loop.call_later(self._beat.every, self._watch)

    def _emit(self, why: str = "") -> None:
        if any(sender.state is State.READY for sender in self._senders):
            self._none_since = None
        elif self._none_since is None:
            self._none_since = self._loop.time()
        self._listen(self.view._replace(why=why))

    def _flush_soon(self) -> None:
        full = self.reads_files and self._waiting_bytes >= FULL
        if self._waiting and (full or not self._flushes):
            self._flushes = True
            if full:
                self._waiting_bytes = 0
            self._loop.call_at(self._flushed + (0.0 if full else self._pacing.slice), self._flush)

    def _flush(self) -> None:
        self._flushes, self._flushed = False, self._loop.time()
        ready = [sender for sender in self._senders if sender.state is State.READY]
        if not ready:
            return
        waiting, self._waiting = [lease for lease in self._waiting if lease.awaited], deque()
        start = self._waiting_bytes = 0
        for sender, share in zip(ready, shares([len(sender.leases) for sender in ready], len(waiting)), strict=True):
            if out := waiting[start : start + share]:
                start += share
                for lease in out:
                    lease.sender, lease.left = sender, self._flushed
                    sender.leases[lease.number] = lease
                sender.batch += 1
                whole = not self.reads_files
                bodies = [bytes(one.body) if whole else one.body for one in out]
                given = [(body.path, body.at, body.size) if isinstance(body, Span) else len(body) for body in bodies]
                leases = [
                    [one.number, one.place, one.endpoint, one.timeout, one.depart, body]
                    for one, body in zip(out, given, strict=True)
                ]
                follow = [body for body in bodies if type(body) is bytes]
                sender.write(Kind.LEASES, [self.times(), sender.batch, *leases], follow)
                for one in out:
                    one.body = b""
