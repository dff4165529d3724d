"""Which lane a row goes to, and when it goes to none: a table, and what holds for any lanes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.engine.assignment import LaneView, RowView, Wait, assign, to_recall
from batchrun.events import WaitReason

FAST = LaneView(room=4, seconds=1.0, rate=4.0)
SLOW = LaneView(room=4, seconds=60.0, rate=0.1)
FULL_FAST = FAST._replace(room=0, wait=0.25)
CLOSED = LaneView(open=False, reason=WaitReason.DOWN, until=9.0)
ROW = RowView()


@pytest.mark.parametrize(
    ("row", "lanes", "left", "lane"),
    [
        (ROW, [SLOW, FAST], 1000, 1),  # the one that answers soonest
        (ROW, [SLOW, FULL_FAST], 1000, 0),  # a free lane is used while there are many rows
        (ROW, [SLOW, FULL_FAST], 10, None),  # the last rows wait for the fast one, which is through before the slow one
        (ROW, [FAST, FAST._replace(load=-0.5)], 1, 1),  # of two alike the one with more room
        (ROW, [LaneView(room=1), FAST], 1000, 0),  # one of which nothing is known is tried
        (ROW, [CLOSED, SLOW], 1, 1),
        (ROW, [CLOSED], 1, None),
        (
            ROW,
            [FAST._replace(wait=30.0), SLOW._replace(seconds=5.0)],
            1000,
            1,
        ),  # its rate lets nothing leave for a while
        (ROW, [FAST._replace(rank=2), SLOW._replace(rank=1)], 1000, 1),  # what the policy prefers
        (ROW, [FAST._replace(rank=2), SLOW._replace(rank=1, room=0)], 1000, None),
        (ROW, [FAST._replace(rank=2), CLOSED._replace(rank=1)], 1000, 0),  # it has failed: the next one
        (ROW, [FAST._replace(rank=2), SLOW._replace(rank=1, trying=True, room=0)], 1000, 0),
        (RowView(failed_at=frozenset({1})), [SLOW, FAST], 1, 0),  # another lane than the one that failed under it
        (RowView(failed_at=frozenset({0, 1})), [SLOW, FAST], 1, 1),
        (RowView(failed_at=frozenset({1})), [CLOSED, FAST], 1, 1),
        (RowView(only=frozenset({0})), [SLOW, FAST], 1, 0),
        (RowView(only=frozenset({0})), [CLOSED, FAST], 1, None),
        (
            RowView(cached_at=frozenset({0})),
            [FAST._replace(seconds=2.0), FAST],
            1000,
            0,
        ),  # its beginning is in that cache
        (RowView(cached_at=frozenset({0})), [FULL_FAST, FAST], 1000, 1),  # nothing stands still for it
    ],
)
def test_a_row_goes_where_it_is_answered_soonest(
    row: RowView, lanes: list[LaneView], left: int, lane: int | None
) -> None:
    found = assign([row], lanes, left)
    assert found == [(0, lane)] if lane is not None else isinstance(found, Wait)


def test_a_wait_names_what_ends_first() -> None:
    later = LaneView(reason=WaitReason.REQUESTS, until=20.0)
    assert assign([ROW], [later, LaneView(reason=WaitReason.THROTTLED, until=12.0)], 5) == (WaitReason.THROTTLED, 12.0)
    assert assign([ROW], [CLOSED], 5) == (WaitReason.DOWN, 9.0)


def test_rows_that_begin_alike_are_put_off_for_others_but_not_for_nothing() -> None:
    alike, other = RowView(cached_at=frozenset({1})), ROW
    lanes = [FAST._replace(room=1), FULL_FAST]
    assert assign([alike, other], lanes, 1000) == [(1, 0)]
    assert assign([alike, alike], lanes, 1000) == [(0, 0)]


@pytest.mark.parametrize(
    ("lanes", "waiting", "left", "recalled"),
    [
        ([FAST, SLOW], [0, 2], 1000, [1]),  # no other row waits, and one lane is idle
        ([FULL_FAST, SLOW], [2, 2], 1000, []),
        ([FULL_FAST, SLOW], [2, 2], 20, [1]),  # the last rows need not wait where it takes longest
        ([FULL_FAST, SLOW], [2, 2], 230, []),
        ([FAST, FAST._replace(wait=0.5, room=0)], [0, 3], 1000, []),  # not for half a second
        ([FAST, FAST._replace(wait=30.0, room=0)], [0, 3], 1000, [1]),
        ([CLOSED, SLOW], [0, 2], 1000, []),
        ([FAST._replace(rank=2), SLOW._replace(rank=1)], [0, 2], 1000, []),  # not to one that the policy prefers less
    ],
)
def test_rows_that_wait_at_a_lane_are_recalled_where_others_are_idle(
    lanes: list[LaneView], waiting: list[int], left: int, recalled: list[int]
) -> None:
    assert to_recall(lanes, waiting, left, spare=True) == recalled


seconds = st.floats(0, 1000)
rates = st.just(0.0) | st.floats(1e-3, 1000)
numbers = st.frozensets(st.integers(0, 3))
views = st.builds(
    LaneView, st.booleans(), st.booleans(), st.integers(-3, 5), seconds, seconds, rates, st.floats(0, 1), st.floats(0, 2)
)  # fmt: skip


@settings(max_examples=60)
@given(
    st.lists(st.builds(RowView, numbers, st.none() | numbers, numbers), max_size=12),
    st.lists(views, min_size=1, max_size=4),
    st.integers(0, 10**6),
)
def test_any_leases_fit_the_lanes(rows: list[RowView], lanes: list[LaneView], left: int) -> None:
    found = assign(rows, lanes, left)
    if isinstance(found, Wait):
        return
    taken = [row for row, _ in found]
    assert len(set(taken)) == len(taken)
    for number, view in enumerate(lanes):
        given_to = [row for row, lane in found if lane == number]
        assert len(given_to) <= max(0, view.room) * view.open
        assert all(rows[row].only is None or number in (rows[row].only or ()) for row in given_to)


@settings(max_examples=60)
@given(st.lists(views, min_size=1, max_size=4))
def test_with_many_rows_no_lane_that_is_preferred_stays_idle(lanes: list[LaneView]) -> None:
    usable = [view._replace(open=True, trying=False, rank=0.0) for view in lanes]
    found = assign([ROW] * 100, usable, 10**9)
    free = sum(max(0, view.room) for view in usable)
    assert free == (0 if isinstance(found, Wait) else len(found))
