"""Plain text: paragraphs are segments, or lines if too long for a hard-wrapped text."""

import re
from collections.abc import Iterator

from batchrun.documents.segment import CONTEXT, Edit, Format, Kind, Segment, Value, newline_of

_PARAGRAPH = re.compile(r"[^\S\n]*\S[^\n]*(?:\n[^\S\n]*[^\s][^\n]*)*")
_LINE = re.compile(r"[^\S\n]*\S[^\n]*")
_WRAPPED = 200
"""The longest line of a hard-wrapped text."""


class PlainText(Format):
    """The paragraphs of one text."""

    def __init__(self, content: str, _language: str | None) -> None:
        self._content = content
        self._newline = newline_of(content)

    def segments(self) -> Iterator[Segment]:
        """The context is the end of the paragraph before."""
        longest = max(map(len, self._content.split("\n")), default=0)
        before = ""
        for found in (_PARAGRAPH if longest <= _WRAPPED else _LINE).finditer(self._content):
            raw = found.group().removeprefix("\ufeff")
            text = raw.strip()
            if text:
                start = found.end() - len(raw.lstrip())
                text = text.replace("\r\n", "\n")
                yield Segment(
                    None, text, start, start + len(raw.strip()), None, Kind.PARAGRAPH, context=before[-CONTEXT:]
                )
                before = text

    def edits(self, segment: Segment, value: Value) -> tuple[Edit]:
        """With the line ends of the file."""
        return (Edit(segment.start, segment.end, str(value).replace("\n", self._newline)),)
