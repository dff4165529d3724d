"""Records of the journal. Times are Unix seconds, durations seconds, costs picodollars (None: unknown)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import add
from typing import Any, NamedTuple, TypeVar

from batchrun.digests import BLAKE2B
from batchrun.models import Bill, Ready, State, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    run: str
    created: float
    plan: str  # JSON
    prompt: str | None  # source text
    simulated: bool
    output: str  # relative to the journal's directory
    digest: str = BLAKE2B  # one of `digests.KINDS`

    def stored(self) -> dict[str, str | None]:
        return {
            "run": self.run,
            "created": repr(self.created),
            "plan": self.plan,
            "prompt": self.prompt,
            "simulated": "1" if self.simulated else "0",
            "output": self.output,
            "digest": self.digest,
        }


class IntakeRow(NamedTuple):
    line: int
    key: str | None  # of the id column; None: the content is the identity
    request: str  # hash; ignored for a skipped row
    text: str  # the row as JSON without lone surrogates, or the line as a JSON string
    skipped: str | None = None  # why it cannot be sent
    ahead: int = 0  # rows until the reduce row that it is a part of
    files: str = ""  # from `media.to_json`
    encoded: bytes | None = None  # `text` in UTF-8
    ready: Ready | None = None  # of a long text


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """In rows."""

    rows: int = 0
    changed: int = 0  # have another request
    changed_done: int = 0
    added: int = 0
    absent: int = 0  # not in the input any more
    reappeared: int = 0  # were absent
    retouched: int = 0  # differ only in text, line or position
    in_batches: int = 0  # changed or absent, and in a batch
    examples: tuple[tuple[int, str], ...] = ()  # (line, key) of changed rows

    @property
    def nothing(self) -> bool:
        return not (self.changed or self.added or self.absent or self.reappeared or self.retouched)


class End(NamedTuple):
    status: int  # HTTP status, 0 without a complete answer
    seconds: float
    cause: str | None = None  # short and stable; None for an accepted reply
    message: str | None = None
    throttled: bool = False  # by a 429
    counted: bool = True  # as one of the row's attempts: never a 429, a probe, or what was not sent
    deadline: bool = False
    invalid: bool = False  # the reply does not match the schema
    possibly_billed: bool = False  # without an answer
    usage: Usage | None = None
    request_id: str | None = None
    excerpt: str | None = None  # up to 2 kB of a body that is no reply
    cost: int | None = None
    charged_tokens: int = 0  # towards a cap of tokens
    bill: Bill | None = None  # `cost` by kind


class Record(NamedTuple):
    """A row with all that its output needs; `value` to `trace` as in `models.Outcome`."""

    seq: int
    position: int | None  # None for an absent row
    line: int
    key: str
    text: str
    value: str | None
    body: str | None  # of the outcome's reply
    added: str | None
    cause: str | None
    message: str | None
    attempts: int
    finished: float | None
    seconds: float | None
    input_tokens: int | None
    output_tokens: int | None
    status: int | None  # this and the next two: of the last attempt
    request_id: str | None
    excerpt: str | None
    trace: str | None
    state: State  # never in flight
    permanent: bool
    flags: frozenset[str]
    post: bool
    files: str = ""  # as in `IntakeRow`
    lane: str | None = None  # of the last attempt; JSON array: base URL, key name, model


class Result(NamedTuple):
    """Of a done row."""

    text: str
    value: str | None
    body: str | None
    added: str | None


class Entry(NamedTuple):
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
    text: str  # the beginning
    output: str | None  # the beginning of the reply


class Order(StrEnum):
    ROW = "row"
    LATENCY = "latency"
    TOKENS = "tokens"


class Wanted(NamedTuple):
    state: State | None = None
    cause: str | None = None
    text: str = ""  # in row, reply or message
    order: Order = Order.ROW

    @property
    def everything(self) -> bool:
        return self == Wanted()


class Attempt(NamedTuple):
    number: int
    session: int
    began: float
    ended: float | None  # None without a known answer
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
    body: str | None  # None without a reply


class Cause(NamedTuple):
    cause: str
    rows: int
    message: str  # an example
    lines: tuple[int, ...]  # some of them
    retryable: int  # rows that resuming sends again


class Miss(NamedTuple):
    cause: str
    attempts: int
    possibly_billed: int


class Session(NamedTuple):
    id: int
    started: float
    ended: float | None  # of a killed one its last sign of life, once the journal is opened again
    exit_code: int | None  # None while it works or if it was killed
    pid: int
    host: str


class Lease(NamedTuple):
    """A row's attempt in a batch."""

    row: int
    number: int
    cost: int | None  # the highest possible
    tokens: int  # the highest possible


class Leased(NamedTuple):
    rows: list[int]
    numbers: list[int]
    costs: list[int | None]
    tokens: list[int]
    waits: list[int]  # 1 where rows wait for it, or it is or is part of a reduce row


class Answers(NamedTuple):
    """Columns of accepted replies, so that no row takes a step of Python."""

    # Token counts are None without a usage.

    rows: list[int]
    numbers: list[int]
    values: list[str | None]  # as in `models.Outcome`
    usages: list[Sequence[Any] | None]  # None where the next five columns have all of it
    input_tokens: list[int | None]
    output_tokens: list[int | None]
    cached_tokens: list[int | None]
    reasoning_tokens: list[int | None]
    cache_write_tokens: list[int | None]
    costs: list[int | None]
    charged_tokens: list[int]
    costs_cached: list[int]  # this and the next three: parts of the costs; the rest is input
    costs_cache_write: list[int]
    costs_output: list[int]
    costs_other: list[int]
    bodies: list[str]  # exact


class Exchanges(NamedTuple):
    """Columns of `Answers` that were not in a batch."""

    seconds: list[float]
    request_ids: list[str | None]


Columns = TypeVar("Columns", Leased, Answers)


def columns(kind: type[Columns], lines: Sequence[tuple[Any, ...]]) -> Columns:
    return kind._make(map(list, zip(*lines, strict=True)) if lines else ([] for _ in kind._fields))


def chosen(found: Columns, places: Sequence[int]) -> Columns:
    return found._make([column[place] for place in places] for column in found)


class Sum(NamedTuple):
    """Of accepted replies."""

    stated: int  # replies with a usage
    usage: Usage
    priced: int  # replies with a known cost
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
    position: int | None  # None for an absent row
    state: State
    number: int  # of the last attempt
    answers: tuple[tuple[str | None, str | None], ...]  # (reply body, excerpt of what was none)


class Lane(NamedTuple):
    id: int
    learned: str | None


class Charged(NamedTuple):
    """By all attempts, open ones at their worst."""

    cost: int
    tokens: int
    requests: int
    excess: int = 0  # the most that one attempt was charged over its reservation
    tiers: frozenset[str] = frozenset()  # non-standard service tiers of replies


class TierShare(NamedTuple):
    tier: str  # `default`: the standard one
    replies: int
    cost: int


class LaneShare(NamedTuple):
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
    seconds: float | None  # of a reply on average


class Spent(NamedTuple):
    """All attempts of an answered row together."""

    line: int
    key: str
    text: str
    request: str  # hash
    input_tokens: float
    output_tokens: float
    cost: float | None
    seconds: float | None  # of the last attempt
    attempts: float  # without 429s


class Sample(NamedTuple):
    at: float
    state: dict[str, Any]
