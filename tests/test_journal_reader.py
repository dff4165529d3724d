"""What `show` and `export` see of a journal, also while it is written."""

import asyncio
import contextlib
import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from batchrun.errors import RefusedError
from batchrun.journal import End, IntakeRow, Journal, Meta, Reader, Record, Result, queries
from batchrun.models import Outcome, State, Usage

META = Meta(run="r1", created=1.0, plan="{}", prompt=None, simulated=False, output="../out.jsonl")
DONE = Outcome(State.DONE, True, None, None, frozenset(), None)
COUNT = 2500


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every third row done, every fifth of the others failed, row 2 in flight, the last one skipped."""
    path = tmp_path_factory.mktemp("reader") / "r.db"

    async def session() -> None:
        journal = Journal.create(path, META)
        rows = [IntakeRow(line + 1, f"id-{line}", "request", f'{{"n": {line}}}') for line in range(1, COUNT)]
        journal.ingest([*rows, IntakeRow(COUNT + 1, None, "", "broken", "not JSON")])
        journal.start()
        journal.begin(2, 1)
        for row in range(3, COUNT):
            if row % 3 == 0:
                journal.begin(row, 1)
                journal.end(row, 1, End(200, row / 1000, usage=Usage(1, 2, 0, 0)), f'"reply {row}"')
                journal.finish(row, DONE)
            elif row % 5 == 0:
                journal.begin(row, 1)
                journal.end(row, 1, End(400 + row % 2, 0.1, "bad request", f"row {row}"))
                cause = "too long" if row % 2 else "content filter"
                journal.finish(row, Outcome(State.FAILED, row % 2 == 0, cause, f"row {row}", frozenset(), None))
        await journal.sample('{"rate": 3}')
        journal.close(3)

    asyncio.run(session())
    return path


@pytest.fixture
def reader(path: Path) -> Iterator[Reader]:
    with Reader.open(path) as reader:
        yield reader


def expected_state(position: int) -> State:
    if position == 2:
        return State.UNKNOWN
    if position == COUNT:
        return State.SKIPPED
    if position >= 3 and position % 3 == 0:
        return State.DONE
    return State.FAILED if position >= 3 and position % 5 == 0 else State.PENDING


def test_export_gives_every_row_in_input_order_with_its_reply(reader: Reader) -> None:
    rows = list(reader.export_rows())
    assert [row.position for row in rows] == list(range(1, COUNT + 1))
    assert [row.state for row in rows] == [expected_state(position) for position in range(1, COUNT + 1)]
    assert {row.body for row in rows if row.state is State.DONE} == {f'"reply {n}"' for n in range(3, COUNT, 3)}
    assert all(row.body is None for row in rows if row.state is not State.DONE)
    assert rows[6].text == '{"n": 7}'


def test_exchanges_are_the_records_without_the_texts_of_what_was_sent(reader: Reader) -> None:
    rows = [row if row.state is State.SKIPPED else row._replace(text="") for row in reader.export_rows()]
    assert list(reader.exchanges()) == rows
    assert rows[-1].text != ""
    assert list(reader.exchanges(COUNT - 5)) == rows[-5:]


async def test_results_are_the_records_of_done_rows_in_short_and_the_others_whole(tmp_path: Path) -> None:
    journal, done, failed = Journal.create(tmp_path / "r.db", META), 2100, 2050
    journal.ingest([IntakeRow(line, str(line), "r", f'{{"n": {line}}}') for line in range(1, done + 1)])
    journal.start()
    for row in range(1, done + 1):
        journal.begin(row, 1)
        if row == failed:
            journal.end(row, 1, End(400, 0.1, "bad request"))
            journal.finish(row, Outcome(State.FAILED, True, "bad request", "no", frozenset(), None))
        else:
            journal.end(row, 1, End(200, 0.1), f'"reply {row}"')
            journal.finish(row, DONE._replace(value='"v"' if row % 2 else None, added='{"a": 1}' if row == 3 else None))
    journal.close(0)
    with Reader.open(journal.path) as reader:
        records, results = list(reader.export_rows()), list(reader.results())
    assert results[:2000] == [Result(row.text, row.value, row.body, row.added) for row in records[:2000]]
    assert results[2000:] == records[2000:]
    assert [row.position for row in results[2000:] if isinstance(row, Record) and row.state is not State.DONE] == [
        failed
    ]


def test_rows_are_listed_by_window_state_and_cause(reader: Reader) -> None:
    assert [row.position for row in reader.entries(10, 3)] == [11, 12, 13]
    assert [row.position for row in reader.entries(state=State.UNKNOWN)] == [2]
    assert [row.position for row in reader.entries(20, 2, state=State.FAILED)] == [25, 35]
    assert [row.position for row in reader.entries(0, 2, cause="content filter")] == [10, 20]
    assert [row.position for row in reader.entries(0, 3, state=State.PENDING)] == [1, 4, 7]


def test_failures_are_grouped_by_cause(reader: Reader) -> None:
    failed = [position for position in range(1, COUNT + 1) if expected_state(position) is State.FAILED]
    causes = {cause.cause: cause for cause in reader.errors_by_cause()}
    assert {name: cause.rows for name, cause in causes.items()} == {
        "content filter": sum(position % 2 == 0 for position in failed),
        "too long": sum(position % 2 for position in failed),
    }
    assert causes["content filter"].message.startswith("row ")
    assert {line - 1 for line in causes["too long"].lines} <= {position for position in failed if position % 2}
    assert len(reader.errors_by_cause(1)) == 1


def test_failures_are_counted_without_those_that_are_absent(reader: Reader, tmp_path: Path) -> None:
    counted = {cause.cause: cause.rows for cause in reader.errors_by_cause()}
    assert reader.failures() == counted
    assert list(reader.failures(1)) == list(counted)[:1]
    copied = tmp_path / "copied.db"
    reader.copy(copied)
    with contextlib.closing(sqlite3.connect(copied)) as connection, connection:
        connection.execute("UPDATE rows SET position = NULL WHERE position = 10")
    with Reader.open(copied) as other:
        assert other.failures() == {**counted, "content filter": counted["content filter"] - 1}


def test_the_slowest_rows_come_first(reader: Reader) -> None:
    assert [row.position for row in reader.slowest(2)] == [2499, 2496]


def test_one_row_is_found_by_number_key_or_line(reader: Reader) -> None:
    by_key, by_line, by_seq = reader.row(key="id-6"), reader.row(line=7), reader.row(seq=6)
    assert by_key == by_line == by_seq
    assert by_key is not None
    assert (by_key.state, by_key.body) == (State.DONE, '"reply 6"')
    assert reader.row(key="none") is None


def test_sessions_samples_and_totals_are_there(reader: Reader) -> None:
    assert [session.exit_code for session in reader.sessions] == [3]
    assert [sample.state for sample in reader.samples()] == [{"rate": 3}]
    assert reader.totals.rows == COUNT
    assert reader.ingested
    assert reader.check() == []


def test_a_copy_is_one_private_file_that_can_go_on(reader: Reader, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    reader.copy(target)
    assert [file.name for file in tmp_path.iterdir()] == ["copy.db"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    journal = Journal.open(target)
    assert journal.totals == reader.totals
    assert journal.pending(0, 2)[1].history.open
    journal.close()
    with pytest.raises(RefusedError):
        reader.copy(target)


async def test_readers_see_every_commit_of_a_writer_and_do_not_hold_it_up(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "r.db", META)
    journal.ingest([IntakeRow(line, str(line), "r", "{}") for line in range(1, 11)])
    journal.start()
    with Reader.open(journal.path) as reader:
        rows = reader.export_rows()
        assert next(rows).state is State.PENDING
        for row in (1, 2):
            await journal.begin(row, 1)
            await journal.end(row, 1, End(200, 0.1), "{}")
            await journal.finish(row, DONE)
            assert reader.totals.done == row
        with closing(sqlite3.connect(journal.path)) as connection:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert busy == 0
    journal.close()


def test_every_statement_of_the_journal_is_used_and_is_sql() -> None:
    folder = Path(queries.__file__).parent
    names = re.findall(r"^-- name: (\w+)$", (folder / "queries.sql").read_text("utf-8"), re.MULTILINE)
    code = "".join(path.read_text("utf-8") for path in folder.glob("*.py"))
    text = (folder / "queries.sql").read_text("utf-8")
    by_pattern = ("record_by_", "positions_")
    unused = [name for name in names if f'"{name}"' not in code and f"{{{name}}}" not in text]
    assert [name for name in unused if not name.startswith(by_pattern)] == []
    assert len(names) == len(set(names))
    assert all("{" not in re.sub(r"'[^']*'", "", queries.sql(name)) for name in names)
