"""A rate that only 429s show, in a loop whose time is simulated."""

import asyncio
import math
from collections.abc import Callable

import pytest
from gates import OK, PAID, Provider, Scene, now, refusal, requests

from batchrun.limits import Feedback, Hints, Limits, Permit, Throttle
from batchrun.limits.learning import Estimate, LearnedRate
from batchrun.limits.rates import Rates

pytestmark = pytest.mark.looptime(noop_cycles=0)  # nothing comes from outside: time need not wait for it


async def test_a_rate_that_only_429s_show_is_learnt() -> None:
    scene, provider = Scene(Limits(cap=32)), Provider(rate=10.0, depth=2.0)
    await asyncio.gather(*(provider.row(scene, 0.3, refusal(Throttle.UNKNOWN)) for _ in range(1000)))
    assert now() < 100 / 0.8
    assert len(provider.refused) < 50


@pytest.mark.parametrize(
    ("seconds", "least", "most"), [(0.001, 0.08, 0.25), (0.002, 0.1, 0.4), (0.02, 0.6, 1.3), (0.5, 1.4, 3.0)]
)
async def test_the_first_pace_doubles_sooner_where_a_server_answers_at_once(
    seconds: float, least: float, most: float
) -> None:
    """Seconds until 300 requests have left."""
    scene = Scene(Limits())
    await asyncio.gather(*(scene.exchange(seconds=seconds) for _ in range(300)))
    assert least <= scene.left[-1] <= most


@pytest.mark.parametrize("rate", [10.0, 100.0])
async def test_a_server_that_answers_at_once_refuses_few_though_it_says_no_limit(rate: float) -> None:
    scene, provider = Scene(Limits(cap=256)), Provider(rate=rate, depth=max(2.0, 0.05 * rate))
    await asyncio.gather(*(provider.row(scene, 0.002, refusal(Throttle.UNKNOWN)) for _ in range(400)))
    assert len(provider.refused) < 30


async def test_a_pace_that_starts_again_grows_only_while_it_holds_requests_back() -> None:
    """Not while the gate is closed: seconds later it would be without a bound."""
    pace = LearnedRate(start=True)
    pace.search_from(10.0, 0.0)
    pace._random_429s.known(0.1, sure=True)  # type: ignore[attr-defined]
    pace._start_again(0.0)  # type: ignore[attr-defined]
    closed = [pace.refresh(float(second), binding=False) for second in range(1, 20)]
    assert closed == [10.0] * 19
    assert pace.refresh(20.0, binding=True) > 100.0


@pytest.mark.parametrize("late", [0.0, 0.7, 5.0])
@pytest.mark.parametrize("seconds", [0.01, 0.2, 1.0])
async def test_two_runs_that_share_a_key_use_most_of_what_it_allows(seconds: float, late: float) -> None:
    """150 rows each over 20/s, which the headers of a shallow bucket tell; the second run begins a little later."""
    provider = Provider(rate=20.0, depth=2.0)

    async def row(scene: Scene) -> None:
        while True:
            permit = await scene.send()
            admitted = provider.admits()
            left, wait = provider.holds(), None if admitted else provider.wait(1.0)
            said = Hints(wait, (requests(2, left, provider.wait(2.0)),), not admitted)
            await asyncio.sleep(seconds)
            scene.gate.settle(permit, Feedback(said) if admitted else Feedback(said, Throttle.REQUESTS))
            if admitted:
                return

    async def run() -> None:
        scene = Scene(Limits())
        await asyncio.gather(*(row(scene) for _ in range(150)))

    first = asyncio.create_task(run())
    await asyncio.sleep(late)
    await run()
    await first
    assert now() <= 2 * 15
    assert len(provider.refused) <= 0.2 * 300


async def test_a_long_row_of_429s_does_not_leave_the_run_crawling() -> None:
    scene = Scene(Limits(cap=8))

    async def row() -> None:
        while True:
            permit = await scene.send()
            await asyncio.sleep(0.1)
            down = 5 < now() < 300
            scene.gate.settle(permit, refusal(Throttle.UNKNOWN) if down else OK)
            if not down:
                return

    await asyncio.gather(*(row() for _ in range(1500)))
    assert now() < 300 + 60 + 60


@pytest.mark.parametrize("limit", [30.0, 15.0, 5.0])
async def test_a_lower_limit_is_found_again(limit: float) -> None:
    scene, provider = Scene(Limits(cap=32)), Provider(rate=60.0, depth=2.0)
    asyncio.get_running_loop().call_later(10, setattr, provider, "rate", limit)
    rows = int(10 * 60 * 0.8 + 80 * limit)
    await asyncio.gather(*(provider.row(scene, 0.1, refusal(Throttle.UNKNOWN)) for _ in range(rows)))
    assert now() < 10 + 140
    assert len([when for when in provider.refused if when > 40]) < 0.05 * 80 * limit


def _held_low() -> tuple[LearnedRate, float]:
    """A pace that 429s have brought to 2/s, as where others use up what the headers state."""
    pace, now = LearnedRate(start=False), 0.0
    pace.refused(now, math.inf, math.inf, now)
    while pace.rate > 2.0:
        now += 20.0
        pace.refused(now, pace.rate / 2, pace.rate, now)
    return pace, now


def _after(pace: LearnedRate, now: float, seconds: float, room: Callable[[float], bool]) -> float:
    end = now + seconds
    while now < end:
        now += 0.1
        pace.note_room(room(now), now)
        pace.refresh(now, binding=True)
    return pace.rate


def test_a_rate_that_others_have_held_down_returns_when_all_answers_show_room() -> None:
    pace, now = _held_low()
    assert _after(pace, now, 15.0, lambda _: True) > 20.0
    pace, now = _held_low()
    assert _after(pace, now, 15.0, lambda at: round(at) % 3 > 0) < 4.0


def test_headers_that_show_room_and_lie_are_believed_ever_later() -> None:
    """Where they always do, a limit is felt for as often as without them, once in 15 s, and five times more."""
    pace, now = _held_low()
    end, falls = now + 600.0, 0
    while now < end:
        now += 0.1
        pace.note_room(True, now)
        if pace.refresh(now, binding=True) > 10.0:
            pace.refused(now, 10.0, 10.0, now)
            falls += 1
    assert falls <= 600 / 15 + 5


def test_a_learnt_pace_falls_once_a_burst_and_rises_again_beyond_it() -> None:
    pace = LearnedRate(start=False)
    pace.refresh(0.0, False)
    assert pace.refused(left=1.0, pace=100.0, spaced=100.0, now=2.0)
    assert not pace.refused(left=1.5, pace=100.0, spaced=100.0, now=2.1)
    fallen = pace.rate
    assert fallen == pytest.approx(93.0)
    for tenth in range(21, 600):
        pace.refresh(tenth / 10, True)
    assert pace.rate > 110
    idle = LearnedRate(start=False)
    idle.refused(left=1.0, pace=100.0, spaced=100.0, now=2.0)
    for second in range(3, 100):
        idle.refresh(second, False)
    assert idle.rate == pytest.approx(93.0)


def test_the_rate_at_the_first_429s_is_what_was_admitted_of_their_whole_burst() -> None:
    """A hundred a second leave, answers take half a second, and one in twenty is refused."""
    pace = LearnedRate(start=True)
    pace.refresh(0.0, False)
    for number in range(100):
        left, now = number / 100, number / 100 + 0.5
        if number % 20 == 19:
            pace.refused(left, 100.0, 100.0, 0.7 if number == 19 else now)
        else:
            permit = Permit(1, 100.0, 100.0, full=False, now=left)
            permit.leaving = 100.0
            pace.answered(permit)
    assert 0.7 * 95 <= pace.rate <= 0.9 * 95


@pytest.mark.parametrize(
    ("named", "left", "about"),
    [
        (Throttle.UNKNOWN, 0.0, Throttle.REQUESTS),
        (None, 0.0, Throttle.REQUESTS),
        (Throttle.UNKNOWN, 5.0, Throttle.UNKNOWN),
        (Throttle.UNKNOWN, None, Throttle.UNKNOWN),
        (Throttle.CONCURRENCY, 0.0, Throttle.CONCURRENCY),
    ],
)
def test_a_429_that_does_not_say_why_is_about_requests_where_its_headers_leave_none(
    named: Throttle | None, left: float | None, about: Throttle
) -> None:
    said = Hints(limits=(requests(600, left, 6.0),))
    assert Rates(Limits(), Estimate(), 0.0).kind(named, said, 0.0) is about


def test_estimates_follow_what_is_used() -> None:
    estimate = Estimate()
    assert estimate.of(400, 50) == 150
    for _ in range(200):
        estimate.learn(400, 80, 20)
    assert estimate.of(400, None) == pytest.approx(100, abs=1)
    assert estimate.of(400, 5) == pytest.approx(85, abs=1)


async def test_a_provider_that_charges_more_tokens_than_it_states_is_not_hammered_and_not_starved() -> None:
    scene, provider = Scene(Limits(cap=16, tpm=60_000)), Provider(rate=1_000.0, depth=1_000.0)

    async def row() -> None:
        while True:
            permit = await scene.send(100)
            admitted = provider.admits(300.0)
            await asyncio.sleep(0.2)
            scene.gate.settle(permit, PAID if admitted else refusal(Throttle.TOKENS, provider.wait(300.0)))
            if admitted:
                return

    await asyncio.gather(*(row() for _ in range(300)))
    assert now() < 90 / 0.85
    assert len(provider.refused) < 100
