"""Continuous buckets, and what headers say of them."""

import math
import random
from bisect import bisect_right

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.limits.buckets import Spacing, TokenBucket


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
