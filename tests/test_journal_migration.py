"""Journals of every earlier schema, made by the builds that wrote them, are brought up to date in ordered steps."""

import asyncio
import gzip
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from waiting import PATIENCE

from batchrun.errors import BusyError, DamagedError
from batchrun.journal import Journal, Lane, Meta, Reader, database, lock
from batchrun.journal.database import OLDEST_VERSION, SCHEMA_VERSION
from batchrun.models import State

JOURNALS = sorted((Path(__file__).parent / "journals").glob("schema-*/*.db.gz"))
TOTALS = {  # rows, done, failed, unknown, attempts, replies
    "finished": (12, 12, 0, 0, 12, 12),
    "limited": (12, 5, 0, 0, 5, 5),
    "failed": (12, 11, 1, 0, 12, 11),
    "duplicates": (12, 12, 0, 0, 4, 4),
    "post": (12, 11, 1, 0, 12, 12),
    "killed": (12, 0, 0, 12, 12, 0),
    "batch": (12, 0, 0, 0, 12, 0),
}
OLD = pytest.mark.parametrize("packed", JOURNALS, ids=lambda path: f"{path.parent.name}-{path.name.split('.')[0]}")
META = Meta(run="r1", created=1.0, plan="{}", prompt=None, simulated=False, output="../out.jsonl")
KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from batchrun.journal import Journal, database

left, open_file = int(sys.argv[2]), database._raw

def killed():
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

def raw(path, mode):
    connection = open_file(path, mode)
    connection.set_progress_handler(killed, 25)
    return connection

database._raw = raw
Journal.open(Path(sys.argv[1])).close()
"""


def _unpack(packed: Path, folder: Path) -> Path:
    path = folder / ".batchrun" / "r.db"
    path.parent.mkdir()
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    return path


def _shape(connection: sqlite3.Connection) -> dict[str, object]:
    """Tables with their columns in order, and indexes with their statements, without comments and layout."""
    shape: dict[str, object] = {}
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL"):
        strict = " ".join(re.sub(r"--.*", "", sql).split()).rpartition(")")[2]
        shape[name] = (
            (connection.execute(f"PRAGMA table_xinfo({name})").fetchall(), strict)
            if kind == "table"
            else " ".join(sql.split())
        )
    return shape


@OLD
def test_an_old_journal_gets_the_present_schema_and_keeps_its_account(packed: Path, tmp_path: Path) -> None:
    path = _unpack(packed, tmp_path)
    with closing(sqlite3.connect(path)) as old:
        before = {
            name: old.execute(f"SELECT count(*) FROM {name}").fetchone() for name in ("rows", "attempts", "replies")
        }
    with lock(path):
        Journal.open(path).close()
    new = Journal.create(tmp_path / "new.db", META)
    new.ingest([])
    new.close()
    with closing(sqlite3.connect(path)) as connection, closing(sqlite3.connect(new.path)) as fresh:
        assert _shape(connection) == _shape(fresh)
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert before == {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone() for name in before}
        assert connection.execute("SELECT mode FROM lanes").fetchall() == [("live",)]
    with Reader.open(path) as reader:
        totals = reader.totals
        assert reader.check() == []
        assert not {"failed_for_now", "maybe_paid", "cost_open"} & {
            name for at in reader.samples() for name in at.state
        }
        assert TOTALS[packed.name.split(".")[0]] == (
            totals.rows, totals.done, totals.failed, totals.unknown, totals.attempts, totals.replies
        )  # fmt: skip
        assert sum(record.state is State.DONE for record in reader.export_rows()) == totals.done


@OLD
def test_a_reader_migrates_where_nobody_works_on_the_run(packed: Path, tmp_path: Path) -> None:
    path = _unpack(packed, tmp_path)
    with lock(path), pytest.raises(BusyError):
        Reader.open(path)
    with Reader.open(path) as reader:
        assert reader.totals.rows == 12
    with Reader.open(path) as reader, lock(path):
        assert reader.check() == []


def test_there_is_a_journal_of_every_schema_that_can_be_migrated() -> None:
    versions = {int(packed.parent.name.removeprefix("schema-")) for packed in JOURNALS}
    assert versions >= {OLDEST_VERSION}
    assert TOTALS.keys() == {packed.name.split(".")[0] for packed in JOURNALS}


def test_a_kill_leaves_the_old_or_the_new_schema_whole(tmp_path: Path) -> None:
    packed = next(path for path in JOURNALS if path.match(f"schema-{OLDEST_VERSION}/failed.*"))
    data, seen = gzip.decompress(packed.read_bytes()), set[int]()
    path = _unpack(packed, tmp_path)
    for steps in range(1, 2000, 7):
        for file in path.parent.iterdir():
            file.unlink()
        path.write_bytes(data)
        child = subprocess.run([sys.executable, "-c", KILLED, path, str(steps)], timeout=PATIENCE, check=False)
        with closing(sqlite3.connect(path)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert ("lanes" in tables) == (version == SCHEMA_VERSION)
            seen.add(version)
        with Reader.open(path) as reader:
            assert reader.check() == []
            assert reader.totals.attempts == 12
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
    else:
        pytest.fail("the migration took more steps than were tried")
    assert seen == {OLDEST_VERSION, SCHEMA_VERSION}


def test_a_step_makes_a_counter_of_new_and_of_old_journals_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = tmp_path / "migrations"
    shutil.copytree(str(database._STEPS), steps)
    step = f"{SCHEMA_VERSION + 1:04}.sql"
    (steps / step).write_text("ALTER TABLE totals ADD COLUMN another INTEGER NOT NULL DEFAULT 7;\n")
    monkeypatch.setattr(database, "_STEPS", steps)
    monkeypatch.setattr(database, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    old, new = _unpack(JOURNALS[0], tmp_path), Journal.create(tmp_path / "new.db", META)
    new.close()
    with lock(old):
        Journal.open(old).close()
    for path in (old, new.path):
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT another FROM totals").fetchone() == (7,)
            assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)


def test_a_migration_that_cannot_be_written_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _unpack(JOURNALS[0], tmp_path)
    before = path.read_bytes()
    script = "CREATE TABLE made (id INTEGER); SELECT * FROM nowhere;"
    monkeypatch.setattr(Path, "read_text", lambda *_args, **_kwargs: script)
    with pytest.raises(DamagedError, match="nowhere"):
        Journal.open(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    with lock(path):
        Journal.open(path).close()


def test_what_was_learned_about_a_lane_is_there_in_the_next_session(tmp_path: Path) -> None:
    path = _unpack(JOURNALS[0], tmp_path)

    async def session() -> Lane:
        journal = Journal.open(path)
        lane = journal.lane("http://host/v1", "KEY", "m")
        journal.start()
        await journal.learn(lane.id, '{"rate": 3.5}')
        journal.close(0)
        return lane

    first = asyncio.run(session())
    second = asyncio.run(session())
    assert first.learned is None
    assert second == Lane(first.id, '{"rate": 3.5}')
