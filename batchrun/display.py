"""Foreign text made safe to show: it can carry terminal commands, or hide characters."""

import os
import re
from typing import TextIO
from unicodedata import category

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0")
_ARABIC_SIGNS = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_MARKS_IN_A_ROW = 8


def counted(number: int, noun: str = "row") -> str:
    """`1 row`, `12,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def sizes(*numbers: int) -> list[str]:
    """Of bytes: `1.3 kB`; exact where numbers that differ would be shown alike."""
    shown = [_size(number) for number in numbers]
    return shown if len(set(shown)) == len(set(numbers)) else [f"{number:,} bytes" for number in numbers]


def _size(number: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= unit:
            return f"{number / unit:,.1f} {name}"
    return f"{number} B"


def printable(text: str, limit: int | None = None) -> str:
    """On one line, without effects; at most `limit` characters, the last then "…".

    C0 controls and DEL become Unicode pictures (ESC ␛), other invisible characters and lone surrogates escapes.
    """
    cut = text if limit is None else text[: limit + 1]
    if not (cut.isascii() and cut.isprintable()):
        # Combining marks are never ASCII, so only the other stretches are looked at.
        cut = _NOT_ASCII.sub(lambda match: _bounded_stretch(match.group()), cut.translate(_PICTURES))
    if limit is not None and (len(cut) > limit or len(text) > limit + 1):
        return cut[: max(limit - 1, 0)] + "…" * (limit > 0)
    return cut


class _Pictures(dict[int, str | int]):
    # filled on demand
    def __missing__(self, code: int) -> str | int:
        char = chr(code)
        if char in _BLANK_LETTERS or (category(char) in _UNSEEN and char not in _ARABIC_SIGNS):
            self[code] = _picture(code)
            return self[code]
        return code


def _picture(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_PICTURES = _Pictures()


def _bounded_stretch(stretch: str) -> str:
    if len(stretch) <= _MARKS_IN_A_ROW:
        return stretch
    kept: list[str] = []
    run = 0
    for char in stretch:
        run = run + 1 if category(char) in ("Mn", "Me") else 0
        if run <= _MARKS_IN_A_ROW:
            kept.append(char)
    return "".join(kept)


def coloured(stream: TextIO) -> bool:
    # NO_COLOR and TERM=dumb: no colours
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
