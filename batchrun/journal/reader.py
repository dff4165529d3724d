"""Reads a journal, also while another process writes it: page by page, without a lock."""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, TypeVar

from batchrun.digests import BLAKE2B, KINDS
from batchrun.errors import DamagedError, StorageError
from batchrun.journal import browse, database, pending, sums
from batchrun.journal.pages import Found, page
from batchrun.journal.queries import sql
from batchrun.journal.records import (
    Attempt,
    Cause,
    Entry,
    LaneShare,
    Line,
    Meta,
    Miss,
    Record,
    Result,
    Sample,
    Session,
    Spent,
    TierShare,
    Wanted,
)
from batchrun.models import Parts, State, Ticket, Totals, made

PAGE = 1000

Made = TypeVar("Made")

_RECORD_PAGE = sql("record_page")
_EXCHANGE_PAGE = sql("exchange_page")
_RECORD_RANGE = sql("record_range")
_RECORD_BY = {name: sql(f"record_by_{name}") for name in ("seq", "key", "line")}
_RESULT = sql("result_page")
_ENTRY_PAGE = sql("entry_page")
_ATTEMPTS = sql("attempts_of_row")
_SETTLED = sql("settled_requests")
_OFFERED = sql("offered_requests")
_SPENT = sql("spent_rows")
_CAUSES = sql("failures_by_cause")
_FAILURES = sql("failure_counts")
_MISSES = sql("failed_attempts")
_TIERS = sql("replies_by_tier")
_LANES = sql("shares_by_lane")
_LINES = sql("lines_of_cause")
_ADDED = sql("added_members")

_STATES = {str(state): state for state in State}
_TEXT = (str, type(None))
_NO_FLAGS: frozenset[str] = frozenset()


def _flags(text: str | None) -> frozenset[str]:
    return _NO_FLAGS if text is None else frozenset(text.split(","))


def _record(row: Sequence[Any]) -> Record:
    *rest, state, permanent, flags, post, files, lane = row
    _check_texts(*rest[4:8])
    return Record._make((*rest, _STATES[state], permanent == 1, _flags(flags), post == 1, files, lane))


def _result(row: Found) -> Result:
    _, text, value, body, added, _ = row
    _check_texts(text, value, body, added)
    return made(Result, (text, value, body, added))


def _check_texts(text: Any, value: Any, body: Any, added: Any) -> None:
    # SQLite's columns hold any type: a damaged page raises TypeError.
    if not (
        isinstance(text, str) and isinstance(value, _TEXT) and isinstance(body, _TEXT) and isinstance(added, _TEXT)
    ):
        raise TypeError("a value is not text")


def _record_size(row: Found) -> int:
    return sum(len(text or "") for text in row[4:8])


def _result_size(row: Found) -> int:
    _, text, value, body, added, _ = row
    return len(text) + len(value or "") + len(body or "") + len(added or "")


def _text_size(row: Found) -> int:
    return len(row[1])


_TEXTS = sql("texts_page")


def _entry(row: Sequence[Any]) -> Entry:
    seq, position, line, key, state, permanent, cause, message, flags, *rest = row
    return Entry(seq, position, line, key, _STATES[state], permanent == 1, cause, message, _flags(flags), *rest)


def read_meta(connection: sqlite3.Connection) -> Meta:
    known: dict[str, Any] = dict(
        connection.execute("SELECT name, value FROM meta WHERE name NOT LIKE 'note.%'").fetchall()
    )
    if not all(isinstance(value, _TEXT) for value in known.values()):
        raise TypeError("a value is not text")
    if (digest := known.get("digest", BLAKE2B)) not in KINDS:
        raise ValueError(f"{digest!r} is not a known kind of digest")
    return Meta(
        run=known.get("run") or "",
        created=float(known.get("created") or 0),
        plan=known.get("plan") or "{}",
        prompt=known.get("prompt"),
        simulated=known.get("simulated") == "1",
        output=known.get("output") or "",
        digest=digest,
    )


class Reader:
    """For one thread at a time. All methods raise StorageError."""

    def __init__(self, path: Path, connection: database.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: Path, *, damaged: bool = False) -> Self:
        """With `damaged` unchecked, for `recover_rows`."""
        return cls(path, database.salvage(path) if damaged else database.connect(path, write=False))

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def meta(self) -> Meta:
        with database.translated(self.path):
            return read_meta(self._connection)

    @property
    def ingested(self) -> bool:
        return bool(self._all(sql("is_ingested")))

    @property
    def totals(self) -> Totals:
        with database.translated(self.path):
            return sums.read(self._connection).totals()

    @property
    def tickets(self) -> list[Ticket]:
        with database.translated(self.path):
            return pending.tickets(self._connection)

    def pending(self, after: int) -> pending.Page:
        with database.translated(self.path):
            return pending.pending(self._connection, after, PAGE, None)

    def worst_of(self, ticket: int) -> int | None:
        """Highest possible picodollars of open rows; None where none is priced."""
        return self._each(lambda row: row[0], sql("worst_of_ticket"), ticket)[0]

    @property
    def sessions(self) -> list[Session]:
        return self._each(lambda row: Session(*row), sql("sessions"))

    def settled(self) -> Iterator[str]:
        """Hashes of requests that resuming would not send."""
        return self._requests(_SETTLED)

    def offered(self) -> Iterator[str]:
        """Hashes of requests with replies for another run, once per reply."""
        return self._requests(_OFFERED)

    def _requests(self, query: str) -> Iterator[str]:
        after = 0
        while page := self._all(query, after, PAGE):
            yield from (request for _, request in page)
            after = page[-1][0]

    def spent(self, count: int = 1000) -> Iterator[Spent]:
        """About `count` rows from all over the input."""
        every = max(1, self._all("SELECT count(*) FROM outcomes WHERE attempts > 0")[0][0] // count)
        after = 0
        while rows := self._paged(lambda row: len(row[3]), _SPENT, every, after, PAGE):
            yield from (Spent(*row[1:]) for row in rows)
            after = rows[-1][0]

    def timings(self, count: int = 20_000) -> list[tuple[float, float, int]]:
        """(end, seconds, status) of about `count` rows' exchanges, unordered."""
        rows = self.totals.rows
        return self._all(sql("timings"), max(1, rows // count))

    def tiers(self) -> list[TierShare]:
        """Most frequent first; reads all attempts."""
        return self._each(lambda row: TierShare(*row), _TIERS)

    def lanes(self) -> list[LaneShare]:
        """Empty for a single lane; reads all attempts."""
        found = self._each(lambda row: LaneShare(*row), _LANES)
        return found if len(found) > 1 else []

    def note(self, name: str) -> str | None:
        found = self._all(sql("find_meta"), f"note.{name}")
        return found[0][0] if found else None

    def samples(self, since: float = 0.0) -> list[Sample]:
        return self._each(lambda row: Sample(row[0], json.loads(row[1])), sql("samples"), since)

    def errors_by_cause(self, limit: int = 20) -> list[Cause]:
        return [
            Cause(cause, rows, message, tuple(line for (line,) in self._all(_LINES, cause or None)), retryable)
            for cause, rows, message, _, retryable in self._all(_CAUSES, limit)
        ]

    def failures(self, limit: int = 20) -> dict[str, int]:
        """By cause, most frequent first; reads only an index."""
        return dict(self._all(_FAILURES, limit))

    def misses(self, limit: int = 20) -> list[Miss]:
        """Reads all attempts that were not accepted."""
        return [Miss(cause, attempts, int(paid)) for cause, attempts, paid in self._all(_MISSES, limit)]

    def slowest(self, count: int = 10) -> list[Entry]:
        """Reads all outcomes."""
        return self._each(_entry, sql("slowest_rows"), count)

    def attempts(self, seq: int) -> list[Attempt]:
        """Of earlier outcomes too."""
        flags = slice(8, 13)
        return self._each(lambda row: Attempt(*row[:8], *map(bool, row[flags]), *row[13:]), _ATTEMPTS, seq)

    def row(self, *, seq: int | None = None, key: str | None = None, line: int | None = None) -> Record | None:
        """By seq, key, or (first) line."""
        column, value = ("seq", seq) if seq is not None else ("key", key) if key is not None else ("line", line)
        return next(iter(self._each(_record, _RECORD_BY[column], value)), None)

    def entries(
        self, after: int = 0, limit: int = PAGE, *, state: State | None = None, cause: str | None = None
    ) -> list[Entry]:
        """In input order after the position `after`."""
        return self._each(_entry, _ENTRY_PAGE, after, limit, state, cause)

    def lines(self, after: int = 0, limit: int = PAGE) -> list[Line]:
        with database.translated(self.path):
            return browse.lines(self._connection, after, limit)

    def lines_at(self, positions: Iterable[int]) -> list[Line]:
        with database.translated(self.path):
            return browse.lines_at(self._connection, positions)

    def positions(self, wanted: Wanted) -> Iterator[list[int]]:
        with database.translated(self.path):
            yield from browse.positions(self._connection, wanted, self.totals.rows)

    def with_parts(self, positions: Sequence[int]) -> list[int]:
        return self._each(lambda row: row[0], sql("with_parts"), json.dumps(list(positions)))

    def parts(self, seq: int) -> Parts | None:
        with database.translated(self.path):
            return pending.parts(self._connection, seq)

    def reductions(self) -> list[tuple[int, str, str, int]]:
        """(line, key, text, number of parts) of pending reduce rows."""
        return self._all(sql("pending_reductions"))

    def interrupt(self) -> None:
        """Make another thread's query fail with StorageError."""
        self._connection.interrupt()

    def export_rows(self, after: int = 0) -> Iterator[Record]:
        """In input order, each row as when its page is read."""
        return self._all_records(_RECORD_PAGE, after)

    def exchanges(self, after: int = 0) -> Iterator[Record]:
        """For OpenAI's results format: texts of skipped lines only."""
        return self._all_records(_EXCHANGE_PAGE, after)

    def _all_records(self, query: str, after: int) -> Iterator[Record]:
        while rows := self._records(query, after, PAGE):
            yield from rows
            after = self._next_key(rows[-1].position, after)

    def _records(self, query: str, *parameters: Any) -> list[Record]:
        with database.translated(self.path):
            return list(map(_record, self._paged(_record_size, query, *parameters)))

    def _next_key(self, last: int | None, after: int) -> int:
        """Raises DamagedError where a page does not advance."""
        if last is None or last <= after:
            raise self.damaged("its rows are out of order")
        return last

    def results(self) -> Iterator[Result | Record]:
        """As `export_rows`, twice as fast where all rows are done."""
        after = 0
        while rows := self._paged(_result_size, _RESULT, after, PAGE):
            last = self._next_key(rows[-1][0], after)
            if all(row[-1] == "done" for row in rows):
                with database.translated(self.path):
                    yield from map(_result, rows)
            else:
                del rows
                for record in self.export_rows(after):
                    if record.position is None or record.position > last:
                        break
                    yield record
            after = last

    def texts(self) -> Iterator[str]:
        """Without skipped lines."""
        after = 0
        while rows := self._paged(_text_size, _TEXTS, after, PAGE):
            yield from (text for _, text in rows)
            after = rows[-1][0]

    def added(self) -> Iterator[str]:
        """What post-processing adds, as JSON, deduplicated per page."""
        after = 0
        while rows := self._paged(_text_size, _ADDED, after, PAGE):
            yield from dict.fromkeys(text for _, text in rows)
            after = rows[-1][0]

    def has_plain_value(self) -> bool:
        """Whether a given output is not an object."""
        return bool(self._all(sql("plain_value")))

    def recover_rows(self) -> Iterator[Record]:
        """The readable rows of a damaged journal, by seq."""
        end = min(self._last_seq(), self.path.stat().st_size)  # no row is smaller than a byte, whatever its number says
        for start in range(1, end + 1, PAGE):
            yield from self._recover(start, min(start + PAGE - 1, end))

    def _recover(self, first: int, last: int) -> Iterator[Record]:
        try:
            rows = self._records(_RECORD_RANGE, first, last)
        except StorageError:
            if first < last:
                middle = (first + last) // 2
                yield from self._recover(first, middle)
                yield from self._recover(middle + 1, last)
            return
        yield from rows
        if rows and rows[-1].seq < last:
            yield from self._recover(rows[-1].seq + 1, last)

    def _last_seq(self) -> int:
        try:
            return self._all("SELECT ifnull(max(seq), 0) FROM rows")[0][0]
        except StorageError:
            with contextlib.suppress(StorageError):
                return self.totals.rows
            return 0

    def check(self) -> list[str]:
        """Reads all of it."""
        try:
            found = [line for (line,) in self._all("PRAGMA integrity_check(20)") if line != "ok"]
            with database.translated(self.path):
                self._connection.execute("BEGIN")  # both are of one moment, while a run goes on
                try:
                    stated = asdict(sums.read(self._connection).totals())
                    counted = asdict(sums.recount(self._connection).totals())
                finally:
                    if self._connection.in_transaction:  # which some errors end
                        self._connection.execute("ROLLBACK")
            if self.ingested and counted != stated:
                differ = [name for name in stated if stated[name] != counted[name]]
                wrong = [f"{name} {stated[name]:,} instead of {counted[name]:,}" for name in differ]
                found.append(f"the totals are not the sums of the rows: {', '.join(wrong)}")
            found += self._broken_texts(20)
        except DamagedError as error:
            return [error.message.rstrip(".")]
        return found

    def _broken_texts(self, limit: int) -> list[str]:
        found: list[str] = []
        with database.translated(self.path):
            for line, at, size in self._connection.execute(sql("places_of_texts")):
                try:
                    json.loads(self._connection.texts.read(at, size))
                except ValueError as error:
                    found.append(f"the text of line {line:,} is damaged: {error}")
                    if len(found) == limit:
                        break
        return found

    def damaged(self, why: str) -> DamagedError:
        return database.damaged(self.path, why)

    def copy(self, target: Path, moved: Callable[[str], str] | None = None) -> None:
        database.copy(self._connection, self.path, target, moved)

    def _each(self, make: Callable[[Any], Made], query: str, *parameters: Any) -> list[Made]:
        with database.translated(self.path):
            return [make(row) for row in self._connection.execute(query, parameters).fetchall()]

    def _paged(self, size: Callable[[Found], int], query: str, *parameters: Any) -> list[Found]:
        with database.translated(self.path):
            return page(self._connection.execute(query, parameters), size)[0]

    def _all(self, query: str, *parameters: Any) -> list[Any]:
        with database.translated(self.path):
            return self._connection.execute(query, parameters).fetchall()
