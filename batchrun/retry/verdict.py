"""The verdicts on a row, and their inputs beside the answer and the provider's health."""

from dataclasses import dataclass
from typing import NamedTuple

from batchrun.models import Flag


@dataclass(frozen=True, slots=True)
class Policy:
    """The user's choices; durations in seconds.

    `retry_truncated` is how often a truncated reply is requested again, with twice the room.
    """

    max_attempts: int = 5
    schema_retries: int = 2
    give_up_after: float = 600.0
    max_wait: float | None = None
    fail_on: frozenset[Flag] = frozenset({Flag.EMPTY})
    retry_truncated: int = 0


class Tries(NamedTuple):
    """What the row has used up, including this attempt."""

    attempts: int
    deadlines: int
    asks: int


class Done(NamedTuple):
    """The reply is accepted."""


class RetryIn(NamedTuple):
    """Send the row again after `seconds`; `counts`: it uses an attempt."""

    seconds: float
    counts: bool


class AskAgain(NamedTuple):
    """Send the row again: with twice the room, or with its reply and `complaint`."""

    complaint: str
    more_room: bool = False


class GiveUp(NamedTuple):
    """The row has failed, retryable unless `permanent`."""

    cause: str
    message: str
    permanent: bool


class StopRun(NamedTuple):
    """The run ends; unfinished rows stay pending."""

    message: str
    hint: str | None


Verdict = Done | RetryIn | AskAgain | GiveUp | StopRun
