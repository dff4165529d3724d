"""The path of a row: where it stands × what came of it → what is done, as tables. Pure; `row` performs it.

Theory. A row that the queue hands out goes as far as it gets without waiting for a retry: to its outcome, back into the
queue with the time it is due, or to the end of the run. What is done with it first follows from how it stands (`first_step`):

    shares the outcome of an equal request                  FINISH
    has a request: a retry, or a second question            SEND
    is a text that was divided, and its pieces are done     PUT_TOGETHER
    its request is left blank                               FINISH_BLANK
    has a reply: in the journal, or to an equal request     JUDGE
    else                                                    SEND

Each attempt brings one completion: a reply or a failure, which `retry.decide` turns into a verdict, or none of both, since
nothing has left (`Unsent`) or a batch did not answer (`lanes.executor.Came`). What follows from it depends on where it came
from (`Source`), and is found in `NEXT`: the first step whose guard holds. So every combination has one place, and one
that is missing is an error at once, not a row that hangs.

A failure may be the run's as long as nothing has succeeded, and until a request that left after it has: it is held back
then (`HOLD`), and stands (`FAIL`) or is undone when that is known.
"""

from collections.abc import Callable
from enum import Enum, auto

from batchrun import retry
from batchrun.engine.pending_queue import RowState
from batchrun.lanes.executor import Came
from batchrun.retry import AskAgain, Done, GiveUp, Next, RetryIn, StopRun, Verdict


class Source(Enum):
    """Where a completion comes from."""

    LIVE = auto()
    """An exchange of its own."""
    KEPT = auto()
    """A reply that the journal has, or that an equal request shares."""
    UNSENDING = auto()
    """The same, in a run that sends nothing: rows whose reply does not stand are left as they are."""
    BATCH = auto()
    """A line of a provider's batch."""


class Unsent(Enum):
    """Why an attempt has not left; it is none."""

    HANDED_BACK = auto()
    """Its lane takes no more."""
    TOO_LARGE = auto()
    """No limit of its lane lets it leave, ever."""
    FILE_CHANGED = auto()
    """A file of its request is another one than was taken in."""
    NO_BUDGET = auto()
    """What it may cost does not fit into the budget, and will not."""


class Step(Enum):
    """What is done with a row."""

    SEND = auto()
    JUDGE = auto()
    PUT_TOGETHER = auto()
    FINISH = auto()
    FINISH_BLANK = auto()
    POST = auto()
    """Its reply goes to post-processing, which finishes it."""
    PUT_BACK = auto()
    """Into the queue, to be sent again after the verdict's seconds."""
    ELSEWHERE = auto()
    """Into the queue, to be sent by another lane."""
    ASK = auto()
    """Into the queue with another request."""
    LEAVE = auto()
    """It stays as it is in the journal."""
    LEAVE_PENDING = auto()
    """The same, and it is handed out again from there once its batch is settled."""
    DIVIDE = auto()
    """Its text was cut off: it waits for its pieces."""
    HOLD = auto()
    FALL_BACK = auto()
    """To the fallback lane, with its first request."""
    FAIL = auto()
    STOP = auto()
    """The run ends; the row stays pending."""
    STOP_LATER = auto()
    """The same, once the other lines of its batch are taken in."""


class Guard(Enum):
    """What must hold for a step, found out only where it is asked."""

    POSTS = auto()
    """There are functions for its reply."""
    CUT_OFF = auto()
    """It failed since its reply was cut off, and its text can be divided."""
    IN_DOUBT = auto()
    """The failure may be the run's."""
    HAS_FALLBACK = auto()
    """It failed for its own reason, and a fallback takes it."""
    FITS_ELSEWHERE = auto()
    """Another lane may take it."""
    TRIES_LEFT = auto()
    """It has attempts left after this one."""


_Guarded = tuple[Guard | None, Step]
_FINISH: tuple[_Guarded, ...] = ((Guard.POSTS, Step.POST), (None, Step.FINISH))
_GIVE_UP: tuple[_Guarded, ...] = (
    (Guard.CUT_OFF, Step.DIVIDE),
    (Guard.IN_DOUBT, Step.HOLD),
    (Guard.HAS_FALLBACK, Step.FALL_BACK),
    (None, Step.FAIL),
)
_FAIL: tuple[_Guarded, ...] = ((Guard.CUT_OFF, Step.DIVIDE), (None, Step.FAIL))

NEXT: dict[tuple[type[Verdict] | Unsent | Came, Source], tuple[_Guarded, ...]] = {
    (Done, Source.LIVE): _FINISH,
    (Done, Source.KEPT): _FINISH,
    (Done, Source.UNSENDING): _FINISH,
    (Done, Source.BATCH): _FINISH,
    (RetryIn, Source.LIVE): ((None, Step.PUT_BACK),),
    (RetryIn, Source.KEPT): ((None, Step.PUT_BACK),),
    (RetryIn, Source.UNSENDING): ((None, Step.LEAVE),),
    (RetryIn, Source.BATCH): ((None, Step.LEAVE_PENDING),),
    (AskAgain, Source.LIVE): ((None, Step.ASK),),
    (AskAgain, Source.KEPT): ((None, Step.ASK),),
    (AskAgain, Source.UNSENDING): ((None, Step.LEAVE),),
    (AskAgain, Source.BATCH): ((None, Step.LEAVE_PENDING),),
    (GiveUp, Source.LIVE): _GIVE_UP,
    (GiveUp, Source.KEPT): _GIVE_UP,
    (GiveUp, Source.UNSENDING): _GIVE_UP[1:],
    (GiveUp, Source.BATCH): _FAIL,
    (StopRun, Source.LIVE): ((None, Step.STOP),),
    (StopRun, Source.KEPT): ((None, Step.STOP),),
    (StopRun, Source.UNSENDING): ((None, Step.STOP),),
    (StopRun, Source.BATCH): ((None, Step.STOP_LATER),),
    (Unsent.HANDED_BACK, Source.LIVE): ((None, Step.PUT_BACK),),
    (Unsent.TOO_LARGE, Source.LIVE): ((Guard.FITS_ELSEWHERE, Step.ELSEWHERE), *_GIVE_UP[1:]),
    (Unsent.FILE_CHANGED, Source.LIVE): ((None, Step.LEAVE),),
    (Unsent.NO_BUDGET, Source.LIVE): ((None, Step.STOP),),
    (Came.LOST, Source.BATCH): ((Guard.TRIES_LEFT, Step.LEAVE_PENDING), (None, Step.FAIL)),
    (Came.UNSENT, Source.BATCH): ((None, Step.LEAVE_PENDING),),
    (Came.GONE, Source.BATCH): ((None, Step.LEAVE_PENDING),),
}


def first_step(state: RowState, *, reduces: bool) -> Step:
    """What is done with a row that is handed out; `reduces` is whether the parts of a row go into a request."""
    if state.given is not None:
        return Step.FINISH
    if state.request is not None:
        return Step.SEND
    if state.row.parts is not None and not reduces:
        return Step.PUT_TOGETHER
    sends = retry.go_on(state.row.history, reused=state.row.reused is not None) is Next.SEND
    return Step.SEND if sends else Step.JUDGE


def next_step(came: type[Verdict] | Unsent | Came, source: Source, holds: Callable[[Guard], bool]) -> Step:
    """What is done after a completion: the first step of its line whose guard holds."""
    for guard, step in NEXT[came, source]:
        if guard is None or holds(guard):
            return step
    raise AssertionError(f"no step for {came} from {source}")
