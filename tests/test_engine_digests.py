"""How often digests were met, held against a counter."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from batchrun.engine.ingest import Digests

DIGESTS = st.one_of(st.integers(2, 9), st.integers(1, 2**64 - 1), st.integers(1, 50).map(lambda number: number << 40))
"""Some equal, some anywhere, some that all want the same place."""


@given(st.lists(st.tuples(st.booleans(), DIGESTS), max_size=300))
def test_it_counts_as_a_counter_does(steps: list[tuple[bool, int]]) -> None:
    found, truth = Digests(), Counter[int]()
    for adds, digest in steps:
        if adds:
            assert found.add(digest) == truth[digest]
            truth[digest] += 1
        else:
            assert found.take(digest) == (truth[digest] > 0)
            truth[digest] -= truth[digest] > 0


def test_it_grows_without_forgetting() -> None:
    found, digests = Digests(), [number * 0x9E3779B97F4A7C15 % 2**64 for number in range(1, 5001)]
    assert [found.add(digest) for digest in digests] == [0] * 5000
    assert [found.add(digest) for digest in digests] == [1] * 5000
    assert found.add(0) == 0
    assert found.add(0) == 1
