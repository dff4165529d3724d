"""Pictures, audio and documents of requests: identified by digest at intake, read when they are sent.

Requests depend on contents, not paths, and no journal has a file's bytes. Types and limits: `providers/media.toml`.
"""

from batchrun.filetypes import is_known, known_types
from batchrun.media.files import (
    ChangedError,
    MediaError,
    content,
    encoded_size,
    filled,
    form,
    from_json,
    is_address,
    look,
    to_json,
    why_changed,
)
from batchrun.media.tokens import Formula, check_takes, formula_of

__all__ = [
    "ChangedError",
    "Formula",
    "MediaError",
    "check_takes",
    "content",
    "encoded_size",
    "filled",
    "form",
    "formula_of",
    "from_json",
    "is_address",
    "is_known",
    "known_types",
    "look",
    "to_json",
    "why_changed",
]
