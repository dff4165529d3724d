"""The first intake: writing the input's rows into the journal.

A row's identity is its key, or its content, and among equal rows its occurrence. The intake writes transactions of 64
MB straight into the file (texts of long rows into one beside it), and is complete only when `meta` has "intake"; one
that was killed starts over. One thread writes rows while the next are read and hashed.
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from itertools import islice
from json import dumps
from pathlib import Path
from typing import NamedTuple

from batchrun.digests import digest_of
from batchrun.errors import InputError
from batchrun.journal import sums
from batchrun.journal.database import sync_directory
from batchrun.journal.group import Insert
from batchrun.journal.queries import sql
from batchrun.journal.records import IntakeRow
from batchrun.journal.texts import LONG, NewTexts

BATCH = 8192  # rows handed over at once, at most
ROOM = 4_000_000  # characters after which a batch ends: bounds memory with long rows
AHEAD = 5  # batches of `ROOM` that wait while one is written: reading goes on during a commit
TOGETHER = 16  # batches in one transaction: each commit waits for the disk several times
CACHE = 8_000  # KiB of pages: once they are full, readers are locked out until the commit

Params = tuple[int, int, str, str, str, str]
Long = tuple[int, int, str]  # `rows.text_at`, `text_size` and `ready`
_IN_THE_JOURNAL = (None, None, "")

# SQLite works without the interpreter's lock, but to win it back from the thread that reads takes up to 5 ms each time.
_INSERT = Insert("insert_row", sizes=(4096, 512, 64, 8, 1))
_INSERT_LONG = sql("insert_long_row")
_SKIP = sql("skip_row")


class Feed:
    """Rows as parameters of the INSERT, numbered from 1."""

    # The digest of a text is its key without an id.

    def __init__(self, rows: Iterable[IntakeRow], digest: str, texts: NewTexts | None = None) -> None:
        self.position = 0
        self.keyed = False
        self.size = 0  # characters of the rows that were taken last
        self.skipped: list[tuple[int, str]] = []
        self.parts: list[tuple[int, int]] = []  # (position, position of the reduce row it is a part of)
        self._rows = iter(rows)
        self._digest = digest_of(digest)
        self._texts = texts
        self._long: dict[int, Long] = {}

    def take(self, count: int) -> list[Params]:
        """At most `count` rows; none at the end."""
        taken: list[Params] = []
        position, room, digest = self.position, ROOM, self._digest
        for line, key, request, text, skipped, ahead, files, encoded, ready in islice(self._rows, count):
            position += 1
            if ahead:
                self.parts.append((position, position + ahead))
            if skipped is not None:
                self.skipped.append((position, skipped))
                taken.append((position, line, digest(text.encode()), "", text, ""))
            elif self._texts is not None and len(text) >= LONG:
                # written by this thread, whose processor's cache has it
                data = encoded or text.encode()
                self._long[len(taken)] = self._texts.add(data), len(data), "" if ready is None else dumps(ready)
                self.keyed |= key is not None
                taken.append((position, line, digest(data) if key is None else key, request, "", files))
            elif key is None:
                taken.append((position, line, digest(text.encode()), request, text, files))
            else:
                self.keyed = True
                taken.append((position, line, key, request, text, files))
            room -= len(text)
            if room < 0:
                break
        self.position, self.size = position, ROOM - room
        return taken

    def take_skipped(self) -> list[tuple[int, str]]:
        """(position, reason) since the last call."""
        taken, self.skipped = self.skipped, []
        return taken

    def take_long(self) -> dict[int, Long]:
        """Where the texts of long rows are, by their rows' places among those that were taken last."""
        taken, self._long = self._long, {}
        return taken

    def take_parts(self) -> list[tuple[int, int]]:
        taken, self.parts = self.parts, []
        return taken


@contextmanager
def transaction(connection: sqlite3.Connection, before_commit: Callable[[], None]) -> Generator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        before_commit()
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def written_once(connection: sqlite3.Connection) -> Generator[None]:
    """SQLite's rollback journal copies nothing new at the end of the file (sqlite.org/lockingv3.html)."""
    # Without effect while another process reads the journal.
    with suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode = TRUNCATE")
    connection.execute(f"PRAGMA cache_size = -{CACHE}")
    try:
        yield
    finally:
        with suppress(sqlite3.Error):  # a full disk was reported before; the next to open it tries again
            connection.execute("PRAGMA cache_size = -2000")
            connection.execute("PRAGMA journal_mode = WAL")


class FirstIntake:
    def __init__(
        self, connection: sqlite3.Connection, now: float, before_commit: Callable[[], None], digest: str, texts: Path
    ) -> None:
        self._connection = connection
        self._texts = NewTexts(texts)
        self._digest = digest
        self._now = now
        self._before_commit = before_commit
        self._written = 0

    def run(self, rows: Iterable[IntakeRow], progress: Callable[[int], None]) -> None:
        """Raises InputError for duplicate ids."""
        # `progress` gets the number of rows.
        feed = Feed(rows, self._digest, self._texts)
        with closing(self._texts), written_once(self._connection):
            self._clear()
            with self._transaction():
                skipped = self._load(feed, progress)
            if self._texts.size:
                self._texts.sync()
                sync_directory(self._texts.path.parent)
            with self._transaction():
                identify(self._connection, ROWS, self._digest, keyed=feed.keyed)
                self._connection.execute(sql("put_meta"), ("intake", "done"))
                if self._texts.size:
                    self._connection.execute(sql("put_meta"), ("texts", str(self._texts.size)))
                sums.write(sums.first(feed.position, skipped), self._connection)

    def _load(self, feed: Feed, progress: Callable[[int], None]) -> int:
        # Returns how many rows are skipped.
        skipped = 0
        waiting: deque[tuple[Future[None], int]] = deque()
        held = 0
        with ThreadPoolExecutor(1, "batchrun-intake") as disk:
            while batch := feed.take(BATCH):
                while waiting and (len(waiting) > AHEAD or held + feed.size > (AHEAD + 1) * ROOM):
                    written, size = waiting.popleft()
                    held -= size
                    written.result()
                invalid = feed.take_skipped()
                skipped += len(invalid)
                beside = feed.take_long(), invalid, feed.take_parts()
                waiting.append((disk.submit(self._write, batch, *beside, progress), feed.size))
                held += feed.size
                del batch, beside
            for written, _ in waiting:
                written.result()
        return skipped

    def _transaction(self):
        return transaction(self._connection, self._before_commit)

    def _clear(self) -> None:
        # What a killed intake left.
        self._texts.path.unlink(missing_ok=True)
        with self._transaction():
            for name in (
                "drop_position_index",
                "drop_identity_index",
                "clear_outcomes",
                "clear_reductions",
                "clear_rows",
                "index_positions",
            ):
                self._connection.execute(sql(name))

    def _write(
        self,
        batch: list[Params],
        long: dict[int, Long],
        skipped: list[tuple[int, str]],
        parts: list[tuple[int, int]],
        progress: Callable[[int], None],
    ) -> None:
        if long:
            rows = ((*row, *long.get(place, _IN_THE_JOURNAL)) for place, row in enumerate(batch))
            self._connection.executemany(_INSERT_LONG, rows)
        else:
            _INSERT.run(self._connection, batch)
        self._connection.executemany(_SKIP, [(position, why, self._now) for position, why in skipped])
        self._connection.executemany(sql("insert_reduction"), parts)
        self._written += 1
        if self._written % TOGETHER == 0:
            self._texts.sync()
            self._before_commit()
            self._connection.execute("COMMIT")
            self._connection.execute("BEGIN IMMEDIATE")
        progress(batch[-1][0])


class Identified(NamedTuple):
    index_identity: str
    number_equal: str
    find_equal: str


ROWS = Identified("index_rows", "number_equal_rows", "equal_rows")
STAGED = Identified("index_stage", "number_equal_staged", "equal_staged")


def identify(connection: sqlite3.Connection, table: Identified, digest: str, *, keyed: bool) -> None:
    """Raises InputError for a duplicate id."""
    index = sql(table.index_identity)
    try:
        connection.execute(index)
    except sqlite3.IntegrityError:
        if keyed:
            _refuse_duplicate_ids(connection, table, digest)
        connection.execute(sql(table.number_equal))
        connection.execute(index)


def duplicate_id(key: str, first: int, line: int) -> InputError:
    return InputError(
        f"The id {key[:80]!r} is on line {first} and again on line {line}.",
        "Make the ids unique, or name another column with --id-column (`none`: identify rows by content).",
    )


def _refuse_duplicate_ids(connection: sqlite3.Connection, table: Identified, digest: str) -> None:
    # Rows without an id may be equal.
    last, first, digest_of_text = None, 0, digest_of(digest)
    for key, line, text, request in connection.execute(sql(table.find_equal)):
        if request == "" or digest_of_text(text.encode()) == key:
            continue
        if key == last:
            raise duplicate_id(key, first, line)
        last, first = key, line
