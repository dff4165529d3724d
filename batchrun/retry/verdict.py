"""What can be decided about a row, and what the decision rests on beside the answer and the provider's health."""

from dataclasses import dataclass
from typing import NamedTuple

from batchrun.models import Flag


@dataclass(frozen=True, slots=True)
class Policy:
    """The user's choices that verdicts ask for; durations in seconds.

    `retry_truncated` is how often a reply that a limit of tokens has cut is asked for again, with twice the room.
    """

    max_attempts: int = 5
    schema_retries: int = 2
    give_up_after: float = 600.0
    max_wait: float | None = None
    fail_on: frozenset[Flag] = frozenset({Flag.EMPTY})
    retry_truncated: int = 0


class Tries(NamedTuple):
    """What the row has used up, this attempt included."""

    attempts: int
    deadlines: int
    asks: int


class Done(NamedTuple):
    """The reply stands."""


class RetryIn(NamedTuple):
    """Send the row again after `seconds`; `counts` is whether the attempt counts against the row."""

    seconds: float
    counts: bool


class AskAgain(NamedTuple):
    """Send the row again: with twice the room where `more_room`, else showing the model its reply and `complaint`.

    A reply without an answer shows nothing: the request is sent as it was.
    """

    complaint: str
    more_room: bool = False


class GiveUp(NamedTuple):
    """The row has failed; it is retryable where it is not `permanent`."""

    cause: str
    message: str
    permanent: bool


class StopRun(NamedTuple):
    """The run ends; this row and all others that are not finished stay pending."""

    message: str
    hint: str | None


Verdict = Done | RetryIn | AskAgain | GiveUp | StopRun
