"""The window of rows at hand: in order, retries when they are due, nothing lost, nobody busy."""

import asyncio
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import PATIENCE

from batchrun.engine.pending_queue import AHEAD, Followers, PendingQueue, RowState
from batchrun.errors import StorageError
from batchrun.models import JUST_DONE, History, Pending, Span


def row(position: int) -> Pending:
    return Pending(position, position, position, f"k{position}", "{}", History(0, 0, 0, 0, False, None))


async def no_followers(_: Followers) -> tuple[list[Pending], int | None]:
    return [], None


class Source:
    """A journal of `total` rows, read `AHEAD` at a time."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.reads = 0

    async def fetch(self, after: int) -> tuple[list[Pending], int | None]:
        self.reads += 1
        await asyncio.sleep(0)
        rows = [row(position) for position in range(after + 1, min(after + AHEAD, self.total) + 1)]
        return rows, rows[-1].position if len(rows) == AHEAD else None


async def taken(queue: PendingQueue) -> list[int]:
    found: list[int] = []
    while (state := await queue.next()) is not None:
        found.append(state.row.seq)
        queue.finished(state)
    return found


def recorded_takes(queue: PendingQueue) -> list[RowState | None]:
    """What `queue.take` returns from now on."""
    takes: list[RowState | None] = []
    take = queue.take

    def taken() -> RowState | None:
        takes.append(take())
        return takes[-1]

    queue.take = taken  # type: ignore[method-assign]
    return takes


@pytest.mark.parametrize("total", [0, 1, AHEAD - 1, AHEAD, AHEAD + 1, 3 * AHEAD])
async def test_every_row_comes_once_and_in_order(total: int) -> None:
    source = Source(total)
    assert await taken(PendingQueue(source.fetch, no_followers)) == list(range(1, total + 1))
    assert source.reads == total // AHEAD + 1


async def test_what_goes_wrong_with_the_last_rows_is_not_lost() -> None:
    """There is nothing more to fetch then, and nobody may take that for the end."""

    async def fetch(_: int) -> tuple[list[Pending], int | None]:
        return [row(1)._replace(history=None)], None  # type: ignore[arg-type]

    with pytest.raises(AttributeError):
        await taken(PendingQueue(fetch, no_followers))


@pytest.mark.looptime
async def test_no_more_rows_wait_for_their_retry_than_memory_should_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrun.engine.pending_queue.MOST_DUE", 5)
    queue, loop = PendingQueue(Source(20).fetch, no_followers), asyncio.get_running_loop()
    start, sent = loop.time(), list[tuple[int, float]]()

    async def work() -> None:
        while (state := await queue.next()) is not None:
            sent.append((state.row.seq, round(loop.time() - start)))
            state.attempts += 1
            await asyncio.sleep(0)
            if state.attempts == 1:
                queue.put_back(state, 3600.0)
            else:
                queue.finished(state)

    working = [asyncio.create_task(work()) for _ in range(2)]
    await asyncio.sleep(1800)
    assert len(sent) <= 6
    assert queue.next_due == start + 3600
    await asyncio.gather(*working)
    assert sorted(seq for seq, _ in sent) == sorted([*range(1, 21)] * 2)
    assert max(at for _, at in sent) <= 5 * 3600


@pytest.mark.looptime
async def test_retries_come_when_they_are_due_the_earliest_first() -> None:
    queue, loop = PendingQueue(Source(3).fetch, no_followers), asyncio.get_running_loop()
    states = [await queue.next() for _ in range(3)]
    start = loop.time()
    for state, seconds in zip(states, (30.0, 10.0, 20.0), strict=True):
        assert state is not None
        queue.put_back(state, seconds)
    assert queue.next_due == start + 10
    order: list[tuple[int, float]] = []
    while (again := await queue.next()) is not None:
        order.append((again.row.seq, round(loop.time() - start)))
        queue.finished(again)
    assert order == [(2, 10), (3, 20), (1, 30)]


@pytest.mark.looptime
async def test_a_retry_that_is_due_goes_before_fresh_rows_and_one_that_is_not_holds_nobody_up() -> None:
    queue = PendingQueue(Source(5).fetch, no_followers)
    first = await queue.next()
    assert first is not None
    queue.put_back(first, 0.0)
    again = await queue.next()
    assert again is first
    queue.put_back(again, 3600.0)
    assert [state.row.seq for _ in range(4) if (state := await queue.next())] == [2, 3, 4, 5]


@pytest.mark.looptime
async def test_who_waits_wakes_only_when_a_row_is_due() -> None:
    """A busy loop would go round thousands of times in an hour."""
    queue, loop = PendingQueue(Source(1).fetch, no_followers), asyncio.get_running_loop()
    state = await queue.next()
    assert state is not None
    waiting = [asyncio.ensure_future(queue.next()) for _ in range(50)]
    await asyncio.sleep(0)
    takes = recorded_takes(queue)
    queue.put_back(state, 3600.0)
    start = loop.time()
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert loop.time() - start >= 3600
    assert len(takes) < 60
    assert [task.result() for task in done] == [state]
    queue.finished(state)
    assert await asyncio.gather(*waiting) == [waiting[i].result() for i in range(50)]


async def test_a_closed_window_hands_out_nothing_more() -> None:
    queue = PendingQueue(Source(10).fetch, no_followers)
    state = await queue.next()
    assert state is not None
    queue.put_back(state, 0.0)
    queue.close()
    assert await queue.next() is None


async def test_who_waits_when_it_closes_goes_home() -> None:
    queue = PendingQueue(Source(1).fetch, no_followers)
    assert await queue.next()
    waiting = asyncio.ensure_future(queue.next())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    queue.close()
    assert await waiting is None


async def test_a_journal_that_cannot_be_read_is_told_to_who_asks() -> None:
    async def broken(_: int) -> tuple[list[Pending], int | None]:
        raise StorageError("the journal cannot be read")

    queue = PendingQueue(broken, no_followers)
    with pytest.raises(StorageError, match="cannot be read"):
        await queue.next()


async def test_memory_does_not_grow_with_the_input() -> None:
    async def most(total: int) -> int:
        tracemalloc.start()
        queue = PendingQueue(Source(total).fetch, no_followers)
        while (state := await queue.next()) is not None:
            queue.finished(state)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert await most(10 * AHEAD) < 1.5 * await most(2 * AHEAD)


@given(st.lists(st.integers(1, 150), min_size=1, max_size=30), st.integers(1, 8), st.integers(0, 60))
def test_rows_at_hand_hold_no_more_bytes_than_allowed_but_one_always_passes(
    sizes: list[int], workers: int, reply: int
) -> None:
    async def story() -> None:
        async def fetch(after: int) -> tuple[list[Pending], int | None]:
            return [row(n)._replace(text="x" * size) for n, size in enumerate(sizes, 1) if n > after], None

        queue, out, ended = PendingQueue(fetch, no_followers, most_bytes=100), dict[int, int](), list[int]()

        async def work() -> None:
            while (state := await queue.next()) is not None:
                before = sum(out.values())
                assert not before or before + state.size <= 100
                out[state.row.seq] = state.size
                await asyncio.sleep(0)
                queue.bytes.holds(state, reply)
                out[state.row.seq] += reply
                await asyncio.sleep(0)
                del out[state.row.seq]
                ended.append(state.row.seq)
                queue.finished(state)

        await asyncio.wait_for(asyncio.gather(*(work() for _ in range(workers))), PATIENCE)
        assert sorted(ended) == list(range(1, len(sizes) + 1))

    asyncio.run(story())


async def test_what_rows_hold_beside_their_texts_counts_from_the_start_for_those_that_follow() -> None:
    async def fetch(_: int) -> tuple[list[Pending], int | None]:
        return [row(n)._replace(text="x" * 10) for n in range(1, 400)], None

    queue = PendingQueue(fetch, no_followers, most_bytes=1000)
    for _ in range(100):
        state = await queue.next()
        assert state is not None
        queue.bytes.holds(state, 200)
        queue.finished(state)
    together = [state for _ in range(4) if (state := await queue.next()) and queue.bytes.leaves(state)]
    assert not queue.lacks_bytes
    waiting = asyncio.ensure_future(queue.next())
    await asyncio.sleep(0)
    assert queue.lacks_bytes
    assert not waiting.done()
    queue.finished(together[0])
    assert await waiting is not None


@settings(max_examples=30)
@given(
    st.integers(0, 40),
    st.integers(1, 8),
    st.lists(st.sampled_from(["done", "again", "later"]), min_size=1, max_size=30),
)
def test_whatever_happens_to_rows_each_ends_once(total: int, workers: int, fates: list[str]) -> None:
    async def story() -> None:
        queue = PendingQueue(Source(total).fetch, no_followers)
        ended: list[int] = []
        tries = 0

        async def work() -> None:
            nonlocal tries
            while (state := await queue.next()) is not None:
                await asyncio.sleep(0)
                tries += 1
                group_verdict = fates[tries % len(fates)] if tries < 200 else "done"
                if group_verdict == "done":
                    ended.append(state.row.seq)
                    queue.finished(state)
                else:
                    queue.put_back(state, 0.0 if group_verdict == "again" else 0.001)

        await asyncio.wait_for(asyncio.gather(*(work() for _ in range(workers))), PATIENCE)
        assert sorted(ended) == list(range(1, total + 1))

    asyncio.run(story())


async def test_a_reduce_row_that_ends_while_the_journal_is_looked_at_is_not_handed_out_again() -> None:
    looks, look, looking = list[int | None](), asyncio.Event(), asyncio.Event()

    async def waiting_groups(followers: Followers) -> tuple[list[Pending], int | None]:
        if not followers.reduces:
            return [], None
        looks.append(followers.target)
        if len(looks) > 1:
            looking.set()
            await look.wait()
        return [row(7)], None  # what the journal had when the look began

    queue = PendingQueue(Source(0).fetch, waiting_groups)
    queue.reduce(7)
    state = await queue.next()
    assert state is not None
    queue.reduce(7)  # another part of it has ended
    waiting = asyncio.create_task(queue.next())
    await looking.wait()
    queue.ended(state, JUST_DONE)
    queue.finished(state)
    look.set()
    assert await waiting is None
    assert looks == [7, 7]


@pytest.mark.parametrize(
    ("page", "most", "awake"), [(3, float("inf"), 3), (40, 4 * 10 * 100.0, 10), (40, float("inf"), 40)]
)
async def test_a_page_wakes_no_more_workers_than_it_has_rows_that_fit(page: int, most: float, awake: int) -> None:
    pages = [[row(position)._replace(text="x" * 100) for position in range(1, page + 1)]]
    arrived = asyncio.Event()

    async def fetch(after: int) -> tuple[list[Pending], int | None]:
        if after:
            await asyncio.Event().wait()
        await arrived.wait()
        return pages[0], page

    queue = PendingQueue(fetch, no_followers, most_bytes=most)
    takes = recorded_takes(queue)
    workers = [asyncio.create_task(queue.next()) for _ in range(500)]
    for _ in range(5):
        await asyncio.sleep(0)
    before = len(takes)
    arrived.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert sum(worker.done() for worker in workers) == awake
    assert len(takes) - before <= 2 * awake
    queue.close()
    await asyncio.gather(*workers)


async def test_rows_whose_bodies_are_in_a_file_take_memory_once_they_are_handed_out() -> None:
    """The sender reads them then."""

    async def fetch(_: int) -> tuple[list[Pending], int | None]:
        return [row(number)._replace(text="", encoded=Span("f", 0, 1000)) for number in range(1, 2001)], None

    queue = PendingQueue(fetch, no_followers, most_bytes=2500)
    first = await queue.next()
    assert queue._fresh_bytes == 0
    assert first is not None
    assert queue.bytes.leaves(first)
    second = queue.take()
    assert second is not None
    assert queue.bytes.leaves(second)
    assert (first.row.seq, second.row.seq, queue.take()) == (1, 2, None)
    queue.finished(first)
    following = queue.take()
    assert following is not None
    assert following.row.seq == 3
    queue.hand_back([following])
    assert queue._fresh_bytes == 0
