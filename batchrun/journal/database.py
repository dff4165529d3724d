"""Creating, opening, migrating and checking the file, and its errors.

`migrations/000N.sql` migrates schema N-1 to N. A new journal is `schema.sql` and the later migrations.

WAL with `synchronous=FULL` (a rollback journal during the first intake): commits survive a kill and a power cut. Never
`open()` the file where SQLite may have it open in this process: closing that descriptor drops SQLite's locks.
"""

import contextlib
import os
import re
import shutil
import sqlite3
import stat
from collections.abc import Callable, Generator
from importlib import resources
from pathlib import Path

from batchrun import DISTRIBUTION, __version__
from batchrun.errors import DamagedError, RefusedError, StorageError
from batchrun.journal.lock import lock
from batchrun.journal.queries import sql
from batchrun.journal.texts import Texts, size_of, texts_of

APPLICATION_ID = 0x42524A4C  # "BRJL", shown by file(1) and by PRAGMA application_id
_STEPS = resources.files("batchrun.journal") / "migrations"
SCHEMA_VERSION = max(int(step.name[:4]) for step in _STEPS.iterdir() if step.name.endswith(".sql"))
OLDEST_VERSION = 3  # the oldest schema that can be migrated

_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ncpfs|ceph|glusterfs|lustre|beegfs|davfs2?|vboxsf"
    r"|fuse\.(sshfs|glusterfs|ceph.*|s3fs|rclone|gcsfuse|goofys|mount-s3|davfs2?|smbnetfs|curlftpfs)"
)
_MOUNTS = Path("/proc/self/mounts")
# Bytes of a page. Long replies take 0.85 of the CPU of 4 KiB to write; commits of short rows write more from 16 KiB on.
_PAGE = 8192
# Instead of a text that cannot be read, in what is saved of a damaged journal
NO_TEXT = "{}"
# Errors that values of a damaged page cause: SQLite's columns hold any type.
_VALUE_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
# A file, directory or file system that may not be written or opened
_DENIED = (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
# The last is of a statement whose table or column is missing.
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


@contextlib.contextmanager
def translated(path: Path, doing: str = "read") -> Generator[None]:
    """Raises StorageError, for unreadable values DamagedError."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except (sqlite3.Error, OSError) as error:
        raise storage_error(path, error, doing) from error
    except _VALUE_ERRORS as error:
        if doing == "write":
            raise
        raise damaged(path, f"it contains an invalid value ({error})") from error


class Connection(sqlite3.Connection):
    """With the long texts beside the journal."""

    texts: Texts

    def read_texts(self, texts: Texts) -> None:
        self.texts = texts
        self.create_function("long_text", 2, texts.text)
        self.create_function("text_beginning", 2, texts.beginning)

    def do_without_texts(self) -> None:
        """Rows whose text cannot be read are empty objects: their replies are still there."""
        self.create_function("long_text", 2, self._text_or_nothing)

    def _text_or_nothing(self, at: int, size: int) -> str:
        try:
            return self.texts.text(at, size)
        except (OSError, ValueError):
            return NO_TEXT

    def close(self) -> None:
        super().close()
        self.texts.close()


class GoneError(OSError):
    """Another file is at the path: SQLite would write to an unlinked one."""


def identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def storage_error(path: Path, error: Exception, doing: str) -> StorageError:
    if isinstance(error, GoneError):
        return StorageError(
            f"{path}: the journal was deleted, moved or replaced while the run wrote it.",
            "No more requests are sent. If it was moved, move it back with its -wal file and run the same command again.",
        )
    if doing == "read" and not path.exists():
        return StorageError(
            f"{path}: the journal was deleted or moved while it was read.", "`batchrun runs` lists the existing runs."
        )
    code = getattr(error, "sqlite_errorcode", None)
    if "user-defined function" in str(error):
        return damaged(path, f"{texts_of(path).name}, which has the long texts of rows, cannot be read")
    no_text = code is None and "decode" in str(error)
    if no_text or (code is not None and code & 0xFF in _DAMAGE):
        return damaged(path, str(error))
    what = f"{path}: the journal cannot be {'written' if doing == 'write' else 'read'}: {_reason(path, error)}"
    if isinstance(error, PermissionError) or (code is not None and code & 0xFF in _DENIED):
        return StorageError(
            f"{what}.",
            f"Committed data is safe. Give yourself access to the files of the run and to {path.parent}, then run the same command again.",
        )
    return StorageError(
        f"{what} ({_free(path)} free).",
        "Committed data is safe. Free space or repair the disk, then run the same command again.",
    )


def _reason(path: Path, error: Exception) -> str:
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    name = Path(os.fsdecode(error.filename or path)).name
    return error.strerror if name == path.name else f"{name}: {error.strerror}"


def damaged(path: Path, why: str, first: str = "") -> DamagedError:
    """`first`: what to try first."""
    return DamagedError(
        f"{path}: the journal is damaged: {why}.",
        f"Nothing was changed. {first}`batchrun export {path.stem}` writes the part that can be read; "
        "resume from a copy of the journal, or start again with --fresh.",
        path,
    )


def _free(path: Path) -> str:
    try:
        return f"{shutil.disk_usage(path.parent).free / 1e6:,.1f} MB"
    except OSError:
        return "unknown space"


def prepare(directory: Path) -> None:
    """Make the directory, mode 0700, ignored by git. Raises RefusedError."""
    refuse_network(directory)
    try:
        if not directory.is_dir():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
        ignore = directory / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="ascii")
    except OSError as error:
        raise RefusedError(
            f"{directory}: the journal's directory cannot be created: {error.strerror}.",
            "Choose a writable directory with --runs-dir.",
        ) from error


def refuse_network(directory: Path, mounts: Path = _MOUNTS) -> None:
    """Their locks are unreliable (sqlite.org/wal.html). Raises RefusedError."""
    kind = _file_system(directory.resolve(), mounts)
    if kind is not None and _NETWORK.fullmatch(kind):
        raise RefusedError(
            f"{directory}: journals cannot be stored on a network file system ({kind}).",
            "Choose a directory on a local disk with --runs-dir.",
        )


def _file_system(directory: Path, mounts: Path) -> str | None:
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None  # no such list on this system
    best, kind = -1, None
    for line in lines:
        _, point, name, *_ = line.split(" ")
        place = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), point))
        if directory.is_relative_to(place) and len(place.parts) >= best:
            best, kind = len(place.parts), name
    return kind


def create(path: Path, meta: dict[str, str | None]) -> None:
    """Raises RefusedError for an unwritable directory or a taken name."""
    prepare(path.parent)
    if os.path.lexists(path):
        raise RefusedError(f"{path}: a journal exists already.", "Resume it, or use --fresh.")
    building = path.with_suffix(".new")
    try:
        _make_private(building)
    except OSError as error:
        raise RefusedError(
            f"{building}: the journal cannot be created: {error.strerror}.",
            "Choose a writable directory with --runs-dir.",
        ) from error
    with translated(path, "write"):
        _build(building, meta)
        _sync(building)
        building.rename(path)
        sync_directory(path.parent)


def _make_private(path: Path) -> None:
    # SQLite's side files inherit the mode 0600.
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    path.chmod(0o600)


def _build(path: Path, meta: dict[str, str | None]) -> None:
    schema = resources.files("batchrun.journal").joinpath("schema.sql").read_text(encoding="utf-8")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {_PAGE}")
        connection.execute("PRAGMA synchronous = OFF")  # it has no name yet, and is synced once before it gets one
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.executescript(f"BEGIN; {schema} COMMIT;")
        _migrate(connection, connection.execute("PRAGMA user_version").fetchone()[0])
        connection.executemany("INSERT INTO meta (name, value) VALUES (?, ?)", meta.items())
        connection.execute("PRAGMA journal_mode = WAL")


def sync_directory(directory: Path) -> None:
    """Make a rename durable; not possible on Windows."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def has_log(path: Path) -> bool:
    """A process has it open, or was killed."""
    return _beside(path, "-wal").exists()


def salvage(path: Path) -> Connection:
    _check_file(path)
    with translated(path):
        connection = _raw(path, "ro")
        connection.execute("PRAGMA writable_schema = ON")  # otherwise a file that is cut short is refused as a whole
        connection.do_without_texts()
        return connection


def connect(path: Path, *, write: bool) -> Connection:
    """Open and check an existing journal; threads may take turns with the connection.

    With `write` the caller holds the lock, else it is taken for a migration or the roll-back of a killed intake. Raises
    StorageError, or BusyError where another process has the lock.
    """
    _check_file(path)
    with translated(path):
        _refuse_lost_log(path)
        if not write and _needs_writing(path):
            with lock(path):
                connect(path, write=True).close()
        connection = _raw(path, "rw") if write else _open_read_only(path)
        try:
            if write:
                connection.execute("PRAGMA synchronous = FULL")
                _migrate(connection, _check_version(path, connection))
                connection.execute("PRAGMA journal_mode = WAL")
            _check_content(path, connection)
        except BaseException:
            connection.close()
            raise
    return connection


def _needs_writing(path: Path) -> bool:
    try:
        with contextlib.closing(_open_read_only(path)) as connection:
            return _check_version(path, connection) < SCHEMA_VERSION
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
        return True


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    # In one transaction: a kill leaves the old or the new one whole.
    if version == SCHEMA_VERSION:
        return
    texts = [(_STEPS / f"{number:04}.sql").read_text("utf-8") for number in range(version + 1, SCHEMA_VERSION + 1)]
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {''.join(texts)} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _open_read_only(path: Path) -> Connection:
    connection = _raw(path, "ro")
    try:
        connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
    except sqlite3.Error as error:
        connection.close()
        # On a medium where the side files of WAL cannot be made, no process can be writing either.
        unfinished = has_log(path) or _beside(path, "-journal").exists()
        if not isinstance(error, sqlite3.OperationalError) or os.access(path.parent, os.W_OK) or unfinished:
            raise
        return _raw(path, "ro&immutable=1")
    return connection


def _raw(path: Path, mode: str) -> Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    found = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10, factory=Connection
    )
    found.read_texts(Texts(texts_of(path)))
    return found


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _check_file(path: Path) -> None:
    try:
        found = path.lstat()
    except OSError as error:
        raise StorageError(
            f"{path}: the journal cannot be opened: {error.strerror}.", "`batchrun runs` lists the existing runs."
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise StorageError(f"{path}: the journal is not a regular file; links are not followed.", "Move it away.")
    if found.st_size == 0:
        raise damaged(path, "the file is empty")


def _refuse_lost_log(path: Path) -> None:
    """After a kill whose log was removed. Raises DamagedError."""
    # Its index is still there.
    if not _beside(path, "-shm").exists() or has_log(path):
        return
    with contextlib.closing(_raw(path, "ro&immutable=1")) as connection:
        _check_content(path, connection)
        if was_killed(connection):
            raise damaged(path, f"{path.name}-wal, which holds the last commits, is missing")


def was_killed(connection: sqlite3.Connection) -> bool:
    """Whether the last session is running or was killed."""
    last = connection.execute("SELECT ended IS NULL FROM sessions ORDER BY id DESC LIMIT 1").fetchone()
    return last is not None and last[0] == 1


def _check_version(path: Path, connection: sqlite3.Connection) -> int:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise StorageError(f"{path}: this SQLite file is not a journal of batchrun.", "Name another run or file.")
    if not OLDEST_VERSION <= version <= SCHEMA_VERSION:
        raise _other_version(path, connection, version)
    return version


def _check_content(path: Path, connection: sqlite3.Connection) -> None:
    _check_version(path, connection)
    if not connection.execute("SELECT count(*) FROM totals").fetchone()[0]:
        raise damaged(path, "its totals are missing")
    needed = connection.execute(sql("find_meta"), ("texts",)).fetchone()
    if needed is not None and size_of(texts_of(path)) < int(needed[0]):
        name = texts_of(path).name
        why = f"{name}, which has the long texts of rows, is missing or cut off"
        first = f"Put {name} beside it again: a copy of a journal needs both files. Without it, "
        raise damaged(path, why, first)


def _other_version(path: Path, connection: sqlite3.Connection, version: int) -> StorageError:
    age = "a newer" if version > SCHEMA_VERSION else "an older"
    writer = _writer(connection)
    return StorageError(
        f"{path}: the journal was written by {age} version of batchrun{f', {writer}' if writer else ''} "
        f"(schema {version}; this is {__version__} with schema {SCHEMA_VERSION}).",
        f"Nothing was changed. Resume it, or export its replies, with that version (`uvx --from {DISTRIBUTION}=={writer or 'VERSION'} batchrun`, or its wheel file); "
        "or start again with --fresh.",
    )


def _writer(connection: sqlite3.Connection) -> str | None:
    try:
        (version,) = connection.execute("SELECT value FROM meta WHERE name = 'batchrun'").fetchone()
    except (sqlite3.Error, TypeError):
        return None
    return version if re.fullmatch(r"[0-9][0-9A-Za-z.+]{0,30}", str(version)) else None


def remove(path: Path) -> None:
    """The journal goes first, so that none is found without its log."""
    # The caller holds the lock.
    with translated(path, "write"):
        path.unlink(missing_ok=True)
        for suffix in ("-wal", "-shm", "-journal"):
            _beside(path, suffix).unlink(missing_ok=True)
        texts_of(path).unlink(missing_ok=True)
        path.with_suffix(".new").unlink(missing_ok=True)


def copy(connection: sqlite3.Connection, path: Path, target: Path, moved: Callable[[str], str] | None = None) -> None:
    """Write a single file, complete before it gets its name."""
    # `moved` converts `rows.files`.
    if os.path.lexists(target):
        raise RefusedError(f"{target}: the file exists already.", "Name a file that does not exist.")
    building = target.with_name(f"{target.name}.partial")
    with translated(path):
        _make_private(building)
        connection.execute("VACUUM INTO ?", (str(building),))
        with contextlib.closing(sqlite3.connect(building, factory=Connection)) as copied, copied:
            copied.read_texts(Texts(texts_of(path)))
            copied.execute(sql("take_in_texts"))
            copied.execute(sql("forget_meta"), ("texts",))
            if moved is not None:
                copied.create_function("moved", 1, moved)
                copied.execute("UPDATE rows SET files = moved(files) WHERE files <> ''")
        _sync(building)
        building.rename(target)
        sync_directory(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
