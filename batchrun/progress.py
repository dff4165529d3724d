"""One picture of a run, folded from its events; every face draws this and counts nothing itself.

`Fold` is fed every event in order and costs about a microsecond each; `snapshot` gives the picture of the moment.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

from batchrun.events import (
    AttemptEnded,
    AttemptStarted,
    BatchChanged,
    Draining,
    Event,
    Going,
    LaneChanged,
    LaneState,
    LimitsChanged,
    PostChanged,
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
from batchrun.models import Flag, State, Totals

WINDOW = 30.0
"""Seconds over which rates are measured."""
_NO_END = frozenset(
    {
        *(WaitReason.THROTTLED, WaitReason.DOWN, WaitReason.LOADING),
        *(WaitReason.DOUBT, WaitReason.PAUSED, WaitReason.CAPACITY),
    }
)
"""Waits that may be followed by another one of the kind."""
SETTLED = 3.0
"""Seconds of sending before a rate is believed."""


_KINDS = ("cost_input", "cost_cached", "cost_cache_write", "cost_output", "cost_other")


@dataclass(slots=True)
class LanePicture:
    """A lane of a run with several, in this session: how it stands and why, attempts by how they ended, tokens, picodollars
    (0 where no price is known), and the seconds of a reply on average."""

    name: str
    state: LaneState = LaneState.OPEN
    reason: str = ""
    until: float | None = None
    attempts: int = 0
    replies: int = 0
    throttled: int = 0
    errors: int = 0
    maybe_paid: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    seconds: float = 0.0

    def add(self, event: AttemptEnded) -> None:
        """One attempt has ended there."""
        self.attempts += 1
        self.throttled += event.throttled
        self.errors += event.cause is not None and not event.throttled
        self.maybe_paid += event.maybe_paid
        self.cost += event.cost or 0
        if event.paid:
            self.replies += 1
            self.seconds += (event.seconds - self.seconds) / self.replies
        if event.usage is not None:
            self.input_tokens += event.usage.input
            self.output_tokens += event.usage.output


class Mark(NamedTuple):
    """How far the run was at a moment: finished rows, and tokens in and out."""

    at: float
    rows: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The run at one moment. Times are the engine's monotonic seconds, rates per second.

    `left_out` are the rows that this command does not send: `--limit`, `--sample`. `done` … `unknown` are rows of the
    whole run, earlier sessions included; `finished_here`, `attempts` and what follows count this session only.
    `retries` were sent again after a failure, `throttled` met a 429. `eta` is in seconds, None while nothing supports
    one. `post` rows are in post-processing now, in `post_workers` processes.

    `tiers` are the replies by service tier, but the standard one: how many, and their picodollars; of earlier sessions too
    where tiers are chosen. `lanes` are the places of a run that has several, `senders` the processes of `--processes`.

    Money is of the whole run, in picodollars: `cost` is what is charged so far, by kind `cost_input` to `cost_other`
    (`models.Totals`), `cost_again` of it for replies that were asked again, `cost_maybe` for attempts that may have been
    billed (at their worst), `projected` what the whole run will have cost if it goes on like this; all None where no price is
    known. `unpriced` replies are in no sum. `shared` of the done rows were answered by the reply to an equal request, which
    saved `saved_tokens` and `saved`.
    """

    run: str = ""
    host: str = ""
    model: str = ""
    simulated: bool = False
    started: float | None = None
    now: float = 0.0
    rows: int = 0
    left_out: int = 0
    done: int = 0
    failed: int = 0
    failed_for_now: int = 0
    failed_post: int = 0
    skipped: int = 0
    unknown: int = 0
    in_batches: int = 0
    truncated: int = 0
    refused: int = 0
    filtered: int = 0
    odd: int = 0
    empty: int = 0
    numbers: int = 0
    shared: int = 0
    saved_tokens: int = 0
    saved: int = 0
    in_flight: int = 0
    post: int = 0
    post_workers: int = 0
    finished_here: int = 0
    attempts: int = 0
    retries: int = 0
    throttled: int = 0
    maybe_paid: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: int | None = None
    cost_input: int | None = None
    cost_cached: int | None = None
    cost_cache_write: int | None = None
    cost_output: int | None = None
    cost_other: int | None = None
    cost_again: int | None = None
    cost_maybe: int | None = None
    projected: int | None = None
    unpriced: int = 0
    row_rate: float = 0.0
    token_rate: float = 0.0
    eta: float | None = None
    tiers: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    lanes: tuple[LanePicture, ...] = ()
    senders: SendersChanged | None = None
    causes: Mapping[str, int]
    waiting: Waiting | None = None
    limits: LimitsChanged | None = None
    draining: Draining | None = None
    ended: RunEnded | None = None

    @property
    def finished(self) -> int:
        """Rows with an outcome."""
        return self.done + self.failed + self.skipped

    @property
    def goal(self) -> int:
        """Rows with an outcome when this command is through."""
        return self.rows - self.left_out

    @property
    def pending(self) -> int:
        """Rows without an outcome that are neither in flight nor in post-processing."""
        return max(0, self.rows - self.finished - self.in_flight - self.post - self.unknown - self.in_batches)

    @property
    def elapsed(self) -> float:
        """Seconds since the run began to send."""
        return 0.0 if self.started is None else self.now - self.started


class Fold:
    """Folds events into the picture."""

    def __init__(self) -> None:
        self._start: RunStarted | None = None
        self._totals = Totals()
        self._states: Counter[str] = Counter()
        self._flags: Counter[Flag] = Counter()
        self._causes: Counter[str] = Counter()
        self._tiers: dict[str, tuple[int, int]] = {}
        self._lanes: dict[str, LanePicture] = {}
        self._senders: SendersChanged | None = None
        self._n: Counter[str] = Counter()
        self._open: set[int] = set()
        self._in_batches = 0
        self._waiting: Waiting | None = None
        self._limits: LimitsChanged | None = None
        self._post: PostChanged | None = None
        self._draining: Draining | None = None
        self._ended: RunEnded | None = None
        self._marks: deque[Mark] = deque()

    def __call__(self, event: Event) -> None:
        """Take one event in."""
        fold = self._FOLDS.get(type(event))
        if fold is not None:
            fold(self, event)

    def snapshot(self, now: float) -> Progress:
        """The picture at `now`."""
        totals, n, mark = self._totals, self._n, self._mark(now)
        rows, tokens = self._rates(mark)
        return Progress(
            **self._whole_run(),
            **{f"{flag}": getattr(totals, flag) + self._flags[flag] for flag in Flag},
            started=None if self._start is None else self._start.at,
            now=now,
            in_flight=len(self._open),
            post=self._post.rows if self._post else 0,
            post_workers=self._post.workers if self._post else 0,
            finished_here=mark.rows,
            attempts=n["attempts"],
            retries=n["retries"],
            throttled=n["throttled"],
            maybe_paid=n["maybe_paid"],
            input_tokens=n["input"],
            output_tokens=n["output"],
            cached_tokens=n["cached"],
            cache_write_tokens=n["written"],
            reasoning_tokens=n["reasoning"],
            **self._money(),
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

    def _whole_run(self) -> dict[str, Any]:
        totals, start = self._totals, self._start
        return {
            **({name: getattr(start, name) for name in ("run", "host", "model", "simulated")} if start else {}),
            "rows": totals.rows,
            "left_out": start.totals.rows - start.goal if start else 0,
            "done": totals.done + self._states[State.DONE],
            "failed": totals.failed + self._states[State.FAILED],
            "failed_for_now": totals.failed_for_now + self._n["for now"],
            "failed_post": totals.failed_post + self._n["post"],
            "skipped": totals.skipped,
            "shared": totals.shared + self._n["shared"],
            "saved_tokens": totals.saved_tokens + self._n["saved tokens"],
            "saved": totals.saved + self._n["saved"],
            "in_batches": self._in_batches,
            "unknown": (totals.unknown if self._ended else 0) + self._n["lost"],
        }

    def _money(self) -> dict[str, Any]:
        """What the run has cost, what earlier sessions lost included, and what it will have cost at the end."""
        totals, n = self._totals, self._n
        unpriced = totals.unpriced + n["unpriced"]
        cost = totals.cost + totals.cost_open + n["cost"]
        priced = self._start is not None and self._start.price is not None
        if not priced and not cost:
            return {"unpriced": unpriced}
        finished = totals.done + totals.failed + self._states[State.DONE] + self._states[State.FAILED]
        return {
            "cost": cost,
            **{kind: getattr(totals, kind) + n[kind] for kind in _KINDS},
            "cost_again": totals.cost_again + n["cost again"],
            "cost_maybe": totals.cost_maybe + totals.cost_open + n["cost maybe"],
            "projected": cost * (totals.rows - totals.skipped) // finished if finished else None,
            "unpriced": unpriced,
        }

    def _mark(self, now: float) -> Mark:
        """Remember how far the run is, and forget what is older than the window, but for the last before it."""
        mark = Mark(now, self._n["finished"], self._n["input"] + self._n["output"])
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
            return None  # nothing leaves, and the rate of before says nothing of when it will
        if self._start is None or not self._marks or self._marks[-1].at - self._start.at < SETTLED or rate <= 0:
            return None
        left = self._start.goal - self._totals.done - self._totals.failed - self._totals.skipped
        return max(0, left - self._states[State.DONE] - self._states[State.FAILED]) / rate

    def _on_start(self, event: RunStarted) -> None:
        self._start, self._totals = event, event.totals
        self._tiers.update(event.tiers)
        self._in_batches = event.totals.in_batches
        self._marks.clear()
        self._marks.append(Mark(event.at, 0, 0))
        self._lanes = {name: self._lanes.get(name) or LanePicture(name) for name in event.lanes}

    def _on_attempt(self, event: AttemptStarted) -> None:
        self._n["attempts"] += 1
        self._open.add(event.seq)

    def _on_attempt_end(self, event: AttemptEnded) -> None:
        n = self._n
        if event.seq not in self._open and self._in_batches:
            self._in_batches -= 1  # it was in a batch, and was never sent by itself
        self._open.discard(event.seq)
        if event.throttled or event.retry:
            n["throttled" if event.throttled else "retries"] += 1
        if event.cause is not None:
            self._causes[event.cause] += 1
        n["maybe_paid"] += event.maybe_paid
        if (usage := event.usage) is not None:
            n["input"] += usage.input
            n["output"] += usage.output
            if usage.cached or usage.written or usage.reasoning:
                n["cached"] += usage.cached
                n["written"] += usage.written
                n["reasoning"] += usage.reasoning
            if usage.tier is not None and usage.tier != "default":
                replies, paid = self._tiers.get(usage.tier, (0, 0))
                self._tiers[usage.tier] = replies + 1, paid + (event.cost or 0)
        if event.lane in self._lanes:
            self._lanes[event.lane].add(event)
        if (cost := event.cost) is None:
            n["unpriced"] += event.paid or event.maybe_paid or event.status == 200
            return
        n["cost"] += cost
        for kind, part in zip(_KINDS, event.bill or (0, 0, 0, 0, cost), strict=True):
            if part:
                n[kind] += part
        if event.maybe_paid:
            n["cost maybe"] += cost
        elif event.paid and event.retry:
            n["cost again"] += cost

    def _on_row(self, event: RowFinished) -> None:
        outcome, n = event.outcome, self._n
        self._states[outcome.state] += 1
        n["finished"] += 1
        if outcome.state is State.DONE:
            for flag in outcome.flags:
                self._flags[flag] += 1
        elif outcome.state is State.FAILED:
            n["for now"] += not outcome.final
            n["post"] += outcome.post
        if event.shared:
            n["shared"] += 1
            n["saved tokens"] += event.saved_tokens
            n["saved"] += event.saved or 0

    def _on_answered(self, event: RowsAnswered) -> None:
        """The same for many rows of a batch, which are done."""
        self._in_batches -= event.rows
        self._states[State.DONE] += event.rows
        self._n.update(finished=event.rows, unpriced=event.unpriced, cost=event.cost)
        counts = "input", "output", "cached", "reasoning", "written", *_KINDS
        self._n.update(dict(zip(counts, (*event.usage[:5], *event.bill), strict=True)))
        for tier, (more, cost) in event.tiers.items():
            replies, paid = self._tiers.get(tier, (0, 0))
            self._tiers[tier] = replies + more, paid + cost

    def _on_lost(self, event: RowLost) -> None:
        self._open.discard(event.seq)
        self._n["lost"] += 1
        for name in ("cost", "cost_other", "cost maybe"):
            self._n[name] += event.cost or 0

    def _on_lane(self, event: LaneChanged) -> None:
        lane = self._lanes.setdefault(event.lane, LanePicture(event.lane))
        lane.state, lane.reason, lane.until = event.state, event.reason, event.until

    def _on_senders(self, event: SendersChanged) -> None:
        self._senders = event

    def _on_divided(self, event: RowDivided) -> None:
        self._totals = replace(self._totals, rows=self._totals.rows + event.pieces)
        self._open.discard(event.seq)

    def _on_batch(self, event: BatchChanged) -> None:
        self._in_batches = event.in_batches

    def _on_waiting(self, event: Waiting | Going) -> None:
        self._waiting = event if isinstance(event, Waiting) else None

    def _on_limits(self, event: LimitsChanged) -> None:
        self._limits = event

    def _on_post(self, event: PostChanged) -> None:
        self._post = event

    def _on_draining(self, event: Draining) -> None:
        self._draining = event

    def _on_end(self, event: RunEnded) -> None:
        """The journal has the last word."""
        self._ended = event
        self._totals = event.totals
        self._in_batches = event.totals.in_batches
        self._waiting = self._post = None
        self._open.clear()
        self._states, self._flags = Counter(), Counter()
        money = ("cost", "cost again", "cost maybe", *_KINDS, "unpriced", "shared", "saved tokens", "saved")
        for name in ("for now", "post", "lost", *money):
            self._n[name] = 0

    _FOLDS: ClassVar[dict[type, Callable[["Fold", Any], None]]] = {
        RunStarted: _on_start,
        AttemptStarted: _on_attempt,
        AttemptEnded: _on_attempt_end,
        RowFinished: _on_row,
        RowsAnswered: _on_answered,
        RowLost: _on_lost,
        LaneChanged: _on_lane,
        SendersChanged: _on_senders,
        RowDivided: _on_divided,
        BatchChanged: _on_batch,
        Waiting: _on_waiting,
        Going: _on_waiting,
        LimitsChanged: _on_limits,
        PostChanged: _on_post,
        Draining: _on_draining,
        RunEnded: _on_end,
    }
