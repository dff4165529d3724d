"""What goes into the journal and what comes out of it. Times are Unix seconds, durations seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from batchrun.digests import BLAKE2B
from batchrun.models import Bill, State, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What a run is. `plan` is JSON, `prompt` the source text, `output` a path relative to the journal's directory, `digest`
    the kind of its digests (`digests.KINDS`)."""

    run: str
    created: float
    plan: str
    prompt: str | None
    simulated: bool
    output: str
    digest: str = BLAKE2B


class IntakeRow(NamedTuple):
    """One row on its way into the journal.

    `key` is the value of the id column, None where content is the identity; `request` the hash of the request;
    `text` the row as JSON without lone surrogates. `skipped` is the reason why it cannot be sent, else None; then
    `request` is not looked at, and `text` is the whole line as a JSON string where it is no row. `ahead` is how many rows
    later the reduce row comes whose text its reply is a part of, 0 for none. `files` is JSON about the
    files of its request, as `media.to_json` writes it, empty for none.
    """

    line: int
    key: str | None
    request: str
    text: str
    skipped: str | None = None
    ahead: int = 0
    files: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How an input that is read again differs from the journal, in rows.

    `changed` rows have another request than the one that was sent or is pending; `changed_done` of them are done
    and would be sent again. `added` rows are new, `absent` rows are no longer in the input, `reappeared` ones were
    absent. `retouched` rows only differ in text, line or place; `in_batches` are changed or absent and in a batch that has
    not ended. `examples` are (line, key) of a few changed rows.
    """

    rows: int = 0
    changed: int = 0
    changed_done: int = 0
    added: int = 0
    absent: int = 0
    reappeared: int = 0
    retouched: int = 0
    in_batches: int = 0
    examples: tuple[tuple[int, str], ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether the input is exactly the one in the journal."""
        return not (self.changed or self.added or self.absent or self.reappeared or self.retouched)


class End(NamedTuple):
    """How an attempt ended.

    `status` is the HTTP status, 0 for no whole answer; `seconds` how long the exchange took; `cause` None for a
    reply that is accepted, else a short stable phrase with `message` as its detail. `throttled` is a 429, which
    never counts; `counted` False keeps others (a request that never left, a probe) from counting against the
    row's attempts. `deadline`: ended by the deadline. `invalid`: a reply that does not match the schema.
    `possibly_billed`: no answer, though the request may have been billed. `excerpt` of a body that is not a reply is
    cut to 2 kB. `cost` is what it is charged, in picodollars, None where the price is not known, and `bill` the same by
    kind, None where no kinds are known; `charged_tokens` is charged to a cap of tokens.
    """

    status: int
    seconds: float
    cause: str | None = None
    message: str | None = None
    throttled: bool = False
    counted: bool = True
    deadline: bool = False
    invalid: bool = False
    possibly_billed: bool = False
    usage: Usage | None = None
    request_id: str | None = None
    excerpt: str | None = None
    cost: int | None = None
    charged_tokens: int = 0
    bill: Bill | None = None


class Record(NamedTuple):
    """A row of the journal with everything that is needed to write it out. `state` is never in flight.

    `position` is None for an absent row; `body` is the body of the reply that the outcome rests on; `value`, `added`,
    `post` and `trace` are those of `models.Outcome`. Where there is no outcome, as `state` says, its fields are
    None or empty. `status`, `request_id` and `excerpt` are those of the attempt that it rests on; `files` is that of
    `IntakeRow`. `lane` is where that attempt was sent: base URL, name of the key and model as a JSON array.
    """

    seq: int
    position: int | None
    line: int
    key: str
    text: str
    value: str | None
    body: str | None
    added: str | None
    cause: str | None
    message: str | None
    attempts: int
    finished: float | None
    seconds: float | None
    input_tokens: int | None
    output_tokens: int | None
    status: int | None
    request_id: str | None
    excerpt: str | None
    trace: str | None
    state: State
    permanent: bool
    flags: frozenset[str]
    post: bool
    files: str = ""
    lane: str | None = None


class Result(NamedTuple):
    """What the output line of a done row is made of: these fields of its `Record`."""

    text: str
    value: str | None
    body: str | None
    added: str | None


class Entry(NamedTuple):
    """A row of the journal as listings show it: a `Record` without its text, value and body."""

    seq: int
    position: int | None
    line: int
    key: str
    state: State
    permanent: bool
    cause: str | None
    message: str | None
    flags: frozenset[str]
    attempts: int
    finished: float | None
    seconds: float | None
    input_tokens: int | None
    output_tokens: int | None


class Line(NamedTuple):
    """A row of the journal as a table shows it. `text` and `output` are the beginnings of the row and of its reply."""

    seq: int
    position: int
    line: int
    key: str
    state: State
    permanent: bool
    cause: str | None
    message: str | None
    flags: frozenset[str]
    attempts: int
    seconds: float | None
    input_tokens: int | None
    output_tokens: int | None
    text: str
    output: str | None


class Order(StrEnum):
    """The order of a list of rows: that of the input, or what took longest or most first."""

    ROW = "row"
    LATENCY = "latency"
    TOKENS = "tokens"


class Wanted(NamedTuple):
    """Which rows a list shows: of one state, of one cause, with this text anywhere in row, reply or message."""

    state: State | None = None
    cause: str | None = None
    text: str = ""
    order: Order = Order.ROW

    @property
    def everything(self) -> bool:
        """Whether the list is the whole input in its order."""
        return self == Wanted()


class Attempt(NamedTuple):
    """One attempt of a row; `ended` is None where no answer is known, `body` is None where no reply came."""

    number: int
    session: int
    began: float
    ended: float | None
    seconds: float | None
    status: int | None
    cause: str | None
    message: str | None
    throttled: bool
    counted: bool
    invalid: bool
    possibly_billed: bool
    spent: bool
    input_tokens: int | None
    output_tokens: int | None
    request_id: str | None
    excerpt: str | None
    body: str | None


class Cause(NamedTuple):
    """A reason why rows failed: how many, one message in full, and the lines of some of them.

    `retryable` of the rows are sent again by resuming, the others only where that is asked for.
    """

    cause: str
    rows: int
    message: str
    lines: tuple[int, ...]
    retryable: int


class Miss(NamedTuple):
    """A reason why attempts were not accepted: how many, and how many of them may have been billed."""

    cause: str
    attempts: int
    possibly_billed: int


class Session(NamedTuple):
    """A process that worked on the run.

    `exit_code` is None while it works and where it was killed; in the latter case `ended` is when it was last heard
    of, None until somebody opens the journal to go on.
    """

    id: int
    started: float
    ended: float | None
    exit_code: int | None
    pid: int
    host: str


class Lease(NamedTuple):
    """An attempt of a row that is in a batch, and what it may cost (picodollars, None: not known) and use at worst."""

    row: int
    number: int
    cost: int | None
    tokens: int


class Leased(NamedTuple):
    """Attempts that are in a batch, as `Lease` has them, a list of each column; `waits` is 1 where there are rows that wait for what
    one gets, or it is a part of a reduce row or one itself."""

    rows: list[int]
    numbers: list[int]
    costs: list[int | None]
    tokens: list[int]
    waits: list[int]


class Answers(NamedTuple):
    """Replies to rows that were in a batch, accepted as they are, a list of each column: so no step of Python is needed for a row.

    `bodies` are exact, `values` those of `models.Outcome`. The tokens are None where a reply states no usage; `costs` are
    picodollars, None where the price is not known, and the next four are parts of them (the rest is input).
    """

    rows: list[int]
    numbers: list[int]
    values: list[str | None]
    input_tokens: list[int | None]
    output_tokens: list[int | None]
    cached_tokens: list[int | None]
    reasoning_tokens: list[int | None]
    cache_write_tokens: list[int | None]
    costs: list[int | None]
    charged_tokens: list[int]
    costs_cached: list[int]
    costs_cache_write: list[int]
    costs_output: list[int]
    costs_other: list[int]
    bodies: list[str]


Columns = TypeVar("Columns", Leased, Answers)


def columns(kind: type[Columns], lines: Sequence[tuple[Any, ...]]) -> Columns:
    """Lines, each with a value for every column, as columns."""
    return kind._make(map(list, zip(*lines, strict=True)) if lines else ([] for _ in kind._fields))


def chosen(found: Columns, places: Sequence[int]) -> Columns:
    """The lines at these places."""
    return found._make([column[place] for place in places] for column in found)


class Sum(NamedTuple):
    """What replies used and are charged together (picodollars): `stated` of them state a usage, `priced` have a known cost."""

    stated: int
    usage: Usage
    priced: int
    cost: int
    bill: Bill

    @classmethod
    def of(cls, answers: Answers) -> "Sum":
        """The sum of these."""
        count, costs = len(answers.rows), answers.costs
        given, made, cached, reasoning, written, cost, _, *kinds = (sum(filter(None, each)) for each in answers[3:-1])
        usage = Usage(given, made, cached, reasoning, written)
        stated, priced = count - answers.input_tokens.count(None), count - costs.count(None)
        return cls(stated, usage, priced, cost, Bill(cost - sum(kinds), *kinds))


class Standing(NamedTuple):
    """Where a row stands: its place in the input (None: not in it any more), the number of its last attempt, and what its
    attempts brought, as the body of a reply and the excerpt of what was none."""

    position: int | None
    state: State
    number: int
    answers: tuple[tuple[str | None, str | None], ...]


class Lane(NamedTuple):
    """Where attempts are sent; `learned` is JSON about its limits from earlier sessions, None where there is none."""

    id: int
    learned: str | None


class Charged(NamedTuple):
    """What all attempts of a run are charged: picodollars, tokens, and how many left; open ones at their worst.

    `excess` is the most that one was charged beyond what was reserved for it; `tiers` are the service tiers that replies
    name, but the standard one.
    """

    cost: int
    tokens: int
    requests: int
    excess: int = 0
    tiers: frozenset[str] = frozenset()


class TierShare(NamedTuple):
    """The replies of one service tier, `default` for the standard one: how many, and picodollars charged for them."""

    tier: str
    replies: int
    cost: int


class LaneShare(NamedTuple):
    """What was sent to one lane, and what came of it: attempts, replies, 429s, other errors, picodollars, tokens, and the
    seconds of a reply on average."""

    id: int
    base_url: str
    key_name: str | None
    model: str | None
    attempts: int
    replies: int
    throttled: int
    errors: int
    possibly_billed: int
    input_tokens: int
    output_tokens: int
    cost: int
    seconds: float | None


class Spent(NamedTuple):
    """What an answered row used, all its attempts together: tokens, picodollars (None: price not known), and the
    seconds of its last exchange; `attempts` without 429s, `request` the hash of what was sent."""

    line: int
    key: str
    text: str
    request: str
    input_tokens: float
    output_tokens: float
    cost: float | None
    seconds: float | None
    attempts: float


class Sample(NamedTuple):
    """The state of the run at one moment."""

    at: float
    state: dict[str, Any]
