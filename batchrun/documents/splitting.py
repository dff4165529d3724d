"""Splits a text at sentences, words or characters, but not within a placeholder, tag, link or code."""

import re
from bisect import bisect_left, bisect_right
from typing import NamedTuple

_SENTENCE = re.compile(r"""[.!?…]+["'”’»)\]]*(?=\s)|[。！？]["'」』”’)）]*|(?=\n)""")
_WORD = re.compile(r"(?=\s)")
_WHOLE = re.compile(
    r"<[^<>\s][^<>]*>|\{\{.{0,500}?\}\}|\$t\([^()]*\)|%\([^()]*\)\w|`[^`]+`|!?\[[^\[\]]*\]\([^()\s]*\)|\*\*\S.{0,999}?\*\*|&#?\w+;",
    re.DOTALL,
)


class Piece(NamedTuple):
    """A piece, and the blanks after it."""

    text: str
    gap: str


def split(text: str, most: int) -> list[Piece]:
    """At most `most` UTF-8 bytes, unless indivisible."""
    whole = _disjoint([found.span() for found in _WHOLE.finditer(text)] + _braces(text))
    begins = [begin for begin, _ in whole]
    cuts = [
        [at for found in kind.finditer(text) if _free(at := found.end(), whole, begins) == at]
        for kind in (_SENTENCE, _WORD)
    ]
    pieces: list[Piece] = []
    start, end = 0, len(text)
    while start < end:
        cut = end
        if len(text[start : start + most + 1].encode(errors="surrogatepass")) > most:
            fits = start + len(text[start : start + most].encode(errors="surrogatepass")[:most].decode(errors="ignore"))
            cut = _last(cuts[0], start, fits) or _last(cuts[1], start, fits) or max(fits, start + 1)
            cut = _free(cut, whole, begins)
        body, rest = text[start:cut].rstrip(), text[cut:].lstrip()
        after = end - len(rest)
        pieces.append(Piece(body, text[start + len(body) : after]))
        start = after
    return pieces


def _last(cuts: list[int], start: int, fits: int) -> int | None:
    index = bisect_right(cuts, fits)
    return cuts[index - 1] if index and cuts[index - 1] > start else None


def _free(at: int, ranges: list[tuple[int, int]], begins: list[int]) -> int:
    # `at`, or the end of its range
    index = bisect_left(begins, at)
    return max(at, ranges[index - 1][1]) if index else at


def _disjoint(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        if found and begin < found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((begin, end))
    return found


def _braces(text: str) -> list[tuple[int, int]]:
    # outermost balanced braces (ICU messages)
    found: list[tuple[int, int]] = []
    depth = start = 0
    for match in re.finditer(r"[{}]", text):
        if match.group() == "{":
            start = match.start() if depth == 0 else start
            depth += 1
        elif depth:
            depth -= 1
            found += [(start, match.end())] if depth == 0 else []
        else:
            return []
    return found if depth == 0 else []
