"""What a run is expected to use, cost and take, from what some rows did."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.engine.forecast import Lengths, Range, Seen, Throughput, duration, input_tokens, total


def lengths_of(sizes: list[int]) -> Lengths:
    found = Lengths()
    for size in sizes:
        found.add(size)
    return found


def world(seed: int, kind: str) -> list[tuple[int, float]]:
    """(bytes, cost) of 2,500 rows."""
    random = Random(seed)
    rows: list[tuple[int, float]] = []
    for _ in range(2500):
        size = int(random.lognormvariate(6.5, 0.6)) + 300
        if kind == "free":
            output = random.randint(10, 300)
        elif kind == "linear":
            output = int(size * random.uniform(0.1, 0.3))
        else:
            output = min(150, size // 8 + random.randint(0, 20))
        rows.append((size, size / 4 + 6.0 * output))
    return rows


@pytest.mark.parametrize("kind", ["free", "linear", "cut"])
def test_the_truth_is_nearly_always_in_the_range_and_the_range_is_narrow(kind: str) -> None:
    inside, widest = 0, 0.0
    for seed in range(60):
        rows = world(seed, kind)
        picked = {Random(seed + 1000 + at).randint(at * 50, at * 50 + 49) for at in range(50)}
        found = total(
            lengths_of([size for at, (size, _) in enumerate(rows) if at not in picked]), [rows[at] for at in picked]
        )
        truth = sum(cost for at, (_, cost) in enumerate(rows) if at not in picked)
        inside += found.low <= truth <= found.high
        widest = max(widest, (found.high - found.low) / 2 / found.expected)
    print(kind, inside, widest)
    assert inside >= 51
    assert widest <= 0.25


@given(
    sizes=st.lists(st.integers(1, 10**6), max_size=50),
    seen=st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 1e9)), min_size=1, max_size=30),
)
def test_a_range_is_in_order_and_finite(sizes: list[int], seen: list[tuple[int, float]]) -> None:
    found = total(lengths_of(sizes), seen)
    assert all(map(math.isfinite, found))
    assert found.low >= 0
    assert found.low <= found.expected + 1e-6 or found.expected < 0
    assert found.expected <= found.high


def test_rows_of_one_length_are_predicted_by_their_mean() -> None:
    found = total(lengths_of([2]), [(2, 0.0), (2, 0.0), (2, 1.0)])
    assert found.expected == pytest.approx(1 / 3)
    assert found.low == 0.0
    assert 1.0 < found.high < 10.0


def test_prompt_tokens_are_a_guess_until_replies_tell() -> None:
    lengths = lengths_of([4000] * 10)
    assert input_tokens(lengths, []) == Range(7500, 10000, 12500)
    seen = [Seen(4000, 800, 10, None, 1.0, 1) for _ in range(5)]
    assert input_tokens(lengths, seen) == Range(8000, 8000, 8000)


@pytest.mark.parametrize(
    ("throughput", "seconds", "binding"),
    [
        (Throughput(600, None, 256, 0.5), 100, "requests per minute"),
        (Throughput(600, 60_000, 256, 0.5), 200, "tokens per minute"),
        (Throughput(6000, None, 10, 2.0), 200, "concurrency"),
        (Throughput(None, None, 5000, 2.0), 2, "latency"),
    ],
)
def test_the_slowest_bound_tells_the_time(throughput: Throughput, seconds: float, binding: str) -> None:
    found = duration(1000, Range(200_000, 200_000, 200_000), throughput)
    assert found is not None
    assert (found.seconds.expected, found.binding) == (pytest.approx(seconds), binding)
    assert found.seconds.low <= found.seconds.expected <= found.seconds.high


def test_without_a_limit_and_a_reply_nothing_tells_the_time() -> None:
    assert duration(1000, Range(1, 1, 1), Throughput(None, None, 256, None)) is None
