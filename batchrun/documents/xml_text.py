"""XML by place: units of a document with the ranges of their elements, and how texts in them are spelled.

expat parses and counts bytes, so the content is UTF-8 of which each byte is one character (`latin-1`). Nothing is
written anew; what a document holds beside its units (comments, processing instructions, a DTD) is not even looked at.
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple
from xml.parsers import expat

from batchrun.documents.segment import DocumentError, Kind

_CHUNK = 1 << 16
_TAG = re.compile(r"""<[^>"']*+(?:"[^"]*+"[^>"']*+|'[^']*+'[^>"']*+)*+>""")
_CDATA = re.compile(r"\s*<!\[CDATA\[((?:(?!\]\]>).)*)\]\]>\s*", re.DOTALL)
_REFERENCE = re.compile(r"&(#x[0-9A-Fa-f]+|#[0-9]+|\w+);")
_NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_SPELLED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_TAGS = re.compile(r"(<!\[CDATA\[.*?\]\]>|<!--.*?-->|<[^>]*>)", re.DOTALL)
_COMMENT = re.compile(r"<!--((?:(?!-->).)*)-->\s*\Z", re.DOTALL)
_COMMENT_REACH = 1000


class Node:
    """An element: the place of its start tag, of what is inside, and of what comes after it."""

    __slots__ = ("after", "attributes", "children", "end", "inner", "name", "start")

    def __init__(self, name: str, attributes: dict[str, str], start: int, inner: int) -> None:
        self.name, self.attributes, self.start, self.inner = name, attributes, start, inner
        self.end = self.after = inner
        self.children: list[Node] = []

    @property
    def empty_tag(self) -> bool:
        """Whether it is written as one tag, `<a/>`."""
        return self.after == self.inner

    def child(self, name: str) -> "Node | None":
        """The first child of that name."""
        for child in self.children:
            if child.name == name:
                return child
        return None

    def all(self, name: str) -> list["Node"]:
        """The children of that name."""
        return [child for child in self.children if child.name == name]


class Unit(NamedTuple):
    """An element that was asked for, with those it is in, the outermost first."""

    node: Node
    within: tuple[Node, ...]


class Spelling(StrEnum):
    """How a text is written: with its special characters escaped, in a CDATA section, or with tags of its own."""

    PLAIN = "plain"
    CDATA = "cdata"
    MARKUP = "markup"


class Piece(NamedTuple):
    """The text of an element: what a reader sees (of markup, the markup), its range and its spelling."""

    text: str
    start: int
    end: int
    spelling: Spelling

    @property
    def kind(self) -> Kind:
        """What can stand in its place."""
        return Kind.MARKUP if self.spelling is Spelling.MARKUP else Kind.XML


def units(content: str, names: frozenset[str]) -> Iterator[Unit]:
    """The outermost elements of these names, each when it is closed. Raises DocumentError naming the line."""
    scan = _Scan(content, names)
    data = content.encode("latin-1")
    try:
        for at in range(0, len(data), _CHUNK):
            scan.parser.Parse(data[at : at + _CHUNK], False)
            yield from scan.taken()
        scan.parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise DocumentError(f"line {error.lineno}: not XML: {expat.ErrorString(error.code)}") from None
    yield from scan.taken()


class _Scan:
    """Builds nodes for what is open and for what is inside of units; everything else is forgotten when it is closed."""

    def __init__(self, content: str, names: frozenset[str]) -> None:
        self._content = content
        self._names = names
        self._open: list[Node] = []
        self._units: list[Unit] = []
        self._inside = 0
        self._within: tuple[Node, ...] | None = None
        self.parser = expat.ParserCreate("utf-8")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end

    def taken(self) -> list[Unit]:
        """The units that were closed since it was asked last."""
        found, self._units = self._units, []
        return found

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        at = self.parser.CurrentByteIndex
        end = self._content.index(">", at) + 1
        if (
            attributes
            and self._content.count('"', at, end) != 2 * len(attributes)
            and (tag := _TAG.match(self._content, at))
        ):
            end = tag.end()  # other quotation marks, or a > within them
        local = name.rpartition(":")[2] if ":" in name else name
        node = Node(local, attributes, at, end)
        if self._inside:
            self._open[-1].children.append(node)
            self._inside += 1
        elif local in self._names:
            self._within = self._within or tuple(self._open)
            self._inside = 1
        else:
            self._within = None
        self._open.append(node)

    def _end(self, _name: str) -> None:
        node = self._open.pop()
        at = self.parser.CurrentByteIndex
        if self._content[node.inner - 2] != "/":  # not <a/>
            node.end, node.after = at, self._content.index(">", at) + 1
        if self._inside:
            self._inside -= 1
            if not self._inside:
                self._units.append(Unit(node, self._within or ()))
        else:
            self._within = None


def piece_of(content: str, node: Node) -> Piece:
    """The text of an element."""
    raw = content[node.inner : node.end]
    if "<" not in raw:
        if "&" not in raw:
            return Piece(decoded(raw), node.inner, node.end, Spelling.PLAIN)
        if all(name[0] == "#" or name in _NAMED for name in _REFERENCE.findall(raw)):
            return Piece(_REFERENCE.sub(_resolved, decoded(raw)), node.inner, node.end, Spelling.PLAIN)
    elif (section := _CDATA.fullmatch(raw)) is not None:
        start, end = section.span(1)
        return Piece(decoded(section[1]), node.inner + start, node.inner + end, Spelling.CDATA)
    return Piece(decoded(raw), node.inner, node.end, Spelling.MARKUP)


def decoded(raw: str) -> str:
    """A range of the content as text, with line ends as a reader of XML has them."""
    text = raw if raw.isascii() else raw.encode("latin-1").decode()
    return text.replace("\r\n", "\n") if "\r" in text else text


def encoded(text: str) -> str:
    """A text as a range of the content."""
    return text if text.isascii() else text.encode().decode("latin-1")


def spelled(text: str, spelling: Spelling, newline: str = "\n") -> str:
    """What stands in the content for a text."""
    if spelling is Spelling.PLAIN:
        text = text.translate(_SPELLED)
    elif spelling is Spelling.CDATA:
        text = text.replace("]]>", "]]]]><![CDATA[>")
    return encoded(text.replace("\n", newline) if newline != "\n" else text)


def misfit(source: str, value: str, *, markup: bool) -> str | None:
    """Why a text cannot stand in XML: a character that no XML has, or markup that is not well formed."""
    if (bad := _FORBIDDEN.search(value)) is not None:
        return f"XML has no character {bad.group()!r}"
    if not markup:
        return None
    known = set(_REFERENCE.findall(source))
    checked = _REFERENCE.sub(lambda found: "" if found[1] in known and found[1] not in _NAMED else found[0], value)
    try:
        expat.ParserCreate("utf-8").Parse(f"<_>{checked}</_>".encode(), True)
    except expat.ExpatError as error:
        return f"not well-formed XML: {expat.ErrorString(error.code)}"
    return None


def text_parts(raw: str) -> list[str]:
    """Text and tags of a piece of markup in turn, text first."""
    return _TAGS.split(raw)


def comment_before(content: str, at: int) -> str:
    """The comment that stands directly before a place."""
    reach = content[max(0, at - _COMMENT_REACH) : at]
    found = _COMMENT.search(reach, reach.rfind("<!--")) if "<!--" in reach else None
    return decoded(found[1]).strip() if found else ""


def indentation(content: str, at: int) -> str:
    """The line end and the blanks before a place, empty where something else stands on its line."""
    end = content.rfind("\n", 0, at)
    if end < 0 or content[end + 1 : at].strip(" \t"):
        return ""
    return content[end - (content[end - 1] == "\r") : at]


def attribute(content: str, node: Node, name: str) -> tuple[int, int] | None:
    """The range of an attribute's value."""
    tag = content[node.start : node.inner]
    found = re.search(rf"""\s{re.escape(name)}\s*=\s*(?:"([^"]*)"|'([^']*)')""", tag)
    if found is None:
        return None
    start, end = found.span(1 if found[1] is not None else 2)
    return node.start + start, node.start + end


def _resolved(found: re.Match[str]) -> str:
    name = found[1]
    if name in _NAMED:
        return _NAMED[name]
    return chr(int(name[2:], 16) if name[1] == "x" else int(name[1:]))
