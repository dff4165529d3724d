"""Making rows with an outcome pending again (`Journal.reopen`, `Journal.reopen_replies`).

Each function runs in the caller's transaction; returns the number of rows and the new account.
"""

import json
import sqlite3
from collections.abc import Sequence

from batchrun.account import Account
from batchrun.journal import sums
from batchrun.journal.queries import sql

_FAILED = ("spend_reopened", "forget_reopened", "keep_reopened", "delete_reopened")
_JUDGED = ("keep_present", "delete_reply_outcomes")
_DONE = ("spend_done", "forget_done", "delete_done")
"""The statements of each kind, in order."""


def failed(
    connection: sqlite3.Connection, *, good: bool, cause: str | None, positions: Sequence[int] | None
) -> tuple[int, Account]:
    which = {"good": int(good), "cause": cause, "positions": None if positions is None else json.dumps(list(positions))}
    rows, for_now, post = map(int, connection.execute(sql("count_reopened"), which).fetchone())
    for name in _FAILED:
        connection.execute(sql(name), which)
    account = sums.read(connection)
    account.failed -= rows
    account.retryable -= for_now
    account.failed_post -= post
    sums.write(account, connection)
    return rows, account


def replies(connection: sqlite3.Connection, resent: Sequence[int] | None) -> tuple[int, Account]:
    """The attempts of resent rows are spent; their replies stay with them."""
    names, which = (_JUDGED, ()) if resent is None else (_DONE, (json.dumps(list(resent)),))
    rows = [connection.execute(sql(name), which).rowcount for name in names][-1]
    account = sums.recount(connection)
    sums.write(account, connection)
    return rows, account
