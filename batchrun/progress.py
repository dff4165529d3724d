"""The state of a run, folded from its events; user interfaces show it and count nothing themselves."""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

from batchrun.account import NAMES, OF_ATTEMPTS, Account, count_answered, count_attempt, count_outcome
from batchrun.events import (
    AttemptEnded,
    AttemptsStarted,
    AttemptStarted,
    BatchChanged,
    Draining,
    Event,
    LaneChanged,
    LaneState,
    LimitsChanged,
    PostChanged,
    Resumed,
    RowDivided,
    RowFinished,
    RowLost,
    RowsAnswered,
    RunEnded,
    RunStarted,
    SendersChanged,
    Waiting,
    WaitReason,
)
from batchrun.models import Totals

WINDOW = 30.0  # seconds over which rates are measured
# may be followed by another of the kind
_NO_END = frozenset(
    {
        *(WaitReason.THROTTLED, WaitReason.DOWN, WaitReason.LOADING),
        *(WaitReason.DOUBT, WaitReason.ALIKE, WaitReason.PAUSED, WaitReason.CAPACITY),
    }
)
SETTLED = 3.0  # seconds of sending before a rate is used


@dataclass(slots=True)
class LaneProgress:
    name: str
    state: LaneState = LaneState.OPEN
    reason: str = ""
    until: float | None = None
    attempts: int = 0
    replies: int = 0
    throttled: int = 0
    errors: int = 0
    possibly_billed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0  # 0 without a price
    seconds: float = 0.0  # the average of a reply

    def add(self, event: AttemptEnded) -> None:
        self.attempts += 1
        self.throttled += event.throttled
        self.errors += event.cause is not None and not event.throttled
        self.possibly_billed += event.possibly_billed
        self.cost += event.cost or 0
        if event.paid:
            self.replies += 1
            self.seconds += (event.seconds - self.seconds) / self.replies
        if event.usage is not None:
            self.input_tokens += event.usage.input
            self.output_tokens += event.usage.output


# the fold keeps the last of them
_LATEST: Mapping[type, str] = {
    SendersChanged: "_senders",
    LimitsChanged: "_limits",
    PostChanged: "_post",
    Draining: "_draining",
}


class Mark(NamedTuple):
    at: float
    rows: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Totals):
    """A run at one time.

    Counters are of the whole run, but those of attempts, replies and tokens of this session. `cost` and its parts
    include the highest cost of open attempts.
    """

    run: str = ""
    host: str = ""
    model: str = ""
    simulated: bool = False
    started: float | None = None
    now: float = 0.0  # monotonic seconds, like `started`
    left_out: int = 0  # rows that this command does not send
    in_flight: int = 0
    post: int = 0  # rows in post-processing
    post_workers: int = 0
    finished_here: int = 0  # in this session, like the next two
    retries: int = 0  # sent again after a failure
    throttled: int = 0  # 429s
    price_known: bool = False
    projected: int | None = None  # the whole run's cost at this rate
    row_rate: float = 0.0  # per second
    token_rate: float = 0.0
    eta: float | None = None  # seconds
    tiers: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])  # with this session's
    lanes: tuple[LaneProgress, ...] = ()  # set in a run with several
    senders: SendersChanged | None = None  # set with `--processes` or `--senders`
    causes: Mapping[str, int]
    waiting: Waiting | None = None
    limits: LimitsChanged | None = None
    draining: Draining | None = None
    ended: RunEnded | None = None

    @property
    def priced(self) -> bool:
        return self.price_known or self.cost > 0

    @property
    def finished(self) -> int:
        return self.done + self.failed + self.skipped

    @property
    def goal(self) -> int:
        # with an outcome at the end of this command
        return self.rows - self.left_out

    @property
    def pending(self) -> int:
        """Without an outcome, not in flight, batches or post-processing."""
        return max(0, self.rows - self.finished - self.in_flight - self.post - self.unknown - self.in_batches)

    @property
    def elapsed(self) -> float:
        return 0.0 if self.started is None else self.now - self.started


class Recorded(NamedTuple):
    """A run by its journal, in place of its events."""

    totals: Totals
    alive: bool
    in_flight: int
    retries: int
    throttled: int
    causes: Mapping[str, int]  # of failures, by number of rows
    tiers: Mapping[str, tuple[int, int]]
    marks: Sequence[Mark]  # its progress over time


class Fold:
    """Two accounts: what was counted before this session, and in it."""

    def __init__(self) -> None:
        self._start: RunStarted | None = None
        self._before = Totals()
        self._here = Account()
        self._causes: Counter[str] = Counter()
        self._tiers: dict[str, tuple[int, int]] = {}
        self._lanes: dict[str, LaneProgress] = {}
        self._senders: SendersChanged | None = None
        self._retries = self._throttled = self._finished = self._in_flight = 0
        self._open: set[int] = set()
        self._in_batches = 0
        self._sends = True
        self._waiting: Waiting | None = None
        self._limits: LimitsChanged | None = None
        self._post: PostChanged | None = None
        self._draining: Draining | None = None
        self._ended: RunEnded | None = None
        self._marks: deque[Mark] = deque()

    def __call__(self, event: Event | Recorded) -> None:
        fold = self._FOLDS.get(type(event))
        if fold is not None:
            fold(self, event)
        elif (name := _LATEST.get(type(event))) is not None:
            setattr(self, name, event)

    def snapshot(self, now: float) -> Progress:
        start, account, mark = self._start, self._account(), self._mark(now)
        rows, tokens = self._rates(mark)
        finished, cost = account["done"] + account["failed"], account["cost"]
        return Progress(
            **account,
            **({name: getattr(start, name) for name in ("run", "host", "model", "simulated")} if start else {}),
            left_out=start.totals.rows - start.goal if start else 0,
            started=None if start is None else start.at,
            now=now,
            in_flight=self._in_flight + len(self._open),
            post=self._post.rows if self._post else 0,
            post_workers=self._post.workers if self._post else 0,
            finished_here=mark.rows,
            retries=self._retries,
            throttled=self._throttled,
            price_known=start is not None and start.price is not None,
            projected=cost * (account["rows"] - account["skipped"]) // finished if finished else None,
            row_rate=rows,
            token_rate=tokens,
            eta=self._eta(rows),
            tiers=dict(self._tiers),
            lanes=tuple(replace(lane) for lane in self._lanes.values()),
            senders=self._senders,
            causes=dict(self._causes.most_common()),
            waiting=self._waiting,
            limits=self._limits,
            draining=self._draining,
            ended=self._ended,
        )

    def _account(self) -> dict[str, int]:
        # with the highest cost of open attempts
        before, here = self._before, self._here
        counted: dict[str, int] = {
            name: getattr(here, name) + (0 if name in OF_ATTEMPTS else getattr(before, name)) for name in NAMES
        }
        open_cost, counted["cost_reserved"] = counted["cost_reserved"], 0
        for name in ("cost", "cost_other", "cost_possibly_billed"):
            counted[name] += open_cost
        counted["unknown"] = (before.unknown if self._ended else 0) + here.unknown
        counted["in_batches"] = self._in_batches
        return counted

    def _mark(self, now: float) -> Mark:
        # drops marks older than the window, but the last before it
        mark = Mark(now, self._finished, self._here.input_tokens + self._here.output_tokens)
        marks = self._marks
        if not marks or now - marks[-1].at >= 0.5:
            marks.append(mark)
        while len(marks) > 1 and marks[1].at <= now - WINDOW:
            marks.popleft()
        return mark

    def _rates(self, mark: Mark) -> tuple[float, float]:
        first = self._marks[0]
        span = mark.at - first.at
        if span < 0.5:
            return 0.0, 0.0
        return (mark.rows - first.rows) / span, (mark.tokens - first.tokens) / span

    def _eta(self, rate: float) -> float | None:
        wait = self._waiting
        if wait is not None and (wait.until is None or wait.reason in _NO_END):
            return None  # no request is sent, and the earlier rate does not say when one will be
        start, marks = self._start, self._marks
        if start is None or not self._sends or not marks or marks[-1].at - start.at < SETTLED or rate <= 0:
            return None
        left, here = start.goal - self._before.done - self._before.failed - self._before.skipped, self._here
        return max(0, left - here.done - here.failed - here.skipped) / rate

    def _on_start(self, event: RunStarted) -> None:
        self._start, self._before = event, event.totals
        self._tiers.update(event.tiers)
        self._in_batches = event.totals.in_batches
        self._marks.clear()
        self._marks.append(Mark(event.at, 0, 0))
        self._lanes = {name: self._lanes.get(name) or LaneProgress(name) for name in event.lanes}

    def _on_recorded(self, event: Recorded) -> None:
        # All counts as this session's: a journal alone does not separate sessions.
        totals = event.totals
        self._before, self._here = Totals(), Account(totals)
        self._here.unknown = 0 if event.alive else totals.unknown
        self._in_batches, self._sends = totals.in_batches, event.alive
        self._finished = totals.done + totals.failed
        self._retries, self._throttled, self._in_flight = event.retries, event.throttled, event.in_flight
        self._causes, self._tiers = Counter(event.causes), dict(event.tiers)
        self._marks = deque(event.marks)

    def _on_attempt(self, event: AttemptStarted) -> None:
        self._here.attempts += 1
        self._open.add(event.seq)

    def _on_attempts(self, event: AttemptsStarted) -> None:
        self._here.attempts += len(event.seqs)
        self._open.update(event.seqs)

    def _on_attempt_end(self, event: AttemptEnded) -> None:
        seq, _, _, _, status, cause, throttled, retry, paid, billed, _, usage, cost, bill, lane = event
        if seq in self._open:
            self._open.remove(seq)
        elif self._in_batches:
            self._in_batches -= 1  # it was in a batch, and was never sent by itself
        if throttled:
            self._throttled += 1
        elif retry:
            self._retries += 1
        if cause is not None:
            self._causes[cause] += 1
        invalid = paid and retry
        count_attempt(self._here, status, usage, cost, bill, paid=paid, invalid=invalid, possibly_billed=billed)
        if usage is not None and usage.tier is not None and usage.tier != "default":
            replies, charged = self._tiers.get(usage.tier, (0, 0))
            self._tiers[usage.tier] = replies + 1, charged + (cost or 0)
        if lane in self._lanes:
            self._lanes[lane].add(event)

    def _on_row(self, event: RowFinished) -> None:
        self._finished += 1
        count_outcome(self._here, event.outcome, (event.saved_tokens, event.saved) if event.deduplicated else None)

    def _on_answered(self, event: RowsAnswered) -> None:
        self._open.difference_update(event.sent)
        self._in_batches -= event.rows - len(event.sent)
        self._finished += event.rows
        found = event.usage, event.cost, event.bill
        count_answered(self._here, event.rows, *found, without_usage=event.without_usage, unpriced=event.unpriced)
        for tier, (more, cost) in event.tiers.items():
            replies, paid = self._tiers.get(tier, (0, 0))
            self._tiers[tier] = replies + more, paid + cost

    def _on_lost(self, event: RowLost) -> None:
        self._open.discard(event.seq)
        self._here.unknown += 1
        self._here.cost_reserved += event.cost or 0

    def _on_lane(self, event: LaneChanged) -> None:
        lane = self._lanes.setdefault(event.lane, LaneProgress(event.lane))
        lane.state, lane.reason, lane.until = event.state, event.reason, event.until

    def _on_divided(self, event: RowDivided) -> None:
        self._here.rows += event.pieces
        self._open.discard(event.seq)

    def _on_batch(self, event: BatchChanged) -> None:
        self._in_batches = event.in_batches

    def _on_waiting(self, event: Waiting | Resumed) -> None:
        self._waiting = event if isinstance(event, Waiting) else None

    def _on_end(self, event: RunEnded) -> None:
        # The journal's totals replace the counted ones.
        self._ended = event
        self._before, self._in_batches = event.totals, event.totals.in_batches
        self._waiting = self._post = None
        self._open.clear()
        ended = self._here
        self._here = Account()
        for name in OF_ATTEMPTS:
            setattr(self._here, name, getattr(ended, name))

    _FOLDS: ClassVar[dict[type, Callable[["Fold", Any], None]]] = {
        Recorded: _on_recorded,
        RunStarted: _on_start,
        AttemptStarted: _on_attempt,
        AttemptsStarted: _on_attempts,
        AttemptEnded: _on_attempt_end,
        RowFinished: _on_row,
        RowsAnswered: _on_answered,
        RowLost: _on_lost,
        LaneChanged: _on_lane,
        RowDivided: _on_divided,
        BatchChanged: _on_batch,
        Waiting: _on_waiting,
        Resumed: _on_waiting,
        RunEnded: _on_end,
    }
