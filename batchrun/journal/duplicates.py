"""Rows of equal requests: which of them is sent, and which are answered by its reply (`--dedupe`, `--reuse`).

Theory. Requests are equal when their hashes are: endpoint and body, to the byte. `pair` settles, at the beginning of a
session and by SQL alone, which rows are sent and which wait, so that each row belongs to exactly one of three streams:

1.  A row whose request was answered already, in this journal, *shares* that reply and never sent.
2.  Of equal rows that nothing has answered, the first is sent; one whose own reply is here but was not concluded goes
    before others, since it needs no call. The others *wait* for it, and are handed out when it has its outcome.
3.  All other rows are sent as they are.

Only rows that the session is to send take part: a row outside of `--limit` or `--sample` neither leads nor waits. What
is shared is kept, as a reply is; which rows wait is settled anew by the next session from what the journal has then, but for
rows that waited for one that has failed permanently: they still wait for it, and are handed out with its failure
(`Journal.failed`) before anything is sent. So nothing that a kill can leave behind needs mending.

`take_replies` copies replies to equal requests out of the journal of another run. Each of them answers one row, so that rows
that were repeated to get several replies get several; under `--dedupe` `pair` gives it to all rows of its request.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from batchrun.journal.ingest import BATCH, transaction
from batchrun.journal.queries import sql


def anybody_waits(connection: sqlite3.Connection) -> bool:
    """Whether a row still waits as an earlier session settled it."""
    return connection.execute(sql("any_follower")).fetchone() is not None


def pair(connection: sqlite3.Connection, *, dedupe: bool, wanted: Callable[[int], bool] | None) -> None:
    """Settle which rows wait for which representative in this session, in the present transaction; without `dedupe` none do.

    `wanted` is whether the row at a position is to be sent, None for all. Reads all rows.
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
    """Copy to rows the replies to equal requests in the journal `other`, in transactions of some thousand rows. Returns
    how many.

    With `once` a request is answered once, with the first reply to it. No reply is shared twice: rows of a request take
    its replies in turn, those that are answered already included.
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
