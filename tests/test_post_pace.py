"""How long rows of post-processing take, and what follows from that."""

import pytest

from batchrun.post.pace import LARGEST, PROBE, Pace
from batchrun.post.reply import KEPT, Done


def done(rows: int, each: float, *, first: float = 0.0, pause: float = 0.0) -> Done:
    work = rows * each + first
    return Done([KEPT] * rows, work + pause, first or each, {}, processor=work)


def probed(each: float) -> Pace:
    pace = Pace()
    for _ in range(PROBE):
        pace.learn(done(1, each))
    assert pace.to_probe == 0
    return pace


@pytest.mark.parametrize(("each", "slow"), [(20e-6, False), (90e-6, False), (150e-6, True), (1e-3, True)])
def test_the_first_rows_decide(each: float, *, slow: bool) -> None:
    assert probed(each).is_slow is slow


def test_it_is_decided_as_soon_as_it_is_certain() -> None:
    pace = Pace()
    pace.learn(done(4, 1e-3))
    assert pace.is_slow


def test_a_first_call_that_imports_something_does_not_count_then_or_later() -> None:
    pace = Pace()
    pace.learn(done(PROBE, 20e-6, first=0.04))
    assert not pace.is_slow
    pace.learn(done(22, 20e-6))
    assert not pace.is_slow


@pytest.mark.parametrize("rows", [1, 22])
def test_a_pause_of_a_busy_machine_does_not_pass_for_slow_rows(rows: int) -> None:
    pace = probed(20e-6)
    for _ in range(3):
        pace.learn(done(rows, 20e-6, pause=0.02))
    for _ in range(20_000 // rows):
        pace.learn(done(rows, 20e-6))
        assert not pace.is_slow


def test_a_pause_while_the_first_rows_are_timed_does_not_either() -> None:
    pace = Pace()
    for _ in range(PROBE):
        pace.learn(done(1, 20e-6, pause=0.1))
    assert not pace.is_slow


def test_rows_that_wait_for_something_are_noticed_after_the_first() -> None:
    pace = Pace()
    for _ in range(PROBE + 20):
        pace.learn(done(1, 20e-6, pause=0.02))
    assert pace.is_slow


@pytest.mark.parametrize("rows", [1, 50, 2000])
def test_rows_that_become_slow_later_are_noticed_within_half_a_second_of_work(rows: int) -> None:
    pace = probed(20e-6)
    seconds = 0.0
    while not pace.is_slow:
        pace.learn(done(rows, 250e-6))
        seconds += rows * 250e-6
    assert seconds <= 0.5


def test_a_shard_is_50_ms_of_work_and_never_too_many_rows() -> None:
    assert Pace().size == 1
    assert probed(200e-6).size == pytest.approx(250, abs=1)
    assert probed(1.0).size == 1
    assert probed(1e-9).size == LARGEST


def test_rows_that_end_later_count_with_the_time_spent_until_then() -> None:
    pace = Pace()
    pace.learn(Done([], 0.01, 0.0, {}))
    pace.learn(done(1, 0.01))
    assert pace.size == pytest.approx(2, abs=1)
