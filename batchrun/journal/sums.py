"""The account of a run in its journal: kept in step with every commit, and counted again where a commit touches many rows.

What counts is said in the statement `recount`; the writer applies the same rules one by one (`batchrun.account`), and a
property test holds the two together.
"""

import sqlite3

from batchrun.account import NAMES, Account
from batchrun.journal.queries import sql

_WRITE = f"UPDATE totals SET {', '.join(f'{name} = ?' for name in NAMES)}"  # noqa: S608  the counters' own names


def write(account: Account, connection: sqlite3.Connection) -> None:
    """Put the account into the present transaction."""
    connection.execute(_WRITE, [getattr(account, name) for name in NAMES])


def read(connection: sqlite3.Connection) -> Account:
    """The account as it was committed."""
    return _account(connection.execute(sql("read_totals")))


def first(rows: int, skipped: int) -> Account:
    """The account of a journal that has just been filled: nothing was sent."""
    counted = Account()
    counted.rows, counted.skipped = rows, skipped
    return counted


def recount(connection: sqlite3.Connection) -> Account:
    """The account counted from the rows, outcomes and attempts themselves; about half a second for a million rows."""
    return _account(connection.execute(sql("recount")))


def _account(found: sqlite3.Cursor) -> Account:
    """The one line of sums, whatever the order of its columns."""
    line = dict(zip([name for name, *_ in found.description], found.fetchone(), strict=True))
    account = Account()
    for name in NAMES:
        setattr(account, name, int(line[name]))
    return account
