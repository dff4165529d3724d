"""Apple's .strings and Java's .properties.

Sources:
https://developer.apple.com/library/archive/documentation/Cocoa/Conceptual/LoadingResources/Strings/Strings.html,
java.util.Properties.load. Readers take an ASCII .properties file for UTF-8 or Latin-1, so additions are escaped.
"""

import re
from collections.abc import Iterator

from batchrun.documents.segment import DocumentError, Edit, Format, Segment, Value, line_of

_QUOTED = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_BETWEEN = r"(?:\s|\ufeff|/\*.*?\*/|//[^\n]*)*+"  # blanks and comments may stand between all tokens
_PAIR = re.compile(
    rf"(?P<before>{_BETWEEN})(?P<key>{_QUOTED}|[\w.$-]+){_BETWEEN}={_BETWEEN}(?P<value>{_QUOTED}){_BETWEEN};", re.DOTALL
)
_REST = re.compile(_BETWEEN, re.DOTALL)
_COMMENT = re.compile(r"/\*(.*?)\*/|//([^\n]*)", re.DOTALL)
_NO_COMMENT = "No comment provided by engineer."
_APPLE_ESCAPE = re.compile(r"\\([Uu][0-9A-Fa-f]{4}|[0-7]{3}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "f": "\f"}
_APPLE_SPELLED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"})
_LOGICAL = re.compile(r"[ \t\f]*+([^\r\n]*?(?:(?<!\\)(?:\\\\)*\\(?:\r\n|\n|\r)[^\r\n]*?)*)(?:\r\n|\n|\r|\Z)")
_KEY = re.compile(r"((?:[^\\\s=:]|\\.)*+)[ \t\f]*+[=:]?[ \t\f]*+", re.DOTALL)
_CONTINUED = re.compile(r"\\(?:\r\n|\n|\r)[ \t\f]*")
_JAVA_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_JAVA_SPELLED = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\f": "\\f"})
_BEYOND_ASCII = re.compile(r"[^\x20-\x7e]")
_LINE_END = re.compile(r"\r\n|\n|\r|\Z")


class AppleStrings(Format):
    def __init__(self, content: str, _language: str | None) -> None:
        self._content = content

    def segments(self) -> Iterator[Segment]:
        at = 0
        while (found := _PAIR.match(self._content, at)) is not None:
            at = found.end()
            key, value = found["key"], found["value"][1:-1]
            key = _apple(key[1:-1]) if key.startswith('"') else key
            comments = _COMMENT.findall(found["before"])
            note = (comments[-1][0] or comments[-1][1]).strip() if comments else ""
            note = "" if note == _NO_COMMENT else note
            start, end = found.span("value")
            yield Segment(key, _apple(value), start + 1, end - 1, note=note)
        rest = _REST.match(self._content, at)
        end = rest.end() if rest else at
        if end < len(self._content):
            raise DocumentError(f'line {line_of(self._content, end)}: not a line of the form "key" = "value";')

    def edits(self, segment: Segment, value: Value) -> tuple[Edit]:
        return (Edit(segment.start, segment.end, str(value).translate(_APPLE_SPELLED)),)


class JavaProperties(Format):
    def __init__(self, content: str, _language: str | None) -> None:
        self._content = content
        self._ascii = content.isascii()

    def segments(self) -> Iterator[Segment]:
        note: list[str] = []
        at = len(self._content) - len(self._content.removeprefix("\ufeff"))
        while at < len(self._content) and (line := _LOGICAL.match(self._content, at)) is not None:
            at = line.end()
            text = line[1]
            if text.startswith(("#", "!")):
                # A backslash at the end of a comment does not continue it.
                end = _LINE_END.search(self._content, line.start(1))
                at = end.end() if end else len(self._content)
                note.append(self._content[line.start(1) + 1 : at].strip())
                continue
            if text and (key := _KEY.match(text)) is not None:
                start = line.start(1) + key.end()
                value = _java(_CONTINUED.sub("", text[key.end() :]))
                yield Segment(_java(_CONTINUED.sub("", key[1])), value, start, line.end(1), note="\n".join(note))
            note = []

    def edits(self, segment: Segment, value: Value) -> tuple[Edit]:
        text = str(value).translate(_JAVA_SPELLED)
        text = f"\\{text}" if text.startswith(" ") else text
        if self._ascii:
            text = _BEYOND_ASCII.sub(lambda found: _units(found.group()), text)
        return (Edit(segment.start, segment.end, text),)


def _apple(raw: str) -> str:
    return _APPLE_ESCAPE.sub(_unescaped, raw).replace("\r\n", "\n") if "\\" in raw or "\r" in raw else raw


def _java(raw: str) -> str:
    if "\\" not in raw:
        return raw
    text = _JAVA_ESCAPE.sub(_unescaped, raw)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _unescaped(found: re.Match[str]) -> str:
    name = found[1]
    if len(name) == 5:
        return chr(int(name[1:], 16))
    return chr(int(name, 8)) if len(name) == 3 else _ESCAPED.get(name, name)


def _units(character: str) -> str:
    data = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[at] << 8 | data[at + 1]:04x}" for at in range(0, len(data), 2))
