"""429s that come at random, told from those of a limit, in a loop whose time is simulated."""

import asyncio
import random

import pytest
from gates import OK, Provider, Scene, now, refusal, rows_refused_at_random
from hypothesis import given
from hypothesis import strategies as st

from batchrun.limits import Limits, Throttle
from batchrun.limits.random_429s import Random429Detector

pytestmark = pytest.mark.looptime(noop_cycles=0)  # nothing comes from outside: time need not wait for it


def of_rates() -> Random429Detector:
    """A detector as the learnt rate has it."""
    return Random429Detector(certain=0.0, clear=0.98, depth=(2.0, 0.05), strays_at_most=0.1)


@pytest.mark.parametrize("share", [0.03, 0.1])
@pytest.mark.parametrize("seconds", [None, 0.2])
async def test_429s_at_random_do_not_slow_the_run_down_more_and_more(share: float, seconds: float | None) -> None:
    done = await rows_refused_at_random(Scene(Limits(cap=16)), 1600, share, refusal(seconds=seconds), seed=5)
    middle, end = done[799], done[-1]
    assert end - middle <= middle
    assert end - middle <= 800 / (160 * (0.5 if seconds is None else 0.1))


@pytest.mark.parametrize("throttle", [Throttle.REQUESTS, Throttle.CONCURRENCY])
async def test_a_wait_announced_at_random_is_kept_by_everybody_and_when_chance_is_known_by_its_row(
    throttle: Throttle,
) -> None:
    scene, detector, until, closed, alone = Scene(Limits(cap=16)), random.Random(5), 0.0, 0, list[float]()

    async def row() -> None:
        nonlocal until, closed
        while True:
            permit = await scene.gate.leave(await scene.gate.admit(1))
            assert now() >= until
            await asyncio.sleep(0.1)
            refused = detector.random() < 0.05
            wait = scene.gate.settle(permit, refusal(throttle, 0.5) if refused else OK)
            if not refused:
                return
            if wait:
                assert wait == 0.5
                alone.append(wait)
                await asyncio.sleep(wait)
            else:
                closed += 1
                until = now() + 0.5

    await asyncio.gather(*(row() for _ in range(2_000)))
    assert closed <= 20
    assert len(alone) >= 60


@pytest.mark.parametrize("throttle", [Throttle.UNKNOWN, Throttle.CONCURRENCY])
@pytest.mark.parametrize("seconds", [None, 1.0])
@pytest.mark.parametrize("share", [0.005, 0.05])
async def test_429s_at_random_cost_a_run_little(share: float, seconds: float | None, throttle: Throttle) -> None:
    """As many rows as a minute holds; what is possible is reckoned with those rows alone delayed that meet one."""
    done = await rows_refused_at_random(Scene(Limits(cap=16)), 9_600, share, refusal(throttle, seconds), seed=8)
    assert done[9_500] <= 9_500 / 160 / (1 - share) / 0.8


@pytest.mark.parametrize(("seconds", "used"), [(None, 0.8), (1.0, 0.72)])
async def test_a_limit_that_only_429s_show_is_not_taken_for_chance(seconds: float | None, used: float) -> None:
    scene, provider = Scene(Limits(cap=64)), Provider(rate=200.0, depth=10.0)
    await asyncio.gather(*(provider.row(scene, 0.1, refusal(Throttle.UNKNOWN, seconds)) for _ in range(10_000)))
    assert now() < 50 / used
    assert len(provider.refused) < 0.005 * 10_000


@given(st.floats(1, 1_000), st.lists(st.floats(0.1, 2.0), max_size=400))
def test_a_limit_that_refuses_all_above_it_and_nothing_below_is_never_chance(limit: float, parts: list[float]) -> None:
    detector = of_rates()
    for left, part in enumerate(parts):
        if part <= 1.0:
            detector.answered(part * limit, left)
        else:
            assert not detector.refused(part * limit, left)
    assert detector.share == 0.0


@given(st.floats(0.001, 0.3), st.lists(st.booleans(), max_size=200))
def test_a_dozen_429s_in_a_row_are_never_chance(share: float, answers: list[bool]) -> None:
    detector = of_rates()
    detector.known(share, sure=True)
    for left, answered in enumerate(answers):
        if answered:
            detector.answered(10.0, left)
        else:
            detector.refused(10.0, left)
    assert not all(detector.refused(10.0, 1_000) for _ in range(12))


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05])
def test_429s_that_go_on_at_a_smaller_size_are_chance_by_the_third(share: float) -> None:
    detector, source = of_rates(), random.Random(1)
    for left in range(300):
        detector.answered(100.0, left)
    for left in range(300, 800 + int(8 / share)):
        if source.random() < share:
            detector.refused(50.0, left)
        else:
            detector.answered(50.0, left)
    assert share / 4 <= detector.share <= share * 4


def test_what_a_window_let_through_after_it_was_used_up_proves_no_rate() -> None:
    """Nothing for twenty seconds, then 200 at 90 a second: those refused at half of that are refused by a limit."""
    detector = of_rates()
    detector.believe(20.0)
    for left in range(200):
        detector.answered(90.0, left)
    assert not any(detector.refused(45.0, 200) for _ in range(4))
    assert not detector.share


@pytest.mark.parametrize("seconds", [None, 1.0])
async def test_one_refusal_in_ten_that_names_concurrency_does_not_close_the_window(seconds: float | None) -> None:
    """A number that was let through is no limit: a few refusals beside fewer show chance before all are sent one by one."""
    scene = Scene(Limits(cap=64))
    done = await rows_refused_at_random(scene, 6_400, 0.1, refusal(Throttle.CONCURRENCY, seconds), seed=3)
    assert done[-1] < 55.0
