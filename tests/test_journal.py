"""The life of rows in a journal: taken in, tried, answered, finished, and what a later session finds."""

import asyncio
import os
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun.digests import digest_of
from batchrun.errors import InputError, RefusedError, StorageError
from batchrun.journal import End, IntakeRow, Journal, Meta, Reader, TierShare, delete, ingest
from batchrun.journal.database import storage_error
from batchrun.models import Bill, Flag, Outcome, State, Totals, Usage

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a property test makes thousands of commits
META = Meta(run="r1", created=1.5, plan='{"model": "m"}', prompt="Translate", simulated=True, output="../out.jsonl")
DONE = Outcome(State.DONE, True, None, None, frozenset(), None)
FOR_NOW = Outcome(State.FAILED, False, "HTTP 503", "overloaded", frozenset(), None)
FOR_GOOD = Outcome(State.FAILED, True, "HTTP 400", "too long", frozenset(), None)
USAGE = Usage(10, 5, 2, 1)
PAID = End(200, 0.5, usage=USAGE, request_id="req_1", cost=70, charged_tokens=15)


def numbered(count: int) -> list[IntakeRow]:
    return [IntakeRow(line, f"id-{line}", f"request-{line}", f'{{"n": {line}}}') for line in range(1, count + 1)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".batchrun" / "r1.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal.create(path, META)
    yield journal
    journal.close()


def again(path: Path, work: Callable[[Journal], Awaitable[None]]) -> None:
    """One session of its own on the journal at `path`."""

    async def session() -> None:
        journal = Journal.open(path)
        journal.start()
        try:
            await work(journal)
        finally:
            journal.close(0)

    asyncio.run(session())


async def answer(journal: Journal, row: int, number: int = 1, body: str = "{}") -> None:
    await journal.begin(row, number)
    await journal.end(row, number, PAID, body)
    await journal.finish(row, DONE)


def checked(path: Path) -> Totals:
    with Reader.open(path) as reader:
        assert reader.check() == []
        return reader.totals


def test_only_the_owner_can_read_a_journal_and_git_ignores_it(journal: Journal, path: Path) -> None:
    journal.ingest(numbered(3))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob("r1.db*")}
    assert set(modes.values()) == {0o600}
    assert (path.parent / ".gitignore").read_text() == "*\n"


def test_the_umask_does_not_matter(path: Path) -> None:
    before = os.umask(0o377)
    try:
        Journal.create(path, META).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_journal_is_never_made_over_a_file_or_through_a_link(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError):
        Journal.create(path, META)
    assert not (tmp_path / "elsewhere").exists()


def test_what_the_run_is_comes_back(journal: Journal, path: Path) -> None:
    assert journal.meta == META
    with Reader.open(path) as reader:
        assert reader.meta == META


def test_rows_are_pending_in_input_order(journal: Journal) -> None:
    journal.ingest(numbered(5))
    assert [(row.position, row.line, row.key, row.text) for row in journal.pending(2, 2)] == [
        (3, 3, "id-3", '{"n": 3}'),
        (4, 4, "id-4", '{"n": 4}'),
    ]
    assert [row.position for row in journal.pending(until=2)] == [1, 2]
    assert journal.totals == Totals(rows=5)


def test_equal_rows_without_an_id_stay_separate_rows(journal: Journal) -> None:
    journal.ingest([IntakeRow(line, None, "r", '{"a": 1}') for line in (1, 2, 3)])
    assert [row.key for row in journal.pending()] == [digest_of(META.digest)(b'{"a": 1}')] * 3


def test_a_duplicate_id_is_refused_naming_both_lines(journal: Journal) -> None:
    rows = [*numbered(4), IntakeRow(9, "id-2", "r", "{}")]
    with pytest.raises(InputError, match=r"'id-2' is on line 2 and again on line 9"):
        journal.ingest(rows)
    assert not journal.ingested


def test_equal_rows_without_id_do_not_hide_a_duplicate_id_nor_count_as_one(journal: Journal) -> None:
    journal.ingest([IntakeRow(1, "a", "r", "{}"), IntakeRow(2, None, "r", "{}"), IntakeRow(3, None, "r", "{}")])
    assert journal.totals.rows == 3


def test_skipped_lines_are_accounted_for(journal: Journal, path: Path) -> None:
    journal.ingest(
        [
            *numbered(2),
            IntakeRow(3, None, "", '"bad \\"line"', "not JSON"),
            IntakeRow(4, None, "", '"bad \\"line"', "x"),
        ]
    )
    assert (journal.totals.rows, journal.totals.skipped, journal.totals.pending) == (4, 2, 2)
    with Reader.open(path) as reader:
        row = reader.row(line=3)
    assert row is not None
    assert (row.state, row.message, row.text) == (State.SKIPPED, "not JSON", '"bad \\"line"')
    assert checked(path) == journal.totals


def test_an_intake_that_failed_half_way_starts_over(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "TOGETHER", 1)

    def broken() -> Iterator[IntakeRow]:
        yield from numbered(10_005)
        raise InputError("line 10006 is not JSON")

    with pytest.raises(InputError):
        journal.ingest(broken())
    assert not journal.ingested
    heard: list[int] = []
    journal.ingest(numbered(7), heard.append)
    assert (journal.ingested, journal.totals.rows, heard) == (True, 7, [7])


def test_long_rows_are_taken_in_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "ROOM", 20)
    feed = ingest.Feed(numbered(7), META.digest)
    sizes = [len(batch) for batch in iter(lambda: feed.take(4), [])]
    assert sizes == [3, 3, 1]
    assert feed.position == 7


async def test_an_answered_row_is_done_with_its_reply_to_the_byte(journal: Journal, path: Path) -> None:
    journal.ingest(numbered(2))
    journal.start()
    body = '{"content": "naïve \\u0000 \u2028 \x00 1.10"}'
    await answer(journal, 1, body=body)
    with Reader.open(path) as reader:
        row = reader.row(seq=1)
        assert row is not None
        assert (row.state, row.body, row.attempts, row.seconds) == (State.DONE, body, 1, 0.5)
        assert (row.input_tokens, row.output_tokens) == (10, 5)
        assert reader.attempts(1)[0].request_id == "req_1"
    expected = Totals(
        rows=2,
        done=1,
        attempts=1,
        replies=1,
        input_tokens=10,
        output_tokens=5,
        cached_tokens=2,
        reasoning_tokens=1,
        cost=70,
        cost_other=70,
    )
    assert journal.totals == expected
    assert [row.seq for row in journal.pending()] == [2]


async def test_an_attempt_is_committed_when_its_future_is_done(journal: Journal, path: Path) -> None:
    journal.ingest(numbered(1))
    journal.start()
    await journal.begin(1, 1)
    with Reader.open(path) as reader:
        assert reader.totals.unknown == 1
        assert reader.attempts(1)[0].ended is None


async def test_an_attempt_has_left_when_its_exchange_began_and_a_lost_one_when_it_was_written_down(path: Path) -> None:
    now = [10.0]
    journal = Journal.create(path, META, clock=lambda: now[0])
    journal.ingest(numbered(3))
    journal.start()
    for row in (1, 2, 3):
        await journal.begin(row, 1)
    now[0] = 20.0
    await journal.end(1, 1, End(200, 4.0), "{}")
    await journal.end(2, 1, End(503, 4.0, "HTTP 503"))
    await journal.begin(3, 2)
    journal.close()
    with Reader.open(path) as reader:
        assert [reader.attempts(row)[0].began for row in (1, 2, 3)] == [16.0, 16.0, 10.0]


async def test_a_waiter_that_is_cancelled_leaves_the_others_alone(journal: Journal) -> None:
    journal.ingest(numbered(3))
    journal.start()
    futures = [journal.begin(row, 1) for row in (1, 2, 3)]
    futures[1].cancel()
    await asyncio.gather(futures[0], futures[2])
    assert journal.totals.unknown == 3


async def test_throttled_and_uncounted_attempts_leave_the_row_its_tries(journal: Journal) -> None:
    journal.ingest(numbered(1))
    journal.start()
    ends = [
        End(429, 0.1, "throttled", throttled=True),
        End(0, 0.1, "connection refused", counted=False),
        End(0, 600.0, "deadline", deadline=True, possibly_billed=True),
        End(503, 0.1, "HTTP 503", "down"),
    ]
    for number, end in enumerate(ends, 1):
        await journal.begin(1, number)
        await journal.end(1, number, end)
    (row,) = journal.pending()
    assert row.history == (4, 2, 1, 0, False, None, None)
    assert journal.totals == Totals(rows=1, attempts=4, possibly_billed=1, unpriced=1)


async def test_a_reply_that_was_not_finished_is_there_to_go_on_from(journal: Journal) -> None:
    journal.ingest(numbered(2))
    journal.start()
    await journal.begin(1, 1)
    invalid = PAID._replace(cause="does not fit the schema", message="n is missing", invalid=True)
    await journal.end(1, 1, invalid, '{"bad": 1}')
    await journal.begin(1, 2)
    await journal.end(1, 2, PAID._replace(usage=None), '{"good": 2}')
    assert journal.pending()[0].history == (2, 2, 0, 1, False, '{"good": 2}', None)
    assert journal.totals.without_usage == 1


async def test_a_reply_recorded_by_an_earlier_session_becomes_the_outcome(journal: Journal, path: Path) -> None:
    journal.ingest(numbered(1))
    journal.start()
    await journal.begin(1, 1)
    await journal.end(1, 1, PAID, '{"kept": 1}')
    journal.stop()
    journal.start()
    await journal.finish(1, DONE._replace(flags=frozenset({Flag.TRUNCATED}), value='"lone \\ud800"'))
    journal.stop()
    with Reader.open(path) as reader:
        row = reader.row(seq=1)
        assert row is not None
        assert (row.body, row.attempts, row.flags, row.seconds) == ('{"kept": 1}', 1, {"truncated"}, 0.5)
    assert checked(path).truncated == 1


async def test_text_with_lone_surrogates_is_stored_as_escapes(journal: Journal, path: Path) -> None:
    journal.ingest(numbered(1))
    journal.start()
    await journal.begin(1, 1)
    await journal.end(1, 1, End(500, 0.1, "HTTP 500", "\ud800", excerpt="é" * 5000))
    await journal.finish(1, DONE._replace(value='"\ud83d"'))
    with Reader.open(path) as reader:
        (attempt,) = reader.attempts(1)
        row = reader.row(seq=1)
    assert attempt.message == "\\ud800"
    assert attempt.excerpt == "é" * 1024
    assert row is not None
    assert row.value == '"\\ud83d"'


async def test_what_was_in_flight_is_unknown_to_the_next_session_and_maybe_paid(journal: Journal, path: Path) -> None:
    journal.ingest(numbered(3))
    journal.start()
    await journal.begin(2, 1)
    await journal.lose(2, 1, "given up after the drain limit")
    journal.close()

    reopened = Journal.open(path)
    assert reopened.totals.unknown == 1
    assert [row.history for row in reopened.pending()][1] == (1, 0, 0, 0, True, None, None)
    assert [row.history.open for row in reopened.pending()] == [False, True, False]
    reopened.start()
    await reopened.begin(2, 2)
    assert (reopened.totals.unknown, reopened.totals.possibly_billed, reopened.totals.attempts) == (1, 1, 2)
    await reopened.end(2, 2, PAID, "{}")
    await reopened.finish(2, DONE)
    reopened.close()
    with Reader.open(path) as reader:
        lost, paid = reader.attempts(2)
    assert (lost.cause, lost.possibly_billed, lost.counted) == ("lost", True, False)
    assert (paid.cause, paid.ended is not None) == (None, True)
    assert checked(path).done == 1


async def test_an_answer_that_comes_after_the_attempt_was_given_up_is_an_answer(journal: Journal, path: Path) -> None:
    journal.ingest(numbered(1))
    journal.start()
    await journal.begin(1, 1)
    await journal.lose(1, 1, "given up after the drain limit")
    with Reader.open(path) as reader:
        assert reader.attempts(1)[0].message == "given up after the drain limit"
        await journal.end(1, 1, PAID, "{}")
        (attempt,) = reader.attempts(1)
    assert (attempt.cause, attempt.message, attempt.body) == (None, None, "{}")
    assert journal.totals.unknown == 0


@pytest.mark.parametrize(("failed_for_good", "expected"), [(False, [2]), (True, [2, 3])])
async def test_failed_rows_are_sent_again_with_fresh_attempts(
    journal: Journal, path: Path, failed_for_good: bool, expected: list[int]
) -> None:
    journal.ingest(numbered(3))
    journal.start()
    await answer(journal, 1)
    for row, outcome in ((2, FOR_NOW), (3, FOR_GOOD)):
        await journal.begin(row, 1)
        await journal.end(row, 1, End(503, 0.1, "HTTP 503"))
        await journal.finish(row, outcome)
    assert (journal.totals.failed, journal.totals.retryable) == (2, 1)
    journal.stop()
    assert journal.reopen(failed_for_good=failed_for_good) == len(expected)
    rows = journal.pending()
    assert [row.seq for row in rows] == expected
    assert rows[0].history == (1, 0, 0, 0, False, None, None)
    assert checked(path) == journal.totals


moment = threading.Event().wait


def hold_up(condition: Callable[[], bool]) -> None:
    """Keep the loop from hearing of anything until the thread is so far."""
    while not condition():
        moment(0.001)


async def test_a_failure_is_heard_of_after_what_was_committed_before(path: Path) -> None:
    full = threading.Event()

    def faults(_: int) -> None:
        if full.is_set():
            raise sqlite3.OperationalError("database or disk is full")

    journal = Journal.create(path, META, faults=faults)
    journal.ingest(numbered(3))
    journal.start()
    heard: list[str] = []

    def begin(row: int) -> "asyncio.Future[None]":
        done = journal.begin(row, 1)
        done.add_done_callback(lambda done: heard.append(f"{row} {done.exception() is None}"))
        return done

    begin(1)
    await asyncio.sleep(0)  # handed over
    hold_up(lambda: journal.totals.unknown == 1)
    full.set()
    begin(2)
    await asyncio.sleep(0)
    hold_up(lambda: journal.failure is not None)
    with pytest.raises(StorageError):
        await begin(3)
    journal.close()
    assert heard == ["1 True", "2 False", "3 False"]


@pytest.mark.parametrize("what", ["deleted", "moved", "replaced"])
async def test_nothing_is_written_to_a_journal_that_is_not_in_its_place(path: Path, what: str) -> None:
    """SQLite goes on writing into the file that it has open, which nobody finds again."""
    journal = Journal.create(path, META)
    journal.ingest(numbered(2))
    journal.start()
    await answer(journal, 1)
    if what == "deleted":
        path.unlink()
    else:
        path.rename(path.with_name("moved.db"))
    if what == "replaced":
        path.write_bytes(path.with_name("moved.db").read_bytes())
    with pytest.raises(StorageError, match="deleted, moved or replaced"):
        await journal.begin(2, 1)
    assert journal.totals.attempts == 1
    journal.close()


def sqlite_error(code: int, text: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "reason", "next_step"),
    [
        (PermissionError(13, "Permission denied", "r1.db"), "written: Permission denied.", "access to"),
        (
            PermissionError(13, "Permission denied", "r1.db-texts"),
            "written: r1.db-texts: Permission den",
            "access to",
        ),
        (sqlite_error(sqlite3.SQLITE_READONLY, "readonly database"), "written: readonly database.", "access to"),
        (sqlite_error(sqlite3.SQLITE_CANTOPEN, "unable to open"), "written: unable to open.", "access to"),
        (sqlite_error(sqlite3.SQLITE_FULL, "disk is full"), "written: disk is full (", "Free space"),
        (OSError(28, "No space left on device"), "written: No space left on device (", "Free space"),
        (OSError("r1.db-texts is shorter"), "written: r1.db-texts is shorter (", "repair the disk"),
    ],
)
def test_an_error_says_what_to_do_about_it(error: Exception, reason: str, next_step: str, tmp_path: Path) -> None:
    told = storage_error(tmp_path / "r1.db", error, "write")
    assert told.message.startswith(f"{tmp_path / 'r1.db'}: the journal cannot be {reason}")
    assert next_step in (told.hint or "")
    assert ("MB free" in told.message) == ("access" not in (told.hint or ""))


async def test_a_full_disk_fails_every_waiter_and_keeps_what_was_committed(path: Path) -> None:
    full = False

    def faults(_: int) -> None:
        if full:
            raise sqlite3.OperationalError("database or disk is full")

    journal = Journal.create(path, META, faults=faults)
    journal.ingest(numbered(3))
    journal.start()
    await answer(journal, 1)
    full = True
    futures = [journal.begin(2, 1), journal.begin(3, 1)]
    for future in futures:
        with pytest.raises(StorageError, match=r"r1\.db.*disk is full.*MB free"):
            await future
    with pytest.raises(StorageError):
        await journal.begin(3, 2)
    assert journal.failure is not None
    assert journal.totals.unknown == 0
    journal.close()
    assert checked(path) == Totals(
        rows=3,
        done=1,
        attempts=1,
        replies=1,
        input_tokens=10,
        output_tokens=5,
        cached_tokens=2,
        reasoning_tokens=1,
        cost=70,
        cost_other=70,
    )


async def test_operations_nobody_awaits_are_written_in_order(journal: Journal, path: Path) -> None:
    journal.ingest(numbered(300))
    journal.start()
    for row in range(1, 301):
        for number in (1, 2):
            journal.begin(row, number)
            journal.end(row, number, PAID if number == 2 else End(500, 0.1, "HTTP 500"), "{}" if number == 2 else None)
        journal.finish(row, DONE)
    journal.sample('{"rate": 1}')
    journal.close(0)
    totals = checked(path)
    assert (totals.done, totals.attempts, totals.replies, totals.unknown) == (300, 600, 300, 0)
    with Reader.open(path) as reader:
        assert [sample.state for sample in reader.samples()] == [{"rate": 1}]
        (session,) = reader.sessions
        assert (session.exit_code, session.pid, session.ended is not None) == (0, os.getpid(), True)


def test_a_deleted_journal_leaves_nothing(journal: Journal, path: Path) -> None:
    journal.ingest(numbered(3))
    journal.close()
    delete(path)
    assert [file.name for file in path.parent.iterdir()] == [".gitignore"]


steps = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from(
            [
                "begin",
                "paid",
                "no usage",
                "no price",
                "invalid",
                "failed",
                "throttled",
                "deadline",
                "lose",
                "done",
                "flagged",
                "for now",
                "for good",
            ]
        ),
        st.booleans(),
    ),
    max_size=25,
)
ENDS = {
    "paid": (PAID, "{}"),
    "no usage": (PAID._replace(usage=None), "{}"),
    "by kind": (PAID._replace(usage=USAGE._replace(written=4), cost=60, bill=Bill(10, 20, 5, 24, 1)), "{}"),
    "tier": (PAID._replace(usage=USAGE._replace(tier="flex"), cost=5, bill=Bill(5)), "{}"),
    "no price": (PAID._replace(cost=None), "{}"),
    "invalid": (PAID._replace(invalid=True, cause="does not fit the schema"), "{}"),
    "failed": (End(500, 0.1, "HTTP 500"), None),
    "throttled": (End(429, 0.1, "throttled", throttled=True), None),
    "deadline": (End(0, 9.0, "deadline", deadline=True, possibly_billed=True, cost=90, charged_tokens=40), None),
}
OUTCOMES = {
    "done": DONE,
    "flagged": DONE._replace(flags=frozenset({Flag.REFUSED, Flag.FILTERED})),
    "for now": FOR_NOW,
    "for good": FOR_GOOD,
}


class Life:
    """Turns any list of steps into one that an engine could take."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.open: dict[int, int] = {}
        self.number = {row.seq: row.history.number for row in journal.pending()}

    def step(self, row: int, what: str) -> "asyncio.Future[None] | None":
        if row not in self.number:
            return None
        if what == "begin":
            self.number[row] += 1
            self.open[row] = self.number[row]
            return self.journal.begin(row, self.number[row], 90 if row > 1 else None, 40)
        if what in OUTCOMES:
            del self.number[row]
            self.open.pop(row, None)
            return self.journal.finish(row, OUTCOMES[what])
        if row not in self.open:
            return None
        if what == "lose":
            return self.journal.lose(row, self.open[row], "drained")
        return self.journal.end(row, self.open.pop(row), *ENDS[what])


@settings(max_examples=40)
@given(sessions=st.lists(st.tuples(steps, st.sampled_from(["", "reopen", "all", "shrink"])), min_size=1, max_size=3))
def test_the_totals_are_always_the_sums_of_the_rows(
    sessions: list[tuple[list[tuple[int, str, bool]], str]],
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        path = Path(directory) / "r.db"
        first = Journal.create(path, META)
        first.ingest(numbered(4))
        first.close()
        for taken, between in sessions:
            again(path, partial(live, taken=taken))
            change(path, between)
            checked(path)


async def live(journal: Journal, taken: list[tuple[int, str, bool]]) -> None:
    life = Life(journal)
    for row, what, wait in taken:
        future = life.step(row, what)
        if future is not None and wait:
            await future


def change(path: Path, between: str) -> None:
    journal = Journal.open(path)
    if between == "shrink":
        assert journal.compare([numbered(4)[0]._replace(request="other"), numbered(4)[2]]).rows == 2
        journal.apply()
    elif between:
        journal.reopen(failed_for_good=between == "all")
    assert journal.totals.pending >= 0
    journal.close()


async def test_what_an_open_attempt_may_cost_is_charged_until_its_end_is_known(journal: Journal) -> None:
    journal.ingest(numbered(2))
    journal.start()
    await journal.begin(1, 1, 900, 50)
    await journal.begin(2, 1, 800, 40)
    await journal.end(2, 1, PAID, "{}")
    assert (journal.totals.cost, journal.totals.cost_reserved) == (70, 900)
    assert journal.charged[:3] == (970, 65, 2)
    await journal.begin(1, 2, 500, 30)
    assert (journal.totals.cost, journal.totals.cost_possibly_billed, journal.totals.cost_reserved) == (970, 900, 500)
    assert journal.charged[:3] == (1470, 95, 3)


async def test_a_reply_of_unknown_price_stays_charged_what_was_reserved_for_it(journal: Journal) -> None:
    journal.ingest(numbered(5))
    journal.start()
    for row in range(1, 6):
        await journal.begin(row, 1, 100 * row, 10)
    await journal.reserve(1, 1, 150)
    await journal.end(1, 1, PAID._replace(cost=None, bill=None, usage=USAGE._replace(tier="scale")), "{}")
    await journal.reserve(1, 1, 900)  # it has ended: nothing is reserved for it any more
    await journal.end(2, 1, PAID._replace(cost=230), "{}")
    await journal.end(3, 1, End(0, 0.0, "not processed", counted=False))
    await journal.end(4, 1, End(200, 0.1, "not JSON", charged_tokens=7))
    await journal.reserve(5, 1, 600)
    assert journal.charged == (150 + 230 + 0 + 400 + 600, 15 + 15 + 0 + 7 + 10, 5, 30, {"scale"})
    assert (journal.totals.cost, journal.totals.cost_reserved, journal.totals.unpriced) == (230, 600, 2)


async def test_replies_are_counted_by_the_service_tier_that_they_name(journal: Journal, path: Path) -> None:
    journal.ingest(numbered(3))
    journal.start()
    for row, tier in ((1, None), (2, "flex"), (3, "flex")):
        await journal.begin(row, 1)
        await journal.end(row, 1, PAID._replace(usage=USAGE._replace(tier=tier)), "{}")
    with Reader.open(path) as reader:
        assert reader.tiers() == [TierShare("flex", 2, 140), TierShare("default", 1, 70)]


async def test_the_cost_of_rows_that_left_the_input_stays_charged(journal: Journal) -> None:
    journal.ingest(numbered(2))
    journal.start()
    await answer(journal, 1)
    journal.stop()
    journal.compare(numbered(2)[1:])
    journal.apply()
    assert (journal.totals.cost, journal.charged[:3]) == (0, (70, 15, 1))
