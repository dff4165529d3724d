"""Reading bodies of answers, and checking a reply's JSON. Pure; raises nothing on what a server sends."""

from batchrun.replies.bodies import ERROR, HTML, read, thinking_of, value_of
from batchrun.replies.failures import ErrorInfo, error_of, error_within
from batchrun.replies.json_text import valid
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
