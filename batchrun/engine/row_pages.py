"""Rows that need nothing but an answer, sent by senders in pages: a page costs little more than one request.

`accepted` replies are settled and journaled together; whatever else comes back continues as a row of its own
(`RowRunner.go`), as does every row once the gate or the provider's health is no longer plain.

    waiting      from the journal, before a request is rendered
    ready        reserved and journaled, which is committed before it is sent
    flying       at a sender
    answered     handed to the journal; its sender keeps the reply until that is committed
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from itertools import islice, repeat, starmap
from operator import attrgetter
from typing import cast

from batchrun import limits, retry
from batchrun.client import UnsentError
from batchrun.client.senders.exchanges import Kept
from batchrun.client.senders.hub import Hub
from batchrun.client.senders.leases import Came, Completions, Lease
from batchrun.client.senders.remote import RemoteClient
from batchrun.engine.attempt import NEVER_LEFT, Attempt, RowServices
from batchrun.engine.judge import inputs_of
from batchrun.engine.pending_queue import AHEAD, RowState
from batchrun.engine.result_reader import Line, ReplyReader
from batchrun.engine.row import RowRunner
from batchrun.engine.segment_checks import RowChecks
from batchrun.engine.snapshots import rows_answered
from batchrun.errors import StorageError, UnreadableError
from batchrun.events import AttemptsStarted, AttemptStarted, Emit, LaneState, RowLost
from batchrun.journal import Answers, Exchanges, Sum, columns
from batchrun.limits import PageGate, PagePermit
from batchrun.models import Exchange, History, Kind, Pending, Request, Span
from batchrun.plan import Plan
from batchrun.retry import BUDGET_PER_SUCCESS, GiveUp

log = logging.getLogger(__name__)

# Characters of a row that is rendered here, as larger ones cost too much by themselves to gain from it
LARGEST = 16_384
TOGETHER = 128  # Rows rendered at once, so that the loop goes on after a millisecond or two
_UNLINKED = Pending(0, 0, 0, "", "", History(0, 0, 0, 0, False, None))[6:11]  # From `reused` to `files`: nothing
READY = 1 / 2  # Share of the number in flight that is journaled ahead of its slots
_flight, _size, _unread, _held = map(attrgetter, ("flight", "size", "unread", "held"))


class _Flight:
    __slots__ = ("permit", "reserved")

    def __init__(self, permit: PagePermit, reserved: int) -> None:
        self.permit, self.reserved = permit, reserved  # Bytes for each reply


class RowLease(Lease):
    """The first attempt of a row. Sizes are bytes."""

    __slots__ = ("cost", "flight", "has_files", "held", "row", "size", "tokens", "unread")

    flight: _Flight

    def __init__(
        self, row: Pending, request: Request, place: int, timeout: float, worst: tuple[int | None, int]
    ) -> None:
        super().__init__(place, request.endpoint, request.body, timeout)
        self.row, self.size = row, (size := len(request.body))
        self.cost, self.tokens = worst
        self.has_files = request.has_files
        self.unread = size if type(request.body) is Span else 0  # That its sender reads and holds while it is sent
        self.held = size - self.unread + len(row.text)  # Here, until the reply is in the journal


_Reply = tuple[RowLease, float, float, int, list[str], list[str], bytes]  # `Came` of a `RowLease`


def is_plain(row: Pending) -> bool:
    """Whether it needs a request and nothing else."""
    short = type(row.encoded) is Span or (not row.encoded and len(row.text) <= LARGEST)
    return short and row[6:11] == _UNLINKED and not row.history.number


class RowPages:
    def __init__(  # noqa: PLR0913  what they are sent with, and who is told of it
        self,
        plan: Plan,
        services: RowServices,
        runner: RowRunner,
        senders: tuple[Hub, RemoteClient],
        *,
        emit: Emit,
        failed: Callable[[StorageError], None],
    ) -> None:
        lane = services.pool.only
        assert lane is not None
        assert isinstance(lane.gate, PageGate)
        self._plan, self._services, self._runner = plan, services, runner
        self._hub, self._client = senders
        self._lane, self._gate = lane, lane.gate
        self._emit, self._failed = emit, failed
        self._loop = asyncio.get_running_loop()
        self._queue, self._guard, self._journal = services.queue, services.guard, services.journal
        self._waiting: deque[Pending] = deque()
        self._ready: deque[RowLease] = deque()
        self._flying: set[RowLease] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._beginning = self._storing = 0
        self._alike: Request | None = None  # The first
        # By which replies to it are read: others have the same, or are not in pages
        self._terms: tuple[object, ...] = ()
        self._few: asyncio.Future[None] | None = None
        self._changed: asyncio.Future[None] | None = None
        self._due = self._closed = False
        self._hub.pages = self
        self._gate.room = self._step_soon

    @classmethod
    def of(  # noqa: PLR0913  the same
        cls,
        plan: Plan,
        services: RowServices,
        runner: RowRunner,
        hub: Hub,
        *,
        emit: Emit,
        failed: Callable[[StorageError], None],
    ) -> "RowPages | None":
        """None where each row needs more than an answer."""
        lane, checker = services.pool.only, services.checker
        if lane is None or not isinstance(lane.client, RemoteClient) or isinstance(checker, RowChecks):
            return None
        if plan.kind is Kind.BODIES or plan.post or services.guard.capped:
            return None
        return cls(plan, services, runner, (hub, lane.client), emit=emit, failed=failed)

    @property
    def _usable(self) -> bool:
        lane, health = self._lane, self._lane.health
        doubtful = not health.succeeded or health.doubtful or health.all_alike or health.none_fits
        return not (doubtful or self._closed or lane.state is not LaneState.OPEN) and self._gate.open_for_pages

    async def put_all(self, rows: list[Pending]) -> list[Pending]:
        """Return the rows that cannot be in pages, once few wait here."""
        if not self._usable:
            return rows
        plain = list(filter(is_plain, rows))
        others = [] if len(plain) == len(rows) else [row for row in rows if not is_plain(row)]
        self._queue.count_page(len(plain))
        self._queue.bytes.count_page(sum(len(row.text) for row in plain))
        self._waiting.extend(plain)
        self._step_soon()
        if len(self._waiting) > AHEAD // 2:
            self._few = self._loop.create_future()
            await self._few
        return others

    def _step_soon(self) -> None:
        if not self._due and (self._waiting or self._ready):
            self._due = True
            self._loop.call_soon(self._safely, self._step)

    def _safely(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            call(*arguments)
        except StorageError as error:
            self._failed(error)
        except Exception as error:
            log.exception("rows in pages: internal error")
            self._runner.stop_for(f"internal error: {type(error).__name__}: {error}")
        self._notify()

    def _notify(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
        few = len(self._waiting) <= AHEAD // 2 or self._closed
        if few and self._few is not None and not self._few.done():
            self._few.set_result(None)

    def _step(self) -> None:
        self._due = False
        if self._closed:
            return
        if not self._usable:
            self._give_back()
            return
        self._send()
        self._prepare()

    def _prepare(self) -> None:
        ahead = max(1, int(self._gate.size * READY))
        room = min(TOGETHER, ahead - len(self._ready) - self._beginning, len(self._waiting))
        rows, requests = list[Pending](), list[Request]()
        for _ in range(room):
            row = self._waiting.popleft()
            request = self._request(row)
            if request is None:
                self._queue.bytes.count_page(-len(row.text))
                self._queue.hand_back([RowState.of(row)])
            else:
                rows.append(row)
                requests.append(request)
        if not rows:
            return
        worst = self._guard.worst_cases(requests, self._lane.prices)
        place, timeout = self._client.place, self._plan.timeout
        parts = zip(rows, requests, repeat(place), repeat(timeout), worst, strict=False)
        leases = list(starmap(RowLease, parts))
        self._queue.bytes.count_page(sum(map(_size, leases)) - sum(map(_unread, leases)))
        costs, tokens = zip(*worst, strict=True)
        begun = self._journal.begin_page([row.seq for row in rows], costs, tokens, self._lane.id)
        self._beginning += len(leases)
        begun.add_done_callback(partial(self._safely, self._begun, leases))
        if len(self._waiting) and room == TOGETHER:
            self._step_soon()

    def _request(self, row: Pending) -> Request | None:
        """None where the row is to be sent by itself."""
        try:
            found = self._runner.rendered(row)
            request = None if found is None else self._lane.sending.sent_in_page(self._lane.spelled(found))
            if request is None or request.files or (type(request.body) is Span and request.body.base64 is None):
                return None
            terms = request.endpoint, request.output_limit, request.named, inputs_of(request)
        except Exception:  # noqa: BLE001  its own steps meet it again, and say so
            return None
        if self._alike is None:
            if self._lane.prices.named(request).tier is not None:
                return None
            self._alike, self._terms = request, terms
        return request if terms == self._terms else None

    def _begun(self, leases: list[RowLease], begun: asyncio.Future[None]) -> None:
        self._beginning -= len(leases)
        begun.result()
        self._ready.extend(leases)
        if self._closed:
            self._never_left()
        else:
            self._step()

    def _send(self) -> None:
        held = self._queue.bytes
        while self._ready:
            count = held.leave_page(len(self._ready))
            if any(unread := [lease.unread for lease in islice(self._ready, count)]):
                count = held.fit_page(unread)
            if not count:
                held.when_room(self._step_soon)
                return
            permit = self._gate.admit_page(count)
            if permit is None:
                return
            flight = _Flight(permit, held.left_page(permit.count))
            leases = [self._ready.popleft() for _ in range(permit.count)]
            for lease in leases:
                lease.flight = flight
            held.count_page(sum(map(_unread, leases)))
            self._flying.update(leases)
            self._runner.in_flight += len(leases)
            now, rows = self._loop.time(), [lease.row for lease in leases]
            self._emit(AttemptsStarted([row.seq for row in rows], now, partial(_started, rows, now)))
            self._hub.send_page(leases)

    def _give_back(self) -> None:
        self._never_left()
        rows, self._waiting = self._waiting, deque()
        self._queue.bytes.count_page(-sum(len(row.text) for row in rows))
        self._queue.hand_back([RowState.of(row) for row in rows])

    def _never_left(self) -> None:
        ready, self._ready = self._ready, deque()
        states = list[RowState]()
        for lease in ready:
            self._journal.end(lease.row.seq, 1, NEVER_LEFT)
            self._queue.bytes.count_page(-lease.held)
            state = RowState.of(lease.row)
            state.number = 1
            states.append(state)
        self._queue.hand_back(states)

    def id_at(self, names: list[str]) -> int | None:
        """As `leases.Pages`; None where a header states a limit."""
        if limits.hints(dict.fromkeys(names, "1"), 200) is not limits.NO_HINTS:
            return None
        return names.index("x-request-id") if "x-request-id" in names else -1

    def came(self, replies: list[Came], frame: Completions) -> None:
        self._safely(self._came, cast("list[_Reply]", replies), frame)

    def _came(self, replies: list[_Reply], frame: Completions) -> None:
        leases, lines, ended = list[RowLease](), list[Line](), list[float]()
        exchanges, latest, reader = Exchanges([], []), 0.0, self._reader()
        seconds, ids = exchanges
        for reply in replies:
            lease, left, end, id_at, _, values, body = reply
            line = reader(lease.row.seq, 1, body, None)
            if line is None:
                self._continue(lease, _exchange(reply, frame))
                continue
            leases.append(lease)
            lines.append(line)
            ended.append(end)
            seconds.append(end - left)
            ids.append(values[id_at] if id_at >= 0 else None)
            latest = max(latest, left)
        if leases:
            answers = columns(Answers, lines)
            self._settle(leases, answers, exchanges.seconds, ended)
            self._observe(leases[0].row, len(leases), latest)
            self._store(leases, answers, exchanges, frame)

    def _reader(self) -> ReplyReader:
        request, checker = self._alike, self._services.checker
        assert request is not None
        assert not isinstance(checker, RowChecks)
        rates = self._guard.rates(self._lane.prices.named(request).model, self._lane.prices)
        return ReplyReader(request.endpoint, request.output_limit, inputs_of(request), checker, *rates, standard=True)

    def _settle(self, leases: list[RowLease], answers: Answers, seconds: list[float], ended: list[float]) -> None:
        count, sizes = len(leases), [lease.size for lease in leases]
        took, given, made = sum(seconds) / count, cast("list[int]", answers.input_tokens), answers.output_tokens
        usage = sum(sizes) // count, sum(given) // count, sum(filter(None, made)) // count
        self._leave(leases)
        reply = sum(map(len, answers.bodies)) / count
        for flight, number in Counter(map(_flight, leases)).items():
            self._gate.settle_page(flight.permit, number, took, usage)
            self._queue.bytes.over_page(number, flight.reserved, reply)
        texts = (0 if lease.has_files else lease.size for lease in leases)
        self._lane.receive_page(ended, took, texts, given)

    def _leave(self, leases: Sequence[RowLease]) -> None:
        self._flying.difference_update(leases)
        self._queue.bytes.count_page(-sum(map(_unread, leases)))
        self._runner.in_flight -= len(leases)

    def _observe(self, row: Pending, count: int, left: float) -> None:
        health = self._lane.health
        health.observe(retry.plain(left), row.seq, self._loop.time())
        health.budget += (count - 1) * BUDGET_PER_SUCCESS
        self._lane.update_probing()
        if health.undoubted and self._runner.held:
            self._spawn(self._runner.flush_held())

    def _store(self, leases: list[RowLease], answers: Answers, exchanges: Exchanges, frame: Completions) -> None:
        found, places = Sum.of(answers), partial(_places, [lease.row for lease in leases])
        self._runner.completing += len(leases)
        self._storing += len(leases)
        stored = self._journal.answer_page(answers, found, exchanges)
        event = rows_answered(answers, found, self._loop.time(), places, exchanges)
        size = sum(map(_held, leases))

        def committed(stored: asyncio.Future[None]) -> None:
            self._storing -= len(leases)
            self._runner.completing -= len(leases)
            stored.result()
            frame.stored_all(len(leases))
            self._emit(event)
            self._queue.bytes.count_page(-size)
            self._queue.count_page(-len(leases))

        stored.add_done_callback(partial(self._safely, committed))

    def returned(self, lease: Lease, exchange: Exchange) -> None:
        self._safely(self._continue, lease, exchange)

    def failed(self, lease: Lease, error: Exception) -> None:
        self._safely(self._continue, lease, error)

    def _continue(self, lease: RowLease, came: Exchange | Exception) -> None:
        state, attempt = self._alone(lease)
        if isinstance(came, UnsentError | UnreadableError):
            attempt.unsent()
            self._queue.put_back(state, 0.0)
            if isinstance(came, UnreadableError):
                self._runner.stop_unread(came)
        elif isinstance(came, Exception):
            message = f"internal error: {type(came).__name__}: {came}"
            attempt.cancel(message)
            self._spawn(self._runner.give_up(state, GiveUp("internal error", message, permanent=False)))
        else:
            self._spawn(self._runner.go(state, came))
        self._step_soon()

    def _alone(self, lease: RowLease) -> tuple[RowState, Attempt]:
        self._leave([lease])
        row, lane, held = lease.row, self._lane, self._queue.bytes
        state = RowState.of(row)
        state.lane, state.number = lane, 1
        held.over_page(1, lease.flight.reserved, None)
        held.count_page(-lease.held)
        held.count(state, state.size)
        state.request = self._runner.rendered(row)
        assert state.request is not None, "it was sent"
        attempt = state.attempt = Attempt(self._services, state, lane)
        reserved = self._guard.reserved(state.request, lease.cost, lease.tokens, lane.prices)
        attempt.sent_in_page(lease.flight.permit.taken_out(), reserved)
        return state, attempt

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(partial(self._safely, self._over))

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()

    def close(self) -> None:
        self._closed = True
        self._waiting.clear()
        self._never_left()
        self._notify()

    def abandon(self) -> None:
        """Rows in flight become unknown."""
        self._hub.abandon_pages()
        for lease in tuple(self._flying):
            _, attempt = self._alone(lease)
            attempt.cancel()
            self._emit(RowLost(lease.row.seq, lease.row.line, self._loop.time(), lease.cost))
        for task in self._tasks:
            task.cancel()
        self._notify()

    async def drained(self) -> None:
        """Wait until all that came is in the journal."""
        while self._flying or self._tasks or ((self._beginning or self._storing) and self._journal.failure is None):
            self._changed = self._loop.create_future()
            await self._changed


def _started(rows: Sequence[Pending], now: float) -> Iterator[AttemptStarted]:
    return (AttemptStarted(row.seq, row.line, 1, now) for row in rows)


def _places(rows: Sequence[Pending]) -> list[tuple[int, int, str]]:
    return [(row.position, row.line, row.key) for row in rows]


def _exchange(reply: _Reply, frame: Completions) -> Exchange:
    _, left, ended, _, names, values, body = reply
    exchange = Kept(200, dict(zip(names, values, strict=True)), body, left, ended, None, "", True)
    exchange.stored = frame.stored
    return exchange
