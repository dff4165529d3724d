"""What a profile may say of the files that its provider takes."""

from collections.abc import Mapping
from typing import Any, cast

from batchrun.filetypes import known_types
from batchrun.media.tokens import check_formula

_KINDS = ("image", "audio", "file", "transcription")
_LIMITS = (*(f"{kind}{what}" for kind in _KINDS for what in ("s", "_bytes")), "request_bytes")


def check_takes(takes: Mapping[str, Any]) -> None:
    """Raises ValueError for entries that `[takes]` of providers/media.toml does not have; `tokens` is a line of `[[tokens]]`."""
    for name, value in takes.items():
        if name == "tokens":
            check_formula(value)
            continue
        if name in _KINDS:
            right = isinstance(value, list) and all(type in known_types() for type in cast("list[object]", value))
        else:
            right = name in _LIMITS and type(value) is int and value > 0
        if not right:
            raise ValueError(
                f"{name} = {value!r}: known are {', '.join(_KINDS)} (lists of {', '.join(known_types())}) and "
                f"{', '.join(_LIMITS)} (whole numbers)"
            )
