"""Documents: files whose texts are translated and that come back as the same files with these byte ranges replaced.

A segment is one text of a document with the range it stands in. A format module finds the segments of a file and spells
what replaces them; nothing else of the file is ever written anew. This package reads no files, makes no calls and knows
nothing of rows, prompts or the journal.
"""

from batchrun.documents.detection import Refusal, detect, refusal

__all__ = ["Refusal", "detect", "refusal"]
