"""The gate in a loop whose time is simulated."""

import asyncio
import math
import random
from bisect import bisect_right
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.events import Going, Waiting, WaitReason
from batchrun.limits import BucketHint, Feedback, Gate, GateClosed, Hints, Limits, NeverFits, Permit, Throttle
from batchrun.limits.buckets import HeaderRate, Spacing, TokenBucket
from batchrun.limits.chance import Chance
from batchrun.limits.concurrency import Window
from batchrun.limits.learning import Estimate, Pace
from batchrun.limits.rates import Rates

pytestmark = pytest.mark.looptime(noop_cycles=0)  # nothing comes from outside: time need not wait for it

OK = Feedback(200)
PAID = Feedback(200, tokens=100)


def now() -> float:
    return asyncio.get_running_loop().time()


class Scene:
    """A gate, what it tells, and when each request left."""

    def __init__(self, limits: Limits | None = None) -> None:
        asyncio.get_running_loop().set_debug(False)  # else a traceback is taken for every step of thousands of requests
        self.told: list[Waiting | Going] = []
        self.gate = Gate(limits or Limits(fixed=True), listen=self.told.append, random=random.Random(3))
        self.left: list[float] = []

    async def send(self, tokens: int = 100) -> Permit:
        permit = await self.gate.leave(await self.gate.admit(tokens))
        self.left.append(now())
        return permit

    async def exchange(self, tokens: int = 100, seconds: float = 0.1, feedback: Feedback = OK) -> None:
        permit = await self.send(tokens)
        await asyncio.sleep(seconds)
        self.gate.settle(permit, feedback)

    def go(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.create_task(work)


def refusal(throttle: Throttle = Throttle.REQUESTS, seconds: float | None = None) -> Feedback:
    return Feedback(429, Hints(retry_after=seconds, looks_like_429=True), throttle)


class Provider:
    """A continuous bucket that nothing but its refusals shows."""

    def __init__(self, rate: float, depth: float) -> None:
        self.rate = rate
        self.refused: list[float] = []
        self._depth = self._level = depth
        self._at = now()

    def admits(self, cost: float = 1.0) -> bool:
        self._level, self._at = min(self._depth, self._level + (now() - self._at) * self.rate), now()
        if self._level < cost:
            self.refused.append(self._at)
            return False
        self._level -= cost
        return True

    def wait(self, cost: float) -> float:
        """Seconds from the last call of `admits` until the bucket holds so much."""
        return (cost - self._level) / self.rate

    async def row(self, scene: Scene, seconds: float, refused: Feedback) -> None:
        """Send one until it is admitted; answers take so long, and a limit makes nobody wait alone."""
        while True:
            permit = await scene.send()
            admitted = self.admits()
            await asyncio.sleep(seconds if admitted else 0.01)
            assert not scene.gate.settle(permit, OK if admitted else refused)
            if admitted:
                return


async def rows_refused_at_random(scene: Scene, rows: int, share: float, refused: Feedback, seed: int) -> list[float]:
    """Send each until it is answered, after the waits that are its own; when they were done, in that order."""
    chance, done = random.Random(seed), list[float]()

    async def row() -> None:
        while True:
            permit = await scene.send()
            await asyncio.sleep(0.1)
            unlucky = chance.random() < share
            wait = scene.gate.settle(permit, refused if unlucky else OK)
            if not unlucky:
                done.append(now())
                return
            await asyncio.sleep(wait)

    await asyncio.gather(*(row() for _ in range(rows)))
    return done


async def test_a_stated_rate_is_spaced_from_the_first_request_on() -> None:
    scene = Scene(Limits(fixed=True, rpm=600))
    await asyncio.gather(*(scene.exchange() for _ in range(31)))
    gaps = [later - earlier for earlier, later in zip(scene.left, scene.left[1:], strict=False)]
    assert min(gaps) > 0.09
    assert scene.left[-1] == pytest.approx(3.0, rel=0.03)


async def test_requests_leave_in_the_order_of_their_coming_large_ones_too() -> None:
    scene = Scene(Limits(fixed=True, tpm=60_000))
    order: list[int] = []

    async def one(number: int) -> None:
        permit = await scene.gate.admit(5_000 if number % 3 == 0 else 10)
        order.append(number)
        await scene.gate.leave(permit)
        scene.gate.settle(permit, OK)

    await asyncio.gather(*(one(number) for number in range(12)))
    assert order == list(range(12))


async def test_refunds_and_debts_of_tokens_are_settled() -> None:
    scene = Scene(Limits(fixed=True, tpm=60_000))
    generous = await scene.send(2_000)
    scene.gate.settle(generous, Feedback(200, tokens=100))
    await scene.send(50)
    assert scene.left[1] < 0.1
    await asyncio.sleep(5)
    modest = await scene.send(100)
    scene.gate.settle(modest, Feedback(200, tokens=3_000))
    await scene.send(50)
    assert scene.left[3] - scene.left[2] == pytest.approx(3.0, abs=0.2)


async def test_a_request_larger_than_the_limit_is_refused_at_once() -> None:
    scene = Scene(Limits(tpm=1_000))
    with pytest.raises(NeverFits) as caught:
        await scene.gate.admit(1_001)
    assert caught.value.limit == 1_000
    scene.gate.settle(await scene.send(900), Feedback(200, Hints(tokens=BucketHint(950, 0, 60.0))))
    with pytest.raises(NeverFits):
        await scene.gate.admit(951)


@pytest.mark.parametrize("seconds", [0.7, 2.0, 3600.0])
async def test_retry_after_holds_everybody_never_before_at_most_a_fifth_longer(seconds: float) -> None:
    scene = Scene()
    first = await scene.send()
    others = [scene.go(scene.send()) for _ in range(3)]
    await asyncio.sleep(0.2)
    said = now()
    scene.gate.settle(first, refusal(seconds=seconds))
    await asyncio.gather(*others)
    await scene.send()
    assert said + seconds <= scene.left[-1] <= said + 1.2 * seconds + 0.5


@pytest.mark.parametrize("hint", [None, 0.0])
async def test_without_a_usable_hint_the_back_off_doubles_and_a_success_ends_that(hint: float | None) -> None:
    scene = Scene()
    waits: list[float] = []
    for _ in range(6):
        permit = await scene.send()
        at = now()
        scene.gate.settle(permit, refusal(seconds=hint))
        waiter = scene.go(scene.gate.admit(1))
        await asyncio.sleep(0)
        waits.append((scene.gate.view().until or 0.0) - at)
        scene.gate.cancel(await waiter)
        await asyncio.sleep(120)
    assert all(0 < wait <= 0.25 * 2**number for number, wait in enumerate(waits))
    assert waits[5] > waits[0] * 4
    assert scene.gate.view().refused_since is not None
    scene.gate.settle(await scene.send(), OK)
    assert scene.gate.view().refused_since is None


async def test_after_a_429_requests_come_back_at_half_the_rate() -> None:
    scene = Scene(Limits(fixed=True, rpm=6_000))
    scene.gate.settle(await scene.send(), refusal(seconds=1.0))
    await asyncio.gather(*(scene.exchange() for _ in range(600)))
    opened = scene.left[1]
    first = sum(opened <= at < opened + 0.5 for at in scene.left)
    later = sum(opened + 4 <= at < opened + 4.5 for at in scene.left)
    assert 20 <= first <= 35
    assert later >= 48


async def test_a_request_admitted_before_the_gate_closed_waits_again_first_in_the_queue() -> None:
    scene = Scene()
    refused = await scene.send()
    admitted = await scene.gate.admit(1)
    scene.gate.settle(refused, refusal(seconds=2.0))
    waiter = scene.go(scene.send())
    await asyncio.sleep(0.01)
    left = await scene.gate.leave(admitted)
    assert now() >= 2.0
    scene.gate.settle(left, OK)
    scene.gate.cancel(admitted)
    scene.gate.settle(await waiter, OK)
    assert scene.gate.view().in_flight == 0


async def test_an_abandoned_request_frees_its_slot_but_has_used_its_turn() -> None:
    scene = Scene(Limits(cap=1, fixed=True, rpm=60))
    scene.gate.cancel(await scene.send())
    scene.gate.cancel(await scene.gate.admit(1))
    assert now() == pytest.approx(1.0, abs=0.1)
    await scene.send()
    assert now() == pytest.approx(1.0, abs=0.1)


class Queue:
    """A gate that is full, ten that wait for a slot, and which of them were told to get ready."""

    def __init__(self, limits: Limits) -> None:
        self.scene = Scene(limits)
        self.told: list[int] = []

    async def form(self, full: int) -> list[Permit]:
        permits = await asyncio.gather(*(self.scene.send() for _ in range(full)))
        gate = self.scene.gate
        self.waiters = [self.scene.go(gate.admit(1, ready=partial(self.told.append, n))) for n in range(10)]
        await asyncio.sleep(0)
        return permits


async def test_the_next_few_get_ready_while_nothing_but_a_slot_is_missing() -> None:
    queue = Queue(Limits(cap=64, fixed=True))
    permits = await queue.form(64)
    assert queue.told == [0, 1]
    queue.waiters[1].cancel()
    await asyncio.sleep(1)
    queue.scene.gate.settle(permits[0], OK)
    await queue.waiters[0]
    assert queue.told == [0, 1, 2, 3]  # the one that was cancelled is passed over
    for permit in permits[1:]:
        queue.scene.gate.settle(permit, OK)
    await asyncio.wait(queue.waiters)
    assert queue.told == sorted(set(queue.told))


@pytest.mark.parametrize("limits", [Limits(cap=16, fixed=True), Limits(cap=64, fixed=True, rpm=6e6)])
async def test_nobody_gets_ready_beside_a_small_window_or_a_rate(limits: Limits) -> None:
    queue = Queue(limits)
    await queue.form(limits.cap)
    assert queue.told == []


async def test_nobody_gets_ready_where_replies_come_thick_and_fast() -> None:
    queue = Queue(Limits(cap=64, fixed=True))
    permits = await queue.form(64)
    await asyncio.sleep(0.03)
    for permit in permits:
        queue.scene.gate.settle(permit, OK)
    await asyncio.wait(queue.waiters)
    assert queue.told == [0, 1]


async def test_nobody_gets_ready_during_a_pause() -> None:
    queue = Queue(Limits(cap=64, fixed=True))
    queue.scene.gate.pause()
    await queue.form(0)
    assert queue.told == []


async def test_limits_in_headers_slow_everybody_down_to_them() -> None:
    scene = Scene()
    said = Feedback(200, Hints(requests=BucketHint(600, 1, 0.1)))
    scene.gate.settle(await scene.send(), said)
    await asyncio.gather(*(scene.exchange(feedback=said) for _ in range(30)))
    assert scene.left[-1] == pytest.approx(3.0, abs=0.4)
    assert scene.gate.view().rpm == pytest.approx(600, rel=0.02)


async def test_what_others_used_of_a_shared_limit_is_believed() -> None:
    scene = Scene(Limits(fixed=True, tpm=60_000))
    scene.gate.settle(await scene.send(10), Feedback(200, Hints(tokens=BucketHint(60_000, 0, 60.0)), tokens=10))
    at = now()
    await scene.send(2_000)
    assert scene.left[-1] - at == pytest.approx(0.1, abs=0.05)


async def test_headers_of_an_older_request_are_ignored() -> None:
    scene = Scene()
    older, newer = await scene.send(), await scene.send()
    scene.gate.settle(newer, Feedback(200, Hints(requests=BucketHint(6_000, 100, 1.0))))
    scene.gate.settle(older, Feedback(200, Hints(requests=BucketHint(60, 0, 60.0))))
    await asyncio.sleep(0.1)
    assert (scene.gate.view().rpm or 0) > 5_000


async def test_pause_and_resume() -> None:
    scene = Scene()
    scene.gate.pause()
    waiter = scene.go(scene.send())
    await asyncio.sleep(100)
    assert scene.left == []
    assert scene.gate.view().reason is WaitReason.PAUSED
    scene.gate.resume()
    await waiter
    assert [type(event) for event in scene.told] == [Waiting, Going]


async def test_while_the_provider_is_down_one_request_a_second_leaves() -> None:
    scene = Scene()
    scene.gate.trickle(True)
    senders = [scene.go(scene.exchange()) for _ in range(30)]
    await asyncio.sleep(10.5)
    assert 9 <= len(scene.left) <= 11
    scene.gate.trickle(False)
    await asyncio.gather(*senders)
    assert now() < 15


async def test_other_limits_count_at_once() -> None:
    scene = Scene(Limits(cap=1, fixed=True))
    first = await scene.send()
    waiters = [scene.go(scene.send()) for _ in range(2)]
    await asyncio.sleep(1)
    assert len(scene.left) == 1
    scene.gate.change(Limits(cap=3, fixed=True))
    await asyncio.gather(*waiters)
    assert len(scene.left) == 3
    scene.gate.settle(first, OK)


async def test_closing_the_gate_wakes_everybody() -> None:
    scene = Scene(Limits(cap=1, fixed=True))
    await scene.send()
    waiters = [scene.go(scene.send()) for _ in range(5)]
    await asyncio.sleep(0)
    scene.gate.close()
    assert all(isinstance(end, GateClosed) for end in await asyncio.gather(*waiters, return_exceptions=True))
    with pytest.raises(GateClosed):
        await scene.gate.admit(1)


async def test_a_standstill_is_told_once_with_its_reason_and_its_end() -> None:
    scene = Scene(Limits(fixed=True, rpm=600))
    scene.gate.settle(await scene.send(), refusal(seconds=10))
    await asyncio.gather(*(scene.exchange() for _ in range(50)))
    assert [type(event) for event in scene.told] == [Waiting, Going]
    waiting = scene.told[0]
    assert isinstance(waiting, Waiting)
    assert waiting.reason is WaitReason.THROTTLED
    assert waiting.until is not None
    assert 10 <= waiting.until <= 12


async def test_slow_limits_do_not_flood_with_events() -> None:
    scene = Scene(Limits(fixed=True, rpm=20))
    await asyncio.gather(*(scene.exchange() for _ in range(20)))
    assert len(scene.told) <= now()


async def test_a_full_window_is_told_after_a_second() -> None:
    scene = Scene(Limits(cap=1, fixed=True))
    permit = await scene.send()
    waiter = scene.go(scene.send())
    await asyncio.sleep(5)
    assert [event.reason for event in scene.told if isinstance(event, Waiting)] == [WaitReason.CONCURRENCY]
    scene.gate.settle(permit, OK)
    await waiter
    assert isinstance(scene.told[-1], Going)


async def test_the_window_doubles_while_that_pays_and_shrinks_when_the_server_only_queues() -> None:
    open_server = Scene(Limits(cap=128))
    await asyncio.gather(*(open_server.exchange(seconds=0.5) for _ in range(900)))
    assert open_server.gate.view().allowed == 128
    queueing, slots = Scene(Limits(cap=64)), asyncio.Semaphore(4)

    async def queued() -> None:
        permit = await queueing.send()
        async with slots:
            await asyncio.sleep(0.2)
        queueing.gate.settle(permit, OK)

    started = now()
    await asyncio.gather(*(queued() for _ in range(1000)))
    assert queueing.gate.view().allowed <= 8
    assert 1000 * 0.2 / 4 / (now() - started) >= 0.9


@pytest.mark.parametrize(("cap", "least"), [(2, 2), (4, 4), (8, 6)])
async def test_a_small_cap_is_used(cap: int, least: int) -> None:
    scene, chance, allowed = Scene(Limits(cap=cap)), random.Random(4), set[int]()

    async def row() -> None:
        await scene.exchange(seconds=0.7 * chance.lognormvariate(0, 0.1))
        allowed.add(scene.gate.view().allowed)

    await asyncio.gather(*(row() for _ in range(400 * cap)))
    assert min(allowed) == least
    assert now() <= 400 * 0.7 * 1.05


async def test_failures_freeze_the_window_and_cut_nothing() -> None:
    scene = Scene(Limits(cap=64))
    failed = Feedback(500, failed=True)
    await asyncio.gather(*(scene.exchange(feedback=failed) for _ in range(200)))
    assert scene.gate.view().allowed == 16


async def test_a_burst_of_429s_about_concurrency_cuts_the_window_once() -> None:
    scene = Scene(Limits(cap=16))
    permits = [await scene.send() for _ in range(16)]
    for permit in permits:
        scene.gate.settle(permit, refusal(Throttle.CONCURRENCY))
    assert scene.gate.view().allowed == 12


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


async def test_a_rate_that_only_429s_show_is_learnt() -> None:
    scene, provider = Scene(Limits(cap=32)), Provider(rate=10.0, depth=2.0)
    await asyncio.gather(*(provider.row(scene, 0.3, refusal(Throttle.UNKNOWN)) for _ in range(1000)))
    assert now() < 100 / 0.8
    assert len(provider.refused) < 50


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
    scene, chance, until, closed, alone = Scene(Limits(cap=16)), random.Random(5), 0.0, 0, list[float]()

    async def row() -> None:
        nonlocal until, closed
        while True:
            permit = await scene.gate.leave(await scene.gate.admit(1))
            assert now() >= until
            await asyncio.sleep(0.1)
            refused = chance.random() < 0.05
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


@pytest.mark.parametrize("limit", [30.0, 15.0, 5.0])
async def test_a_lower_limit_is_found_again(limit: float) -> None:
    scene, provider = Scene(Limits(cap=32)), Provider(rate=60.0, depth=2.0)
    asyncio.get_running_loop().call_later(10, setattr, provider, "rate", limit)
    rows = int(10 * 60 * 0.8 + 80 * limit)
    await asyncio.gather(*(provider.row(scene, 0.1, refusal(Throttle.UNKNOWN)) for _ in range(rows)))
    assert now() < 10 + 140
    assert len([when for when in provider.refused if when > 40]) < 0.05 * 80 * limit


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 3), st.booleans()), max_size=40), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_nobody_is_lost_or_starved_when_waiters_are_cancelled(rows: list[tuple[int, float, bool]], cap: int) -> None:
    async def play() -> None:
        gate = Gate(Limits(cap=cap, fixed=True, rpm=60_000, tpm=600_000), listen=lambda _: None)

        async def one(tokens: int) -> None:
            permit = await gate.admit(tokens)
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                gate.cancel(permit)
                raise
            await gate.leave(permit)
            gate.settle(permit, Feedback(200, tokens=tokens))

        tasks = [(asyncio.create_task(one(tokens)), cancelled) for tokens, _, cancelled in rows]
        await asyncio.sleep(0)
        for task, cancelled in tasks:
            if cancelled:
                task.cancel()
        ends = await asyncio.wait_for(asyncio.gather(*(task for task, _ in tasks), return_exceptions=True), 30)
        assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ends)
        view = gate.view()
        assert (view.in_flight, view.waiting) == (0, 0)

    asyncio.run(play())


@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 400), st.integers(0, 800)), max_size=60))
def test_no_more_tokens_are_granted_than_the_rate_and_one_bucket_allow(steps: list[tuple[float, int, int]]) -> None:
    bucket, at, used, largest = TokenBucket(0.0), 0.0, 0.0, 0.0
    bucket.set_rate(100.0, 0.0)
    latest, passed = 0.0, 0.0
    for step, reserved, actual in steps:
        passed += max(0.0, step)
        at += step
        latest = max(latest, at)
        bucket.refill(at)
        if bucket.wait(reserved) == 0:
            bucket.take(reserved)
            bucket.give(reserved - actual)
            used += actual
            largest = max(largest, actual, reserved)
    assert used <= 100.0 * passed + bucket.depth + largest


async def test_requests_that_a_slow_commit_lets_out_at_once_still_leave_spaced() -> None:
    scene, commits = Scene(Limits(fixed=True, rpm=12_000)), asyncio.Event()

    async def row() -> None:
        permit = await scene.gate.admit(1)
        await commits.wait()
        await scene.gate.leave(permit)
        scene.left.append(now())

    async def journal() -> None:
        for seconds in [0.002] * 50 + [0.09] * 20 + [0.3, 0.002]:
            await asyncio.sleep(seconds)
            commits.set()
            commits.clear()

    written, rows = scene.go(journal()), [scene.go(row()) for _ in range(400)]
    await written
    for first, at in enumerate(scene.left):
        assert sum(at <= later < at + 0.005 for later in scene.left[first:]) <= 1 + 199 * (0.02 + 0.005 + 0.005)
    for task in rows:
        task.cancel()
    await asyncio.gather(*rows, return_exceptions=True)
    assert scene.gate.view().in_flight == len(scene.left)


@pytest.mark.parametrize("commit", [0.0, 0.06])
async def test_the_time_of_a_commit_costs_no_rate(commit: float) -> None:
    scene = Scene(Limits(fixed=True, rpm=6_000))

    async def row() -> None:
        permit = await scene.gate.admit(1)
        await asyncio.sleep(commit)
        scene.gate.settle(await scene.gate.leave(permit), OK)
        scene.left.append(now())

    await asyncio.gather(*(row() for _ in range(400)))
    assert scene.left[-1] - scene.left[99] <= 3.0 / 0.97


@pytest.mark.parametrize("rate", [10.0, 200.0, 2_000.0])
def test_what_short_stalls_cost_is_made_up_for_within_every_second(rate: float) -> None:
    spacing, at, left, chance = Spacing(0.0), 0.0, list[float](), random.Random(2)
    spacing.set_rate(rate * 0.995, 0.0)
    spacing.stated = rate * 0.995
    while at < 10:
        at += 0.018 if chance.random() < 0.02 else 0.001
        spacing.refill(at)
        while spacing.wait() == 0 and spacing.ready(at, at) == 0:
            spacing.take()
            spacing.left(at)
            left.append(at)
    assert len(left) >= 0.985 * 10 * rate
    for first in range(0, len(left), max(1, int(rate / 50))):
        assert bisect_right(left, left[first] + 1 - 1e-9) - first <= math.ceil(rate)


@given(st.floats(0.1, 5_000), st.lists(st.floats(-10, 1e5), max_size=50))
def test_a_leap_of_the_clock_fills_one_bucket_at_most(rate: float, leaps: list[float]) -> None:
    spacing, at = Spacing(0.0), 0.0
    spacing.set_rate(rate, 0.0)
    for leap in leaps:
        at += leap
        spacing.refill(at)
        burst = 0
        while spacing.wait() == 0:
            spacing.take()
            spacing.left(at)
            burst += 1
        assert burst <= max(1.25, 1 + rate * 0.02) + rate * 1e-6


def test_headers_of_a_shallow_bucket_of_a_daily_quota_and_of_a_fixed_window() -> None:
    shallow, daily, window = HeaderRate(), HeaderRate(), HeaderRate()
    for number in range(40):
        level = 20.0 * (number % 7) / 7
        shallow.learn(BucketHint(20, float(int(level)), (20 - level) / 10))
        daily.learn(BucketHint(14_400, 14_400 - number, number * 6.0))
        window.learn(BucketHint(600, 600 - 5.0 * number, 59.0 - number))
    assert shallow.rate() == pytest.approx(10, rel=0.2)
    assert 200 < daily.rate() <= 240
    assert window.rate() == 10


def _held_low() -> tuple[Pace, float]:
    """A pace that 429s have brought to 2/s, as where others use up what the headers state."""
    pace, now = Pace(start=False), 0.0
    pace.refused(now, math.inf, math.inf, now)
    while pace.rate > 2.0:
        now += 20.0
        pace.refused(now, pace.rate / 2, pace.rate, now)
    return pace, now


def _after(pace: Pace, now: float, seconds: float, room: Callable[[float], bool]) -> float:
    end = now + seconds
    while now < end:
        now += 0.1
        pace.heard(room(now), now)
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
        pace.heard(True, now)
        if pace.refresh(now, binding=True) > 10.0:
            pace.refused(now, 10.0, 10.0, now)
            falls += 1
    assert falls <= 600 / 15 + 5


def test_a_learnt_pace_falls_once_a_burst_and_rises_again_beyond_it() -> None:
    pace = Pace(start=False)
    pace.refresh(0.0, False)
    assert pace.refused(left=1.0, pace=100.0, spaced=100.0, now=2.0)
    assert not pace.refused(left=1.5, pace=100.0, spaced=100.0, now=2.1)
    fallen = pace.rate
    assert fallen == pytest.approx(93.0)
    for tenth in range(21, 600):
        pace.refresh(tenth / 10, True)
    assert pace.rate > 110
    idle = Pace(start=False)
    idle.refused(left=1.0, pace=100.0, spaced=100.0, now=2.0)
    for second in range(3, 100):
        idle.refresh(second, False)
    assert idle.rate == pytest.approx(93.0)


def test_the_rate_at_the_first_429s_is_what_was_admitted_of_their_whole_burst() -> None:
    """A hundred a second leave, answers take half a second, and one in twenty is refused."""
    pace = Pace(start=True)
    pace.refresh(0.0, False)
    for number in range(100):
        left, now = number / 100, number / 100 + 0.5
        if number % 20 == 19:
            pace.refused(left, 100.0, 100.0, 0.7 if number == 19 else now)
        else:
            pace.answered(left, 100.0, 100.0)
    assert 0.7 * 95 <= pace.rate <= 0.9 * 95


def test_a_window_that_has_outgrown_the_size_that_was_refused_doubles_again() -> None:
    window, seconds = Window(cap=256, fixed=False), 0
    window.refused(16, 0.0, 0.1)
    assert window.size < 16
    while window.size < 256:
        seconds += 1
        for flying in range(int(window.size)):
            window.answered(flying, seconds - 1.0, seconds, used=True, bound=True)
    assert seconds <= 26


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
    said = Hints(requests=BucketHint(600, left, 6.0))
    assert Rates(Limits(), 0.0).kind(named, said, 0.0) is about


@given(st.floats(1, 1_000), st.lists(st.floats(0.1, 2.0), max_size=400))
def test_a_limit_that_refuses_all_above_it_and_nothing_below_is_never_chance(limit: float, parts: list[float]) -> None:
    chance = Chance(certain=0.0, clear=0.98, depth=(2.0, 0.05))
    for left, part in enumerate(parts):
        if part <= 1.0:
            chance.answered(part * limit, left)
        else:
            assert not chance.refused(part * limit, left)
    assert chance.share == 0.0


@given(st.floats(0.001, 0.3), st.lists(st.booleans(), max_size=200))
def test_a_dozen_429s_in_a_row_are_never_chance(share: float, answers: list[bool]) -> None:
    chance = Chance(certain=0.0, clear=0.98, depth=(2.0, 0.05))
    chance.known(share, sure=True)
    for left, answered in enumerate(answers):
        if answered:
            chance.answered(10.0, left)
        else:
            chance.refused(10.0, left)
    assert not all(chance.refused(10.0, 1_000) for _ in range(12))


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05])
def test_429s_that_go_on_at_a_smaller_size_are_chance_by_the_third(share: float) -> None:
    chance, source = Chance(certain=0.0, clear=0.98, depth=(2.0, 0.05)), random.Random(1)
    for left in range(300):
        chance.answered(100.0, left)
    for left in range(300, 800 + int(8 / share)):
        if source.random() < share:
            chance.refused(50.0, left)
        else:
            chance.answered(50.0, left)
    assert share / 4 <= chance.share <= share * 4


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
