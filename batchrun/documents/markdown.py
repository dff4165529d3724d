"""Markdown: paragraphs, headings and table cells; front matter, code and HTML are left alone.

Sources: https://spec.commonmark.org/ and https://github.github.com/gfm/#tables-extension-
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

from batchrun.documents.segment import Edit, Format, Kind, Segment, Value, newline_of

_LINE_END = re.compile(r"\r\n?|\n")
_FRONT_MATTER = re.compile(
    r"\ufeff?(?:---[ \t]*\r?\n(?:.*\r?\n)*?(?:---|\.\.\.)|\+\+\+[ \t]*\r?\n(?:.*\r?\n)*?\+\+\+)[ \t]*(?:\r?\n|\Z)"
)


class _Place(NamedTuple):
    prefixes: tuple[str, ...]  # of the further lines; the last is for added ones
    cell: bool


class Markdown(Format):
    def __init__(self, content: str, _language: str | None) -> None:
        self._content = content
        self._newline = newline_of(content)
        front = _FRONT_MATTER.match(content)
        self._from = front.end() if front else len(content) - len(content.removeprefix("\ufeff"))
        ends = list(_LINE_END.finditer(content, self._from))
        self._starts = [self._from, *(end.end() for end in ends)]
        self._ends = [*(end.start() for end in ends), len(content)]

    def segments(self) -> Iterator[Segment]:
        """A block's context is the heading above it."""
        heading, above = "", ""
        inside: list[str] = []
        cells: dict[int, int] = {}
        for token in _parser().parse(self._content[self._from :]):
            if token.nesting == 1:
                inside.append(token.type)
            elif token.nesting == -1:
                inside.pop()
            elif token.type == "inline" and token.map and token.content.strip():
                cell = inside[-1] in ("th_open", "td_open")
                line = cell or (inside[-1] == "heading_open" and token.map[1] - token.map[0] == 1)
                if (found := self._cell(token, cells) if cell else self._block(token)) is None:
                    continue
                start, end, text, prefixes = found
                if inside[-1] == "heading_open":
                    heading, above = text, heading
                context = above if inside[-1] == "heading_open" else heading
                yield Segment(
                    None, text, start, end, _Place(prefixes, cell), Kind.LINE if line else Kind.BLOCK, context=context
                )

    def _block(self, token: Token) -> tuple[int, int, str, tuple[str, ...]]:
        first, last = token.map or (0, 0)
        texts = token.content.split("\n")
        start, prefixes, at = -1, list[str](), 0
        for number, text in enumerate(texts[: last - first], first):
            line, at = self._content[self._starts[number] : self._ends[number]], self._starts[number]
            column = line.rfind(text.rstrip())
            if column < 0:
                # The parser changes the text of some lines (tabs in a quotation): take whole lines.
                start, end = self._starts[first], self._ends[last - 1]
                return start, end, _LINE_END.sub("\n", self._content[start:end]), ()
            start = at + column if start < 0 else start
            prefixes.append(line[:column])
            at += column + len(text.rstrip())
        return start, at, token.content, tuple(prefixes[1:])

    def _cell(self, token: Token, cells: dict[int, int]) -> tuple[int, int, str, tuple[str, ...]] | None:
        # `cells` has where each line's last cell ends
        number = (token.map or [0])[0]
        spelled = _with_bars(token.content)
        at = self._content.find(spelled, cells.get(number, self._starts[number]), self._ends[number])
        if at < 0:
            return None
        cells[number] = at + len(spelled)
        return at, at + len(spelled), token.content, ()

    def edits(self, segment: Segment, value: Value) -> tuple[Edit]:
        place: _Place = segment.style
        text = str(value)
        if place.cell:
            return (Edit(segment.start, segment.end, _with_bars(text)),)
        first, *others = text.split("\n")
        prefixes = place.prefixes or ("",)
        lines = [prefixes[min(number, len(prefixes) - 1)] + line for number, line in enumerate(others)]
        return (Edit(segment.start, segment.end, self._newline.join([first, *lines])),)


def _with_bars(text: str) -> str:
    # The parser removes the backslash before each bar.
    return text.replace("|", "\\|")


def shape(text: str) -> list[str]:
    """The block structure, as token names."""
    return [token.type for token in _parser().parse(text)]


@cache
def _parser() -> Any:
    # Inline text is not parsed.
    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser
