"""Records of a row from input to output.

Those made once per row or attempt are named tuples, at a third of the cost of a frozen dataclass. Money is in
picodollars.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from batchrun.errors import UnreadableError


class State(StrEnum):
    # at the end done + failed + skipped + unknown + pending = rows in
    PENDING = "pending"
    IN_FLIGHT = "in flight"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"
    IN_BATCH = "in a batch"

    @property
    def is_final(self) -> bool:
        return self in (State.DONE, State.FAILED, State.SKIPPED)


class Flag(StrEnum):
    TRUNCATED = "truncated"
    REFUSED = "refused"
    FILTERED = "filtered"
    ODD = "odd"  # unknown finish reason
    EMPTY = "empty"  # no answer
    NUMBERS = "numbers"  # not those of its source


class Endpoint(StrEnum):
    CHAT = "/v1/chat/completions"
    RESPONSES = "/v1/responses"
    EMBEDDINGS = "/v1/embeddings"
    COMPLETIONS = "/v1/completions"
    TRANSCRIPTIONS = "/v1/audio/transcriptions"


class Kind(StrEnum):
    ROWS = "rows"
    BATCH = "batch"
    BODIES = "bodies"


class Blank(StrEnum):
    SKIP = "skip"
    COPY = "copy"
    SEND = "send"


class File(NamedTuple):
    input: str  # the prompt's variable
    path: str  # absolute, or an address that is sent unchanged, without the next three
    size: int = 0
    type: str = ""  # media type by content
    sha256: str = ""
    modified: float = 0.0  # seconds since 1970
    width: int = 0  # pixels, 0 if unknown
    height: int = 0

    @property
    def encoded(self) -> int:
        # base64
        return 4 * ((self.size + 2) // 3)


_Record = TypeVar("_Record")


class _Make(Protocol):
    def __call__(self, cls: type[_Record], values: tuple[Any, ...], /) -> _Record: ...


# makes a named tuple in half the time of its class
made = cast("_Make", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]  it is generic


class Row(NamedTuple):
    line: int  # from 1, in messages: line of a text, element of an array, record of a table, file of a directory
    key: str | None  # of the id column, None if content identifies rows
    text: str  # as a JSON object, of JSONL and JSON arrays to the character
    fields: dict[str, Any]  # of `text`
    files: tuple[File, ...] | None = None  # None: not searched yet
    encoded: bytes | None = None  # `text` in UTF-8


class Invalid(NamedTuple):
    line: int
    text: str  # Latin-1 if it is not UTF-8
    reason: str


@dataclass(frozen=True, slots=True)
class Span:
    """A body that is in a file: `size` bytes from `at`. Reading it raises UnreadableError where it is not all there."""

    path: str
    at: int
    size: int
    base64: bool | None = None  # whether it has files in it; None: it has to be searched

    def __len__(self) -> int:
        return self.size

    def __bytes__(self) -> bytes:
        descriptor = self.open()
        try:
            return self.read(descriptor)
        finally:
            os.close(descriptor)

    def open(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise self._unreadable(error.strerror) from error

    def read(self, descriptor: int) -> bytes:
        try:
            data = os.pread(descriptor, self.size, self.at)
            while len(data) < self.size:  # read(2) ends at 2 GB
                if not (more := os.pread(descriptor, self.size - len(data), self.at + len(data))):
                    raise self._unreadable("it is shorter than the journal says")
                data += more
        except OSError as error:
            raise self._unreadable(error.strerror) from error
        return data

    def _unreadable(self, why: str | None) -> UnreadableError:
        return UnreadableError(
            f"cannot read a request from {self.path}: {why}", "restore the file, then resume the run"
        )


Body = bytes | Span


class Request(NamedTuple):
    endpoint: Endpoint
    body: Body
    output_limit: int | None  # the body's limit of output tokens, for all choices
    files: tuple[File, ...] = ()  # named in the body by digest; their content is put in when it is sent
    file_tokens: int = 0  # by the vendor's formula
    named: tuple[Any, Any] | None = None  # `model` and `service_tier`, None until they are parsed
    start: int | None = None  # where the body is in the row's text in UTF-8, if it is there as it is sent

    @property
    def size(self) -> int:
        return len(self.body) + (sum(file.encoded for file in self.files) if self.files else 0)

    @property
    def has_files(self) -> bool:
        """Named, or in the body as base64."""
        known = self.body.base64 if type(self.body) is Span else None
        return bool(self.files) or (b";base64," in bytes(self.body) if known is None else known)

    @property
    def weight(self) -> int:
        """The basis of token estimates: bytes of text, and four per token of files."""
        return len(self.body) + 4 * self.file_tokens


PICODOLLARS = 10**12  # in a US dollar


class Usage(NamedTuple):
    # as the provider counted them
    input: int
    output: int
    cached: int  # part of `input`: cache reads
    reasoning: int  # part of `output`
    written: int = 0  # part of `input`: cache writes
    written_long: int = 0  # part of `written`: for an hour
    input_audio: int = 0  # part of `input`
    output_audio: int = 0  # part of `output`
    input_image: int = 0  # part of `input`
    output_image: int = 0  # part of `output`
    tier: str | None = None  # the reply's service tier
    charged: int | None = None  # the cost that the provider states


class Bill(NamedTuple):
    input: int = 0
    cached: int = 0
    written: int = 0
    output: int = 0
    other: int = 0  # fees, and charges without a known kind

    @property
    def total(self) -> int:
        return self.input + self.cached + self.written + self.output + self.other


class Fault(StrEnum):
    # the first five occur before a byte is sent
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
    status: int  # 0 without a complete answer
    headers: Mapping[str, str]  # lower-case names
    body: bytes
    left: float  # monotonic seconds
    ended: float  # the same
    fault: Fault | None  # set without a complete answer, like `detail`
    detail: str
    sent: bool  # it may have been billed


class Reply(NamedTuple):
    value: Any  # for the output column: text, an embedding, or tool calls
    text: str | None  # without thinking
    finish: str | None
    flags: frozenset[Flag]
    usage: Usage | None  # None if none is credible
    model: str | None
    thinking: str | None = None  # of an `empty` reply


class Defect(NamedTuple):
    """Why a 200 body is not a reply."""

    reason: str
    usage: Usage | None
    unreadable: bool = False  # whole, but of an unknown format, as the next one will be


class Outcome(NamedTuple):
    state: State
    permanent: bool  # False for a retryable failure
    cause: str | None  # a short stable phrase
    message: str | None
    flags: frozenset[Flag]
    value: str | None  # the output's JSON text if it differs from the reply's value
    added: str | None = None  # a JSON object that post-processing merges into the output row
    post: bool = False  # post-processing failed, and the reply is kept
    trace: str | None = None  # of post-processing


JUST_DONE = Outcome(State.DONE, True, None, None, frozenset(), None)  # how nearly every row ends


class History(NamedTuple):
    """The attempts of an unfinished row since its last outcome."""

    number: int  # of its last attempt ever, 0 for none
    attempts: int  # that count against `--max-attempts`
    deadlines: int  # of these, timed out
    asks: int  # replies that did not fit the schema
    open: bool  # the last attempt has no known answer
    reply: str | None  # its body
    gave_up: tuple[str, str] | None = None  # why it was handed to a fallback lane; then only attempts there count


FRESH = History(0, 0, 0, 0, open=False, reply=None)


class SharedReply(NamedTuple):
    """For a row that is not sent; tokens and cost are that exchange's."""

    representative: int  # the `seq` of the row that was sent, 0: in another run
    number: int  # its attempt
    reply: int | None  # the number of the reply in the journal
    input_tokens: int | None
    output_tokens: int | None
    cost: int | None
    body: str

    @property
    def tokens(self) -> int:
        return (self.input_tokens or 0) + (self.output_tokens or 0)


class Parts(NamedTuple):
    """The replies that a reduce row combines."""

    replies: tuple[tuple[str | None, str | None], ...]  # (JSON value, body) of each
    failed: Outcome | None = None  # how one of them failed
    awaited: int = 0  # how many are missing

    @property
    def size(self) -> int:
        return sum(len(body or value or "") for value, body in self.replies)


class Ready(NamedTuple):
    """A request whose body is a part of the row's text: `size` bytes from `start`."""

    endpoint: str
    start: int
    size: int
    output_limit: int | None
    named: Sequence[Any]  # as `Request.named`
    base64: bool | None = None  # as `Span.base64`

    @classmethod
    def of(cls, request: Request) -> "Ready | None":
        if request.start is None or request.named is None:
            return None
        size, limit = len(request.body), request.output_limit
        return cls(request.endpoint, request.start, size, limit, request.named, request.has_files)

    def request(self, body: Body) -> Request:
        assert len(body) == self.size, "the body was given away"
        return Request(Endpoint(self.endpoint), body, self.output_limit, named=tuple(self.named))


class Pending(NamedTuple):
    """A row that has to be answered."""

    seq: int  # permanent number in the journal
    position: int
    line: int
    key: str
    text: str
    history: History
    reused: SharedReply | None = None  # the reply to an equal request
    awaited: bool = False  # other rows wait for its result
    target: int | None = None  # the reduce row that it is a part of
    parts: Parts | None = None  # those that it reduces
    files: str = ""  # from `media.to_json`
    encoded: Body = b""  # a long text in UTF-8 instead of `text`, where that is enough; of `ready` the body alone
    ready: Ready | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """Attempts handed over together, such as a provider's batch."""

    id: int
    lane: int
    state: str  # the executor's
    chunk: int
    number: int = 1
    tag: str = ""  # its label at the provider
    endpoint: str = ""
    model: str = ""
    rows: int = 0
    bytes: int = 0
    sha256: str = ""  # of the file of requests
    file: str | None = None  # the provider's id
    remote: str | None = None  # the batch's id at the provider
    status: str | None = None  # the last one seen
    asked: float | None = None  # Unix seconds, like the next three
    seen: float | None = None
    expires: float | None = None
    next: float | None = None  # of the next poll
    note: str | None = None
    detail: str = "{}"  # JSON: the provider's last object, and the executor's own data


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Tokens and attempts include replies that were requested again."""

    rows: int = 0
    done: int = 0
    failed: int = 0
    retryable: int = 0  # part of `failed`
    failed_post: int = 0  # part of `failed`
    skipped: int = 0
    unknown: int = 0
    in_batches: int = 0
    truncated: int = 0
    refused: int = 0
    filtered: int = 0
    odd: int = 0
    empty: int = 0
    numbers: int = 0
    deduplicated: int = 0  # part of `done`; they saved the next two
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
    cost: int = 0  # of all ended attempts
    cost_cached: int = 0
    cost_cache_write: int = 0
    cost_output: int = 0
    cost_other: int = 0  # fees, attempts without an answer or a usage, totals that a provider states
    cost_retries: int = 0  # of replies that did not fit the schema
    cost_possibly_billed: int = 0  # of attempts without an answer
    cost_reserved: int = 0  # the highest cost of open attempts
    unpriced: int = 0  # attempts without a known price

    @property
    def cost_input(self) -> int:
        # not read from or written to a cache
        return self.cost - self.cost_cached - self.cost_cache_write - self.cost_output - self.cost_other

    @property
    def pending(self) -> int:
        return self.rows - self.done - self.failed - self.skipped - self.unknown - self.in_batches
