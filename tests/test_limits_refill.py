"""The most that a limit's rate can be, from what it let through between two refusals."""

import asyncio
import math

import pytest
from gates import OK, Provider, Scene, now, refusal
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.limits import Limits, Throttle
from batchrun.limits.rates import Refill


def _most(burst: tuple[int, float], count: int, seconds: float, pace: float) -> float:
    """After a first burst of so many in so many seconds, so many were let through in so many seconds."""
    refill = Refill()
    refill.opened(0, pace, 0.0)
    assert refill.refused(burst[0], burst[1]) == math.inf
    refill.opened(burst[0], pace, 10.0)
    return refill.refused(burst[0] + count, 10.0 + seconds)


@pytest.mark.parametrize(
    ("burst", "count", "seconds", "pace", "most"),
    [
        ((25, 0.6), 8, 0.8, 25.0, 10.0),
        ((25, 0.6), 3, 0.3, 25.0, math.inf),  # too few
        ((25, 0.6), 8, 0.8, 9.0, math.inf),  # slower than the limit: what it lost is not known
        ((8, 0.4), 8, 0.8, 25.0, math.inf),  # the burst shows no depth
        ((120, 10.0), 8, 0.8, 25.0, math.inf),  # nor does one at this very rate
    ],
)
def test_what_a_deep_limit_lets_through_after_a_refusal_is_the_most_that_its_rate_can_be(
    burst: tuple[int, float], count: int, seconds: float, pace: float, most: float
) -> None:
    assert _most(burst, count, seconds, pace) == pytest.approx(most)


@given(st.floats(1.0, 50.0), st.floats(1.5, 10.0), st.floats(1.2, 10.0), st.floats(0.01, 2.0))
@settings(max_examples=40)
def test_it_is_never_less_than_the_rate_of_a_bucket_that_is_emptied(
    rate: float, depth: float, faster: float, closed: float
) -> None:
    """Requests leave evenly, so much faster than the bucket refills; it holds so many seconds of its rate."""
    refill, pace, clock, let_through, told = Refill(), rate * faster, 0.0, 0, list[float]()
    level = held = depth * rate
    for _ in range(3):
        refill.opened(let_through, pace, clock)
        while level >= 1.0:
            let_through, level = let_through + 1, min(held, level - 1.0 + rate / pace)
            clock += 1 / pace
        told.append(refill.refused(let_through, clock))
        clock, level = (
            clock + max(closed, (1 - level) / rate),
            min(held, level + rate * max(closed, (1 - level) / rate)),
        )
    assert all(most >= rate * (1 - 1e-6) for most in told)


@pytest.mark.looptime(noop_cycles=0)
@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize(("rate", "depth", "rows", "calls"), [(10.0, 20.0, 300, 1.05), (10.0, 100.0, 600, 1.09)])
async def test_a_bucket_that_is_deeper_than_its_rate_shows_refuses_few(
    rate: float, depth: float, rows: int, calls: float, announced: bool
) -> None:
    """Refusals come after 20 ms, so that some of the first burst leave in vain."""
    scene, provider = Scene(Limits(cap=256)), Provider(rate, depth)

    async def row() -> None:
        while True:
            permit = await scene.send()
            admitted = provider.admits()
            wait = provider.wait(1.0) if announced and not admitted else None
            await asyncio.sleep(0.1 if admitted else 0.02)
            scene.gate.settle(permit, OK if admitted else refusal(Throttle.UNKNOWN, wait))
            if admitted:
                return

    await asyncio.gather(*(row() for _ in range(rows)))
    assert now() <= 1.1 * ((rows - depth) / rate + 0.1)
    assert rows + len(provider.refused) <= calls * rows
