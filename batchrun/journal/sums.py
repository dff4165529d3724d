"""The account of a run: updated with every commit, recounted where one touches many rows."""

# The statement `recount` has the rules; the writer applies them one by one, and a property test compares both.

import sqlite3
from operator import attrgetter

from batchrun.account import NAMES, Account
from batchrun.journal.queries import sql

_WRITE = f"UPDATE totals SET {', '.join(f'{name} = ?' for name in NAMES)}"  # noqa: S608  the counters' own names


_VALUES = attrgetter(*NAMES)


def write(account: Account, connection: sqlite3.Connection) -> tuple[int, ...]:
    """In the order of `NAMES`."""
    values: tuple[int, ...] = _VALUES(account)
    connection.execute(_WRITE, values)
    return values


def read(connection: sqlite3.Connection) -> Account:
    return _account(connection.execute(sql("read_totals")))


def first(rows: int, skipped: int) -> Account:
    counted = Account()
    counted.rows, counted.skipped = rows, skipped
    return counted


def recount(connection: sqlite3.Connection) -> Account:
    """Half a second for a million rows."""
    return _account(connection.execute(sql("recount")))


def _account(found: sqlite3.Cursor) -> Account:
    line = dict(zip([name for name, *_ in found.description], found.fetchone(), strict=True))
    account = Account()
    for name in NAMES:
        setattr(account, name, int(line[name]))
    return account
