"""gettext catalogs (.po, .pot): empty or fuzzy `msgstr` are filled.

In the header only a template's `nplurals=INTEGER` is replaced. Format:
https://www.gnu.org/software/gettext/manual/html_node/PO-Files.html
"""

import re
from collections.abc import Iterator

from batchrun.documents import plurals
from batchrun.documents.segment import DocumentError, Edit, Format, Kind, Plural, Segment, Status, Value, Window
from batchrun.models import made

_LITERAL = r'"[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+"'
_STRING = rf"{_LITERAL}(?:[ \t\r]*\n[ \t]*{_LITERAL})*+"
_ENTRY = re.compile(
    rf"(?P<comments>(?:[ \t\r\f]*(?:#(?:\.(?P<note>[^\n]*)|[^\n]*))?\n)*+)[ \t]*"
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
_FLAGS = re.compile(r"^[ \t]*#,[^\n]*\n?", re.MULTILINE)
_PREVIOUS = re.compile(r"^[ \t]*#\|[^\n]*\n", re.MULTILINE)
_COMMENTS, _PLURAL, _TARGET = (_ENTRY.groupindex[name] for name in ("comments", "forms", "target"))
_EMPTY, _KIND = Status.EMPTY, Kind.TEXT  # faster than the enums' attributes
_ID_SEPARATOR = "\x04"  # as in compiled catalogs, between context and text


class Catalog(Format):
    """`language` None: from the header."""

    def __init__(self, window: Window, language: str | None) -> None:
        self._window = window
        self._newline = window.newline
        self._language = language
        self._header: str | None = None
        self._template: int | None = None
        self._forms: plurals.Forms | None = None

    def segments(self) -> Iterator[Segment]:
        # A unit is complete only when the next, or the end, was found.
        window, match = self._window, _ENTRY.match
        at = len(window.text) - len(window.text.removeprefix("\ufeff"))
        while True:
            content, last = window.text, match(window.text, at)
            while last is not None and (found := match(content, last.end())) is not None:
                if (segment := self._unit(last)) is not None:
                    yield segment
                last = found
            at = at if last is None else last.end()
            from_here = at if last is None else last.start()
            if window.more(from_here):
                at = 0
                continue
            if last is not None and (segment := self._unit(last)) is not None:
                yield segment
            break
        rest = _REST.match(content, at)
        end = rest.end() if rest else at
        if end < len(content):
            raise DocumentError(f"line {window.line(end)}: not an entry of a PO file")

    def _unit(self, found: re.Match[str]) -> Segment | None:
        # None for the header, which is kept
        comments, note, context, literal, plural, forms, target = found.groups()
        source = literal[1:-1] if "\\" not in literal and "\n" not in literal else _text(literal)
        if context is not None:
            context = _text(context)
        elif not source:
            self._header, self._forms = _text(target or '""'), None
            at = self._window.text.find(_TEMPLATE, *found.span("target"))
            self._template = at if at >= 0 else None
            return None
        fuzzy = "fuzzy" in comments and any(
            "fuzzy" in map(str.strip, line.lstrip(" \t#").split(",")) for line in _FLAGS.findall(comments)
        )
        text, uses = source, None
        if target is not None:
            start, end = found.span(_TARGET)
            filled = target != '""' and _text(target) != ""
        else:
            start, end = found.span(_PLURAL)
            written = [_text(form) for _, form in _FORM.findall(forms)]
            filled, fuzzy = all(written), fuzzy and any(written)
            text = _text(plural)
            uses = Plural({"one": source, "other": text}, self.forms.uses)
        if note is not None:
            several = comments.count("#.") > 1
            note = "\n".join(map(str.strip, _EXTRACTED.findall(comments))) if several else note.strip()
        status = _EMPTY if not filled else Status.FUZZY if fuzzy else Status.TRANSLATED
        id = source if context is None else f"{context}{_ID_SEPARATOR}{source}"
        place = found.start(_COMMENTS) if fuzzy else None
        return made(Segment, (id, text, start, end, place, _KIND, status, context or "", note or "", None, uses))

    @property
    def forms(self) -> plurals.Forms:
        if self._forms is None:
            stated = _NPLURALS.search(self._header) if self._header else None
            if stated is not None:
                self._forms = plurals.stated(int(stated[1]), stated[2])
            else:
                self._forms = plurals.gettext(self._language)
        return self._forms

    def opening(self) -> Iterator[Edit]:
        if self._template is None or self._language is None:
            return
        at, self._template = self._template, None
        header = plurals.gettext(self._language).header
        if header is not None:
            yield Edit(at, at + len(_TEMPLATE), header)

    def edits(self, segment: Segment, value: Value) -> Iterator[Edit]:
        """A fuzzy unit loses the flag and its previous text."""
        if segment.style is not None:
            yield from self._without_fuzzy(segment.style, segment.start)
        if isinstance(value, str):
            text = self._spelled(value)
        else:
            lines = (f"msgstr[{number}] {self._spelled(value[key])}" for number, key in enumerate(self.forms.uses))
            text = self._newline.join(lines)
        yield Edit(segment.start, segment.end, text)

    def _without_fuzzy(self, start: int, end: int) -> Iterator[Edit]:
        comments = self._window.text[start:end]
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
        spelled = value.translate(_SPELLED)
        if "\\n" not in spelled or value.count("\n") == value.endswith("\n"):
            return f'"{spelled}"'
        lines = [line.translate(_SPELLED) for line in value.splitlines(keepends=True)]
        return self._newline.join(['""', *(f'"{line}"' for line in lines)])


def _text(literal: str) -> str:
    literal = "".join([piece[1:-1] for piece in _PIECE.findall(literal)]) if "\n" in literal else literal[1:-1]
    return _ESCAPE.sub(_unescaped, literal) if "\\" in literal else literal


def _unescaped(found: re.Match[str]) -> str:
    name = found[1]
    if name in _ESCAPED:
        return _ESCAPED[name]
    if name[0] == "x":
        return chr(int(name[1:], 16) & 0xFF)
    return chr(int(name, 8) & 0xFF) if name[0] in "01234567" else name
