"""The account of a run: kept in step with every commit, and counted again where a commit touches many rows.

Every rule of what counts is in `_RECOUNT`; the writer applies the same rules one by one, and a property test holds
the two together.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import fields

from batchrun.models import Totals

NAMES = tuple(field.name for field in fields(Totals))
_COLUMNS = ", ".join(NAMES)
_READ = f"SELECT {_COLUMNS} FROM totals"  # noqa: S608 - names of fields
_WRITE = f"UPDATE totals SET {', '.join(f'{name} = ?' for name in NAMES)}"  # noqa: S608 - names of fields

_FLAGS = ("truncated", "refused", "filtered")

_OUTCOMES = """
SELECT count(*) AS rows,
       total(state = 'done') AS done,
       total(state = 'failed') AS failed,
       total(state = 'failed' AND NOT final) AS failed_for_now,
       total(state = 'failed' AND post) AS failed_post,
       total(state = 'skipped') AS skipped,
       total(state = 'done' AND flags LIKE '%truncated%') AS truncated,
       total(state = 'done' AND flags LIKE '%refused%') AS refused,
       total(state = 'done' AND flags LIKE '%filtered%') AS filtered,
       total(state = 'done' AND twin IS NOT NULL) AS shared,
       total(iif(state = 'done' AND twin IS NOT NULL, ifnull(input_tokens, 0) + ifnull(output_tokens, 0), 0)) AS saved_tokens,
       total(iif(state = 'done', saved, 0)) AS saved
FROM rows LEFT JOIN outcomes ON outcomes.row = rows.seq
WHERE rows.position IS NOT NULL
"""
_ATTEMPTS = """
SELECT total(attempts.ended IS NULL AND NOT EXISTS (SELECT 1 FROM outcomes WHERE outcomes.row = attempts.row)) AS unknown,
       count(*) AS attempts,
       count(reply) AS replies,
       total(maybe_paid) AS maybe_paid,
       total(input_tokens) AS input_tokens,
       total(output_tokens) AS output_tokens,
       total(cached_tokens) AS cached_tokens,
       total(cache_write_tokens) AS cache_write_tokens,
       total(reasoning_tokens) AS reasoning_tokens,
       total(reply IS NOT NULL AND input_tokens IS NULL) AS without_usage,
       total(iif(ended IS NULL, 0, cost)) AS cost,
       total(cost_cached) AS cost_cached,
       total(cost_cache_write) AS cost_cache_write,
       total(cost_output) AS cost_output,
       total(cost_other) AS cost_other,
       total(iif(invalid, cost, 0)) AS cost_again,
       total(iif(maybe_paid, cost, 0)) AS cost_maybe,
       total(iif(ended IS NULL, cost, 0)) AS cost_open,
       total(cost IS NULL AND (reply IS NOT NULL OR maybe_paid)) AS unpriced
FROM attempts JOIN rows ON rows.seq = attempts.row
WHERE rows.position IS NOT NULL
"""
_RECOUNT = f"SELECT {_COLUMNS} FROM ({_OUTCOMES}), ({_ATTEMPTS})"  # noqa: S608 - the two above


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
    truncated: int
    refused: int
    filtered: int
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
    return Sums(connection.execute(_READ).fetchone())


def first(rows: int, skipped: int) -> Sums:
    """The sums of a journal that has just been filled: nothing was sent."""
    counted = Sums([0] * len(NAMES))
    counted.rows, counted.skipped = rows, skipped
    return counted


def recount(connection: sqlite3.Connection) -> Sums:
    """The sums counted from the rows, outcomes and attempts themselves; about half a second for a million rows."""
    return Sums(connection.execute(_RECOUNT).fetchone())
