"""Events: the engine emits them in order, after their commit.

Times are monotonic seconds of the engine's clock unless stated otherwise, costs picodollars (None: unknown).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from batchrun.errors import ExitCode
from batchrun.models import Bill, Outcome, State, Totals, Usage

POST_ONLY = "post-processing only"
IMPORT_ONLY = "imported results"  # the `host` of a run that sends nothing


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
    ALIKE = "rows fail alike, and one from elsewhere is tried first"
    RETRIES = "remaining rows are in back-off"
    BYTES = "--max-bytes-in-flight"
    SENDERS = "no sender is ready"
    PAUSED = "paused"
    CAPACITY = "no capacity in the service tier"
    POST = "post-processing is behind"


class LaneState(StrEnum):
    """Whether a lane takes rows, single ones, or none."""

    OPEN = "open"
    DOWN = "down"
    CLOSED = "closed"


class IntakeProgress(NamedTuple):
    rows: int


class RunStarted(NamedTuple):
    run: str
    totals: Totals  # the journal's account
    host: str
    model: str
    simulated: bool
    at: float
    price: str | None = None  # in words
    to_send: int | None = None  # set if not all rows are sent
    lanes: tuple[str, ...] = ()  # the names of several
    # earlier sessions' replies by non-standard tier, if tiers were chosen: (number, cost)
    tiers: Mapping[str, tuple[int, int]] = {}

    @property
    def goal(self) -> int:
        # rows with an outcome at the end of this command
        totals = self.totals
        return totals.rows if self.to_send is None else totals.done + totals.failed + totals.skipped + self.to_send


class AttemptStarted(NamedTuple):
    # it is committed and sent now
    seq: int
    line: int
    number: int
    at: float


class AttemptsStarted(NamedTuple):
    seqs: Sequence[int]
    at: float
    each: Callable[[], Iterator[AttemptStarted]]


class AttemptEnded(NamedTuple):
    seq: int
    line: int
    number: int
    at: float
    status: int  # 0 without an HTTP answer
    cause: str | None  # a short stable phrase, None for an accepted reply
    throttled: bool  # a 429
    retry: bool  # the row will be sent again
    paid: bool  # a reply came
    possibly_billed: bool
    seconds: float
    usage: Usage | None
    cost: int | None = None
    bill: Bill | None = None  # `cost` by kind
    lane: str = ""  # set in a run with several


class RowFinished(NamedTuple):
    seq: int
    line: int
    position: int
    key: str
    at: float
    outcome: Outcome
    deduplicated: bool = False  # by the reply to an equal request, which saved the next two
    saved_tokens: int = 0  # of that request
    saved: int | None = None  # its cost


class RowsAnswered(NamedTuple):
    """Rows are done and committed together."""

    rows: int
    at: float
    usage: Usage
    tiers: Mapping[str, tuple[int, int]]  # as in `RunStarted`
    cost: int
    bill: Bill
    unpriced: int  # rows without a known price
    without_usage: int  # rows that state no tokens
    each: Callable[[], Iterator[AttemptEnded | RowFinished]]  # the events of single attempts and rows
    sent: Sequence[int] = ()  # rows whose attempts began with an `AttemptStarted`; the others were in a batch


class RowLost(NamedTuple):
    """An attempt was abandoned; the row is unknown until a resume."""

    seq: int
    line: int
    at: float
    cost: int | None = None


class RowDivided(NamedTuple):
    """The reply was cut off: the text is sent again in pieces."""

    seq: int
    line: int
    pieces: int  # which are rows
    at: float


class Waiting(NamedTuple):
    reason: WaitReason
    until: float | None  # None: unknown
    at: float
    said: str = ""  # the provider's message


class Resumed(NamedTuple):
    at: float


class LimitsChanged(NamedTuple):
    # rates are per minute
    in_flight: int
    allowed: int
    cap: int
    rpm: float | None  # None without a known limit
    tpm: float | None
    requests_available: float | None
    tokens_available: float | None
    blocked_by: WaitReason | None  # what blocks the next request, even for a millisecond
    at: float
    basis: str = ""  # of the rate: "stated", "inferred" from how stated figures move, or "learned" from 429s


class PostChanged(NamedTuple):
    rows: int
    workers: int  # 0: a thread of this process, or with `on_cluster` none that has answered yet
    at: float
    on_cluster: bool = False


class Draining(NamedTuple):
    """No new request is sent."""

    in_flight: int
    until: float  # the run waits for those in flight until then
    why: str
    at: float
    post: int = 0  # rows in post-processing, which ends soon after the last reply; resuming does the rest


class LaneChanged(NamedTuple):
    lane: str
    state: LaneState
    reason: str
    until: float | None  # when a closed lane is tried again
    at: float


class SendersChanged(NamedTuple):
    starting: int
    ready: int
    suspect: int  # silent, without requests
    lost: int  # in this session
    why: str  # one was lost now
    at: float


class BatchChanged(NamedTuple):
    chunk: int
    state: str
    rows: int
    remote: str | None  # the provider's id
    status: str | None  # the provider's word
    done: int  # as counted by the provider, like `failed`
    failed: int
    since: float | None  # Unix seconds of the submission
    expires: float | None  # Unix seconds
    next: float | None  # Unix seconds of the next poll
    note: str | None
    in_batches: int  # rows of the run in any
    at: float


class Notice(NamedTuple):
    """A rare fact with a line of its own."""

    message: str
    at: float


class RunEnded(NamedTuple):
    exit_code: ExitCode
    totals: Totals  # final
    message: str | None
    hint: str | None
    files: tuple[str, ...]  # that were written
    at: float
    notes: tuple[str, ...] = ()  # sentences of the summary


Event = (
    IntakeProgress
    | RunStarted
    | AttemptStarted
    | AttemptsStarted
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

Emit = Callable[[Event], None]  # called with every event, in order, on the loop; returns at once


def single(event: Event) -> Iterable[Event]:
    return event.each() if isinstance(event, RowsAnswered | AttemptsStarted) else (event,)


__all__ = [
    "AttemptEnded",
    "AttemptStarted",
    "AttemptsStarted",
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
