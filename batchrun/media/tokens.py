"""A profile's limits on files, and tokens of pictures (`[[tokens]]` of providers/media.toml)."""

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

from batchrun.filetypes import known_types
from batchrun.models import File
from batchrun.providers import table


class Formula:
    """`line` is one line of the table."""

    def __init__(self, line: Mapping[str, Any]) -> None:
        self._line = line
        self._count = _COUNTS[line["how"]]

    def of(self, files: Sequence[File], detail: str | None) -> int | None:
        """None if the size of a picture is unknown."""
        if not all(file.width and file.height for file in files):
            return None
        return sum(self._count(self._line, file.width, file.height, detail) for file in files)


def formula_of(takes: Mapping[str, Any], dialect: str, model: str | None) -> Formula | None:
    """The profile's (`takes`), else the first that fits."""
    if "tokens" in takes:
        return Formula(takes["tokens"])
    for line in table("media")["tokens"]:
        if dialect in line["dialects"] and any(fnmatchcase(model or "", pattern) for pattern in line["models"]):
            return Formula(line)
    return None


def check_formula(line: Any) -> None:
    """Raises ValueError."""
    try:
        tokens = Formula(line).of([File("", "", width=3000, height=2000)], "high")
        right = tokens is not None and tokens > 0
    except (TypeError, KeyError, ZeroDivisionError, ValueError):
        right = False
    if not right:
        raise ValueError(f"tokens = {line!r}: known are tables with how = {', '.join(_COUNTS)} and their figures")


def _tiles(line: Mapping[str, Any], width: int, height: int, detail: str | None) -> int:
    # `base` plus `each` per tile of `side` pixels, scaled into a square of `fit` and its shorter side to `short`
    if detail == "low":
        return line["base"]
    scale = min(1.0, line["fit"] / max(width, height))
    scale = min(scale, line["short"] / min(width, height))
    across, down = (math.ceil(math.floor(size * scale) / line["side"]) for size in (width, height))
    return line["base"] + line["each"] * max(1, across) * max(1, down)


def _patches(line: Mapping[str, Any], width: int, height: int, detail: str | None) -> int:
    # patches of `side` pixels, at most `most`, times `factor`
    across, down = math.ceil(width / line["side"]), math.ceil(height / line["side"])
    return math.ceil(min(across * down, line["most"]) * line["factor"])


def _area(line: Mapping[str, Any], width: int, height: int, detail: str | None) -> int:
    # a token per `pixels`, scaled to `long`; at most `most`
    scale = min(1.0, line["long"] / max(width, height))
    return min(line["most"], math.ceil(width * scale * height * scale / line["pixels"]))


_COUNTS = {"tiles": _tiles, "patches": _patches, "area": _area}


_KINDS = ("image", "audio", "file", "transcription")
_LIMITS = (*(f"{kind}{what}" for kind in _KINDS for what in ("s", "_bytes")), "request_bytes")


def check_takes(takes: Mapping[str, Any]) -> None:
    """Raises ValueError."""
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
