"""Documents: files whose texts are translated and that otherwise stay the same."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from batchrun.documents.detection import Refusal, detect, refusal, suffix_of
from batchrun.documents.segment import CHUNK, CONTEXT, DocumentError, Existing, Kind, Plural, Segment, Status, Value

if TYPE_CHECKING:
    from batchrun.documents.checks import CHECKS, LANGUAGE, NAMES, failed, is_identifiable, is_installed, maximum
    from batchrun.documents.document import FORMATS, Document, Entry, misfit, unwritable
    from batchrun.documents.plurals import code_of
    from batchrun.documents.splitting import Piece, split

__all__ = [
    "CHECKS",
    "CHUNK",
    "CONTEXT",
    "FORMATS",
    "LANGUAGE",
    "NAMES",
    "Document",
    "DocumentError",
    "Entry",
    "Existing",
    "Kind",
    "Piece",
    "Plural",
    "Refusal",
    "Segment",
    "Status",
    "Value",
    "code_of",
    "detect",
    "failed",
    "is_identifiable",
    "is_installed",
    "maximum",
    "misfit",
    "refusal",
    "split",
    "suffix_of",
    "unwritable",
]

_LATE = {
    **dict.fromkeys(("CHECKS", "LANGUAGE", "NAMES", "failed", "is_identifiable", "is_installed", "maximum"), "checks"),
    **dict.fromkeys(("FORMATS", "Document", "Entry", "misfit", "unwritable"), "document"),
    **dict.fromkeys(("Piece", "split"), "splitting"),
    "code_of": "plurals",
}


def __getattr__(name: str) -> Any:
    # imports what only documents need on first use
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
