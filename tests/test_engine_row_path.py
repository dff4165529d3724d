"""The path of a row as tables: what follows from each completion, and what an attempt gives back when it is cancelled."""

import itertools
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.engine.attempt import Attempt, Phase
from batchrun.engine.pending_queue import RowState
from batchrun.engine.row_path import NEXT, Guard, Source, Step, Unsent, first_step, next_step
from batchrun.lanes.executor import CompletionKind
from batchrun.models import JUST_DONE, Exchange, History, Pending, Request
from batchrun.retry import AskAgain, Done, GiveUp, RetryIn, StopRun

VERDICTS = (Done, RetryIn, AskAgain, GiveUp, StopRun)
TABLE = [
    (Done, Source.LIVE, {Guard.POSTS}, Step.POST),
    (Done, Source.BATCH, {}, Step.FINISH),
    (RetryIn, Source.LIVE, {}, Step.PUT_BACK),
    (RetryIn, Source.UNSENDING, {}, Step.LEAVE),
    (RetryIn, Source.BATCH, {}, Step.LEAVE_PENDING),
    (AskAgain, Source.KEPT, {}, Step.ASK),
    (AskAgain, Source.BATCH, {}, Step.LEAVE_PENDING),
    (GiveUp, Source.LIVE, {Guard.CUT_OFF, Guard.IN_DOUBT, Guard.HAS_FALLBACK}, Step.DIVIDE),
    (GiveUp, Source.LIVE, {Guard.IN_DOUBT, Guard.HAS_FALLBACK}, Step.HOLD),
    (GiveUp, Source.LIVE, {Guard.HAS_FALLBACK}, Step.FALL_BACK),
    (GiveUp, Source.LIVE, {}, Step.FAIL),
    (GiveUp, Source.BATCH, {Guard.IN_DOUBT, Guard.HAS_FALLBACK}, Step.FAIL),
    (GiveUp, Source.UNSENDING, {Guard.CUT_OFF}, Step.FAIL),
    (StopRun, Source.LIVE, {}, Step.STOP),
    (StopRun, Source.BATCH, {}, Step.STOP_LATER),
    (Unsent.HANDED_BACK, Source.LIVE, {}, Step.PUT_BACK),
    (Unsent.TOO_LARGE, Source.LIVE, {Guard.FITS_ELSEWHERE, Guard.IN_DOUBT}, Step.ELSEWHERE),
    (Unsent.TOO_LARGE, Source.LIVE, {}, Step.FAIL),
    (Unsent.FILE_CHANGED, Source.LIVE, {}, Step.LEAVE),
    (Unsent.NO_BUDGET, Source.LIVE, {}, Step.STOP),
    (CompletionKind.LOST, Source.BATCH, {Guard.TRIES_LEFT}, Step.LEAVE_PENDING),
    (CompletionKind.LOST, Source.BATCH, {}, Step.FAIL),
    (CompletionKind.GONE, Source.BATCH, {}, Step.LEAVE_PENDING),
]


@pytest.mark.parametrize(("came", "source", "holding", "step"), TABLE)
def test_what_follows_from_a_completion(came: Any, source: Source, holding: Collection[Guard], step: Step) -> None:
    assert next_step(came, source, lambda guard: guard in holding) is step


def test_each_verdict_has_a_line_for_each_source_and_each_line_an_end() -> None:
    assert {*itertools.product(VERDICTS, Source)} <= {*NEXT}
    assert all(line[-1][0] is None for line in NEXT.values())


@given(line=st.sampled_from([*NEXT]), holding=st.sets(st.sampled_from(Guard)))
def test_only_a_run_that_sends_hands_rows_out_again_and_a_batch_never_does(line: Any, holding: set[Guard]) -> None:
    step = next_step(*line, lambda guard: guard in holding)
    if line[1] in (Source.UNSENDING, Source.BATCH):
        assert step not in (Step.PUT_BACK, Step.ASK, Step.ELSEWHERE, Step.SEND)
    if line[1] is Source.BATCH:
        assert step is not Step.HOLD


def state_of(**changes: Any) -> RowState:
    history = History(0, 0, 0, 0, False, None)._replace(**changes.pop("history", {}))
    return RowState(Pending(1, 1, 1, "k", "{}", history), 0, 0, 0, 0, **changes)


REQUEST = Request("chat", b"{}", None)  # type: ignore[arg-type]


def test_how_a_row_stands_says_what_is_done_with_it_first() -> None:
    assert first_step(state_of(shared_outcome=JUST_DONE, request=REQUEST), reduces=False) is Step.FINISH
    assert first_step(state_of(request=REQUEST, history={"reply": "{}"}), reduces=False) is Step.SEND
    assert first_step(state_of(history={"reply": "{}"}), reduces=False) is Step.JUDGE
    assert first_step(state_of(), reduces=False) is Step.SEND


class Calls:
    """Stands for everything that an attempt takes from, and keeps what it is told."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *said, **_: self.made.append(f"{name} {said[2].cause}" if name == "end" else name)


EXCHANGE = Exchange(200, {}, b"{}", 0.0, 1.0, None, "", True)
CANCELLED = {
    Phase.WAITS: ["admitted", "answered", "released", "cancel permit", "cancel", "end stopped before it left"],
    Phase.ADMITTED: ["answered", "released", "cancel permit", "cancel", "end stopped before it left"],
    Phase.LEFT: ["answered", "released", "cancel permit", "lose", "lose line"],
    Phase.ANSWERED: ["released", "cancel permit", "lose", "end internal error"],
    Phase.OVER: [],
}


@pytest.mark.parametrize("phase", Phase)
def test_cancel_undoes_what_an_attempt_has_once(phase: Phase) -> None:
    calls = Calls()
    gate = SimpleNamespace(cancel=lambda _: calls.made.append("cancel permit"))
    journal = SimpleNamespace(end=calls.end, lose=lambda *_: calls.made.append("lose line"))
    lane: Any = SimpleNamespace(gate=gate, sending=SimpleNamespace(tiers=calls))
    attempt = Attempt(SimpleNamespace(pool=calls, guard=calls, journal=journal), state_of(), lane)  # type: ignore[arg-type]
    attempt.phase, attempt.permit, attempt._begun = phase, object(), object()  # type: ignore[assignment]
    attempt.reservation = SimpleNamespace(cost=5, tokens=7)  # type: ignore[assignment]
    if phase is Phase.ANSWERED:
        attempt.exchange = EXCHANGE
    attempt.cancel()
    assert calls.made == CANCELLED[phase]
    attempt.cancel()
    assert calls.made == CANCELLED[phase]
    if phase is Phase.ANSWERED:
        assert (attempt.charge.cost, attempt.charge.tokens) == (5, 7)
