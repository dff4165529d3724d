"""The path of a row as tables: its state × what an attempt returned → the next step. Pure.

`first_step` of a row from the queue:

    shares the outcome of an equal request                  FINISH
    has a request: a retry, or a follow-up                  SEND
    is a divided text whose pieces are done                 PUT_TOGETHER
    its request is left blank                               FINISH_BLANK
    has a reply: in the journal, or to an equal request     JUDGE
    else                                                    SEND

An attempt returns a reply or failure, which `retry.decide` turns into a verdict, or neither: it was not sent
(`Unsent`), or its batch has no answer (`CompletionKind`). The first step in `NEXT` whose guard holds is taken; a
missing combination raises at once.
"""

from collections.abc import Callable
from enum import Enum, auto

from batchrun import retry
from batchrun.engine.pending_queue import RowState
from batchrun.lanes.executor import CompletionKind
from batchrun.models import FRESH
from batchrun.retry import AskAgain, Done, GiveUp, Next, RetryIn, StopRun, Verdict


class Source(Enum):
    LIVE = auto()  # An exchange of its own
    KEPT = auto()  # A reply in the journal, or of an equal request
    UNSENDING = auto()  # The same in a run that sends nothing: rows whose reply is not accepted are left as they are
    BATCH = auto()  # A line of a provider's batch


class Unsent(Enum):
    HANDED_BACK = auto()  # Its lane takes no rows now
    TOO_LARGE = auto()  # Larger than a limit of its lane
    FILE_CHANGED = auto()
    NO_BUDGET = auto()  # Its worst case will never fit into the budget


class Step(Enum):
    SEND = auto()
    JUDGE = auto()
    PUT_TOGETHER = auto()
    FINISH = auto()
    FINISH_BLANK = auto()
    POST = auto()  # To post-processing, which finishes it
    PUT_BACK = auto()  # Into the queue, to be sent after the verdict's seconds
    ELSEWHERE = auto()  # Into the queue, for another lane
    ASK = auto()  # Into the queue with another request
    LEAVE = auto()  # It stays as it is in the journal
    LEAVE_PENDING = auto()  # The same; it is handed out again once its batch is settled
    DIVIDE = auto()  # Its text was cut off: it waits for its pieces
    HOLD = auto()
    FALL_BACK = auto()  # To the fallback lane, with its first request
    FAIL = auto()
    STOP = auto()  # The run ends; the row stays pending
    STOP_LATER = auto()  # The same, once the other lines of its batch are ingested


class Guard(Enum):
    """Evaluated only when needed."""

    POSTS = auto()  # There is post-processing
    CUT_OFF = auto()  # Its reply was cut off, and its text can be divided
    IN_DOUBT = auto()  # The cause may be the run's: held back until a request sent later succeeds
    HAS_FALLBACK = auto()  # It failed for its own reason, and a fallback takes it
    FITS_ELSEWHERE = auto()
    TRIES_LEFT = auto()  # It has attempts left after this one


_Guarded = tuple[Guard | None, Step]
_FINISH: tuple[_Guarded, ...] = ((Guard.POSTS, Step.POST), (None, Step.FINISH))
_GIVE_UP: tuple[_Guarded, ...] = (
    (Guard.CUT_OFF, Step.DIVIDE),
    (Guard.IN_DOUBT, Step.HOLD),
    (Guard.HAS_FALLBACK, Step.FALL_BACK),
    (None, Step.FAIL),
)
_FAIL: tuple[_Guarded, ...] = ((Guard.CUT_OFF, Step.DIVIDE), (None, Step.FAIL))

NEXT: dict[tuple[type[Verdict] | Unsent | CompletionKind, Source], tuple[_Guarded, ...]] = {
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
    (CompletionKind.LOST, Source.BATCH): ((Guard.TRIES_LEFT, Step.LEAVE_PENDING), (None, Step.FAIL)),
    (CompletionKind.UNSENT, Source.BATCH): ((None, Step.LEAVE_PENDING),),
    (CompletionKind.GONE, Source.BATCH): ((None, Step.LEAVE_PENDING),),
}


def first_step(state: RowState, *, reduces: bool) -> Step:
    """`reduces`: its parts go into a request."""
    if state.shared_outcome is not None:
        return Step.FINISH
    row = state.row
    if state.request is not None or (row.history is FRESH and row.reused is None and row.parts is None):
        return Step.SEND
    if row.parts is not None and not reduces:
        return Step.PUT_TOGETHER
    sends = retry.resume_step(row.history, reused=row.reused is not None) is Next.SEND
    return Step.SEND if sends else Step.JUDGE


def next_step(came: type[Verdict] | Unsent | CompletionKind, source: Source, holds: Callable[[Guard], bool]) -> Step:
    for guard, step in NEXT[came, source]:
        if guard is None or holds(guard):
            return step
    raise AssertionError(f"no step for {came} from {source}")
