"""Plain text and subtitles (.srt, .vtt), whose segments have no ids.

Sources: https://www.w3.org/TR/webvtt1/; SubRip has no standard: missing numbers, `.` for `,` and blank lines are
accepted.
"""

import re
from collections.abc import Iterator

from batchrun.documents.segment import CONTEXT, DocumentError, Edit, Format, Kind, Segment, Value, newline_of

_PARAGRAPH = re.compile(r"[^\S\n]*\S[^\n]*(?:\n[^\S\n]*[^\s][^\n]*)*")
_LINE = re.compile(r"[^\S\n]*\S[^\n]*")
_WRAPPED = 200  # paragraphs are segments if no line is longer; else lines


class PlainText(Format):
    def __init__(self, content: str, _language: str | None) -> None:
        self._content = content
        self._newline = newline_of(content)

    def segments(self) -> Iterator[Segment]:
        """The context is the paragraph before."""
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
        return (Edit(segment.start, segment.end, str(value).replace("\n", self._newline)),)


_CLOCK = r"(?:\d+:)?\d{1,2}:\d{2}[,.]\d{1,3}"
_TIMING = re.compile(rf"^[ \t]*{_CLOCK}[ \t]*-->[ \t]*{_CLOCK}[^\n]*(?:\n|\Z)", re.MULTILINE)
_NUMBER = re.compile(r"\r?\n[ \t]*\d+[ \t]*\r?\n\Z")
_LEADING = re.compile(r"(?:[ \t]*\r?\n)*")
_TRAILING = re.compile(r"(?:\r?\n[ \t]*)*\Z")
_EMPTY_LINE = re.compile(r"^\r?$", re.MULTILINE)


class SubRip(Format):
    _blank_ends = False  # whether a blank line always ends a cue

    def __init__(self, content: str, _language: str | None) -> None:
        self._content = content
        self._newline = newline_of(content)

    def segments(self) -> Iterator[Segment]:
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
        # without blank lines around it and the next cue's number
        raw = self._content[start:end]
        if self._blank_ends:
            raw = raw[: blank.start()] if (blank := _EMPTY_LINE.search(raw)) else raw
        elif end < len(self._content) and (number := _NUMBER.search(f"\n{raw}")):
            raw = raw[: max(number.start() - 1, 0)]
        first = blanks.end() if (blanks := _LEADING.match(raw)) else 0
        last = _TRAILING.search(raw, first)
        return start + first, start + (last.start() if last and raw.strip() else first)

    def edits(self, segment: Segment, value: Value) -> tuple[Edit]:
        return (Edit(segment.start, segment.end, str(value).replace("\n", self._newline)),)


class WebVtt(SubRip):
    _blank_ends = True

    def __init__(self, content: str, language: str | None) -> None:
        super().__init__(content, language)
        if not content.removeprefix("\ufeff").startswith("WEBVTT"):
            raise DocumentError("line 1: a WebVTT file begins with WEBVTT")
