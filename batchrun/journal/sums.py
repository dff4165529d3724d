"""The account of a run: kept in step with every commit, and counted again where a commit touches many rows.

Every rule of what counts is in the statement `recount`; the writer applies the same rules one by one, and a property test holds
the two together.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import fields

from batchrun.journal.queries import sql
from batchrun.models import Totals

NAMES = tuple(field.name for field in fields(Totals))
_WRITE = f"UPDATE totals SET {', '.join(f'{name} = ?' for name in NAMES)}"  # noqa: S608  the counters' own names
_FLAGS = ("truncated", "refused", "filtered", "odd", "empty", "numbers")


class Sums:
    """`models.Totals`, to add to."""

    __slots__ = NAMES

    def __init__(self, values: Iterable[float]) -> None:
        for name, value in zip(NAMES, values, strict=True):
            setattr(self, name, int(value))

    rows: int
    done: int
    failed: int
    failed_for_now: int
    failed_post: int
    skipped: int
    unknown: int
    in_batches: int
    truncated: int
    refused: int
    filtered: int
    odd: int
    empty: int
    numbers: int
    shared: int
    saved_tokens: int
    saved: int
    attempts: int
    replies: int
    maybe_paid: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    without_usage: int
    cost: int
    cost_cached: int
    cost_cache_write: int
    cost_output: int
    cost_other: int
    cost_again: int
    cost_maybe: int
    cost_open: int
    unpriced: int

    def totals(self) -> Totals:
        """The sums as they stand."""
        return Totals(**{name: getattr(self, name) for name in NAMES})

    def flag(self, flags: Iterable[str]) -> None:
        """Count the flags of one done row."""
        for name in flags:
            if name in _FLAGS:
                setattr(self, name, getattr(self, name) + 1)

    def write(self, connection: sqlite3.Connection) -> None:
        """Put the sums into the present transaction."""
        connection.execute(_WRITE, [getattr(self, name) for name in NAMES])


def read(connection: sqlite3.Connection) -> Sums:
    """The sums as they were committed."""
    return _sums(connection.execute(sql("read_totals")))


def first(rows: int, skipped: int) -> Sums:
    """The sums of a journal that has just been filled: nothing was sent."""
    counted = Sums([0] * len(NAMES))
    counted.rows, counted.skipped = rows, skipped
    return counted


def recount(connection: sqlite3.Connection) -> Sums:
    """The sums counted from the rows, outcomes and attempts themselves; about half a second for a million rows."""
    return _sums(connection.execute(sql("recount")))


def _sums(found: sqlite3.Cursor) -> Sums:
    """The one line of sums, whatever the order of its columns."""
    line = dict(zip([name for name, *_ in found.description], found.fetchone(), strict=True))
    return Sums(line[name] for name in NAMES)
