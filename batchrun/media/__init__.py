"""Pictures, audio and documents of requests: found and recognised, named by their digests, read when they are sent.

A request names a file by the SHA-256 of its content, so that its hash, drift and `--dedupe` are about contents and not
about paths, and no journal has a file's bytes. `filled` puts the content in, once for each attempt. What is known of file
types and of providers' limits is in `providers/media.toml`.
"""

from batchrun.filetypes import is_known, known_types
from batchrun.media.sending import ChangedError, content, filled, form, why_changed
from batchrun.media.tokens import Formula, check_takes, formula_of
from batchrun.media.values import MediaError, encoded_size, from_json, is_address, look, to_json

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
