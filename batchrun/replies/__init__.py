"""What the body of an answer says: a reply, or why it is none; and what is wrong with a reply's JSON.

Pure: bytes in, records out. Nothing here raises on what a server sends, however broken, and nothing here decides
what to do about it: that is for `retry`.
"""

from batchrun.replies.bodies import ERROR, HTML, read, thinking_of, value_of
from batchrun.replies.failures import ErrorInfo, error_of, error_within
from batchrun.replies.repaired import valid
from batchrun.replies.schema import Checker, Complaint, ReplyChecker, checked, checker
from batchrun.replies.usage import tier_named

__all__ = [
    "ERROR",
    "HTML",
    "Checker",
    "Complaint",
    "ErrorInfo",
    "ReplyChecker",
    "checked",
    "checker",
    "error_of",
    "error_within",
    "read",
    "thinking_of",
    "tier_named",
    "valid",
    "value_of",
]
