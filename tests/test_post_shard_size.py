"""How long rows of post-processing take, and what follows from that."""

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.post.reply import KEPT, Done
from batchrun.post.shard_size import LARGEST, PROBE, SMALLEST, ShardSizer


def done(rows: int, each: float, *, first: float = 0.0, pause: float = 0.0) -> Done:
    work = rows * each + first
    return Done([KEPT] * rows, work + pause, first or each, {}, processor=work)


def probed(each: float) -> ShardSizer:
    sizer = ShardSizer()
    for _ in range(PROBE):
        sizer.learn(done(1, each))
    assert sizer.to_probe == 0
    return sizer


@pytest.mark.parametrize(("each", "slow"), [(20e-6, False), (90e-6, False), (150e-6, True), (1e-3, True)])
def test_the_first_rows_decide(each: float, *, slow: bool) -> None:
    assert probed(each).is_slow is slow


def test_it_is_decided_as_soon_as_it_is_certain() -> None:
    sizer = ShardSizer()
    sizer.learn(done(4, 1e-3))
    assert sizer.is_slow


def test_a_first_call_that_imports_something_does_not_count_then_or_later() -> None:
    sizer = ShardSizer()
    sizer.learn(done(PROBE, 20e-6, first=0.04))
    assert not sizer.is_slow
    sizer.learn(done(22, 20e-6))
    assert not sizer.is_slow


@pytest.mark.parametrize("rows", [1, 22])
def test_a_pause_of_a_busy_machine_does_not_pass_for_slow_rows(rows: int) -> None:
    sizer = probed(20e-6)
    for _ in range(3):
        sizer.learn(done(rows, 20e-6, pause=0.02))
    for _ in range(20_000 // rows):
        sizer.learn(done(rows, 20e-6))
        assert not sizer.is_slow


def test_a_pause_while_the_first_rows_are_timed_does_not_either() -> None:
    sizer = ShardSizer()
    for _ in range(PROBE):
        sizer.learn(done(1, 20e-6, pause=0.1))
    assert not sizer.is_slow


def test_rows_that_wait_for_something_are_noticed_after_the_first() -> None:
    sizer = ShardSizer()
    for _ in range(PROBE + 20):
        sizer.learn(done(1, 20e-6, pause=0.02))
    assert sizer.is_slow


@pytest.mark.parametrize("rows", [1, 50, 2000])
def test_rows_that_become_slow_later_are_noticed_within_half_a_second_of_work(rows: int) -> None:
    sizer = probed(20e-6)
    seconds = 0.0
    while not sizer.is_slow:
        sizer.learn(done(rows, 250e-6))
        seconds += rows * 250e-6
    assert seconds <= 0.5


def test_a_shard_is_50_ms_of_work_and_never_too_many_rows() -> None:
    assert ShardSizer().size == 1
    assert probed(200e-6).size == pytest.approx(250, abs=1)
    assert probed(1.0).size == 1
    assert probed(1e-9).size == LARGEST


def test_rows_that_end_later_count_with_the_time_spent_until_then() -> None:
    sizer = ShardSizer()
    sizer.learn(Done([], 0.01, 0.0, {}))
    sizer.learn(done(1, 0.01))
    assert sizer.size == pytest.approx(2, abs=1)


@given(rows=st.integers(1, 5000), workers=st.integers(1, 20), each=st.sampled_from([200e-6, 2e-3, 0.02]))
def test_workers_end_together_within_the_smallest_shard(rows: int, workers: int, each: float) -> None:
    sizer = probed(each)
    least = -(-sizer.size // SMALLEST)
    ends = [0.0] * workers
    sizes: list[int] = []
    while rows:
        sizes.append(sizer.share(rows, workers))
        rows -= sizes[-1]
        heapq.heapreplace(ends, ends[0] + sizes[-1] * each)
    assert max(ends) - min(ends) <= least * each * 1.01
    assert min([*sizes[:-1], least]) == least
    assert max(sizes) <= sizer.size
