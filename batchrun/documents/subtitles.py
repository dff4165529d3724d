"""SubRip (.srt) and WebVTT (.vtt): the text of a cue is a segment.

A cue begins at its timing line; everything else (numbers, identifiers, settings, NOTE, STYLE and REGION blocks) is left
alone. Sources: https://www.w3.org/TR/webvtt1/ and, for SubRip, which has no standard, what players read: a missing
number, `.` for `,`, blank lines inside a text.
"""

import re
from collections.abc import Iterator

from batchrun.documents.segment import DocumentError, Edit, Kind, Segment, Value, newline_of

_CLOCK = r"(?:\d+:)?\d{1,2}:\d{2}[,.]\d{1,3}"
_TIMING = re.compile(rf"^[ \t]*{_CLOCK}[ \t]*-->[ \t]*{_CLOCK}[^\n]*(?:\n|\Z)", re.MULTILINE)
_NUMBER = re.compile(r"\r?\n[ \t]*\d+[ \t]*\r?\n\Z")
_LEADING = re.compile(r"(?:[ \t]*\r?\n)*")
_TRAILING = re.compile(r"(?:\r?\n[ \t]*)*\Z")
_EMPTY_LINE = re.compile(r"^\r?$", re.MULTILINE)
_CONTEXT = 200


class SubRip:
    """The cues of one file."""

    _blank_ends = False
    """Whether a blank line ends a cue whatever follows."""

    def __init__(self, content: str, _language: str | None) -> None:
        self._content = content
        self._newline = newline_of(content)

    def segments(self) -> Iterator[Segment]:
        """A segment for each cue that has a text; its context is the text of the cue before."""
        before = ""
        found = _TIMING.search(self._content)
        if found is None and not self._blank_ends and self._content.strip("\ufeff \t\r\n"):
            raise DocumentError("no line with the times of a cue (00:00:01,000 --> 00:00:02,000)")
        while found is not None:
            following = _TIMING.search(self._content, found.end())
            start, end = self._text(found.end(), len(self._content) if following is None else following.start())
            if start < end:
                text = self._content[start:end].replace("\r\n", "\n")
                yield Segment(None, text, start, end, kind=Kind.CUE, context=before[-_CONTEXT:])
                before = text
            found = following

    def _text(self, start: int, end: int) -> tuple[int, int]:
        """The range of a cue's text: without the number of the next cue and without blank lines around it."""
        raw = self._content[start:end]
        if self._blank_ends:
            raw = raw[: blank.start()] if (blank := _EMPTY_LINE.search(raw)) else raw
        elif end < len(self._content) and (number := _NUMBER.search(f"\n{raw}")):
            raw = raw[: max(number.start() - 1, 0)]
        first = blanks.end() if (blanks := _LEADING.match(raw)) else 0
        last = _TRAILING.search(raw, first)
        return start + first, start + (last.start() if last and raw.strip() else first)

    def opening(self) -> tuple[Edit, ...]:
        """Nothing."""
        return ()

    def edits(self, segment: Segment, value: Value) -> tuple[Edit]:
        """The new text with the line ends of the file."""
        return (Edit(segment.start, segment.end, str(value).replace("\n", self._newline)),)


class WebVtt(SubRip):
    """The same for WebVTT, where a cue cannot have a blank line."""

    _blank_ends = True

    def __init__(self, content: str, language: str | None) -> None:
        super().__init__(content, language)
        if not content.removeprefix("\ufeff").startswith("WEBVTT"):
            raise DocumentError("line 1: a WebVTT file begins with WEBVTT")
