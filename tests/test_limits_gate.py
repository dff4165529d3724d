"""The gate in a loop whose time is simulated."""

import asyncio
import json
from functools import partial

import pytest
from gates import OK, Provider, Scene, now, refusal, requests, used
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.events import Resumed, Waiting, WaitReason
from batchrun.limits import Feedback, Gate, GateClosed, Hints, Limits, NeverFits, Permit, Stated
from batchrun.models import Usage

pytestmark = pytest.mark.looptime(noop_cycles=0)  # nothing comes from outside: time need not wait for it


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
    scene.gate.settle(generous, Feedback(usage=used(100)))
    await scene.send(50)
    assert scene.left[1] < 0.1
    await asyncio.sleep(5)
    modest = await scene.send(100)
    scene.gate.settle(modest, Feedback(usage=used(3_000)))
    await scene.send(50)
    assert scene.left[3] - scene.left[2] == pytest.approx(3.0, abs=0.2)


async def test_a_request_larger_than_the_limit_is_refused_at_once() -> None:
    scene = Scene(Limits(tpm=1_000))
    with pytest.raises(NeverFits) as caught:
        await scene.gate.admit(1_001)
    assert caught.value.limit == 1_000
    scene.gate.settle(await scene.send(900), Feedback(Hints(limits=(Stated("tokens", "tokens", 950, 0, 60.0),))))
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

    def __init__(self, limits: Limits, *, senders: bool = False) -> None:
        self.scene = Scene(limits, senders=senders)
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


async def test_with_senders_many_get_ready_where_replies_come_thick_and_fast() -> None:
    queue = Queue(Limits(cap=64, fixed=True), senders=True)
    permits = await queue.form(64)
    assert queue.told == [0, 1]
    await asyncio.sleep(0.03)
    queue.scene.gate.settle(permits[0], OK)
    await queue.waiters[0]
    assert queue.told == list(range(10))


async def test_nobody_gets_ready_during_a_pause() -> None:
    queue = Queue(Limits(cap=64, fixed=True))
    queue.scene.gate.pause()
    await queue.form(0)
    assert queue.told == []


async def test_a_named_window_spaces_everybody_from_the_first_answer_on() -> None:
    scene = Scene()
    said = Feedback(Hints(limits=(requests(600, 500, None, 60.0),)))
    scene.gate.settle(await scene.send(), said)
    await asyncio.gather(*(scene.exchange(feedback=said) for _ in range(30)))
    assert scene.left[-1] == pytest.approx(3.0, abs=0.4)
    assert scene.gate.view().rpm == pytest.approx(600, rel=0.02)


async def test_a_limit_that_is_not_understood_holds_nothing_back() -> None:
    scene = Scene()
    said = Feedback(Hints(limits=(requests(20, 19, 9.0), Stated("day", "tokens", 400, 399))))
    scene.gate.settle(await scene.send(1), said)
    await asyncio.gather(*(scene.exchange(1, feedback=said) for _ in range(100)))
    assert scene.left[-1] < 15


async def test_what_remains_is_all_that_leaves_until_the_reset() -> None:
    scene = Scene()
    scene.gate.settle(await scene.send(), Feedback(Hints(limits=(requests(100, 0, 7.0),))))
    await scene.send()
    assert scene.left[-1] == pytest.approx(7.0, abs=0.2)


async def test_what_others_used_of_a_shared_limit_is_believed() -> None:
    scene = Scene(Limits(fixed=True))
    said = Stated("tokens", "tokens", 60_000, 0, None, 60.0)
    scene.gate.settle(await scene.send(10), Feedback(Hints(limits=(said,)), usage=used(10)))
    at = now()
    await scene.send(2_000)
    assert scene.left[-1] - at == pytest.approx(2.0, abs=0.1)


async def test_headers_of_an_older_request_are_ignored() -> None:
    scene = Scene()
    older, newer = await scene.send(), await scene.send()
    scene.gate.settle(newer, Feedback(Hints(limits=(requests(6_000, 100, None, 60.0),))))
    scene.gate.settle(older, Feedback(Hints(limits=(requests(60, 0, None, 60.0),))))
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
    assert [type(event) for event in scene.told] == [Waiting, Resumed]


async def test_only_what_comes_first_passes_while_all_others_must_wait_and_a_second_later_it_says_why() -> None:
    scene = Scene(Limits(cap=2, fixed=True))
    before = [await scene.gate.admit(1) for _ in range(2)]
    waiting = scene.go(scene.gate.admit(1))
    await asyncio.sleep(0)
    scene.gate.set_first_only(True)
    for permit in before:  # admitted earlier, they are sent
        scene.gate.settle(await scene.gate.leave(permit), OK)
    first = await scene.gate.leave(await scene.gate.admit(1, first=True))
    await asyncio.sleep(1.5)
    assert not waiting.done()
    assert [event.reason for event in scene.told if isinstance(event, Waiting)] == [WaitReason.ALIKE]
    scene.gate.set_first_only(False)
    scene.gate.settle(await scene.gate.leave(await waiting), OK)
    scene.gate.settle(first, OK)
    assert isinstance(scene.told[-1], Resumed)
    assert scene.gate.view().in_flight == 0


@pytest.mark.parametrize("reason", [WaitReason.DOWN, WaitReason.LOADING, WaitReason.DOUBT])
async def test_while_the_provider_is_tried_for_a_reason_one_request_a_second_leaves_and_the_reason_is_told(
    reason: WaitReason,
) -> None:
    scene = Scene()
    scene.gate.set_half_open(1.0, reason)
    assert scene.gate.down is (reason is WaitReason.DOWN)
    senders = [scene.go(scene.exchange()) for _ in range(30)]
    await asyncio.sleep(10.5)
    assert 9 <= len(scene.left) <= 11
    assert {event.reason for event in scene.told if isinstance(event, Waiting)} == {reason}
    scene.gate.set_half_open(None)
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
    assert [type(event) for event in scene.told] == [Waiting, Resumed]
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
    assert isinstance(scene.told[-1], Resumed)


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 3), st.booleans()), max_size=40), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_nobody_is_lost_or_starved_when_waiters_are_cancelled(rows: list[tuple[int, float, bool]], cap: int) -> None:
    async def play() -> None:
        gate = Gate(Limits(cap=cap, fixed=True, rpm=60_000, tpm=600_000), emit=lambda _: None)

        async def one(tokens: int) -> None:
            permit = await gate.admit(tokens)
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                gate.cancel(permit)
                raise
            await gate.leave(permit)
            gate.settle(permit, Feedback(usage=used(tokens)))

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


async def test_a_later_session_begins_with_what_an_earlier_one_learned() -> None:
    earlier, provider = Scene(Limits()), Provider(rate=20.0, depth=2.0)
    await asyncio.gather(*(provider.row(earlier, 0.1, refusal()) for _ in range(300)))
    refused, began = len(provider.refused), now()
    await asyncio.sleep(10)
    learned = json.loads(json.dumps(earlier.gate.learned()))
    later, began = Scene(Limits()), now()
    later.gate.restore(learned)
    await asyncio.gather(*(provider.row(later, 0.1, refusal()) for _ in range(100)))
    assert now() - began < 100 / 20 / 0.8
    assert len(provider.refused) - refused <= 5


async def test_a_later_session_knows_the_limits_and_the_sizes_of_an_earlier_one() -> None:
    earlier, later = Scene(Limits()), Scene(Limits())
    for sent in range(1, 12):
        limits = (requests(600, 600 - sent, sent / 10), Stated("day", "requests", 1_000, 1_000 - sent, None, 86_400.0))
        said = Feedback(Hints(limits=limits), usage=Usage(90, 10, 0, 0), body_bytes=400)
        await earlier.exchange(feedback=said, seconds=0.01)
    later.gate.restore(json.loads(json.dumps(earlier.gate.learned())))
    assert later.gate.view().rpm == earlier.gate.view().rpm == 600
    assert later.gate.estimate(400, None) == pytest.approx(earlier.gate.estimate(400, None), abs=1)


async def test_a_limit_that_the_provider_states_no_more_ends_soon_in_a_later_session() -> None:
    earlier, later, unchanged = Scene(Limits()), Scene(Limits()), Scene(Limits())
    named = Stated("requests", "requests", 600, None, None, 60.0)
    await earlier.exchange(feedback=Feedback(Hints(limits=(named,))), seconds=0.01)
    for scene in (later, unchanged):
        scene.gate.restore(json.loads(json.dumps(earlier.gate.learned())))
        assert scene.gate.view().rpm == pytest.approx(600, rel=0.01)
    for _ in range(40):
        await later.exchange(feedback=OK, seconds=0.01)
        await unchanged.exchange(feedback=Feedback(Hints(limits=(named,))), seconds=0.01)
    assert unchanged.gate.view().rpm == pytest.approx(600, rel=0.01)
    began = now()
    await asyncio.gather(*(later.exchange(feedback=OK, seconds=0.01) for _ in range(100)))
    assert now() - began < 100 / 10 / 4


async def test_a_limit_for_a_day_is_a_quota_and_no_pace() -> None:
    scene = Scene()
    said = Feedback(Hints(limits=(Stated("day", "requests", 400, 150, 3000.0, 86_400.0),)))
    scene.gate.settle(await scene.send(), said)
    await asyncio.gather(*(scene.send() for _ in range(15)))
    assert now() < 2.0
    (quota,) = scene.gate.view().quotas
    assert str(quota) == "150 of the provider's quota of 400 requests a day are left"


async def test_a_quota_that_is_used_up_is_waited_for_with_words_of_its_own() -> None:
    scene = Scene()
    said = Feedback(Hints(limits=(Stated("day", "requests", 400, 0, 3000.0, 86_400.0),)))
    scene.gate.settle(await scene.send(), said)
    waiter = scene.go(scene.send())
    await asyncio.sleep(1)
    view = scene.gate.view()
    assert view.reason is WaitReason.QUOTA
    assert view.until is not None
    assert view.until > 100
    waiter.cancel()


@pytest.mark.parametrize(("window", "basis"), [(60.0, "stated"), (None, "inferred")])
async def test_the_view_says_what_the_rate_rests_on(window: float | None, basis: str) -> None:
    scene = Scene()
    for sent in range(1, 10):
        said = Feedback(Hints(limits=(requests(20, 20 - 2 * sent, 2 * sent / 10, window),)))
        await scene.exchange(feedback=said, seconds=0.01)
    rest = [scene.go(scene.send()) for _ in range(10)]
    await asyncio.sleep(0.05)
    assert scene.gate.view().basis == basis
    for one in rest:
        one.cancel()


async def two(scene: Scene) -> tuple[Permit, Permit]:
    """Two that leave one after the other."""
    first = await scene.send()
    await asyncio.sleep(0.1)
    return first, await scene.send()


async def test_a_long_wait_that_was_far_too_long_once_is_tried_earlier_the_next_time() -> None:
    scene = Scene()

    async def burst() -> float:
        refused, later = await two(scene)
        said = now()
        scene.gate.settle(refused, refusal(seconds=60.0))
        scene.gate.settle(later, OK)
        scene.gate.settle(await scene.send(), OK)
        return now() - said

    assert await burst() >= 60
    assert await burst() == pytest.approx(7.5, abs=3)


async def test_a_wait_that_is_tried_earlier_in_vain_is_kept_to_the_full() -> None:
    scene = Scene()
    refused, later = await two(scene)
    scene.gate.settle(refused, refusal(seconds=60.0))
    scene.gate.settle(later, OK)
    scene.gate.settle(await scene.send(), refusal(seconds=60.0))
    tried = await scene.send()
    said = now()
    scene.gate.settle(tried, refusal(seconds=60.0))
    scene.gate.settle(await scene.send(), OK)
    assert now() - said >= 60
