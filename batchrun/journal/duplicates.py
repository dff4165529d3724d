"""Rows with equal requests (`--dedupe`, `--reuse`): which is sent, and which share its reply.

Requests are equal when their hashes are: endpoint and body, to the byte. A row whose request has a reply shares it. Of
other equal rows the first is sent, or one whose reply is not judged yet, as it needs no request; the others wait for
its outcome. Each session pairs anew; rows that wait for one that failed permanently fail with it (`Journal.failed`)
before anything is sent, so a kill leaves nothing to repair.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from batchrun.journal.ingest import BATCH, transaction
from batchrun.journal.queries import sql


def has_followers(connection: sqlite3.Connection) -> bool:
    """By an earlier session's pairing."""
    return connection.execute(sql("any_follower")).fetchone() is not None


def pair(connection: sqlite3.Connection, *, dedupe: bool, wanted: Callable[[int], bool] | None) -> None:
    """In the present transaction; reads all rows."""
    # Only positions that are `wanted` take part.
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
    """Copy replies to equal requests from the journal `other`; returns how many."""
    # Each reply goes to one row (a repeated request gets several); with `once` each request gets its first only.
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
