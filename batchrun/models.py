"""Records of a row from input to output.

A row is read (`Row`), rendered (`Request`), sent (`Exchange`), parsed (`Reply` or `Defect`) and ended (`Outcome`). Those made once per
row or attempt are named tuples, at a third of the cost of a frozen dataclass. Money is in picodollars.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeVar, cast


class State(StrEnum):
    """State of a row. At the end done + failed + skipped + unknown + pending = rows in."""

    PENDING = "pending"
    IN_FLIGHT = "in flight"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"
    IN_BATCH = "in a batch"


class Flag(StrEnum):
    """Property of a reply. `odd`: unknown finish reason; `empty`: no answer; `numbers`: not those of its source."""

    TRUNCATED = "truncated"
    REFUSED = "refused"
    FILTERED = "filtered"
    ODD = "odd"
    EMPTY = "empty"
    NUMBERS = "numbers"


class Endpoint(StrEnum):
    """Endpoints, as in the `url` of an OpenAI Batch request."""

    CHAT = "/v1/chat/completions"
    RESPONSES = "/v1/responses"
    EMBEDDINGS = "/v1/embeddings"
    COMPLETIONS = "/v1/completions"
    TRANSCRIPTIONS = "/v1/audio/transcriptions"


class Kind(StrEnum):
    """What an input's rows are."""

    ROWS = "rows"
    BATCH = "batch"
    BODIES = "bodies"


class Blank(StrEnum):
    """What is done with a row of blank text."""

    SKIP = "skip"
    COPY = "copy"
    SEND = "send"


class File(NamedTuple):
    """A picture, audio or document of a request, the value of the prompt's variable `input`.

    `path` is absolute, or an address that is sent as it is, without `sha256`, `type` and `size`. `type` is the media type by content,
    `modified` in seconds since 1970; `width` and `height` are pixels, 0 where unknown.
    """

    input: str
    path: str
    size: int = 0
    type: str = ""
    sha256: str = ""
    modified: float = 0.0
    width: int = 0
    height: int = 0

    @property
    def encoded(self) -> int:
        """Bytes of the file in a body: base64."""
        return 4 * ((self.size + 2) // 3)


_Record = TypeVar("_Record")


class _Make(Protocol):
    def __call__(self, cls: type[_Record], values: tuple[Any, ...], /) -> _Record: ...


made = cast("_Make", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]  it is generic
"""Makes a named tuple in half the time of its class."""


class Row(NamedTuple):
    """One input record.

    `line` is what messages name, from 1: line of a text file, element of a JSON array, record of a table, file of a directory. `key` is
    the value of the id column, None where content identifies rows. `text` is the record as a JSON object, of JSONL and JSON arrays to the
    character; `fields` is it parsed, `encoded` in UTF-8. `files` are None where they were not searched yet.
    """

    line: int
    key: str | None
    text: str
    fields: dict[str, Any]
    files: tuple[File, ...] | None = None
    encoded: bytes | None = None


class Invalid(NamedTuple):
    """A record that cannot be a row: its text (Latin-1 where it is not UTF-8), and the reason."""

    line: int
    text: str
    reason: str


class Request(NamedTuple):
    """What one row sends.

    `output_limit` is the body's limit of output tokens (all choices). The body names `files` by digest; their content is put in when it is
    sent (`media.filled`). `file_tokens` is by the vendor's formula; `named` are `model` and `service_tier`, None until they are parsed.
    """

    endpoint: Endpoint
    body: bytes
    output_limit: int | None
    files: tuple[File, ...] = ()
    file_tokens: int = 0
    named: tuple[Any, Any] | None = None

    @property
    def size(self) -> int:
        """Bytes of the body as sent, with its files."""
        return len(self.body) + (sum(file.encoded for file in self.files) if self.files else 0)

    @property
    def weight(self) -> int:
        """The basis of token estimates: bytes of text, and four per token of files."""
        return len(self.body) + 4 * self.file_tokens


PICODOLLARS = 10**12
"""Picodollars in a US dollar."""


class Usage(NamedTuple):
    """Tokens of one reply, as the provider counted them.

    `cached` (cache reads), `written` (cache writes; `written_long` of it for an hour), `input_audio` and `input_image` are parts of `input`;
    `reasoning`, `output_audio` and `output_image` of `output`. `tier` is the reply's service tier, `default` for the standard one; `charged`
    the cost that the provider states.
    """

    input: int
    output: int
    cached: int
    reasoning: int
    written: int = 0
    written_long: int = 0
    input_audio: int = 0
    output_audio: int = 0
    input_image: int = 0
    output_image: int = 0
    tier: str | None = None
    charged: int | None = None


class Bill(NamedTuple):
    """The charge of an attempt by kind. `other`: fees, and charges without a known kind."""

    input: int = 0
    cached: int = 0
    written: int = 0
    output: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        return self.input + self.cached + self.written + self.output + self.other


class Fault(StrEnum):
    """Why there is no complete answer. The first five occur before a byte is sent."""

    DNS = "name not found"
    REFUSED = "connection refused"
    TLS = "TLS failure"
    PROXY = "proxy failure"
    CONNECT = "cannot connect"
    RESET = "connection lost"
    DEADLINE = "deadline"
    TOO_LARGE = "reply too large"
    ENCODING = "an encoding that cannot be undone"
    PROTOCOL = "not HTTP"
    OUTAGE = "no answer since before an outage"
    LOST = "its sender was lost"


class Exchange(NamedTuple):
    """One HTTP exchange.

    `status` is 0 without a complete answer; then `fault` and `detail` are set. `headers` have lower-case names. `left` and `ended` are
    monotonic seconds; `sent`: the request may have been billed.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    left: float
    ended: float
    fault: Fault | None
    detail: str
    sent: bool


class Reply(NamedTuple):
    """A parsed 200 body. `value` is for the output column: text, an embedding, or tool calls.

    `text` is without thinking; `usage` is None where none is credible. `thinking` is where an `empty` reply has its thinking.
    """

    value: Any
    text: str | None
    finish: str | None
    flags: frozenset[Flag]
    usage: Usage | None
    model: str | None
    thinking: str | None = None


class Defect(NamedTuple):
    """Why a 200 body is not a reply. `unreadable`: whole, but of an unknown format, as the next one will be."""

    reason: str
    usage: Usage | None
    unreadable: bool = False


class Outcome(NamedTuple):
    """How a row ended.

    `permanent` is False for a retryable failure. `cause` is a short stable phrase, `message` the detail. `value` is the JSON text of the
    output where it differs from the reply's value. `added` is a JSON object that post-processing merges into the output row. `post`:
    post-processing failed, and the reply is kept; `trace` is its traceback.
    """

    state: State
    permanent: bool
    cause: str | None
    message: str | None
    flags: frozenset[Flag]
    value: str | None
    added: str | None = None
    post: bool = False
    trace: str | None = None


JUST_DONE = Outcome(State.DONE, True, None, None, frozenset(), None)
"""How nearly every row ends."""


class History(NamedTuple):
    """The attempts of an unfinished row, without those before an earlier outcome.

    `number` is that of its last attempt ever, 0 for none; `attempts` count against `--max-attempts`; `deadlines` of them timed out; `asks`
    replies did not fit the schema; `open`: the last attempt has no known answer; `reply` is its body. `gave_up`: why the row was handed to a
    fallback lane; then only attempts there count.
    """

    number: int
    attempts: int
    deadlines: int
    asks: int
    open: bool
    reply: str | None
    gave_up: tuple[str, str] | None = None


FRESH = History(0, 0, 0, 0, open=False, reply=None)
"""The history of a row without attempts."""


class SharedReply(NamedTuple):
    """The reply to an equal request, for a row that is not sent.

    `representative` is the `seq` of the row that was sent (0: in another run), `number` its attempt, `reply` the number of the reply in the
    journal. Tokens and cost are that exchange's, None where unknown.
    """

    representative: int
    number: int
    reply: int | None
    input_tokens: int | None
    output_tokens: int | None
    cost: int | None
    body: str

    @property
    def tokens(self) -> int:
        return (self.input_tokens or 0) + (self.output_tokens or 0)


class Parts(NamedTuple):
    """(JSON value, body) of each reply that a reduce row combines; or how one failed, or how many are missing."""

    replies: tuple[tuple[str | None, str | None], ...]
    failed: Outcome | None = None
    awaited: int = 0

    @property
    def size(self) -> int:
        """Characters of all bodies."""
        return sum(len(body or value or "") for value, body in self.replies)


class Pending(NamedTuple):
    """A row that has to be answered. `seq` is its permanent number in the journal.

    `reused` is the reply to an equal request; `awaited`: other rows wait for its result. `target` is the reduce row that it is a part of,
    `parts` are those that it reduces; `files` is from `media.to_json`.
    """

    seq: int
    position: int
    line: int
    key: str
    text: str
    history: History
    reused: SharedReply | None = None
    awaited: bool = False
    target: int | None = None
    parts: Parts | None = None
    files: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """Attempts handed over together, such as a provider's batch.

    `state` is the executor's. `tag` is its label at the provider, `sha256` that of the file of requests; `file` and `remote` are the
    provider's ids of file and batch, `status` the last one seen. `asked`, `seen`, `expires` and `next` (poll) are Unix seconds. `detail` is
    JSON: the provider's last object, and the executor's own data.
    """

    id: int
    lane: int
    state: str
    chunk: int
    number: int = 1
    tag: str = ""
    endpoint: str = ""
    model: str = ""
    rows: int = 0
    bytes: int = 0
    sha256: str = ""
    file: str | None = None
    remote: str | None = None
    status: str | None = None
    asked: float | None = None
    seen: float | None = None
    expires: float | None = None
    next: float | None = None
    note: str | None = None
    detail: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The sums of a run. Tokens and attempts include replies that were requested again.

    `cost` is the charge of all ended attempts: `cost_input` (not from a cache), `cost_cached`, `cost_cache_write`, `cost_output` and
    `cost_other` (fees, attempts without an answer or a usage, totals that a provider states). Parts of it are also `cost_retries` (replies
    that did not fit the schema) and `cost_possibly_billed` (no answer). `cost_reserved` is the highest cost of open attempts; `unpriced`
    attempts have no known price. `retryable` and `failed_post` are parts of `failed`; `deduplicated` rows, part of `done`, saved
    `saved_tokens` and `saved`.
    """

    rows: int = 0
    done: int = 0
    failed: int = 0
    retryable: int = 0
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
    deduplicated: int = 0
    saved_tokens: int = 0
    saved: int = 0
    attempts: int = 0
    replies: int = 0
    possibly_billed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    without_usage: int = 0
    cost: int = 0
    cost_cached: int = 0
    cost_cache_write: int = 0
    cost_output: int = 0
    cost_other: int = 0
    cost_retries: int = 0
    cost_possibly_billed: int = 0
    cost_reserved: int = 0
    unpriced: int = 0

    @property
    def cost_input(self) -> int:
        """The charge for input that was not read from or written to a cache."""
        return self.cost - self.cost_cached - self.cost_cache_write - self.cost_output - self.cost_other

    @property
    def pending(self) -> int:
        """Rows without an outcome that are not in batches or unknown."""
        return self.rows - self.done - self.failed - self.skipped - self.unknown - self.in_batches
