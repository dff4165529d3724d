"""How many requests may be in flight at once, in a loop whose time is simulated."""

import asyncio
import random
import statistics

import pytest
from gates import OK, Scene, now, refusal

from batchrun.events import WaitReason
from batchrun.limits import Feedback, Limits, Throttle
from batchrun.limits.concurrency import START, ConcurrencyLimiter
from batchrun.limits.records import Permit

pytestmark = pytest.mark.looptime(noop_cycles=0)  # nothing comes from outside: time need not wait for it


async def test_the_window_doubles_while_that_pays() -> None:
    open_server = Scene(Limits(cap=128))
    await asyncio.gather(*(open_server.exchange(seconds=0.5) for _ in range(900)))
    assert open_server.gate.view().allowed == 128


@pytest.mark.parametrize("slots", [1, 2, 4, 8, 20])
@pytest.mark.parametrize("seconds", [0.2, 2.0])
async def test_a_server_that_queues_has_at_most_twice_what_it_serves(slots: int, seconds: float) -> None:
    scene, free, done, most = Scene(Limits(cap=256)), asyncio.Semaphore(slots), 0, 0
    settled: list[int] = []
    rows = 75 * slots + 75

    async def row() -> None:
        nonlocal done, most
        permit = await scene.send()
        in_flight = scene.gate.view().in_flight
        most = max(most, in_flight)
        if done > 0.6 * rows:
            settled.append(in_flight)
        async with free:
            await asyncio.sleep(seconds)
        scene.gate.settle(permit, OK)
        done += 1

    await asyncio.gather(*(row() for _ in range(rows)))
    assert statistics.median(settled) <= 2 * slots
    assert most <= (2 * START + 1 if slots <= 4 else 7 * slots + START)
    assert rows * seconds / slots / now() >= 0.95


@pytest.mark.parametrize("slots", [8, 16, 32, 64])
@pytest.mark.parametrize("late", [0, 1, 3])
def test_rows_that_come_late_to_freed_slots_do_not_hide_what_a_server_can_do(slots: int, late: int) -> None:
    limiter, seconds, most = ConcurrencyLimiter(cap=512, fixed=False), 0.5, 0
    limiter.first_left(0.0)
    while seconds < 30.0:
        for number in range(8):  # answers that come at once; no row waits yet for the last slots that they free
            missing = max(0, number + 1 + late - 8)
            flying = max(0, int(limiter.size) - missing)
            permit = Permit(1, 1.0, 1.0, full=True, now=seconds - 0.5 * max(1.0, flying / slots))
            permit.flying = flying
            waited = None if missing else WaitReason.CONCURRENCY
            limiter.answered(permit, flying, seconds, waited, max(0, flying - 1))
            most = max(most, flying)
        seconds += 8 * 0.5 / min(slots, int(limiter.size))
    assert 0.9 * slots <= limiter.size <= most <= 4 * slots + START


@pytest.mark.parametrize(("cap", "least"), [(2, 2), (4, 4), (8, 6)])
async def test_a_small_cap_is_used(cap: int, least: int) -> None:
    scene, detector, allowed = Scene(Limits(cap=cap)), random.Random(4), set[int]()

    async def row() -> None:
        await scene.exchange(seconds=0.7 * detector.lognormvariate(0, 0.1))
        allowed.add(scene.gate.view().allowed)

    await asyncio.gather(*(row() for _ in range(400 * cap)))
    assert min(allowed) == least
    assert now() <= 400 * 0.7 * 1.05


async def test_failures_freeze_the_window_and_cut_nothing() -> None:
    scene = Scene(Limits(cap=64))
    failed = Feedback(failed=True)
    await asyncio.gather(*(scene.exchange(feedback=failed) for _ in range(200)))
    assert scene.gate.view().allowed == 16


@pytest.mark.parametrize("order", [list(range(4, 16)), list(range(15, 3, -1))])
async def test_a_burst_of_429s_about_concurrency_cuts_the_window_to_what_was_let_through(order: list[int]) -> None:
    scene = Scene(Limits(cap=16))
    permits = [await scene.send() for _ in range(16)]
    for number in order:
        scene.gate.settle(permits[number], refusal(Throttle.CONCURRENCY))
    assert scene.gate.view().allowed == 4


async def test_a_429_about_requests_leaves_the_window_alone() -> None:
    scene = Scene(Limits(cap=16))
    for permit in [await scene.send() for _ in range(16)]:
        scene.gate.settle(permit, refusal(Throttle.REQUESTS))
    assert scene.gate.view().allowed == 16


async def test_fixed_concurrency_does_not_adapt() -> None:
    scene = Scene(Limits(cap=40, fixed=True))
    for permit in [await scene.send() for _ in range(40)]:
        scene.gate.settle(permit, refusal(Throttle.CONCURRENCY))
    assert scene.gate.view().allowed == 40


def test_a_window_that_has_outgrown_the_size_that_was_refused_doubles_again() -> None:
    window, seconds = ConcurrencyLimiter(cap=256, fixed=False), 0
    window.refused(13, 0.0, 0.1)
    assert window.size == 13
    while window.size < 256:
        seconds += 1
        for _ in range(int(window.size)):
            permit = Permit(1, 1.0, 1.0, full=True, now=seconds - 1.0)
            permit.flying = int(window.size)
            window.answered(permit, 1, seconds, WaitReason.CONCURRENCY, permit.flying)
    assert seconds <= 26
