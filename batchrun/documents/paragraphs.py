"""Plain text: a paragraph is a segment. Paragraphs are parted by blank lines.

Where lines are longer than a hard-wrapped text has them, each line is a paragraph of its own.
"""

import re
from collections.abc import Iterator

from batchrun.documents.segment import Edit, Kind, Segment, Value, newline_of

_PARAGRAPH = re.compile(r"[^\S\n]*\S[^\n]*(?:\n[^\S\n]*[^\s][^\n]*)*")
_LINE = re.compile(r"[^\S\n]*\S[^\n]*")
_WRAPPED = 200
"""Characters: the longest line that a hard-wrapped text has."""
_CONTEXT = 200


class PlainText:
    """The paragraphs of one text."""

    def __init__(self, content: str, _language: str | None) -> None:
        self._content = content
        self._newline = newline_of(content)

    def segments(self) -> Iterator[Segment]:
        """Paragraphs without the blanks around them; the context is the end of the one before."""
        longest = max(map(len, self._content.split("\n")), default=0)
        before = ""
        for found in (_PARAGRAPH if longest <= _WRAPPED else _LINE).finditer(self._content):
            raw = found.group().removeprefix("\ufeff")
            text = raw.strip()
            if text:
                start = found.end() - len(raw.lstrip())
                text = text.replace("\r\n", "\n")
                yield Segment(
                    None, text, start, start + len(raw.strip()), None, Kind.PARAGRAPH, context=before[-_CONTEXT:]
                )
                before = text

    def opening(self) -> tuple[Edit, ...]:
        """Nothing."""
        return ()

    def edits(self, segment: Segment, value: Value) -> tuple[Edit]:
        """The new text with the line ends of the file."""
        return (Edit(segment.start, segment.end, str(value).replace("\n", self._newline)),)
