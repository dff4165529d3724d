"""Rows with equal requests: which is sent, and which share its reply (`--dedupe`, `--reuse`).

Requests are equal when their hashes are: endpoint and body, to the byte. At the start of a session `pair` assigns each row:

1.  A row whose request has a reply in this journal shares it and is not sent.
2.  Of other equal rows the first is sent, or one whose own reply is not judged yet, as it needs no call. The others wait for
    its outcome.
3.  All other rows are sent.

Only rows that the session sends take part: one outside of `--limit` or `--sample` neither represents nor waits. The next session
pairs anew; rows that wait for a row that failed permanently keep waiting, and fail with it (`Journal.failed`) before anything is
sent. So a kill leaves nothing to repair.

`take_replies` copies replies from another run's journal. Each answers one row, so that repeated rows get several replies; under
`--dedupe` `pair` gives it to all rows of its request.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from batchrun.journal.ingest import BATCH, transaction
from batchrun.journal.queries import sql


def has_followers(connection: sqlite3.Connection) -> bool:
    """Whether a row waits by an earlier session's pairing."""
    return connection.execute(sql("any_follower")).fetchone() is not None


def pair(connection: sqlite3.Connection, *, dedupe: bool, wanted: Callable[[int], bool] | None) -> None:
    """Assign rows to the representatives that they wait for, in the present transaction; none without `dedupe`. Reads all rows.

    `wanted` is whether the row at a position is to be sent, None for all.
    """
    if not dedupe:
        connection.execute(sql("forget_followers"))
        return
    connection.execute(sql("follow_the_failed"))
    connection.execute(sql("keep_followers_of_the_failed"))
    connection.execute("PRAGMA cache_size = -16000")  # 16 MB, as at the intake, so that the sort needs few passes
    connection.create_function("wanted", 1, wanted or _any)
    connection.execute(sql("pair_rows"))
    connection.execute("PRAGMA cache_size = -2000")


def _any(_: int) -> bool:
    return True


def take_replies(connection: sqlite3.Connection, other: Path, *, once: bool, before_commit: Callable[[], None]) -> int:
    """Copy replies to equal requests from the journal `other`, in transactions of `BATCH` rows; returns how many.

    Rows of a request, answered ones included, take its replies in turn. With `once` each request gets its first reply only.
    """
    connection.execute("ATTACH DATABASE ? AS other", (f"{other.absolute().as_uri()}?mode=ro",))
    try:
        connection.execute(sql("create_offered"))
        connection.execute(sql("index_offered"))
        connection.execute(sql("create_asked"), {"once": once})
        connection.execute(sql("create_taken"), {"once": once})
        count: int = connection.execute(sql("count_taken")).fetchone()[0]
        for start in range(0, count, BATCH):
            with transaction(connection, before_commit):
                for name in ("copy_replies", "copy_shared"):
                    connection.execute(sql(name), (start, start + BATCH))
        return count
    finally:
        for name in ("drop_offered", "drop_asked", "drop_taken"):
            connection.execute(sql(name))
        connection.execute("DETACH DATABASE other")
