"""Which answers are refusals, and what those that do not say it are about."""

import asyncio
import itertools
import random
from collections import deque

import pytest
from gates import OK, Provider, Scene, now, refusal
from hypothesis import given
from hypothesis import strategies as st

from batchrun.limits import Feedback, Hints, Limits, Permit, Throttle, hints
from batchrun.limits.headers import Stated
from batchrun.limits.refusals import BUSY, Cause, Facts, Unnamed, is_refusal

NONE = Hints()
ANNOUNCED = Hints(retry_after=2.0)
NONE_LEFT = Hints(limits=(Stated("r", "requests", 60, 0),))
SOME_LEFT = Hints(limits=(Stated("r", "requests", 60, 3),))

IS_A_REFUSAL = [
    # status, said, seconds, of replies, beside it, whether
    (429, NONE, 9.0, 0.5, 0, True),
    (503, NONE, 0.01, 0.5, 0, True),
    (529, NONE, 0.01, 0.5, 4, True),
    (498, NONE, 0.01, 0.5, 4, True),
    (408, NONE, 0.01, 0.5, 4, True),
    (503, NONE, 0.4, 0.5, 4, False),
    (503, NONE, 0.01, None, 4, True),
    (503, NONE, 0.01, None, 0, False),
    (503, ANNOUNCED, 9.0, None, 0, True),
    (503, NONE_LEFT, 9.0, 0.5, 0, True),
    (503, SOME_LEFT, 9.0, 0.5, 0, False),
    (503, Hints(retry_after=0.0), 9.0, 0.5, 0, False),
    (500, NONE, 0.01, 0.5, 4, False),
    (502, ANNOUNCED, 0.01, 0.5, 4, False),
    (504, NONE, 0.01, 0.5, 4, False),
    (400, NONE, 0.01, 0.5, 4, False),
    (200, NONE, 0.01, 0.5, 4, False),
    (0, NONE, 0.01, 0.5, 4, False),
]


@pytest.mark.parametrize("case", IS_A_REFUSAL)
def test_which_answers_are_refusals(case: tuple[int, Hints, float, float | None, int, bool]) -> None:
    status, said, took, replies, beside, expected = case
    assert is_refusal(status, said, Facts(took, replies, beside)) is expected


def test_a_body_that_says_that_the_server_is_busy_makes_any_status_one() -> None:
    sooner, later = Facts(0.01, 0.5, 4), Facts(0.4, 0.5, 4)
    assert is_refusal(500, NONE, sooner, overloaded=True)
    assert not is_refusal(500, NONE, later, overloaded=True)


@given(
    st.integers(0, 599),
    st.builds(Facts, st.floats(0, 1e6), st.one_of(st.none(), st.floats(0, 1e6)), st.integers(0, 1000)),
    st.sampled_from([NONE, ANNOUNCED, NONE_LEFT, SOME_LEFT]),
)
def test_no_other_status_is_a_refusal_and_a_slower_answer_never_sooner_one(
    status: int, facts: Facts, said: Hints
) -> None:
    refused = is_refusal(status, said, facts)
    assert not refused or status == 429 or status in BUSY
    if not refused:
        assert not is_refusal(status, said, facts._replace(took=2 * facts.took))


async def _slots(scene: Scene, slots: int, rows: int, draw: random.Random | None) -> tuple[int, int]:
    """Send rows to a server with so many slots, of half a second on average, that refuses what comes on top.

    Returns how many were refused, and the most that were in flight in the second half.
    """
    free, refused, most, done = slots, 0, 0, 0

    async def row() -> None:
        nonlocal free, refused, most, done
        while True:
            permit = await scene.send()
            if done > rows / 2:
                most = max(most, scene.gate.view().in_flight)
            if free:
                free -= 1
                await asyncio.sleep(0.5 if draw is None else draw.expovariate(2.0))
                free += 1
                done += 1
                scene.gate.settle(permit, OK)
                return
            refused += 1
            await asyncio.sleep(0.01)
            scene.gate.settle(permit, refusal(Throttle.UNKNOWN))

    await asyncio.gather(*(row() for _ in range(rows)))
    return refused, most


@pytest.mark.looptime(noop_cycles=0)
@pytest.mark.parametrize("draw", [None, random.Random(3)])
@pytest.mark.parametrize("slots", [1, 2, 3, 4, 6, 8, 20])
async def test_a_limit_of_concurrency_that_nothing_names_is_learnt(slots: int, draw: random.Random | None) -> None:
    scene, rows = Scene(Limits(cap=64)), 75 * slots
    refused, most = await _slots(scene, slots, rows, draw)
    assert now() <= 1.25 * rows * 0.5 / slots
    assert refused <= 0.12 * rows
    assert most <= slots + max(1, 0.1 * slots)


@pytest.mark.looptime(noop_cycles=0)
@pytest.mark.parametrize("seconds", [0.05, 0.5, 3.0])
async def test_a_rate_that_nothing_names_is_not_taken_for_a_limit_of_concurrency(seconds: float) -> None:
    scene, provider = Scene(Limits(cap=64)), Provider(rate=10.0, depth=1.0)
    await asyncio.gather(*(provider.row(scene, seconds, refusal(Throttle.UNKNOWN)) for _ in range(300)))
    assert now() <= 1.3 * 30 + seconds
    assert len(provider.refused) <= 0.08 * 300


@pytest.mark.looptime(noop_cycles=0)
async def test_a_bucket_that_nothing_names_refuses_few_while_its_cause_is_sought() -> None:
    scene, provider = Scene(Limits(cap=256)), Provider(rate=10.0, depth=20.0)
    await asyncio.gather(*(provider.row(scene, 0.08, refusal(Throttle.UNKNOWN)) for _ in range(300)))
    assert now() <= 1.1 * 28.1
    assert len(provider.refused) <= 0.07 * 300


@pytest.mark.parametrize(
    ("slots", "fewer", "cause"), [(8, 7, Cause.CONCURRENCY), (8, 6, Cause.OPEN), (3, 2, Cause.OPEN)]
)
def test_a_number_in_flight_that_is_known_to_be_the_limit_may_be_off_by_one_that_passes(
    slots: int, fewer: int, cause: Cause
) -> None:
    unnamed = Unnamed()

    def refused(beside: int, at: float) -> Cause:
        return unnamed.refused(Permit(1, 10.0, 10.0, True, at), beside, at - 0.4, at)

    assert [refused(slots, at) for at in (0.0, 5.0, 10.0)][-1] is Cause.CONCURRENCY
    assert refused(fewer, 15.0) is cause


class _Sliding:
    """So many within any time of so many seconds; nothing names either."""

    def __init__(self, most: int, seconds: float) -> None:
        self.most, self.seconds = most, seconds
        self.let_through: deque[float] = deque()
        self.refused: list[float] = []

    async def row(self, scene: Scene) -> None:
        while True:
            permit = await scene.send()
            while self.let_through and self.let_through[0] <= now() - self.seconds:
                self.let_through.popleft()
            if len(self.let_through) < self.most:
                self.let_through.append(now())
                await asyncio.sleep(0.08)
                scene.gate.settle(permit, OK)
                return
            self.refused.append(now())
            await asyncio.sleep(0.003)
            scene.gate.settle(permit, refusal(Throttle.UNKNOWN))


@pytest.mark.looptime(noop_cycles=0)
async def test_a_window_that_nothing_names_is_tried_by_one_request_at_a_time_once_it_is_used_up() -> None:
    scene, window = Scene(Limits(cap=256)), _Sliding(200, 20.0)
    await asyncio.gather(*(window.row(scene) for _ in range(500)))
    assert now() <= 1.25 * 50
    assert len(window.refused) <= 0.06 * 500
    later = sorted(at for at in window.refused if 3.0 < at < 18.0)
    assert all(second - first > 0.5 for first, second in itertools.pairwise(later))


@pytest.mark.looptime(noop_cycles=0)
@pytest.mark.parametrize("kind", ["requests", "tokens"])
@pytest.mark.parametrize("announced", [True, False])
async def test_a_limit_that_only_the_text_of_refusals_names_makes_no_run_slower_than_they_show(
    kind: str, announced: bool
) -> None:
    """Five are let through in each window of six seconds; the text says "5 a minute"."""
    scene, ends, used, calls = Scene(Limits(cap=64)), 0.0, 0, 0

    async def row() -> None:
        nonlocal ends, used, calls
        while True:
            permit = await scene.send()
            calls += 1
            if now() >= ends:
                ends, used = now() + 6.0, 0
            if used < 5:
                used += 1
                await asyncio.sleep(0.05)
                scene.gate.settle(permit, OK)
                return
            wait = ends - now() if announced else None
            await asyncio.sleep(0.01)
            text = f'"on {kind} per minute (RPM): Limit 5, Used 5. "'.encode()
            said = hints({}, 429, text)._replace(retry_after=wait)
            scene.gate.settle(permit, Feedback(said, Throttle.REQUESTS))

    await asyncio.gather(*(row() for _ in range(30)))
    assert now() <= (1.25 if announced else 2.0) * 30
    assert calls <= 1.5 * 30


@pytest.mark.looptime(noop_cycles=0)
async def test_a_run_gets_fast_again_soon_after_refusals_that_no_slowing_down_cured() -> None:
    """For eight seconds every second row is refused, whatever the rate; then nobody is."""
    scene, done = Scene(Limits(cap=64)), list[float]()

    async def row(number: int) -> None:
        while True:
            permit = await scene.send()
            await asyncio.sleep(0.01)
            refused = number % 2 == 0 and now() < 8.0
            scene.gate.settle(permit, refusal(Throttle.UNKNOWN) if refused else OK)
            if not refused:
                done.append(now())
                return

    await asyncio.gather(*(row(number) for number in range(60)))
    assert now() <= 25.0
