"""Long rows and replies: pages, batches and what is in flight are bounded in bytes, and nothing is lost for it."""

import asyncio
import contextlib
import gc
import math
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from engine import Provider, Stage, ok, until
from hypothesis import given
from hypothesis import strategies as st
from waiting import PATIENCE

from batchrun.engine.bytes_held import BytesHeld
from batchrun.engine.pending_queue import RowState
from batchrun.engine.run import Run
from batchrun.events import Waiting, WaitReason
from batchrun.journal import LONG_TEXT, End, IntakeRow, Journal, Meta, Reader, TextForm, ingest
from batchrun.models import FRESH, Exchange, Outcome, Pending, Request, State
from batchrun.plan.durations import parse_size
from batchrun.rows.members import restore
from batchrun.tui.draft import read_head

META = Meta(run="r1", created=1.5, plan="{}", prompt=None, simulated=True, output="../out.jsonl")
DONE = Outcome(State.DONE, True, None, None, frozenset(), None)
SIZES = [10, 990, 10, 2000, 10, 10, 500, 600, 3000, 10]


def texts() -> list[str]:
    return [f'{{"n": {n}, "text": "{"x" * size}"}}' for n, size in enumerate(SIZES)]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("batchrun.journal.pages.PAGE_BYTES", 1000)
    path = tmp_path / ".batchrun" / "r1.db"
    with_rows = Journal.create(path, META)
    with_rows.ingest([IntakeRow(n, f"id-{n}", f"request {n}", text) for n, text in enumerate(texts(), 1)])
    with_rows.close()
    return path


def pages(journal: Journal) -> list[list[int]]:
    found, after, more = list[list[int]](), 0, True
    while more:
        page = journal.pending(after)
        assert sum(len(row.text) for row in page[:-1]) < 1000, "a page ends with the row that fills it"
        found.append([row.seq for row in page])
        more = page.full
        after = page[-1].position if page else after
    return found


def answered(path: Path, rows: list[int], *, finished: bool) -> None:
    """Each of these rows gets a reply as long as its text."""

    async def session() -> None:
        journal = Journal.open(path)
        journal.start()
        for row in rows:
            await journal.begin(row, 1)
            await journal.end(row, 1, End(200, 0.1), f'"{"r" * SIZES[row - 1]}"')
            if finished:
                await journal.finish(row, DONE)
        journal.close(0)

    asyncio.run(session())


def test_pending_rows_come_in_pages_of_bytes_each_once(path: Path) -> None:
    journal = Journal.open(path)
    found = pages(journal)
    journal.close()
    assert [seq for page in found for seq in page] == list(range(1, len(SIZES) + 1))
    assert len(found) > 3


def test_recorded_replies_count_in_a_page_and_none_is_lost(path: Path) -> None:
    answered(path, [2, 4, 5, 7, 8, 9], finished=False)
    journal = Journal.open(path)
    found, after, more = list[tuple[int, int]](), 0, True
    while more:
        page = journal.pending(after)
        found += [(row.seq, len(row.history.reply or "")) for row in page]
        more, after = page.full, page[-1].position
    journal.close()
    assert [seq for seq, _ in found] == list(range(1, len(SIZES) + 1))
    assert {seq: size - 2 for seq, size in found if size} == {seq: SIZES[seq - 1] for seq in (2, 4, 5, 7, 8, 9)}


@pytest.mark.parametrize("done", [list(range(1, 11)), [1, 2, 3, 4, 9, 10], []])
def test_an_export_reads_every_row_once_whatever_their_lengths(path: Path, done: list[int]) -> None:
    answered(path, done, finished=True)
    with Reader.open(path) as reader:
        assert [row.text for row in reader.export_rows()] == texts()
        assert [row.text for row in reader.results()] == texts()
        assert list(reader.texts()) == texts()
        assert [row.text for row in reader.recover_rows()] == texts()
        assert [(row.line, row.text) for row in reader.spent()] == [(n, texts()[n - 1]) for n in done]


def test_a_comparison_with_other_rows_does_not_hold_those_of_the_journal(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / ".batchrun" / "r1.db", META)
    journal.ingest(IntakeRow(n, f"id-{n}", "request", f'"{n}{"x" * 100_000}"') for n in range(100))
    tracemalloc.start()
    drift = journal.compare(IntakeRow(n, f"id-{n}", "another", "{}") for n in range(100))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    journal.close()
    assert drift.changed == 100
    assert most < 1_000_000


def test_rows_that_wait_to_be_written_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "ROOM", 1000)
    read, written = [0], [0]
    most = 0

    def rows() -> list[IntakeRow]:
        return [IntakeRow(n, f"id-{n}", "request", "x" * 5000) for n in range(1, 30)]

    class Watching(ingest.FirstIntake):
        def _write(self, batch: list[ingest.Params], *rest: object) -> None:
            nonlocal most
            most = max(most, read[0] - written[0])
            super()._write(batch, *rest)  # type: ignore[arg-type]
            written[0] += len(batch)

    def counted() -> object:
        for row in rows():
            read[0] += 1
            yield row

    monkeypatch.setattr("batchrun.journal.store.FirstIntake", Watching)
    journal = Journal.create(tmp_path / ".batchrun" / "r1.db", META)
    journal.ingest(counted())  # type: ignore[arg-type]
    journal.close()
    assert written[0] == 29
    assert most <= 3, "one that is written, one that waits, one that is read"


async def test_no_more_bytes_are_in_flight_than_allowed_and_the_wait_has_a_reason(tmp_path: Path) -> None:
    stage = Stage(tmp_path, [f"{n} {'x' * 1000}" for n in range(12)], max_bytes_in_flight=3500, concurrency=8)
    provider = Provider(hold=asyncio.Event(), usual=ok("short"))

    async def look(run: Run) -> None:
        await until(lambda: run._waits)
        assert len(provider.calls) == 3
        assert provider.hold is not None
        provider.hold.set()

    story = await stage.play(provider, during=look)
    assert stage.totals.done == 12
    assert provider.peak == 3
    assert WaitReason.BYTES in {event.reason for event in story.of(Waiting)}


async def test_few_long_rows_wait_for_their_turn_and_all_are_sent(tmp_path: Path) -> None:
    stage = Stage(tmp_path, [f"{n} {'x' * 1000}" for n in range(60)], max_bytes_in_flight=80_000, concurrency=8)
    provider = Provider(hold=asyncio.Event(), usual=ok("short"))
    waiting: list[int] = []

    async def look(run: Run) -> None:
        await until(lambda: len(provider.calls) == 8)
        await until(lambda: run._queue._fetching is None)
        for _ in range(20):
            await asyncio.sleep(0)
        waiting.append(run._queue._out - 8)
        assert not run._queue.lacks_bytes  # which would be said to be what the run waits for
        assert provider.hold is not None
        provider.hold.set()

    await stage.play(provider, during=look)
    assert stage.totals.done == 60
    assert provider.peak == 8
    assert 1 <= waiting[0] <= 20  # of 1,000 bytes, in a quarter of the room; 52 would have room


def test_a_row_that_is_sent_makes_room_for_one_that_waits() -> None:
    def row(seq: int) -> RowState:
        return RowState.of(Pending(seq, seq, seq, f"k{seq}", "x" * 100, FRESH))

    held, rows, heard = BytesHeld(1_000), [row(seq) for seq in range(1, 5)], list[str]()
    held.when_sent = lambda: heard.append("sent")
    for state in rows[:2]:
        assert held.may_wait(100)
        held.hand_out(state, 100)
    assert not held.may_wait(100)
    assert held.has_room(100)
    assert held.leaves(rows[0])
    assert heard == ["sent"]
    held.hand_out(rows[2], 50)
    assert held.leaves(rows[1])
    assert held.may_wait(100)
    held.over(rows[2], 0)
    assert held.may_wait(250)
    assert held.may_wait(5_000)  # one always may


async def test_the_body_of_a_row_goes_with_its_outcome_though_its_worker_waits_for_another(tmp_path: Path) -> None:
    marker = "bodies that go"
    stage = Stage(tmp_path, [f"{marker} {n}" for n in range(12)], concurrency=12)
    open_until = asyncio.Event()

    class Holding(Provider):
        async def send(self, request: Request, *, timeout: float) -> Exchange:  # noqa: ASYNC109  as the client's
            if f"{marker} 11".encode() in request.body:
                await open_until.wait()
            return await super().send(request, timeout=timeout)

    def alive() -> int:
        gc.collect()
        states = [found for found in gc.get_objects() if isinstance(found, RowState) and found.request is not None]
        return sum(marker.encode() in bytes(state.request.body) for state in states if state.request is not None)

    async def look(run: Run) -> None:
        await until(lambda: run._queue._out == 1)
        await until(lambda: alive() == 1)  # the journal's thread lets go of the others a moment after it told of them
        open_until.set()

    await stage.play(Holding(), during=look)
    assert stage.totals.done == 12


@pytest.mark.looptime
@pytest.mark.parametrize("post", [(), ("strip",)])
async def test_requests_leave_while_there_is_room_for_replies_as_long_as_the_last_ones(
    tmp_path: Path, post: tuple[str, ...]
) -> None:
    stage = Stage(tmp_path, [f"row {n}" for n in range(36)], max_bytes_in_flight=60_000, concurrency=12, post=post)
    together: list[int] = []

    class Counting(Provider):
        under_way = 0

        async def send(self, request: Request, *, timeout: float) -> Exchange:  # noqa: ASYNC109  as the client's
            self.under_way += 1
            together.append(self.under_way)
            await asyncio.sleep(10)
            self.under_way -= 1
            return await super().send(request, timeout=timeout)

    await stage.play(Counting(usual=ok("y" * 5000)))
    assert stage.totals.done == 36
    assert max(together[:12]) == 12, "nothing is known of replies yet"
    assert max(together[24:]) == 3, "three copies of 5 kB each: three replies have room in 60 kB"


@given(st.lists(st.integers(0, 500), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 1500))
def test_a_request_leaves_with_room_for_its_reply_or_alone_and_none_is_left_waiting(
    replies: list[int], workers: int, most: int
) -> None:
    async def story() -> None:
        held, todo, over = BytesHeld(most), list(enumerate(replies, 1)), list[int]()

        async def work() -> None:
            while todo:
                number, reply = todo.pop(0)
                state = RowState.of(Pending(number, number, number, "", "", FRESH))
                await held.leave(state)
                assert held._replies <= most or held._left == 1
                await asyncio.sleep(0)
                held.holds(state, 0, reply)
                await asyncio.sleep(0)
                held.over(state, 0)
                over.append(number)

        await asyncio.wait_for(asyncio.gather(*(work() for _ in range(workers))), PATIENCE)
        assert sorted(over) == list(range(1, len(replies) + 1))
        assert (held._left, held._replies, held._total, held.lacking) == (0, 0, 0, False)

    asyncio.run(story())


async def test_a_request_that_is_larger_than_all_that_is_allowed_passes_alone(tmp_path: Path) -> None:
    stage = Stage(tmp_path, [f"{n} {'x' * 1000}" for n in range(5)], max_bytes_in_flight=10, concurrency=8)
    provider = Provider()
    await stage.play(provider)
    assert (stage.totals.done, provider.peak) == (5, 1)


@pytest.mark.parametrize(
    ("said", "size"), [("48MB", 48_000_000), ("500 kB", 500_000), (7, 7), ("1.5gb", 1_500_000_000), ("1 MiB", 1 << 20)]
)
def test_sizes_are_read_as_people_write_them(said: object, size: int) -> None:
    assert parse_size(said) == size


@pytest.mark.parametrize("said", ["", "0", "-5", "4 apples", None, True, "1e9"])
def test_what_is_no_size_is_refused(said: object) -> None:
    with pytest.raises(ValueError, match="must be a size such as 48MB"):
        parse_size(said)


@pytest.mark.parametrize(("size", "beside"), [(100, False), (100_000, True)])
def test_a_journal_of_long_rows_has_their_texts_beside_it(size: int, beside: bool, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(f'{{"id": {n}, "text": "{"x" * size}"}}\n' for n in range(3)))
    command = [
        sys.executable,
        "-m",
        "batchrun",
        "-i",
        source,
        "-p",
        "{{ text }}",
        "-P",
        "sim",
        "-o",
        tmp_path / "o.jsonl",
    ]
    subprocess.run(command, check=True, capture_output=True)
    texts = list((tmp_path / ".batchrun").glob("*.db-texts"))
    assert bool(texts) == beside
    assert all(text.read_bytes() == source.read_bytes().replace(b"\n", b"") for text in texts)
    assert all(text.stat().st_mode & 0o777 == 0o600 for text in texts)


@pytest.mark.parametrize("long_rows", [False, True])
@pytest.mark.parametrize("text", ['{"text": "plain"}', '{"text": "“ä€𝄞”"}', '{"n": 1e400, "text": "x"}'])
def test_a_long_text_comes_back_as_the_same_row_from_its_bytes(tmp_path: Path, text: str, long_rows: bool) -> None:
    text = (
        text.replace("x", "x" * LONG_TEXT).replace("plain", "p" * LONG_TEXT).replace("ä", "ä" * LONG_TEXT)
        if long_rows
        else text
    )
    with contextlib.closing(Journal.create(tmp_path / ".batchrun" / "r1.db", META)) as journal:
        journal.ingest([IntakeRow(1, "ä", "request", text, None, 0, "[]")])
        (plain,), (row,) = journal.pending(), journal.pending(form=TextForm.ENCODED)
    assert (row.text, row.encoded) == (("", text.encode()) if long_rows else (text, b""))
    assert row._replace(text=text, encoded=b"") == plain
    assert RowState.of(row).size == (len(text.encode()) if long_rows else len(text))
    again, known = restore(1, "ä", row.text, row.encoded), restore(1, "ä", text)
    assert (again.fields, again.encoded) == (known.fields, known.encoded)


@pytest.mark.parametrize("text", ["{", '{"a": "\xff"}', "[]"])
def test_bytes_that_are_no_row_are_refused_like_their_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        restore(1, None, "", text.encode("latin-1"))


@pytest.mark.parametrize(("room", "shown"), [(1, 1), (3000, 3), (math.inf, 5)])
def test_the_app_shows_fewer_rows_of_an_input_where_they_are_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: float, shown: int
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(f'{{"id": {n}, "text": "{"x" * 1000}"}}\n' for n in range(5)))
    monkeypatch.setattr("batchrun.tui.draft.ROOM", room)
    assert len(read_head(str(source), {}, has_prompt=True).rows) == shown
