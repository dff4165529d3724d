"""What a limit means, from how its figures move: against providers that state a known limit in each way, rounded."""

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.limits import Stated
from batchrun.limits.stated import Inference, Meaning, Sent, StatedLimit, refill_if_full

Rounding = tuple[Callable[[float], float], float]
"""How a provider writes a reset, and how much of it that may be."""
ROUNDINGS: list[Rounding] = [
    (lambda reset: math.ceil(reset * 1000) / 1000, 0.001),
    (lambda reset: math.floor(reset * 10) / 10, 0.1),
    (math.ceil, 1.0),
    (math.floor, 1.0),
]


def bucket(limit: float, rate: float, rounding: Rounding, *, answers: int, spacing: float, seed: int) -> Inference:
    """A continuous bucket whose reset is the time until it is whole, as `answers` at random times state it."""
    written, quantum = rounding
    level, at, detector, inference = limit, 0.0, random.Random(seed), None
    for sent in range(answers):
        pause = detector.expovariate(1 / spacing)
        at, level = at + pause, min(limit, level + pause * rate)
        level -= min(1.0, level)
        said = Stated("", "requests", limit, float(int(level)), written((limit - level) / rate), None, quantum)
        inference = inference or Inference(said)
        inference.learn(said, Sent(sent, 0.0, 1.0, at), at)
    assert inference is not None
    return inference


def window(limit: float, seconds: float, rounding: Rounding, *, answers: int, spacing: float, seed: int) -> Inference:
    """A fixed window whose reset is the time until its end."""
    written, quantum = rounding
    used, end, at, detector, inference = 0, -1.0, 1.0, random.Random(seed), None
    for sent in range(answers):
        at += detector.expovariate(1 / spacing)
        if at >= end:
            used, end = 0, at - at % seconds + seconds
        used = min(int(limit), used + 1)
        said = Stated("", "requests", limit, limit - used, written(end - at), None, quantum)
        inference = inference or Inference(said)
        inference.learn(said, Sent(sent, 0.0, 1.0, at), at)
    assert inference is not None
    return inference


@given(
    st.sampled_from([20.0, 600.0, 10_000.0]), st.floats(0.2, 500.0), st.sampled_from(ROUNDINGS), st.floats(0.3, 4.0),
    st.integers(0, 1000),
)  # fmt: skip
def test_the_refill_of_a_bucket_is_never_taken_for_another(
    limit: float, rate: float, rounding: Rounding, haste: float, seed: int
) -> None:
    inference = bucket(limit, rate, rounding, answers=60, spacing=1 / rate / haste, seed=seed)
    if inference.rate is not None:
        assert rate / 2.1 <= inference.rate <= 2.1 * rate


@pytest.mark.parametrize(("limit", "seconds"), [(600.0, 60.0), (20.0, 2.0), (14_400.0, 86_400.0)])
def test_a_bucket_that_states_milliseconds_is_understood_after_some_answers(limit: float, seconds: float) -> None:
    inference = bucket(limit, limit / seconds, ROUNDINGS[0], answers=12, spacing=seconds / limit / 8, seed=1)
    assert inference.meaning is Meaning.FULL
    assert inference.rate == pytest.approx(limit / seconds, rel=0.25)
    assert inference.budget is (seconds >= 3600)


@given(
    st.sampled_from([30.0, 100.0, 600.0]),
    st.sampled_from([10.0, 60.0, 300.0]),
    st.floats(0.3, 0.95),
    st.integers(0, 1000),
)
def test_the_end_of_a_window_is_not_taken_for_a_bucket(limit: float, seconds: float, haste: float, seed: int) -> None:
    inference = window(
        limit, seconds, ROUNDINGS[2], answers=int(1.5 * limit), spacing=seconds / limit / haste, seed=seed
    )
    assert inference.meaning in (Meaning.END, Meaning.UNKNOWN)


@given(st.sampled_from([100.0, 600.0]), st.sampled_from([10.0, 60.0]), st.floats(1.1, 3.0), st.integers(0, 1000))
def test_a_window_may_be_used_up_to_what_remains_until_its_end(
    limit: float, seconds: float, haste: float, seed: int
) -> None:
    inference = window(limit, seconds, ROUNDINGS[0], answers=int(limit / 3), spacing=seconds / limit / haste, seed=seed)
    held = StatedLimit(inference.stated, 0.0)
    held.apply(inference.stated, Sent(0, 0, 1.0, 0.0), 0.0)
    remaining = inference.stated.remaining or 0.0
    for _ in range(int(remaining)):
        assert held.wait(1.0, 0.0) == 0.0
        held.take(1.0, 0.0)
    assert held.wait(1.0, 0.0) == pytest.approx(inference.stated.reset)


@given(st.floats(0.5, 50.0), st.integers(5, 100), st.floats(0.3, 3.0), st.integers(0, 1000))
def test_the_time_until_one_more_fits_is_not_the_time_until_the_limit_is_whole(
    rate: float, limit: int, haste: float, seed: int
) -> None:
    level, at, detector = float(limit), 0.0, random.Random(seed)
    inference = Inference(Stated("", "requests", limit, limit, 0.0))
    for sent in range(100):
        pause = detector.expovariate(rate * haste)
        at, level = at + pause, min(limit, level + pause * rate)
        level -= min(1.0, level)
        upcoming = math.ceil((1 - level % 1) / rate * 1000) / 1000
        inference.learn(Stated("", "requests", limit, int(level), upcoming, None, 0.001), Sent(sent, 0, 1.0, at), at)
    if inference.rate is not None and sent > 50:
        assert inference.rate <= 4 * rate


@given(st.integers(100, 100_000), st.floats(0.01, 2.0))
def test_a_figure_that_never_moves_says_nothing(limit: int, pause: float) -> None:
    said = Stated("", "tokens", limit, limit - 10.0)
    inference = Inference(said)
    for sent in range(100):
        inference.learn(said, Sent(sent, 0.0, 1.0, sent * pause), sent * pause)
    assert inference.meaning is Meaning.UNKNOWN


def test_what_should_have_fallen_further_is_the_refill_where_no_reset_is_stated() -> None:
    inference = Inference(Stated("", "output", 38_400, 38_400))
    level, at = 38_400.0, 0.0
    for sent in range(80):
        pause = 0.02 if sent < 20 else 0.1
        at, level = at + pause, min(38_400.0, level + pause * 640) - 64
        inference.learn(Stated("", "output", 38_400, int(level)), Sent(sent * 64, 0.0, 64.0, at), at)
    assert inference.meaning is Meaning.REFILL
    assert inference.rate == pytest.approx(640, rel=0.2)


def test_a_name_wins_over_everything() -> None:
    said = Stated("", "requests", 600, 599, 42.5, 60.0)
    inference = Inference(said)
    inference.learn(said, Sent(0, 0, 1.0, 0.0), 0.0)
    assert (inference.meaning, inference.rate) == (Meaning.NAMED, 10.0)


@given(st.floats(0.01, 1000.0), st.integers(2, 10_000), st.floats(0.0, 1.0), st.sampled_from(ROUNDINGS))
def test_one_answer_of_a_bucket_bounds_its_refill(rate: float, limit: int, share: float, rounding: Rounding) -> None:
    level, (written, quantum) = limit * share, rounding
    said = Stated("", "requests", limit, int(level), written((limit - level) / rate), None, quantum)
    least, most = refill_if_full(said)
    assert least <= rate * 1.001
    assert most >= rate * 0.999 or level > limit - 1


def test_a_bucket_that_refuses_although_it_has_room_is_spaced_and_looked_at_again() -> None:
    held = StatedLimit(Stated("", "requests", 600, 599, 0.1, None, 0.001), 0.0)
    for sent in range(1, 12):
        said = Stated("", "requests", 600, 600 - sent, sent / 10, None, 0.001)
        held.apply(said, Sent(sent, 0, 1.0, sent / 1000), sent / 1000)
    assert held.pace(0.02) == math.inf
    held.refused(80.0, 0.02)
    assert held.pace(0.02) == pytest.approx(9.95)
    assert not held.doubted(10.0)
    assert held.doubted(60.0)  # `remaining` has been near the limit all the time
    assert held.pace(60.0) == math.inf
