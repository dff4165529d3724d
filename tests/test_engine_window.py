"""The window of rows at hand: in order, retries when they are due, nothing lost, nobody busy."""

import asyncio
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.engine.window import AHEAD, Job, Train, Window
from batchrun.errors import StorageError
from batchrun.models import JUST_DONE, History, Pending


def row(position: int) -> Pending:
    return Pending(position, position, position, f"k{position}", "{}", History(0, 0, 0, 0, False, None))


async def no_train(_: Train) -> tuple[list[Pending], int | None]:
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


async def taken(window: Window) -> list[int]:
    found: list[int] = []
    while (job := await window.next()) is not None:
        found.append(job.row.seq)
        window.finished(job)
    return found


@pytest.mark.parametrize("total", [0, 1, AHEAD - 1, AHEAD, AHEAD + 1, 3 * AHEAD])
async def test_every_row_comes_once_and_in_order(total: int) -> None:
    source = Source(total)
    assert await taken(Window(source.fetch, no_train)) == list(range(1, total + 1))
    assert source.reads == total // AHEAD + 1


@pytest.mark.looptime
async def test_no_more_rows_wait_for_their_retry_than_memory_should_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrun.engine.window.MOST_DUE", 5)
    window, loop = Window(Source(20).fetch, no_train), asyncio.get_running_loop()
    start, sent = loop.time(), list[tuple[int, float]]()

    async def work() -> None:
        while (job := await window.next()) is not None:
            sent.append((job.row.seq, round(loop.time() - start)))
            job.attempts += 1
            await asyncio.sleep(0)
            if job.attempts == 1:
                window.put_back(job, 3600.0)
            else:
                window.finished(job)

    working = [asyncio.create_task(work()) for _ in range(2)]
    await asyncio.sleep(1800)
    assert len(sent) <= 6
    assert window.next_due == start + 3600
    await asyncio.gather(*working)
    assert sorted(seq for seq, _ in sent) == sorted([*range(1, 21)] * 2)
    assert max(at for _, at in sent) <= 5 * 3600


@pytest.mark.looptime
async def test_retries_come_when_they_are_due_the_earliest_first() -> None:
    window, loop = Window(Source(3).fetch, no_train), asyncio.get_running_loop()
    jobs = [await window.next() for _ in range(3)]
    start = loop.time()
    for job, seconds in zip(jobs, (30.0, 10.0, 20.0), strict=True):
        assert job is not None
        window.put_back(job, seconds)
    assert window.next_due == start + 10
    order: list[tuple[int, float]] = []
    while (again := await window.next()) is not None:
        order.append((again.row.seq, round(loop.time() - start)))
        window.finished(again)
    assert order == [(2, 10), (3, 20), (1, 30)]


@pytest.mark.looptime
async def test_a_retry_that_is_due_goes_before_fresh_rows_and_one_that_is_not_holds_nobody_up() -> None:
    window = Window(Source(5).fetch, no_train)
    first = await window.next()
    assert first is not None
    window.put_back(first, 0.0)
    again = await window.next()
    assert again is first
    window.put_back(again, 3600.0)
    assert [job.row.seq for _ in range(4) if (job := await window.next())] == [2, 3, 4, 5]


@pytest.mark.looptime
async def test_who_waits_wakes_only_when_a_row_is_due() -> None:
    """A busy loop would go round thousands of times in an hour."""
    window, loop = Window(Source(1).fetch, no_train), asyncio.get_running_loop()
    job = await window.next()
    assert job is not None
    waiting = [asyncio.ensure_future(window.next()) for _ in range(50)]
    await asyncio.sleep(0)
    steps = 0
    take = window._take

    def counted() -> Job | None:
        nonlocal steps
        steps += 1
        return take()

    window._take = counted  # type: ignore[method-assign]
    window.put_back(job, 3600.0)
    start = loop.time()
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert loop.time() - start >= 3600
    assert steps < 60
    assert [task.result() for task in done] == [job]
    window.finished(job)
    assert await asyncio.gather(*waiting) == [waiting[i].result() for i in range(50)]


async def test_a_closed_window_hands_out_nothing_more() -> None:
    window = Window(Source(10).fetch, no_train)
    job = await window.next()
    assert job is not None
    window.put_back(job, 0.0)
    window.close()
    assert await window.next() is None


async def test_who_waits_when_it_closes_goes_home() -> None:
    window = Window(Source(1).fetch, no_train)
    assert await window.next()
    waiting = asyncio.ensure_future(window.next())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    window.close()
    assert await waiting is None


async def test_a_journal_that_cannot_be_read_is_told_to_who_asks() -> None:
    async def broken(_: int) -> tuple[list[Pending], int | None]:
        raise StorageError("the journal cannot be read")

    window = Window(broken, no_train)
    with pytest.raises(StorageError, match="cannot be read"):
        await window.next()


async def test_memory_does_not_grow_with_the_input() -> None:
    async def most(total: int) -> int:
        tracemalloc.start()
        window = Window(Source(total).fetch, no_train)
        while (job := await window.next()) is not None:
            window.finished(job)
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

        window, out, ended = Window(fetch, no_train, most_bytes=100), dict[int, int](), list[int]()

        async def work() -> None:
            while (job := await window.next()) is not None:
                before = sum(out.values())
                assert not before or before + job.size <= 100
                out[job.row.seq] = job.size
                await asyncio.sleep(0)
                window.holds(job, reply)
                out[job.row.seq] += reply
                await asyncio.sleep(0)
                del out[job.row.seq]
                ended.append(job.row.seq)
                window.finished(job)

        await asyncio.wait_for(asyncio.gather(*(work() for _ in range(workers))), 10)
        assert sorted(ended) == list(range(1, len(sizes) + 1))

    asyncio.run(story())


async def test_what_rows_hold_beside_their_texts_counts_from_the_start_for_those_that_follow() -> None:
    async def fetch(_: int) -> tuple[list[Pending], int | None]:
        return [row(n)._replace(text="x" * 10) for n in range(1, 400)], None

    window = Window(fetch, no_train, most_bytes=1000)
    for _ in range(100):
        job = await window.next()
        assert job is not None
        window.holds(job, 200)
        window.finished(job)
    together = [await window.next() for _ in range(4)]
    assert not window.lacks_bytes
    waiting = asyncio.ensure_future(window.next())
    await asyncio.sleep(0)
    assert window.lacks_bytes
    assert not waiting.done()
    window.finished(together[0])
    assert await waiting is not None


@settings(max_examples=30)
@given(
    st.integers(0, 40),
    st.integers(1, 8),
    st.lists(st.sampled_from(["done", "again", "later"]), min_size=1, max_size=30),
)
def test_whatever_happens_to_rows_each_ends_once(total: int, workers: int, fates: list[str]) -> None:
    async def story() -> None:
        window = Window(Source(total).fetch, no_train)
        ended: list[int] = []
        tries = 0

        async def work() -> None:
            nonlocal tries
            while (job := await window.next()) is not None:
                await asyncio.sleep(0)
                tries += 1
                fate = fates[tries % len(fates)] if tries < 200 else "done"
                if fate == "done":
                    ended.append(job.row.seq)
                    window.finished(job)
                else:
                    window.put_back(job, 0.0 if fate == "again" else 0.001)

        await asyncio.wait_for(asyncio.gather(*(work() for _ in range(workers))), 10)
        assert sorted(ended) == list(range(1, total + 1))

    asyncio.run(story())


async def test_a_reduce_row_that_ends_while_the_journal_is_looked_at_is_not_handed_out_again() -> None:
    looks, look, looking = list[int | None](), asyncio.Event(), asyncio.Event()

    async def trains(train: Train) -> tuple[list[Pending], int | None]:
        if not train.reduces:
            return [], None
        looks.append(train.target)
        if len(looks) > 1:
            looking.set()
            await look.wait()
        return [row(7)], None  # what the journal had when the look began

    window = Window(Source(0).fetch, trains)
    window.reduce(7)
    job = await window.next()
    assert job is not None
    window.reduce(7)  # another part of it has ended
    waiting = asyncio.create_task(window.next())
    await looking.wait()
    window.ended(job, JUST_DONE)
    window.finished(job)
    look.set()
    assert await waiting is None
    assert looks == [7, 7]
