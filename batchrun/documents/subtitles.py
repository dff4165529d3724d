"""SubRip (.srt) and WebVTT (.vtt): cues are segments.

Sources: https://www.w3.org/TR/webvtt1/; SubRip has no standard: missing numbers, `.` for `,` and blank lines are
accepted, as players do.
"""

import re
from collections.abc import Iterator

from batchrun.documents.segment import CONTEXT, DocumentError, Edit, Format, Kind, Segment, Value, newline_of

_CLOCK = r"(?:\d+:)?\d{1,2}:\d{2}[,.]\d{1,3}"
_TIMING = re.compile(rf"^[ \t]*{_CLOCK}[ \t]*-->[ \t]*{_CLOCK}[^\n]*(?:\n|\Z)", re.MULTILINE)
_NUMBER = re.compile(r"\r?\n[ \t]*\d+[ \t]*\r?\n\Z")
_LEADING = re.compile(r"(?:[ \t]*\r?\n)*")
_TRAILING = re.compile(r"(?:\r?\n[ \t]*)*\Z")
_EMPTY_LINE = re.compile(r"^\r?$", re.MULTILINE)


class SubRip(Format):
    """The cues of one file."""

    _blank_ends = False
    """Whether a blank line always ends a cue."""

    def __init__(self, content: str, _language: str | None) -> None:
        self._content = content
        self._newline = newline_of(content)

    def segments(self) -> Iterator[Segment]:
        """The context is the text of the cue before."""
        before = ""
        found = _TIMING.search(self._content)
        if found is None and not self._blank_ends and self._content.strip("\ufeff \t\r\n"):
            raise DocumentError("no line with the times of a cue (00:00:01,000 --> 00:00:02,000)")
        while found is not None:
            following = _TIMING.search(self._content, found.end())
            start, end = self._text(found.end(), len(self._content) if following is None else following.start())
            if start < end:
                text = self._content[start:end].replace("\r\n", "\n")
                yield Segment(None, text, start, end, kind=Kind.CUE, context=before[-CONTEXT:])
                before = text
            found = following

    def _text(self, start: int, end: int) -> tuple[int, int]:
        """Without blank lines around it and the next cue's number."""
        raw = self._content[start:end]
        if self._blank_ends:
            raw = raw[: blank.start()] if (blank := _EMPTY_LINE.search(raw)) else raw
        elif end < len(self._content) and (number := _NUMBER.search(f"\n{raw}")):
            raw = raw[: max(number.start() - 1, 0)]
        first = blanks.end() if (blanks := _LEADING.match(raw)) else 0
        last = _TRAILING.search(raw, first)
        return start + first, start + (last.start() if last and raw.strip() else first)

    def edits(self, segment: Segment, value: Value) -> tuple[Edit]:
        """With the line ends of the file."""
        return (Edit(segment.start, segment.end, str(value).replace("\n", self._newline)),)


class WebVtt(SubRip):
    """Cues that cannot have a blank line."""

    _blank_ends = True

    def __init__(self, content: str, language: str | None) -> None:
        super().__init__(content, language)
        if not content.removeprefix("\ufeff").startswith("WEBVTT"):
            raise DocumentError("line 1: a WebVTT file begins with WEBVTT")
