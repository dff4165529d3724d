"""Documents: files whose texts are translated and that otherwise stay the same.

A segment is one text and its range. A format module finds the segments of a file and spells what replaces them. This
package reads no files.
"""

from batchrun.documents.checks import CHECKS, LANGUAGE, NAMES, failed, maximum
from batchrun.documents.detection import Refusal, detect, refusal, suffix_of
from batchrun.documents.document import FORMATS, Document, Entry, unwritable
from batchrun.documents.fit import misfit
from batchrun.documents.identification import is_identifiable, is_installed
from batchrun.documents.plurals import code_of
from batchrun.documents.segment import CONTEXT, DocumentError, Existing, Kind, Plural, Segment, Status, Value
from batchrun.documents.splitting import Piece, split
from batchrun.documents.window import CHUNK

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
