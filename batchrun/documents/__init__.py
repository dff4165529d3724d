"""Documents: files whose texts are translated and that otherwise stay the same.

A format module finds the segments (a text and its range) of a file and spells what replaces them.
"""

from batchrun.documents.checks import CHECKS, LANGUAGE, NAMES, failed, is_identifiable, is_installed, maximum
from batchrun.documents.detection import Refusal, detect, refusal, suffix_of
from batchrun.documents.document import FORMATS, Document, Entry, misfit, unwritable
from batchrun.documents.plurals import code_of
from batchrun.documents.segment import CHUNK, CONTEXT, DocumentError, Existing, Kind, Plural, Segment, Status, Value
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
