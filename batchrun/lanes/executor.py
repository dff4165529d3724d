"""The interface between the engine and what carries requests out: tickets and completions.

A ticket holds leases (rows with attempt numbers) and is committed before an executor gets it. `step` makes at most one
call that changes something at the provider, and its state is committed before the next.
"""

from collections.abc import Callable
from enum import Enum, StrEnum, auto
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from batchrun.models import Ticket


class Reclaim(Enum):
    # a ticket after a kill
    RUNNING = auto()  # it is under way: step again
    READY = auto()  # its results can be fetched
    UNSURE = auto()  # a call that may have been carried out has no known answer: search, never send
    GONE = auto()  # nothing of it is left: its rows are sent again, counted as possibly billed


class CompletionKind(StrEnum):
    REPLY = "reply"
    FAILURE = "failure"
    UNSENT = "unsent"
    LOST = "lost"
    GONE = "gone"


# processes a reply (row, attempt, body, JSON) in the reading thread; None leaves a `Completion`
Read = Callable[[int, int, bytes, Any], Any]


class Completion(NamedTuple):
    """A reply or a failure is an HTTP answer. *Unsent*: nothing was sent. *Lost*: possibly billed. *Gone*: not billed."""

    seq: int  # row
    number: int  # attempt
    kind: CompletionKind
    status: int = 0
    body: bytes = b""
    message: str = ""
    data: Any = None  # the parsed body, if it was parsed


Made = TypeVar("Made")


class Page(NamedTuple, Generic[Made]):
    read: Made
    others: list[Completion]


class Stepped(NamedTuple):
    ticket: Ticket
    wait: float = 0.0  # seconds until the next step
    also: tuple[str, ...] = ()  # other batches of the same call


class Pages(Protocol):
    """In any order; repeated and foreign lines are only counted."""

    repeated: int
    foreign: int

    def page(self) -> Page[list[Any]] | None:
        """None at the end. Blocks."""
        ...

    def close(self) -> None: ...
