"""Documents: files whose texts are translated and that come back as the same files with these byte ranges replaced.

A segment is one text of a document with the range it stands in. A format module finds the segments of a file and spells
what replaces them; nothing else of the file is ever written anew. This package reads no files, makes no calls and knows
nothing of rows, prompts or the journal.

    detect, refusal   which format a file is; why a structured file is not read
    Document          bytes of one format, read bit by bit: its segments under lasting names, and the bytes with some of them replaced
    code_of           the code of a language given by name
    NAMES, failed     checks of a translation against its source
    split             a long text in pieces that joined are the text again
    misfit            why a text would damage a document in the place of a segment
"""

from batchrun.documents.checks import CHECKS, LANGUAGE, NAMES, failed, maximum
from batchrun.documents.detection import Refusal, detect, refusal, suffix_of
from batchrun.documents.document import FORMATS, Document, Entry, unwritable
from batchrun.documents.fit import misfit
from batchrun.documents.identification import is_installed, is_told
from batchrun.documents.plurals import code_of
from batchrun.documents.segment import DocumentError, Existing, Kind, Plural, Segment, Status, Value
from batchrun.documents.splitting import Piece, split
from batchrun.documents.window import CHUNK

__all__ = [
    "CHECKS",
    "CHUNK",
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
    "is_installed",
    "is_told",
    "maximum",
    "misfit",
    "refusal",
    "split",
    "suffix_of",
    "unwritable",
]
