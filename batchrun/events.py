"""What happened, as data. The engine emits events in order; everything that shows a run learns of it through them alone.

A fact is in the journal before its event is emitted. All times are monotonic seconds of the engine's clock unless
they say otherwise.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from batchrun.errors import ExitCode
from batchrun.models import Bill, Outcome, State, Totals, Usage

POST_ONLY = "post-processing only"
IMPORT_ONLY = "results that were brought"
"""The `host` of a run that sends nothing."""


class WaitReason(StrEnum):
    """Why no request leaves although rows are pending."""

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
    """How a lane stands: it takes rows, single ones only, or none until it is tried again."""

    OPEN = "open"
    DOWN = "down"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class IntakeProgress:
    """Rows checked and taken into the journal so far."""

    rows: int


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run begins to send. `totals` is the journal's account at this moment; `price` says what tokens cost, None
    where that is not known; `to_send` is how many rows are sent where this command stops short of all that are left;
    `lanes` are the names of several places that share the rows. `tiers` are the replies of earlier sessions by service tier,
    but the standard one, where tiers were chosen: how many, and what they cost in picodollars.
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
        """How many rows have an outcome when this command is through."""
        totals = self.totals
        return totals.rows if self.to_send is None else totals.done + totals.failed + totals.skipped + self.to_send


class AttemptStarted(NamedTuple):
    """An attempt is in the journal and leaves now. `line` is what users call the row by, as in `models.Row`."""

    seq: int
    line: int
    number: int
    at: float


class AttemptEnded(NamedTuple):
    """An attempt came to its end.

    `cost` is what it is charged, in picodollars, None where the price is not known, `bill` the same by kind. `cause` is None for a paid reply
    that was accepted, else a short stable phrase; `status` is the HTTP status, 0 for none; `throttled` marks a 429;
    `retry` is whether the row will be sent again; `paid` whether a reply came. `lane` is where it was sent, in a run with
    several.
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
    """A row's outcome is committed.

    `deduplicated` is whether the reply to an equal request made it done; then `saved_tokens` and `saved` are what its own
    would have used and cost, in picodollars, None where the price is not known.
    """

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
    """Rows of a batch are done, and committed together: how many, with their tokens and money in sum.

    `usage` sums the tokens that they state, `without_usage` state none; `cost` and `bill` are picodollars, `unpriced` have a
    price that is not known. `tiers` are the replies that name a service tier but the standard one: how many, and their
    picodollars. `each` gives the end of each attempt and the outcome of each row, in order, to whoever tells of single ones.
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


class RowLost(NamedTuple):
    """An attempt was given up with no answer known; the row is unknown until the run is resumed. `cost`: at worst."""

    seq: int
    line: int
    at: float
    cost: int | None = None


class RowDivided(NamedTuple):
    """The reply to a row was cut off: its text is sent once more in so many `pieces`, which are rows of their own."""

    seq: int
    line: int
    pieces: int
    at: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing leaves, and why; `until` is None where the end is not known. `said` is the provider's own sentence."""

    reason: WaitReason
    until: float | None
    at: float
    said: str = ""


@dataclass(frozen=True, slots=True)
class Resumed:
    """Requests leave again."""

    at: float


@dataclass(frozen=True, slots=True)
class LimitsChanged:
    """What the gate allows now. Rates are per minute, None where no limit is known; `fill` is 0..1 of the bucket left.

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
    """How many rows are in post-processing now, and in how many worker processes; 0 is a thread of this one, or with
    `on_cluster` that none of a cluster has answered yet."""

    rows: int
    workers: int
    at: float
    on_cluster: bool = False


@dataclass(frozen=True, slots=True)
class Draining:
    """No new request is sent; the run waits for those in flight until `until`.

    `post` rows are in post-processing, which ends soon after the last reply, done or not: resuming does the rest.
    """

    in_flight: int
    until: float
    why: str
    at: float
    post: int = 0


class LaneChanged(NamedTuple):
    """A lane of a run with several stands otherwise, and why; `until` is when a closed one is tried again."""

    lane: str
    state: LaneState
    reason: str
    until: float | None
    at: float


class SendersChanged(NamedTuple):
    """The processes that make the requests stand otherwise: how many are starting, ready, suspect (silent for seconds: they
    get no requests) and, since the session began, were lost; `why` one was, where
    that is what has changed."""

    starting: int
    ready: int
    suspect: int
    lost: int
    why: str
    at: float


class BatchChanged(NamedTuple):
    """A batch is at another state. `remote` is the provider's name for it, `status` what it says of it; `done` and `failed`
    are its counts, a checksum; `in_batches` are the rows of the run that are in any. `since` (when it was submitted),
    `expires` and `next` (the next look) are Unix seconds."""

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
    """A rare fact worth a line of its own: a breaker opened, a limit was learnt, a retry budget is spent."""

    message: str
    at: float


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over; `totals` is the journal's account, which is shown as the final one. `files` were written.

    `notes` are facts about the whole run that its summary names, a sentence each.
    """

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
"""Hears of every event: called in order, on the loop, and returns at once."""


def single(event: Event) -> Iterable[Event]:
    """The event, or the events of single rows that it stands for."""
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
