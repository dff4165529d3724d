"""What is left when a process is killed, a file is damaged, or two processes want the same run."""

import asyncio
import hashlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib import resources
from pathlib import Path

import pytest
from waiting import PATIENCE

from batchrun.errors import BusyError, DamagedError, RefusedError, StorageError
from batchrun.journal import End, IntakeRow, Journal, Meta, Reader, ingest, lock, sums
from batchrun.journal.database import OLDEST_VERSION, SCHEMA_VERSION, refuse_network
from batchrun.models import Outcome, State

META = Meta(run="r1", created=1.0, plan="{}", prompt=None, simulated=False, output="../out.jsonl")
DONE = Outcome(State.DONE, True, None, None, frozenset(), None)
ROWS = [IntakeRow(line, f"id-{line}", "request", f'"{line}{"x" * 20_000 * (line == 2)}"') for line in range(1, 4)]

# A run over three rows, one of which needs a second attempt; killed before its n-th commit. What it was told is
# committed goes to a file first, as a provider's bill would.
RUN = """
import asyncio, os, signal, sys
from pathlib import Path
from batchrun.journal import End, IntakeRow, Journal, Meta
from batchrun.models import Outcome, State, Usage

META = Meta(run="r1", created=1.0, plan="{}", prompt=None, simulated=False, output="../out.jsonl")
ROWS = [IntakeRow(line, f"id-{line}", "request", f'"{line}{"x" * 20_000 * (line == 2)}"') for line in range(1, 4)]

def run(directory, fatal):
    def faults(commit):
        if commit == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
    told = os.open(directory / "told", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    journal = Journal.create(directory / "r.db", META, faults=faults)
    journal.ingest(ROWS)
    os.write(told, b"in 0 0\\n")
    async def answer():
        journal.start()
        for row in (1, 2, 3):
            for number in (1, 2) if row == 2 else (1,):
                await journal.begin(row, number)
                os.write(told, f"left {row} {number}\\n".encode())
                paid = row != 2 or number == 2
                end = End(200, 0.1, usage=Usage(1, 1, 0, 0)) if paid else End(503, 0.1, "HTTP 503")
                await journal.end(row, number, end, f'"reply {row}"' if paid else None)
                os.write(told, f"ended {row} {number}\\n".encode())
            await journal.finish(row, Outcome(State.DONE, True, None, None, frozenset(), None))
            os.write(told, f"done {row} 0\\n".encode())
        journal.close(0)
    asyncio.run(answer())

for fatal in range(1, int(sys.argv[2]) + 1):
    directory = Path(sys.argv[1]) / str(fatal)
    directory.mkdir()
    child = os.fork()
    if not child:
        try:
            run(directory, fatal)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)
"""
COMMITS = 17


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for every commit of the run, with what a kill before that commit left."""
    directory = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-c", RUN, str(directory), str(COMMITS)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.stdout.split() == ["9"] * (COMMITS - 1) + ["0"]
    return directory


def told(directory: Path) -> list[tuple[str, int, int]]:
    lines = (directory / "told").read_text().split("\n")[:-1]
    return [(word, int(row), int(number)) for word, row, number in map(str.split, lines)]


@pytest.mark.parametrize("commit", range(1, COMMITS))
def test_nothing_that_was_committed_is_lost_by_a_kill(killed: Path, tmp_path: Path, commit: int) -> None:
    directory = shutil.copytree(killed / str(commit), tmp_path / "run")
    journal = Journal.open(directory / "r.db")
    facts = told(directory)
    assert journal.ingested == (("in", 0, 0) in facts)
    with Reader.open(journal.path) as reader:
        assert reader.check() == []
        for word, row, number in facts[1:]:
            attempts = {attempt.number: attempt for attempt in reader.attempts(row)}
            assert word != "left" or number in attempts
            assert word != "ended" or attempts[number].ended is not None
            found = reader.row(seq=row)
            assert found is not None
            assert word != "done" or (found.state, found.body) == (State.DONE, f'"reply {row}"')
    journal.close()


@pytest.mark.parametrize("commit", range(1, COMMITS))
def test_a_killed_run_goes_on_and_pays_for_no_recorded_reply_again(killed: Path, tmp_path: Path, commit: int) -> None:
    directory = shutil.copytree(killed / str(commit), tmp_path / "run")
    paid = {row for word, row, number in told(directory) if word == "ended" and (row != 2 or number == 2)}
    sent: set[int] = set()

    async def go_on() -> None:
        journal = Journal.open(directory / "r.db")
        if not journal.ingested:
            journal.ingest(ROWS)
        journal.start()
        for row in journal.pending():
            if row.history.reply is None:
                sent.add(row.seq)
                await journal.begin(row.seq, row.history.number + 1)
                await journal.end(row.seq, row.history.number + 1, End(200, 0.1), f'"reply {row.seq}"')
            await journal.finish(row.seq, DONE)
        journal.close(0)

    asyncio.run(go_on())
    assert not sent & paid
    with Reader.open(directory / "r.db") as reader:
        assert reader.check() == []
        assert [row.body for row in reader.export_rows()] == ['"reply 1"', '"reply 2"', '"reply 3"']
        assert (reader.totals.done, reader.totals.unknown) == (3, 0)


def test_a_removed_log_of_a_killed_run_is_noticed(killed: Path, tmp_path: Path) -> None:
    path = shutil.copytree(killed / "12", tmp_path / "run") / "r.db"
    path.with_name("r.db-wal").unlink()
    before = path.read_bytes()
    for opened in (Journal.open, Reader.open):
        with pytest.raises(StorageError, match=r"r\.db-wal, which holds the last commits, is missing"):
            opened(path)
    assert path.read_bytes() == before


def test_a_journal_copied_without_its_log_is_doubted(killed: Path, tmp_path: Path) -> None:
    for name in ("r.db", "r.db-texts"):
        shutil.copy(killed / "12" / name, tmp_path / name)
    journal = Journal.open(tmp_path / "r.db")
    assert journal.doubt is not None
    assert "would be sent and billed again" in journal.doubt
    journal.close()


def test_a_killed_journal_with_its_log_is_not_doubted(killed: Path, tmp_path: Path) -> None:
    path = shutil.copytree(killed / "12", tmp_path / "run") / "r.db"
    for _ in range(2):
        journal = Journal.open(path)
        assert journal.doubt is None
        journal.close()
    with Reader.open(path) as reader:
        (session,) = reader.sessions
    assert (session.ended, session.exit_code) == (session.started, None)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A journal of 3,000 done rows, closed."""
    path = tmp_path / "r.db"

    async def session() -> None:
        journal = Journal.create(path, META)
        journal.ingest(IntakeRow(line, f"id-{line}", "request", f'"{line:0100}"') for line in range(1, 3001))
        journal.start()
        for row in range(1, 3001):
            journal.begin(row, 1)
            journal.end(row, 1, End(200, 0.1), f'"{row:0200}"')
            last = journal.finish(row, DONE)
        await last
        journal.close(0)

    asyncio.run(session())
    return path


DAMAGE = {
    "empty": (lambda data: b"", "the file is empty"),
    "cut short": (lambda data: data[: len(data) // 2], "malformed"),
    "cut to a piece": (lambda data: data[:1000], "damaged"),
    "noise": (lambda data: os.urandom(len(data)), "damaged"),
    "text": (lambda data: b"this is not a database, but long enough to be one" * 100, "damaged"),
    "header": (lambda data: bytes([data[0] ^ 255]) + data[1:], "damaged"),
    "schema": (lambda data: data[:100] + bytes(3000) + data[3100:], "damaged"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_journal_is_refused_and_left_alone(finished: Path, damage: str) -> None:
    change, message = DAMAGE[damage]
    finished.write_bytes(change(finished.read_bytes()))
    before = finished.read_bytes()
    for opened in (Journal.open, Reader.open):
        with pytest.raises(StorageError, match=message) as refused:
            opened(finished)
        assert "Nothing was changed" in (refused.value.hint or "")
    assert finished.read_bytes() == before


@pytest.mark.parametrize("place", [0.2, 0.5, 0.645, 0.9])
def test_the_readable_part_of_a_damaged_journal_can_be_recovered(finished: Path, place: float) -> None:
    """Three pages are lost, which table's depends on how commits were grouped; the densest has 200 rows on a page."""
    data = bytearray(finished.read_bytes())
    start = int(len(data) / 8192 * place) * 8192
    data[start : start + 3 * 8192] = bytes(3 * 8192)
    finished.write_bytes(data)
    with Reader.open(finished, damaged=True) as reader:
        assert reader.check() != []
        rows = [row for row in reader.recover_rows() if row.body is not None]
    assert 3000 - 3 * 200 <= len(rows) < 3000
    assert all(row.body == f'"{row.seq:0200}"' for row in rows)


def test_half_of_a_journal_still_has_rows(finished: Path) -> None:
    data = finished.read_bytes()
    finished.write_bytes(data[: len(data) * 2 // 3])
    with Reader.open(finished, damaged=True) as reader:
        assert len(list(reader.recover_rows())) > 500


def test_wrong_totals_are_found_by_the_check(finished: Path) -> None:
    with closing(sqlite3.connect(finished)) as connection:
        connection.execute("UPDATE totals SET done = 7")
        connection.commit()
    with Reader.open(finished) as reader:
        (complaint,) = reader.check()
    assert complaint == "the totals are not the sums of the rows: done 7 instead of 3,000"


@pytest.mark.parametrize("first", [True, False])
def test_the_check_of_a_run_that_goes_on_sees_one_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    path = tmp_path / "r.db"
    journal = Journal.create(path, META)
    journal.ingest(ROWS)
    journal.close()
    recount = sums.recount

    async def goes_on() -> None:
        journal = Journal.open(path)
        journal.start()
        await journal.begin(1, 1)
        await journal.end(1, 1, End(200, 0.1), '"reply"')
        await journal.finish(1, DONE)
        journal.close(0)

    def beside(connection: sqlite3.Connection) -> object:
        if first:
            asyncio.run(goes_on())
        found = recount(connection)
        if not first:
            asyncio.run(goes_on())
        return found

    monkeypatch.setattr(sums, "recount", beside)
    with Reader.open(path) as reader:
        assert reader.check() == []
        assert reader.totals.done == 1


SCHEMAS = {
    2: "1e91c31aa69a883d",
    3: "2176372bbfd1acdb",
    4: "f20d02733e69cb0c",
    5: "17cad4be87eaca11",
    6: "541d348cf3610d03",
    7: "5433bfaa9d98ec1a",
    8: "0895a26a6e3d19af",
    9: "775796f75018999e",
    10: "2406ae1d611664a8",
    11: "b0df32b3da1e79c9",
    12: "2c03ad424e5836fb",
    13: "c2e42e7c6bcdba49",
    14: "1ede90a9a71741bd",
    15: "8cc5d369db866003",
}
"""The version of a schema, and the digest of its statements. Who changes them raises the version and adds a line."""


def test_a_schema_that_changes_gets_a_version_of_its_own() -> None:
    schema = resources.files("batchrun.journal").joinpath("schema.sql").read_text(encoding="utf-8")
    statements = " ".join(re.sub(r"--.*", "", schema).split())
    assert max(SCHEMAS) == SCHEMA_VERSION
    assert hashlib.sha256(statements.encode()).hexdigest()[:16] == SCHEMAS[SCHEMA_VERSION]


@pytest.mark.parametrize(("version", "age"), [(OLDEST_VERSION - 1, "an older"), (SCHEMA_VERSION + 1, "a newer")])
@pytest.mark.parametrize("statement", ["", "ALTER TABLE totals DROP COLUMN failed_post", "DROP TABLE sessions"])
def test_a_journal_of_another_version_is_refused(finished: Path, version: int, age: str, statement: str) -> None:
    with closing(sqlite3.connect(finished)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("UPDATE meta SET value = '0.7.1' WHERE name = 'batchrun'")
        connection.execute(statement)
        connection.commit()
    before = finished.read_bytes()
    for opened in (Journal.open, Reader.open):
        with pytest.raises(
            StorageError, match=rf"{age} version of batchrun, 0\.7\.1 \(schema {version}; this"
        ) as refused:
            opened(finished)
        assert "`uvx --from batchrun-llm==0.7.1 batchrun`" in (refused.value.hint or "")
    assert finished.read_bytes() == before


def test_a_version_that_is_no_version_gets_into_no_command(finished: Path) -> None:
    with closing(sqlite3.connect(finished)) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.execute("UPDATE meta SET value = '1; reboot' WHERE name = 'batchrun'")
        connection.commit()
    with pytest.raises(StorageError) as refused:
        Reader.open(finished)
    assert "reboot" not in f"{refused.value} {refused.value.hint}"


OTHER_KINDS = ("UPDATE totals SET done = x'00'", "UPDATE outcomes SET attempts = 1.5", "UPDATE rows SET text = x'7b7d'")


@pytest.mark.parametrize("statement", OTHER_KINDS)
def test_a_value_of_another_kind_is_damage(finished: Path, statement: str) -> None:
    with closing(sqlite3.connect(finished)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '')")
        connection.commit()
    with closing(sqlite3.connect(finished)) as connection:
        connection.execute(statement)
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_schema SET sql = sql || ' STRICT' WHERE name IN ('totals', 'outcomes', 'rows')"
        )
        connection.commit()
    with Reader.open(finished) as reader:
        assert reader.check() != []
    if "attempts" not in statement:  # a number of attempts is shown, and nothing rests on it
        with pytest.raises(DamagedError), Reader.open(finished) as reader:
            assert (reader.totals.done, len(list(reader.export_rows()))) == (3000, 3000)


def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(StorageError, match="not a journal of batchrun"):
        Journal.open(path)
    assert path.read_bytes() == before


def test_a_missing_journal_and_a_link_are_refused(finished: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        Reader.open(finished.with_name("none.db"))
    link = finished.with_name("link.db")
    link.symlink_to(finished)
    with pytest.raises(StorageError, match="links are not followed"):
        Journal.open(link)


HOLD = """
import os, sys
from pathlib import Path
from batchrun.errors import BusyError
from batchrun.journal import lock
try:
    with lock(Path(sys.argv[1])):
        print("held", os.getpid(), flush=True)
        sys.stdin.read()
except BusyError as error:
    print(error.message, flush=True)
"""


def hold(path: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLD, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_run_has_one_holder_and_a_dead_one_does_not_count(tmp_path: Path) -> None:
    with hold(tmp_path / "r.db") as holder:
        assert holder.stdout is not None
        word, pid = holder.stdout.readline().split()
        assert word == "held"
        with pytest.raises(BusyError, match=rf"process {pid} on {os.uname().nodename}"):
            lock(tmp_path / "r.db")
        holder.kill()
        holder.wait()
    with lock(tmp_path / "r.db"):
        assert (tmp_path / "r.lock").read_text().split()[0] == str(os.getpid())


def test_of_many_processes_started_together_one_gets_the_run(tmp_path: Path) -> None:
    processes = [hold(tmp_path / "r.db") for _ in range(6)]
    first = [process.stdout.readline() for process in processes if process.stdout is not None]
    for process in processes:
        process.communicate("")
    assert len([line for line in first if line.startswith("held")]) == 1
    assert len([line for line in first if "is locked by process" in line]) == 5


def test_a_lock_file_that_was_removed_with_its_run_does_not_count(tmp_path: Path) -> None:
    first = lock(tmp_path / "r.db")
    first.remove()
    assert not first.path.exists()
    with lock(tmp_path / "r.db"), pytest.raises(BusyError):
        lock(tmp_path / "r.db")


FORKED = """
import os, sys
from pathlib import Path
from batchrun.journal import lock
held = lock(Path(sys.argv[1]))
if not os.fork():
    print("working", flush=True)
    sys.stdin.read()
    os._exit(0)
sys.stdin.readline()
os._exit(1)
"""


def test_a_worker_that_outlives_its_run_does_not_hold_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKED, str(tmp_path / "r.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        assert run.stdout.readline() == "working\n"
        with pytest.raises(BusyError):
            lock(tmp_path / "r.db")
        run.kill()
        run.wait()
        lock(tmp_path / "r.db").release()


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"])
def test_a_network_file_system_is_refused(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "my share"
    place.mkdir()
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/x {str(place).replace(' ', chr(92) + '040')} {kind} rw 0 0\n")
    with pytest.raises(RefusedError, match=f"network file system \\({kind}\\)") as refused:
        refuse_network(place / "deep" / ".batchrun", mounts)
    assert "--runs-dir" in (refused.value.hint or "")
    refuse_network(tmp_path, mounts)


# An intake that is killed when it is to give its n-th row, each as long as a page. Pages leave the cache at once, so
# that the file has half a transaction. A reader follows.
INTAKE = """
import os, signal, sys
from pathlib import Path
from batchrun.journal import IntakeRow, Journal, Meta, Reader, ingest

META = Meta(run="r1", created=1.0, plan="{}", prompt=None, simulated=False, output="../out.jsonl")
ingest.CACHE, ingest.ROOM, ingest.AHEAD = 10, 20_000, 0
path, fatal = Path(sys.argv[1]), int(sys.argv[2])

def rows():
    for line in range(1, 101):
        if line == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        yield IntakeRow(line, f"id-{line}", "request", '"' + "x" * 5000 + '"')

Journal.create(path, META).ingest(rows())
"""


@pytest.mark.parametrize(("row", "half"), [(1, False), (43, True)])
def test_an_intake_that_was_killed_leaves_a_journal_that_can_be_read_and_filled(
    tmp_path: Path, row: int, half: bool
) -> None:
    path = tmp_path / "r.db"
    ended = subprocess.run([sys.executable, "-c", INTAKE, str(path), str(row)], check=False, timeout=PATIENCE)
    assert ended.returncode == -9
    assert (path.with_name("r.db-journal").stat().st_size > 0) == half
    if half:
        with lock(path), pytest.raises(BusyError):
            Reader.open(path)
    with Reader.open(path) as reader:
        assert (reader.ingested, reader.meta.run, reader.check()) == (False, "r1", [])
    journal = Journal.open(path)
    journal.ingest(ROWS)
    journal.close(0)
    with Reader.open(path) as reader:
        assert (reader.ingested, reader.check(), len(list(reader.export_rows()))) == (True, [], 3)


def test_a_journal_can_be_read_while_rows_are_taken_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "TOGETHER", 1)
    monkeypatch.setattr(ingest, "ROOM", 1)
    path = tmp_path / "r.db"
    journal = Journal.create(path, META)
    seen = list[bool]()

    def rows() -> Iterator[IntakeRow]:
        for row in ROWS:
            yield row
            with Reader.open(path) as reader:
                seen.append(reader.ingested)

    journal.ingest(rows())
    assert seen == [False] * 3
    assert journal.ingested
    journal.close(0)


def test_rows_are_taken_in_through_the_log_while_somebody_reads(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    journal = Journal.create(path, META)
    with closing(sqlite3.connect(path, isolation_level=None)) as reading:
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM rows").fetchone()
        journal.ingest(ROWS)
        assert reading.execute("SELECT count(*) FROM rows").fetchone() == (0,)
    assert journal.totals.rows == 3
    journal.close(0)
