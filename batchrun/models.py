"""What a row is at each stage of its way from the input file to the output file.

Frozen records and the enums they use; no behaviour beyond what a record says of itself. A row is read (`Row`),
rendered (`Request`), sent (`Exchange`), understood (`Reply` or `Defect`) and ended (`Outcome`). Records that are
made once per row or per attempt are named tuples: they are immutable and cost a third of a frozen dataclass.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeVar, cast


class State(StrEnum):
    """Where a row is. At every end done + failed + skipped + unknown + pending = rows in."""

    PENDING = "pending"
    IN_FLIGHT = "in flight"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"
    IN_BATCH = "in a batch"


class Flag(StrEnum):
    """What a done row's reply is, beside done. `odd`: it ended for a reason that is not known; `empty`: no answer; `numbers`: it
    has other numbers than its source, where that is checked."""

    TRUNCATED = "truncated"
    REFUSED = "refused"
    FILTERED = "filtered"
    ODD = "odd"
    EMPTY = "empty"
    NUMBERS = "numbers"


class Endpoint(StrEnum):
    """The endpoints a request can go to, spelled as the `url` of an OpenAI Batch request."""

    CHAT = "/v1/chat/completions"
    RESPONSES = "/v1/responses"
    EMBEDDINGS = "/v1/embeddings"
    COMPLETIONS = "/v1/completions"
    TRANSCRIPTIONS = "/v1/audio/transcriptions"


class Kind(StrEnum):
    """What the rows of an input are: rows for a prompt, OpenAI Batch requests, or bare request bodies."""

    ROWS = "rows"
    BATCH = "batch"
    BODIES = "bodies"


class Blank(StrEnum):
    """What becomes of a row whose text is blank."""

    SKIP = "skip"
    COPY = "copy"
    SEND = "send"


class File(NamedTuple):
    """A file that a request has: a picture, audio or a document, as the value of the prompt's variable `input`.

    `path` is absolute; for an address that is sent as it is, that address, and then `sha256` and `type` are empty and
    `size` is 0. `type` is the media type by content, `size` in bytes, `sha256` in hexadecimal, `modified` in seconds since
    1970. `width` and `height` are the pixels of a picture, 0 where they are not known.
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
        """Bytes of the file in a body: base64 has four for three."""
        return 4 * ((self.size + 2) // 3)


_Record = TypeVar("_Record")


class _Make(Protocol):
    def __call__(self, cls: type[_Record], values: tuple[Any, ...], /) -> _Record: ...


made = cast("_Make", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]  it is generic
"""Makes a named tuple of all its values in half the time that calling its class takes: for what there is a million of."""


class Row(NamedTuple):
    """One input record.

    `line` is the 1-based line of a text file, the 1-based element of a JSON array, the 1-based record of a table
    or the 1-based file of a directory: what an error message names. `key` is the value of the id column as text,
    None where rows are identified by their content. `text` is the record as one JSON object, for JSONL and JSON
    arrays the very characters of the input; `fields` is the same, parsed. `files` are those of its request as the journal
    names them, None where they were not looked for yet. `encoded` is the text as UTF-8 where it was parsed from that.
    """

    line: int
    key: str | None
    text: str
    fields: dict[str, Any]
    files: tuple[File, ...] | None = None
    encoded: bytes | None = None


class Invalid(NamedTuple):
    """A record that cannot be a row: its line, all of its text as it was read, and the reason with the column.

    A text that is not UTF-8 is read as Latin-1, which has a character for every byte.
    """

    line: int
    text: str
    reason: str


class Request(NamedTuple):
    """What one row sends: the endpoint and the exact bytes of the body.

    `output_limit` is the body's own limit of output tokens (all choices), None where it states none. The body names its
    `files` by their digests, and they are put in when it is sent (`media.filled`); `file_tokens` are the tokens that the
    vendor counts for them, as far as its formula is known. `named` are `model` and `service_tier` as the body has them, None
    where they are still to be looked for in it.
    """

    endpoint: Endpoint
    body: bytes
    output_limit: int | None
    files: tuple[File, ...] = ()
    file_tokens: int = 0
    named: tuple[Any, Any] | None = None

    @property
    def size(self) -> int:
        """Bytes of the body as it is sent, with its files."""
        return len(self.body) + (sum(file.encoded for file in self.files) if self.files else 0)

    @property
    def weight(self) -> int:
        """What its input tokens are estimated by: bytes of text, with four for each token of its files."""
        return len(self.body) + 4 * self.file_tokens


PICODOLLARS = 10**12
"""Picodollars in a US dollar."""


class Usage(NamedTuple):
    """Tokens of one reply, as the provider counted them.

    `cached` (read from a prompt cache), `written` (to one; `written_long` of it for an hour), `input_audio` and
    `input_image` are parts of `input`; `reasoning`, `output_audio` and `output_image` of `output`. `tier` is the service
    tier that the reply names, `default` for the standard one, None where it names none. `charged` is what the provider says it charged, in picodollars.
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
    """What one attempt is charged, by kind, in picodollars. `other`: fees, and what no kind is known of."""

    input: int = 0
    cached: int = 0
    written: int = 0
    output: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """The whole."""
        return self.input + self.cached + self.written + self.output + self.other


class Fault(StrEnum):
    """Why an exchange has no whole answer. The first five are found before a byte of the request has left."""

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
    """One HTTP exchange: what came back, or why nothing did.

    `status` is 0 when no whole answer came; then `fault` and `detail` say why. `headers` have lower-case names.
    `left` and `ended` are monotonic seconds; `sent` is whether the request may have reached the provider, so that
    it may have been billed for.
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
    """What a 200 body says. `value` is the JSON value for the output column: text, an embedding, or tool calls.

    `text` is the model's text where there is any, without what it thought before; `usage` is None where the body states
    none that can be believed. `thinking` is where an `empty` reply has its thinking: a member of the body, or a block
    of the text.
    """

    value: Any
    text: str | None
    finish: str | None
    flags: frozenset[Flag]
    usage: Usage | None
    model: str | None
    thinking: str | None = None


class Defect(NamedTuple):
    """Why a 200 body is not a reply; `usage` where it states one all the same, since it may have been billed.

    `unreadable` marks a body that is whole and of no known format: the next one will be alike.
    """

    reason: str
    usage: Usage | None
    unreadable: bool = False


class Outcome(NamedTuple):
    """How a row ended.

    `permanent` is False for a retryable failure: resuming sends the row again. `cause` is a short stable
    phrase to group by, `message` the detail. `value` is the JSON text of the output where it is not simply the
    value of the reply, else None. `added` is a JSON object whose members post-processing merges into the output row.
    `post` marks a failure of post-processing, whose reply is safe and need not be paid for again; `trace` is its
    traceback.
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
    """What the journal knows of a row that is not finished; attempts of a concluded earlier outcome do not count.

    `number` is the number of the row's last attempt ever (0: none), `attempts` how many count against
    `--max-attempts`, `deadlines` how many of them ended by the deadline, `asks` how many replies were found invalid
    against the schema, `open` whether the last attempt left and no answer is known, `reply` the body of the last
    attempt's reply where one was recorded. `gave_up` are the cause and message for which a row was handed to a fallback
    lane: then only the attempts made there count.
    """

    number: int
    attempts: int
    deadlines: int
    asks: int
    open: bool
    reply: str | None
    gave_up: tuple[str, str] | None = None


class SharedReply(NamedTuple):
    """What the exchange of an equal request gives to a row that is not sent itself.

    `representative` is the row that was sent (its `seq`; 0: in another run), `number` its attempt, `reply` the number of the
    reply in the journal and `body` its text. The rest is what that exchange used and was charged (picodollars), None
    where it is not known.
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
        """Tokens in and out."""
        return (self.input_tokens or 0) + (self.output_tokens or 0)


class Parts(NamedTuple):
    """The value (JSON) and the body of each reply that a reduce row puts together, in order; how one of them failed, or
    how many are not there yet."""

    replies: tuple[tuple[str | None, str | None], ...]
    failed: Outcome | None = None
    awaited: int = 0

    @property
    def size(self) -> int:
        """Characters of all bodies."""
        return sum(len(body or value or "") for value, body in self.replies)


class Pending(NamedTuple):
    """A row of the journal that still has to be answered. `seq` is its lasting number in the journal.

    `reused` is the reply to an equal request that answers it; `awaited` is whether other rows wait for what it gets.
    `target` is the reduce row whose text its own reply is a part of, `parts` are the replies of those that it reduces.
    `files` is what the journal has of the files of its request (`journal.records.IntakeRow`).
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
    """Many attempts that were handed over together, such as a provider's batch; kept in the journal (`tickets`).

    `state` is the executor's word for how far it is. `tag` labels it at the provider, `sha256` is of the file with its
    requests. `file` and `remote` are the provider's names for the file and for the batch, `status` the last one seen.
    `asked`, `seen`, `expires` and `next` (when to look again) are Unix seconds. `detail` is JSON: the provider's object
    as it was last seen, and what the executor has to remember.
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
    """The sums of a run, as the journal keeps them. Tokens and attempts include replies that were asked again.

    Money is in picodollars. `cost` is what all attempts that ended are charged. By kind it is `cost_input` (not from a
    cache), `cost_cached`, `cost_cache_write`, `cost_output` and `cost_other` (fees, attempts without an answer or a usage,
    and what the provider only states as a whole). Other parts of it are `cost_retries`, for replies that were invalid
    against the schema, and `cost_possibly_billed`, for attempts without an answer, in full. `cost_reserved`
    is what open attempts may cost at worst. `unpriced` attempts were or may have been billed, at a price not known.
    `retryable` and `failed_post`, which failed in post-processing, are part of `failed`. `deduplicated` rows, part of
    `done`, were answered by the reply to an equal request; `saved_tokens` and `saved` are what they would have used and
    cost.
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
        """What input that was neither read from nor written to a cache was charged."""
        return self.cost - self.cost_cached - self.cost_cache_write - self.cost_output - self.cost_other

    @property
    def pending(self) -> int:
        """Rows that nothing has been decided about and of which nothing is under way or lost."""
        return self.rows - self.done - self.failed - self.skipped - self.unknown - self.in_batches
