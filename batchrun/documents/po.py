"""gettext catalogs (.po, .pot): the empty or fuzzy `msgstr` of a unit is what is filled.

Comments, obsolete entries (`#~`), previous texts (`#|`) and the way strings are wrapped are never written anew; the header
is left alone, but for the placeholders of a template (`nplurals=INTEGER`), without which no plural form could be read.
Format: https://www.gnu.org/software/gettext/manual/html_node/PO-Files.html
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from batchrun.documents import plurals
from batchrun.documents.segment import DocumentError, Edit, Kind, Plural, Segment, Status, Value, line_of, newline_of

_LITERAL = r'"[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+"'
_STRING = rf"{_LITERAL}(?:[ \t\r]*\n[ \t]*{_LITERAL})*+"
_ENTRY = re.compile(
    rf"(?P<comments>(?:[ \t\r\f]*(?:#[^\n]*)?\n)*+)[ \t]*"
    rf"(?:msgctxt\s*(?P<context>{_STRING})\s*)?"
    rf"msgid\s*(?P<id>{_STRING})\s*"
    rf"(?:msgid_plural\s*(?P<plural>{_STRING})\s*"
    rf"(?P<forms>msgstr\[\d+\]\s*{_STRING}(?:\s*msgstr\[\d+\]\s*{_STRING})*+)"
    rf"|msgstr\s*(?P<target>{_STRING}))"
)
_REST = re.compile(r"(?:[ \t\r\f]*(?:#[^\n]*)?(?:\n|\Z))*+[ \t\r\f]*(?:#[^\n]*)?")
_PIECE = re.compile(_LITERAL)
_FORM = re.compile(rf"msgstr\[(\d+)\]\s*({_STRING})")
_ESCAPE = re.compile(r"\\([0-7]{1,3}|x[0-9A-Fa-f]+|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_SPELLED = str.maketrans({"\\": "\\\\", '"': '\\"'} | {value: f"\\{name}" for name, value in _ESCAPED.items()})
_NPLURALS = re.compile(
    r"^Plural-Forms:\s*nplurals\s*=\s*(\d+)\s*;\s*plural\s*=\s*([^;\n]+)", re.MULTILINE | re.IGNORECASE
)
_TEMPLATE = "nplurals=INTEGER; plural=EXPRESSION;"
_EXTRACTED = re.compile(r"^[ \t\r\f]*#\.([^\n]*)", re.MULTILINE)
"""What is extracted from the source code for translators."""
_FLAGS = re.compile(r"^[ \t]*#,[^\n]*\n?", re.MULTILINE)
_PREVIOUS = re.compile(r"^[ \t]*#\|[^\n]*\n", re.MULTILINE)
_ID_SEPARATOR = "\x04"
"""Between context and text, as in compiled catalogs."""


class _Place(NamedTuple):
    """What has to be written anew with a unit: its comments where they say fuzzy, and whether it has plural forms."""

    comments: int
    fuzzy: bool
    forms: bool


class Catalog:
    """The units of one catalog. `language` is the code of the target, None where only the header tells."""

    def __init__(self, content: str, language: str | None) -> None:
        self._content = content
        self._newline = newline_of(content)
        self._language = language
        self._header: tuple[int, str] | None = None
        self._forms: plurals.Forms | None = None

    def segments(self) -> Iterator[Segment]:
        """A segment for each unit but the header. Raises DocumentError naming the line that is no part of a unit."""
        content, at = self._content, len(self._content) - len(self._content.removeprefix("\ufeff"))
        match = _ENTRY.match
        while (found := match(content, at)) is not None:
            at = found.end()
            source, context = _text(found["id"]), found["context"]
            if not source and context is None:
                self._header = found.start("target"), _text(found["target"] or '""')
                self._forms = None
                continue
            yield self._segment(found, source, None if context is None else _text(context))
        rest = _REST.match(content, at)
        end = rest.end() if rest else at
        if end < len(content):
            raise DocumentError(f"line {line_of(content, end)}: not an entry of a PO file")

    def _segment(self, found: re.Match[str], source: str, context: str | None) -> Segment:
        comments = found["comments"]
        fuzzy = "fuzzy" in comments and any(
            "fuzzy" in map(str.strip, line.lstrip(" \t#").split(",")) for line in _FLAGS.findall(comments)
        )
        group = "target" if found["forms"] is None else "forms"
        place = _Place(found.start("comments"), fuzzy, group == "forms")
        plural = None
        if group == "target":
            filled = found["target"] != '""' and _text(found["target"]) != ""
        else:
            written = [_text(text) for _, text in _FORM.findall(found["forms"])]
            filled = all(written)
            fuzzy = fuzzy and any(written)
            plural = Plural({"one": source, "other": _text(found["plural"])}, self.forms.uses)
        note = "\n".join(map(str.strip, _EXTRACTED.findall(comments))) if "#." in comments else ""
        status = Status.EMPTY if not filled else Status.FUZZY if fuzzy else Status.TRANSLATED
        id = source if context is None else f"{context}{_ID_SEPARATOR}{source}"
        text = source if plural is None else plural.sources["other"]
        start, end = found.span(group)
        return Segment(id, text, start, end, place, Kind.TEXT, status, context or "", note, None, plural)

    @property
    def forms(self) -> plurals.Forms:
        """The plural forms of the target: those of the header, else those of the language."""
        if self._forms is None:
            stated = _NPLURALS.search(self._header[1]) if self._header else None
            if stated is not None:
                self._forms = plurals.stated(int(stated[1]), stated[2])
            else:
                self._forms = plurals.gettext(self._language)
        return self._forms

    def opening(self) -> Iterator[Edit]:
        """The plural forms in place of the placeholder that a template has in its header."""
        if self._header is None or self._language is None:
            return
        start, text = self._header
        at = self._content.find(_TEMPLATE, start)
        header = plurals.gettext(self._language).header
        if header is not None and _TEMPLATE in text and at >= 0:
            yield Edit(at, at + len(_TEMPLATE), header)

    def edits(self, segment: Segment, value: Value) -> Iterator[Edit]:
        """The new strings; a unit that was fuzzy loses the flag and its previous text."""
        place: _Place = segment.style
        if place.fuzzy:
            yield from self._without_fuzzy(place.comments, segment.start)
        if isinstance(value, str):
            text = self._spelled(value)
        else:
            lines = (f"msgstr[{number}] {self._spelled(value[key])}" for number, key in enumerate(self.forms.uses))
            text = self._newline.join(lines)
        yield Edit(segment.start, segment.end, text)

    def _without_fuzzy(self, start: int, end: int) -> Iterator[Edit]:
        comments = self._content[start:end]
        lines = sorted([*_FLAGS.finditer(comments), *_PREVIOUS.finditer(comments)], key=lambda line: line.start())
        for line in lines:
            text = line.group()
            kept = ""
            if text.lstrip().startswith("#,"):
                flags = [flag.strip() for flag in text.strip()[2:].split(",")]
                others = [flag for flag in flags if flag and flag != "fuzzy"]
                if len(others) == len([flag for flag in flags if flag]):
                    continue
                kept = f"#, {', '.join(others)}{self._newline}" if others else ""
            yield Edit(start + line.start(), start + line.end(), kept)

    def _spelled(self, value: str) -> str:
        """A string literal, a line of it for each line of a text that has several."""
        spelled = value.translate(_SPELLED)
        if "\\n" not in spelled or value.count("\n") == value.endswith("\n"):
            return f'"{spelled}"'
        lines = [line.translate(_SPELLED) for line in value.splitlines(keepends=True)]
        return self._newline.join(['""', *(f'"{line}"' for line in lines)])


def _text(literal: str) -> str:
    """The text of a string literal, wrapped or not."""
    literal = "".join([piece[1:-1] for piece in _PIECE.findall(literal)]) if "\n" in literal else literal[1:-1]
    return _ESCAPE.sub(_unescaped, literal) if "\\" in literal else literal


def _unescaped(found: re.Match[str]) -> str:
    name = found[1]
    if name in _ESCAPED:
        return _ESCAPED[name]
    if name[0] == "x":
        return chr(int(name[1:], 16) & 0xFF)
    return chr(int(name, 8) & 0xFF) if name[0] in "01234567" else name
