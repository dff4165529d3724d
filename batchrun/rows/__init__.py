"""Reading inputs and writing rows. Every record becomes a `Row` or an `Invalid`."""

from batchrun.rows.check import NOT_UTF8, RESERVED, Remarks
from batchrun.rows.files import files_of
from batchrun.rows.input import Input, Reading, Refusal, open_input
from batchrun.rows.kinds import Mixed
from batchrun.rows.members import (
    batch_error_line,
    batch_line,
    clash,
    error_text,
    insert_members,
    line_text,
    note_text,
    restore,
)
from batchrun.rows.source import encoding_hint
from batchrun.rows.table import Table
from batchrun.rows.writers import Exact, check_format, columns_of, writer

__all__ = [
    "NOT_UTF8",
    "RESERVED",
    "Exact",
    "Input",
    "Mixed",
    "Reading",
    "Refusal",
    "Remarks",
    "Table",
    "batch_error_line",
    "batch_line",
    "check_format",
    "clash",
    "columns_of",
    "encoding_hint",
    "error_text",
    "files_of",
    "insert_members",
    "line_text",
    "note_text",
    "open_input",
    "restore",
    "writer",
]
