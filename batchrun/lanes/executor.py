"""The seam between the engine and what carries requests out: tickets and completions.

The engine makes a ticket of leases (rows, each with the number of its attempt) and commits it before an executor sees it.
`step` makes at most one call that changes something at the provider, and the state that it returns is committed before
the next step; calls that only look may be several. So after a kill the journal says how far a ticket is at least, and
`reclaim` what to do with it:

    RUNNING   it is under way: step again
    READY     its results can be fetched
    UNSURE    a call that may have been carried out has no known answer: search, never send
    GONE      nothing of it is left: its rows are sent again, counted as possibly billed

Requests that are sent live need no ticket: their attempt in the journal is all there is, and it is gone with the process.
"""

from collections.abc import Callable
from enum import Enum, StrEnum, auto
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from batchrun.models import Ticket


class Reclaim(Enum):
    """What an executor says of a ticket that an earlier process left."""

    RUNNING = auto()
    READY = auto()
    UNSURE = auto()
    GONE = auto()


class Came(StrEnum):
    """What became of one lease."""

    REPLY = "reply"
    FAILURE = "failure"
    UNSENT = "unsent"
    LOST = "lost"
    GONE = "gone"


Read = Callable[[int, int, bytes, Any], Any]
"""Makes something of a reply at once, given its row, attempt, body and the JSON of that, in the thread that reads the results: a
thousand bodies as JSON take memory, and twice the time. None leaves it a `Completion`."""


class Completion(NamedTuple):
    """What became of the attempt `number` of the row `seq`.

    A reply or a failure is an HTTP answer of `status` and `body`. *Unsent*: nothing left, there was no attempt. *Lost*:
    no answer, and it may have been billed. *Gone*: no answer, and nothing was billed. `data` is the JSON of the body
    where it was parsed already.
    """

    seq: int
    number: int
    came: Came
    status: int = 0
    body: bytes = b""
    said: str = ""
    data: Any = None


MadeOf = TypeVar("MadeOf")


class Page(NamedTuple, Generic[MadeOf]):
    """What is handed over together: what a `Read` has made of replies, and the other completions."""

    read: MadeOf
    others: list[Completion]


class Stepped(NamedTuple):
    """A ticket after a step, the seconds until the next one is worth while, and what else the same call has made."""

    ticket: Ticket
    wait: float = 0.0
    also: tuple[str, ...] = ()


class Pages(Protocol):
    """Completions some at a time, in any order; lines that are repeated or of others are only counted."""

    repeated: int
    foreign: int

    def page(self) -> Page[list[Any]] | None:
        """The next ones, None at the end. Blocks."""
        ...

    def close(self) -> None:
        """Read no further."""
        ...


class Executor(Protocol):
    """Carries out tickets. Nothing here decides what a reply is worth, or writes to the journal."""

    async def step(self, ticket: Ticket) -> Stepped:
        """One step on; raises StopError where only a person can say how to go on."""
        ...

    def results(self, ticket: Ticket, read: Read | None = None) -> Pages:
        """What a ticket whose results are here brought."""
        ...

    def reclaim(self, ticket: Ticket) -> Reclaim:
        """What to do with a ticket that an earlier process left."""
        ...

    async def cancel(self, ticket: Ticket) -> Ticket:
        """Ask for it to end early; it still has to end by itself."""
        ...
