"""Events: the engine emits them in order, after their commit; all that shows a run uses them alone.

Times are monotonic seconds of the engine's clock unless stated otherwise, costs picodollars (None: unknown).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from batchrun.errors import ExitCode
from batchrun.models import Bill, Outcome, State, Totals, Usage

POST_ONLY = "post-processing only"
IMPORT_ONLY = "results that were brought"
"""The `host` of a run that sends nothing."""


class WaitReason(StrEnum):
    """Why no request is sent although rows are pending."""

    REQUESTS = "requests per minute"
    TOKENS = "tokens per minute"
    QUOTA = "the provider's quota is used up"
    CONCURRENCY = "concurrency"
    THROTTLED = "the provider said 429"
    DOWN = "the provider is down"
    LOADING = "the server is loading its model"
    DOUBT = "the provider reports a used-up quota"
    RETRIES = "remaining rows are in back-off"
    BYTES = "--max-bytes-in-flight"
    SENDERS = "no sender is ready"
    PAUSED = "paused"
    CAPACITY = "no capacity in the service tier"
    POST = "post-processing is behind"


class LaneState(StrEnum):
    """Whether a lane takes rows, single ones only, or none until it is tried again."""

    OPEN = "open"
    DOWN = "down"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class IntakeProgress:
    rows: int


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run begins to send. `totals` is the journal's account; `price` is in words; `to_send` is set if not all rows are sent; `lanes` are
    the names of several. `tiers` are earlier sessions' replies by non-standard service tier, if tiers were chosen: (number, cost).
    """

    run: str
    totals: Totals
    host: str
    model: str
    simulated: bool
    at: float
    price: str | None = None
    to_send: int | None = None
    lanes: tuple[str, ...] = ()
    tiers: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    @property
    def goal(self) -> int:
        """Rows with an outcome at the end of this command."""
        totals = self.totals
        return totals.rows if self.to_send is None else totals.done + totals.failed + totals.skipped + self.to_send


class AttemptStarted(NamedTuple):
    """It is committed and sent now. `line` as in `models.Row`."""

    seq: int
    line: int
    number: int
    at: float


class AttemptEnded(NamedTuple):
    """`cause` is a short stable phrase, None for an accepted reply; `status` is the HTTP status, 0 for none; `throttled`: a 429; `retry`: the
    row will be sent again; `paid`: a reply came; `bill` is `cost` by kind; `lane` is set in a run with several.
    """

    seq: int
    line: int
    number: int
    at: float
    status: int
    cause: str | None
    throttled: bool
    retry: bool
    paid: bool
    possibly_billed: bool
    seconds: float
    usage: Usage | None
    cost: int | None = None
    bill: Bill | None = None
    lane: str = ""


class RowFinished(NamedTuple):
    """A row's outcome is committed. `deduplicated`: by the reply to an equal request, which saved so many tokens and picodollars."""

    seq: int
    line: int
    position: int
    key: str
    at: float
    outcome: Outcome
    deduplicated: bool = False
    saved_tokens: int = 0
    saved: int | None = None


class RowsAnswered(NamedTuple):
    """Rows are done and committed together, with their sums.

    `without_usage` of them state no tokens, `unpriced` have no known price. `tiers` as in `RunStarted`. `each` yields the events of single
    attempts and rows. `sent` are the numbers of rows whose attempts began with an `AttemptStarted`; the others were in a batch.
    """

    rows: int
    at: float
    usage: Usage
    tiers: Mapping[str, tuple[int, int]]
    cost: int
    bill: Bill
    unpriced: int
    without_usage: int
    each: Callable[[], Iterator[AttemptEnded | RowFinished]]
    sent: Sequence[int] = ()


class RowLost(NamedTuple):
    """An attempt was abandoned; the row is unknown until the run is resumed."""

    seq: int
    line: int
    at: float
    cost: int | None = None


class RowDivided(NamedTuple):
    """The reply was cut off: the text is sent again in so many `pieces`, which are rows."""

    seq: int
    line: int
    pieces: int
    at: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """No request is sent; `until` is None where unknown. `said` is the provider's message."""

    reason: WaitReason
    until: float | None
    at: float
    said: str = ""


@dataclass(frozen=True, slots=True)
class Resumed:
    """Requests are sent again."""

    at: float


@dataclass(frozen=True, slots=True)
class LimitsChanged:
    """Rates are per minute, None without a known limit.

    `blocked_by` is what blocks the next request at this moment, even for a millisecond: what limits throughput. `basis` is
    what the rate in force rests on: "stated", "inferred" from how stated figures move, or "learned" from 429s.
    """

    in_flight: int
    allowed: int
    cap: int
    rpm: float | None
    tpm: float | None
    requests_available: float | None
    tokens_available: float | None
    blocked_by: WaitReason | None
    at: float
    basis: str = ""


class PostChanged(NamedTuple):
    """Rows in post-processing, and workers; 0 is a thread of this process, or with `on_cluster` none that has answered yet."""

    rows: int
    workers: int
    at: float
    on_cluster: bool = False


@dataclass(frozen=True, slots=True)
class Draining:
    """No new request is sent; the run waits for those in flight until `until`.

    `post` rows are in post-processing, which ends soon after the last reply; resuming does the rest.
    """

    in_flight: int
    until: float
    why: str
    at: float
    post: int = 0


class LaneChanged(NamedTuple):
    """`until` is when a closed lane is tried again."""

    lane: str
    state: LaneState
    reason: str
    until: float | None
    at: float


class SendersChanged(NamedTuple):
    """Numbers of senders; suspect ones are silent and get no requests; `lost` in this session, `why` one was now."""

    starting: int
    ready: int
    suspect: int
    lost: int
    why: str
    at: float


class BatchChanged(NamedTuple):
    """`remote` is the provider's id, `status` its word, `done` and `failed` its counts; `in_batches` are the run's rows in any. `since`
    (submission), `expires` and `next` (poll) are Unix seconds.
    """

    chunk: int
    state: str
    rows: int
    remote: str | None
    status: str | None
    done: int
    failed: int
    since: float | None
    expires: float | None
    next: float | None
    note: str | None
    in_batches: int
    at: float


@dataclass(frozen=True, slots=True)
class Notice:
    """A rare fact with a line of its own."""

    message: str
    at: float


@dataclass(frozen=True, slots=True)
class RunEnded:
    """`totals` is final. `files` were written; `notes` are sentences of the summary."""

    exit_code: ExitCode
    totals: Totals
    message: str | None
    hint: str | None
    files: tuple[str, ...]
    at: float
    notes: tuple[str, ...] = ()


Event = (
    IntakeProgress
    | RunStarted
    | AttemptStarted
    | AttemptEnded
    | RowFinished
    | RowsAnswered
    | RowLost
    | RowDivided
    | Waiting
    | Resumed
    | LimitsChanged
    | PostChanged
    | Draining
    | LaneChanged
    | SendersChanged
    | BatchChanged
    | Notice
    | RunEnded
)

Emit = Callable[[Event], None]
"""Called with every event, in order, on the loop; returns at once."""


def single(event: Event) -> Iterable[Event]:
    """The event, or the events of single rows in it."""
    return event.each() if isinstance(event, RowsAnswered) else (event,)


__all__ = [
    "AttemptEnded",
    "AttemptStarted",
    "BatchChanged",
    "Draining",
    "Emit",
    "Event",
    "IntakeProgress",
    "LaneChanged",
    "LaneState",
    "LimitsChanged",
    "Notice",
    "PostChanged",
    "Resumed",
    "RowDivided",
    "RowFinished",
    "RowLost",
    "RowsAnswered",
    "RunEnded",
    "RunStarted",
    "SendersChanged",
    "State",
    "WaitReason",
    "Waiting",
    "single",
]
