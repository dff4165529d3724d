"""Records of the journal. Times are Unix seconds, durations seconds, costs picodollars (None: unknown)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import add
from typing import Any, NamedTuple, TypeVar

from batchrun.digests import BLAKE2B
from batchrun.models import Bill, State, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What the run is. `plan` is JSON, `prompt` source text, `output` relative to the journal's directory, `digest` of `digests.KINDS`."""

    run: str
    created: float
    plan: str
    prompt: str | None
    simulated: bool
    output: str
    digest: str = BLAKE2B


class IntakeRow(NamedTuple):
    """A row to be ingested.

    `key` is the value of the id column, None where content is the identity; `request` the request's hash; `text` the row as JSON
    without lone surrogates. `skipped` is why it cannot be sent; then `request` is ignored, and `text` is the line as a JSON string
    where it is no row. `ahead` is the distance in rows to the reduce row that it is a part of, 0 for none; `files` is from
    `media.to_json`.
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

    `changed` rows have another request, `changed_done` of them are done; `added` are new, `absent` not in the input any more,
    `reappeared` were absent; `retouched` differ only in text, line or position; `in_batches` are changed or absent and in a batch.
    `examples` are (line, key) of changed rows.
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
        return not (self.changed or self.added or self.absent or self.reappeared or self.retouched)


class End(NamedTuple):
    """How an attempt ended.

    `status` is the HTTP status, 0 without a complete answer. `cause` is a short stable phrase, None for an accepted reply; `message`
    its detail. `throttled`: a 429. `counted`: uses up one of the row's attempts (never a 429, a probe, or what was not sent).
    `invalid`: the reply does not match the schema. `possibly_billed`: no answer, but maybe billed. `excerpt` of a body that is no
    reply is cut to 2 kB. `bill` is `cost` by kind; `charged_tokens` counts towards a cap of tokens.
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
    """A row with everything that its output needs. `state` is never in flight.

    `position` is None for an absent row; `body` is that of the outcome's reply; `value`, `added`, `post` and `trace` are those of
    `models.Outcome`, None or empty without one. `status`, `request_id`, `excerpt` and `lane` (JSON array: base URL, key name, model)
    are of its last attempt; `files` as in `IntakeRow`.
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
    """The fields of a done row's `Record` that its output line needs."""

    text: str
    value: str | None
    body: str | None
    added: str | None


class Entry(NamedTuple):
    """A row in listings: a `Record` without text, value and body."""

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
    """A row in a table. `text` and `output` are the beginnings of the row and its reply."""

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
    ROW = "row"
    LATENCY = "latency"
    TOKENS = "tokens"


class Wanted(NamedTuple):
    """The filter of a list; `text` is in row, reply or message."""

    state: State | None = None
    cause: str | None = None
    text: str = ""
    order: Order = Order.ROW

    @property
    def everything(self) -> bool:
        return self == Wanted()


class Attempt(NamedTuple):
    """One attempt of a row; `ended` is None without a known answer, `body` without a reply."""

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
    """A cause of failed rows: how many, an example message, some lines; `retryable` of them are sent again by resuming."""

    cause: str
    rows: int
    message: str
    lines: tuple[int, ...]
    retryable: int


class Miss(NamedTuple):
    """A cause of attempts that were not accepted."""

    cause: str
    attempts: int
    possibly_billed: int


class Session(NamedTuple):
    """A process that worked on the run.

    `exit_code` is None while it works or if it was killed; of a killed one `ended` is its last sign of life, once the journal is
    opened again.
    """

    id: int
    started: float
    ended: float | None
    exit_code: int | None
    pid: int
    host: str


class Lease(NamedTuple):
    """A row's attempt in a batch, with its highest possible cost and tokens."""

    row: int
    number: int
    cost: int | None
    tokens: int


class Leased(NamedTuple):
    """Columns of attempts in a batch, as in `Lease`, and of their rows' positions; `waits` is 1 where rows wait for it, or it is or is part
    of a reduce row.
    """

    rows: list[int]
    numbers: list[int]
    costs: list[int | None]
    tokens: list[int]
    waits: list[int]


class Answers(NamedTuple):
    """Columns of accepted replies that came together, so that no step of Python is needed for a row.

    `bodies` are exact, `values` as in `models.Outcome`. `usages` are None where the next five columns have all of it. Those tokens
    are None without a usage; `costs` are picodollars, None where unknown, and
    the next four are parts of them (the rest is input).
    """

    rows: list[int]
    numbers: list[int]
    values: list[str | None]
    usages: list[Sequence[Any] | None]
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


class Exchanges(NamedTuple):
    """Columns of `Answers` that were sent by themselves: seconds, and the provider's request ids."""

    seconds: list[float]
    request_ids: list[str | None]


Columns = TypeVar("Columns", Leased, Answers)


def columns(kind: type[Columns], lines: Sequence[tuple[Any, ...]]) -> Columns:
    return kind._make(map(list, zip(*lines, strict=True)) if lines else ([] for _ in kind._fields))


def chosen(found: Columns, places: Sequence[int]) -> Columns:
    """The lines at these places."""
    return found._make([column[place] for place in places] for column in found)


class Sum(NamedTuple):
    """The sum of replies: `stated` have a usage, `priced` a known cost."""

    stated: int
    usage: Usage
    priced: int
    cost: int
    bill: Bill

    @classmethod
    def of(cls, answers: Answers) -> "Sum":
        count, costs = len(answers.rows), answers.costs
        given, made, cached, reasoning, written, cost, _, *kinds = (sum(filter(None, each)) for each in answers[4:-1])
        usage = Usage(given, made, cached, reasoning, written)
        stated, priced = count - answers.input_tokens.count(None), count - costs.count(None)
        return cls(stated, usage, priced, cost, Bill(cost - sum(kinds), *kinds))

    @classmethod
    def of_ends(cls, ends: Iterable[End]) -> "Sum":
        """The sum of accepted replies to attempts that ended so."""
        stated = given = made = cached = reasoning = written = priced = cost = 0
        bill = Bill()
        for end in ends:
            usage = end.usage
            if usage is not None:
                stated += 1
                given += usage.input
                made += usage.output
                if usage.cached or usage.reasoning or usage.written:
                    cached, reasoning, written = (
                        cached + usage.cached,
                        reasoning + usage.reasoning,
                        written + usage.written,
                    )
            if end.cost is not None:
                priced += 1
                cost += end.cost
                bill = Bill(*map(add, bill, end.bill or (0, 0, 0, 0, end.cost)))
        return cls(stated, Usage(given, made, cached, reasoning, written), priced, cost, bill)


class Standing(NamedTuple):
    """The state of a row: position (None: absent), last attempt, and its answers as (reply body, excerpt of what was none)."""

    position: int | None
    state: State
    number: int
    answers: tuple[tuple[str | None, str | None], ...]


class Lane(NamedTuple):
    id: int
    learned: str | None


class Charged(NamedTuple):
    """What all attempts of a run are charged, open ones at their worst.

    `excess` is the most that one was charged over its reservation; `tiers` are the non-standard service tiers of replies.
    """

    cost: int
    tokens: int
    requests: int
    excess: int = 0
    tiers: frozenset[str] = frozenset()


class TierShare(NamedTuple):
    """Replies of one service tier (`default`: the standard one), and their cost."""

    tier: str
    replies: int
    cost: int


class LaneShare(NamedTuple):
    """What was sent to one lane, and its results; `seconds` of a reply on average."""

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
    """The use of an answered row, all its attempts together; `seconds` of the last, `attempts` without 429s, `request` is a hash."""

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
    at: float
    state: dict[str, Any]
