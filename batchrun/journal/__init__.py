"""The journal: the SQLite file that proves what happened in a run. Only this package touches SQLite.

Theory. A row is in one of three places: without attempt and outcome (pending), with an attempt that has not ended
(in flight, or unknown after a kill), or with an outcome. Every step from one to the next is one commit, and the next
step of the world waits for it: `begin` is committed before the first byte leaves, a reply before it is judged,
an outcome before its event. So a kill at any moment loses at most the answers of attempts that are open, and
those are named.

    Journal      one run's journal, open for writing by the holder of its Lock
    Reader       the same file to look at, with or without a writer
    lock         one process per run
    IntakeRow    a row on its way in; End, how an attempt ended; Meta, what the run is; Drift, a changed input

Copies of a journal in use are made with `Reader.copy`: the file alone lacks what is still in its log.
"""

from batchrun.journal.database import prepare
from batchrun.journal.database import remove as delete
from batchrun.journal.ingest import duplicate_id
from batchrun.journal.lock import Lock, lock
from batchrun.journal.pages import PAGE_BYTES, Page
from batchrun.journal.reader import Reader
from batchrun.journal.records import (
    Answers,
    Attempt,
    Cause,
    Charged,
    Drift,
    End,
    Entry,
    IntakeRow,
    Lane,
    LaneShare,
    Lease,
    Leased,
    Line,
    Meta,
    Miss,
    Order,
    Record,
    Result,
    Sample,
    Session,
    Spent,
    Standing,
    Sum,
    TierShare,
    Wanted,
    chosen,
    columns,
)
from batchrun.journal.store import Journal

__all__ = [
    "PAGE_BYTES",
    "Answers",
    "Attempt",
    "Cause",
    "Charged",
    "Drift",
    "End",
    "Entry",
    "IntakeRow",
    "Journal",
    "Lane",
    "LaneShare",
    "Lease",
    "Leased",
    "Line",
    "Lock",
    "Meta",
    "Miss",
    "Order",
    "Page",
    "Reader",
    "Record",
    "Result",
    "Sample",
    "Session",
    "Spent",
    "Standing",
    "Sum",
    "TierShare",
    "Wanted",
    "chosen",
    "columns",
    "delete",
    "duplicate_id",
    "lock",
    "prepare",
]
