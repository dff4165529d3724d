"""The journal: the SQLite file of a run. Only this package imports sqlite3.

A row is pending, has an open attempt (in flight, or unknown after a kill), or has an outcome. Each step is one commit
that the next step waits for: `begin` before the first byte is sent, a reply before it is judged, an outcome before its
event. So a kill loses at most the answers of open attempts, which are recorded.
"""

from batchrun.journal.database import NO_TEXT, prepare
from batchrun.journal.database import remove as delete
from batchrun.journal.ingest import duplicate_id
from batchrun.journal.lock import Lock, lock
from batchrun.journal.pages import PAGE_BYTES, Page
from batchrun.journal.pending import Form as TextForm
from batchrun.journal.reader import Reader
from batchrun.journal.records import (
    Answers,
    Attempt,
    Cause,
    Charged,
    Drift,
    End,
    Entry,
    Exchanges,
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
from batchrun.journal.texts import LONG as LONG_TEXT

__all__ = [
    "LONG_TEXT",
    "NO_TEXT",
    "PAGE_BYTES",
    "Answers",
    "Attempt",
    "Cause",
    "Charged",
    "Drift",
    "End",
    "Entry",
    "Exchanges",
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
    "TextForm",
    "TierShare",
    "Wanted",
    "chosen",
    "columns",
    "delete",
    "duplicate_id",
    "lock",
    "prepare",
]
