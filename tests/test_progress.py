"""One picture of a run: whatever happens, every row is counted once and nothing is negative."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import ExitCode
from batchrun.events import (
    AttemptEnded,
    AttemptStarted,
    Draining,
    Event,
    LaneChanged,
    LaneState,
    LimitsChanged,
    Resumed,
    RowFinished,
    RowLost,
    RunEnded,
    RunStarted,
    Waiting,
    WaitReason,
)
from batchrun.models import Flag, Outcome, State, Totals, Usage
from batchrun.progress import SETTLED, WINDOW, Fold, Progress
from batchrun.report.reporters import progress_values
from batchrun.report.words import lanes_not_open

DONE = Outcome(State.DONE, True, None, None, frozenset(), None)
CUT = DONE._replace(flags=frozenset({Flag.TRUNCATED}))
FOR_NOW = Outcome(State.FAILED, False, "503", "overloaded", frozenset(), None)
FOR_GOOD = FOR_NOW._replace(permanent=True)
USAGE = Usage(10, 5, 0, 0)


def started(at: float = 0.0, **totals: int) -> RunStarted:
    return RunStarted("r1", Totals(**{"rows": 10, **totals}), "host", "m", False, at)


def ended_attempt(seq: int, at: float = 0.0, **changes: Any) -> AttemptEnded:
    return AttemptEnded(seq, seq, 1, at, 200, None, False, False, True, False, 0.1, USAGE)._replace(**changes)


def picture(*events: Event, now: float = 1.0) -> Progress:
    fold = Fold()
    for event in events:
        fold(event)
    return fold.snapshot(now)


def finished(seq: int, outcome: Outcome = DONE, at: float = 0.0) -> RowFinished:
    return RowFinished(seq, seq, seq, f"k{seq}", at, outcome)


def adds_up(progress: Progress) -> bool:
    parts = (progress.done, progress.failed, progress.skipped, progress.unknown, progress.in_flight, progress.pending)
    return min(parts) >= 0 and sum(parts) == progress.rows


def test_replies_and_their_cost_are_told_by_tier_with_those_of_earlier_sessions() -> None:
    flex = USAGE._replace(tier="flex")
    before = started()._replace(tiers={"flex": (2, 20)})
    story = [ended_attempt(1, usage=flex, cost=5), ended_attempt(2, cost=9), ended_attempt(3, usage=flex)]
    assert picture(before, *story).tiers == {"flex": (4, 25)}
    values = progress_values(picture(before, *story))
    assert (values["tiers"], values["cost_by_tier"]) == ({"flex": 4}, {"flex": 25e-12})


def test_a_row_is_pending_then_in_flight_then_done() -> None:
    story: list[Event] = [started(), AttemptStarted(1, 1, 1, 0.0), ended_attempt(1), finished(1)]
    shown = [picture(*story[:count]) for count in range(1, 5)]
    assert [(each.pending, each.in_flight, each.done) for each in shown] == [
        (10, 0, 0),
        (9, 1, 0),
        (10, 0, 0),
        (9, 0, 1),
    ]
    assert (shown[-1].input_tokens, shown[-1].output_tokens, shown[-1].attempts) == (10, 5, 1)


def test_earlier_sessions_are_in_the_counts_of_rows() -> None:
    shown = picture(started(rows=10, done=4, failed=1, retryable=1, skipped=2, truncated=1), finished(9, CUT))
    assert (shown.done, shown.failed, shown.skipped, shown.truncated, shown.finished_here) == (5, 1, 2, 2, 1)
    assert adds_up(shown)


def test_failures_are_counted_by_cause_and_retries_apart_from_429s() -> None:
    shown = picture(
        started(),
        ended_attempt(1, status=503, cause="503", retry=True, paid=False, usage=None, possibly_billed=True),
        ended_attempt(2, status=429, cause="429", throttled=True, retry=True, paid=False, usage=None),
        ended_attempt(3, status=400, cause="400 x", paid=False, usage=None),
        finished(3, FOR_GOOD),
        finished(1, FOR_NOW),
    )
    assert (shown.retries, shown.throttled, shown.possibly_billed) == (1, 1, 1)
    assert shown.causes == {"503": 1, "429": 1, "400 x": 1}
    assert (shown.failed, shown.retryable) == (2, 1)


def test_a_wait_is_shown_until_requests_leave_again() -> None:
    wait = Waiting(WaitReason.THROTTLED, 30.0, 1.0)
    assert picture(started(), wait).waiting is wait
    assert picture(started(), wait, Resumed(2.0)).waiting is None


def test_what_is_lost_is_unknown() -> None:
    shown = picture(started(), AttemptStarted(1, 1, 1, 0.0), RowLost(1, 1, 0.0))
    assert (shown.unknown, shown.in_flight, shown.pending) == (1, 0, 9)


def test_rates_and_eta_need_some_seconds_of_sending() -> None:
    fold = Fold()
    fold(started())
    assert fold.snapshot(0.1).eta is None
    for second in range(1, 6):
        fold(finished(second, at=float(second)))
        fold.snapshot(float(second))
    shown = fold.snapshot(5.0)
    assert shown.row_rate == 1.0
    assert shown.eta == 5.0
    assert SETTLED <= shown.elapsed == 5.0


@pytest.mark.parametrize(
    ("wait", "eta"),
    [
        (Waiting(WaitReason.THROTTLED, 8.0, 5.0, "slow down"), None),
        (Waiting(WaitReason.DOWN, 6.0, 5.0), None),
        (Waiting(WaitReason.PAUSED, None, 5.0), None),
        (Waiting(WaitReason.CONCURRENCY, None, 5.0), None),
        (Waiting(WaitReason.REQUESTS, 8.0, 5.0), 5.0),
    ],
)
def test_there_is_no_eta_where_nothing_leaves_and_no_end_is_known(wait: Waiting, eta: float | None) -> None:
    fold = Fold()
    fold(started())
    for second in range(1, 6):
        fold(finished(second, at=float(second)))
        fold.snapshot(float(second))
    fold(wait)
    assert fold.snapshot(5.0).eta == eta
    fold(Resumed(5.0))
    assert fold.snapshot(5.0).eta == 5.0


def test_a_rate_forgets_what_is_long_past() -> None:
    fold = Fold()
    fold(started(rows=1000))
    for second in range(100):
        if second < 50:
            fold(finished(second, at=float(second)))
        fold.snapshot(float(second))
    assert fold.snapshot(50 + 2 * WINDOW).row_rate == 0.0


def test_the_journal_has_the_last_word() -> None:
    end = RunEnded(ExitCode.OK, Totals(rows=10, done=10), None, None, ("out.jsonl",), 9.0)
    shown = picture(started(), AttemptStarted(1, 1, 1, 0.0), finished(2), Draining(1, 5.0, "x", 1.0), end, now=9.0)
    assert (shown.done, shown.in_flight, shown.ended) == (10, 0, end)
    assert shown.finished_here == 1
    assert adds_up(shown)


limits = st.builds(LimitsChanged, *[st.integers(0, 9)] * 3, *[st.none()] * 5, st.floats(0, 100))


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[Event, float]]:
    """What an engine may tell of ten rows, with the time of each event."""
    before = draw(st.integers(0, 3))
    idle = set(range(before + 1, 11))
    flying: set[int] = set()
    now = draw(st.floats(0, 1e6))
    story: list[tuple[Event, float]] = [(started(now, done=before), now)]
    for _ in range(draw(st.integers(0, 60))):
        now += draw(st.sampled_from([0.0, 0.01, 1.0, 100.0]))
        if flying and draw(st.booleans()):
            seq = draw(st.sampled_from(sorted(flying)))
            flying.discard(seq)
            fate = draw(st.sampled_from(["again", "lost", "done", "failed"]))
            if fate == "lost":
                story.append((RowLost(seq, seq, now), now))
                continue
            story.append((ended_attempt(seq, now, retry=fate == "again"), now))
            if fate == "again":
                idle.add(seq)
            else:
                story.append((finished(seq, draw(st.sampled_from([DONE, CUT, FOR_NOW, FOR_GOOD])), now), now))
        elif idle:
            seq = draw(st.sampled_from(sorted(idle)))
            idle.discard(seq)
            flying.add(seq)
            story.append((AttemptStarted(seq, seq, 1, now), now))
        else:
            story.append((draw(limits), now))
    if draw(st.booleans()):
        story.append((RunEnded(ExitCode.OK, Totals(rows=10, done=10), None, None, (), now), now))
    return story


@given(stories())
def test_counts_always_add_up_and_nothing_is_negative(story: list[tuple[Event, float]]) -> None:
    fold = Fold()
    for event, now in story:
        fold(event)
        shown = fold.snapshot(now)
        assert adds_up(shown)
        assert shown.eta is None or shown.eta >= 0
        assert shown.row_rate >= 0
        assert shown.token_rate >= 0
        assert shown.elapsed >= 0


def test_each_lane_of_a_run_has_its_own_part_of_the_account() -> None:
    begun = started()._replace(lanes=("a", "b"))
    lost = ended_attempt(
        3, lane="b", status=0, cause="connection lost", paid=False, possibly_billed=True, usage=None, retry=True
    )
    story = (
        begun,
        ended_attempt(1, lane="a", cost=5, seconds=0.5),
        ended_attempt(2, lane="a", cost=7, seconds=1.5),
        lost,
        ended_attempt(4, lane="b", status=429, cause="429", throttled=True, paid=False, usage=None, retry=True),
        LaneChanged("b", LaneState.DOWN, "the provider is down", None, 1.0),
    )
    a, b = picture(*story).lanes
    assert (a.name, a.state, a.attempts, a.replies, a.errors, a.cost, a.seconds) == (
        "a",
        LaneState.OPEN,
        2,
        2,
        0,
        12,
        1.0,
    )
    assert (b.state, b.reason, b.attempts, b.replies) == (LaneState.DOWN, "the provider is down", 2, 0)
    assert (b.errors, b.throttled, b.possibly_billed) == (1, 1, 1)
    assert lanes_not_open(picture(*story)) == "lanes: b down"
    assert lanes_not_open(picture(begun)) == ""
