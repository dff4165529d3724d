"""Beginnings that requests share: who writes one, until when it can be read, and in which order rows are handed out."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from batchrun.engine.pending_queue import RowState
from batchrun.engine.prefixes import WRITE_SECONDS, Groups, Prefix
from batchrun.models import Endpoint, History, Pending
from batchrun.prompts import Caching, PromptRenderer, parse, renderer

FRESH = History(0, 0, 0, 0, False, None)
LONG = "x" * 40


def state(number: int, first: str = "a", second: str = "b") -> RowState:
    text = f'{{"a": "{first}{LONG}", "b": "{second}"}}'
    return RowState.of(Pending(number, number, number, f"id-{number}", text, FRESH))


def groups(seconds: float = 300.0) -> Groups:
    return Groups(_renderer(), Caching(minimum=20, seconds=seconds))


def _renderer() -> PromptRenderer:
    prompt = parse("Of {{ a }}: {{ b }}", path="p.md")
    return renderer(prompt, endpoint=Endpoint.CHAT, model="m", params={}, variables={}, columns={})


def marks(prefix: Prefix, state: RowState, now: float, *, more: bool = True) -> bool:
    """Whether the request of a row marks the beginning; then it does."""
    if found := prefix.is_for(state, now, more=more):
        prefix.marked(state, now)
    return found


def test_one_writes_and_once_it_is_answered_all_read_until_it_is_forgotten() -> None:
    prefix, one, other = Prefix(b"", 10, 300.0), state(1), state(2)
    assert marks(prefix, one, 0.0)
    assert marks(prefix, one, 0.0)  # its own retry
    assert not marks(prefix, other, 1.0)
    assert prefix.is_awaited(1.0)
    prefix.ended(one, 2.0, answered=True)
    assert not prefix.is_awaited(2.0)
    assert marks(prefix, other, 301.0)
    prefix.ended(other, 301.5, answered=True)  # a use keeps it
    assert marks(prefix, one, 601.0)
    assert marks(prefix, other, 602.0)  # forgotten: it writes again
    assert not marks(prefix, one, 603.0)


def test_one_that_fails_or_takes_long_gives_the_writing_to_another() -> None:
    prefix, one, other = Prefix(b"", 10, 300.0), state(1), state(2)
    assert marks(prefix, one, 0.0)
    prefix.ended(one, 1.0, answered=False)
    assert marks(prefix, other, 1.0)
    assert not marks(prefix, one, 2.0)
    assert marks(prefix, one, 1.0 + WRITE_SECONDS)


def test_nothing_is_written_where_nobody_is_to_read_it() -> None:
    prefix, one = Prefix(b"", 10, 300.0), state(1)
    assert not marks(prefix, one, 0.0, more=False)
    assert marks(prefix, one, 0.0)
    prefix.ended(one, 1.0, answered=True)
    assert marks(prefix, state(2), 2.0, more=False)


@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("uvw")), max_size=30),
    turns=st.lists(st.booleans(), max_size=80),
    answered=st.booleans(),
)
def test_every_row_is_handed_out_once_whatever_ends_when(
    rows: list[tuple[str, str]], turns: list[bool], answered: bool
) -> None:
    found = groups()
    states = [state(number, *texts) for number, texts in enumerate(rows, 1)]
    fresh = deque(found.arranged(states))
    assert sorted(each.row.seq for each in fresh) == sorted(each.row.seq for each in states)
    under_way: deque[RowState] = deque()
    out: list[int] = []
    now = 0.0
    for ends in [*turns, *[True, False] * (2 * len(states))]:
        now += 1.0
        if ends and under_way:
            done = under_way.popleft()
            for prefix in done.shared:
                prefix.ended(done, now, answered=answered)
            fresh.extendleft(reversed(tuple(found.released(done))))
        elif (taken := found.next_of(fresh, now)) is not None:
            out.append(taken.row.seq)
            under_way.append(taken)
    assert sorted(out) == [each.row.seq for each in states]
    assert found.waiting == 0


@given(rows=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("uvw")), max_size=30))
def test_rows_that_share_a_beginning_are_next_to_each_other(rows: list[tuple[str, str]]) -> None:
    arranged = groups().arranged([state(number, *texts) for number, texts in enumerate(rows, 1)])
    firsts = [each.row.text[7] for each in arranged]
    assert firsts == [
        letter for letter in dict.fromkeys(first for first, _ in rows) for _ in range(firsts.count(letter))
    ]
    shared = {each.row.text[7]: len(each.shared) for each in arranged}
    assert shared == {letter: int(firsts.count(letter) > 1) for letter in shared}
