"""XML by place: units with the ranges of their elements, and the spelling of texts.

expat checks the document; then a regular expression finds its tags, three times as fast as expat's handlers. Each
character of the content is a byte of UTF-8 (`latin-1`), so places are byte offsets.
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple, overload
from xml.parsers import expat

from batchrun.documents.segment import DocumentError, Format, Kind, Window

_MARKUP = re.compile(
    r"""<(?:(?P<ends>/)[^>]*+>
    |(?P<name>[^\s/>!?]++)(?P<attributes>[^/>"']*+(?:"[^"]*+"[^/>"']*+|'[^']*+'[^/>"']*+)*+)  # a start tag,
     (?:(?P<empty>/)>|>(?:(?P<text>[^<]*+)</(?P=name)\s*+>)?)                    # or all if only text is between
    |!--.*?-->|!\[CDATA\[.*?\]\]>|\?.*?\?>
    |(?P<cut>))                                                                  # its end is not in the window yet""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
# Its groups; `lastindex` distinguishes an end tag, a start tag, an element with only text, and a cut one.
_END, _NAME, _START, _WHOLE, _CUT = (_MARKUP.groupindex[name] for name in ("ends", "name", "attributes", "text", "cut"))
ATTRIBUTES = r"""[^/<>"']*+(?:"[^"]*+"[^/<>"']*+|'[^']*+'[^/<>"']*+)*+"""
_ATTRIBUTE = re.compile(r"""([^\s=]++)\s*+=\s*+["']((?<=")[^"]*+|(?<=')[^']*+)["']""", re.ASCII)
_CDATA = re.compile(r"\s*<!\[CDATA\[((?:(?!\]\]>).)*)\]\]>\s*", re.DOTALL)
_REFERENCE = re.compile(r"&(#x[0-9A-Fa-f]+|#[0-9]+|\w+);")
_NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_SPELLED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_TAGS = re.compile(r"(<!\[CDATA\[.*?\]\]>|<!--.*?-->|<[^\s\d=<>][^>]*>)", re.DOTALL)
_COMMENT = re.compile(r"<!--((?:(?!-->).)*)-->\s*\Z", re.DOTALL)
_REACH = 1000  # in which an element's comment and indentation are looked for


class Node:
    """An element and its places; `name` has no prefix."""

    __slots__ = ("_name", "_rest", "_values", "after", "children", "end", "inner", "name", "start")

    def __init__(self, tag: re.Match[str]) -> None:
        name, self._rest = tag.group(_NAME, _START)
        self._name, self.name = name, name.rpartition(":")[2] if ":" in name else name
        self.start, self.after = tag.span()
        self.inner, self.end = tag.span(_WHOLE) if tag.lastindex == _WHOLE else (self.after, self.after)
        self.children: list[Node] = []
        self._values: dict[str, str] | None = None

    @property
    def prefix(self) -> str:
        """With its colon."""
        return self._name.removesuffix(self.name)

    @property
    def tag(self) -> str:
        return self._name

    @property
    def empty_tag(self) -> bool:
        return self.after == self.inner

    @property
    def slash(self) -> int:
        """The start of an empty tag's end, blanks included."""
        return self.start + len(f"<{self._name}{self._rest.rstrip()}")

    @property
    def attributes(self) -> dict[str, str]:
        if self._values is None:
            self._values = attributes_of(self._rest)
        return self._values

    def attribute(self, name: str) -> tuple[int, int] | None:
        """The range of an attribute's value."""
        at = self.start + len(f"<{self._name}")
        for found in _ATTRIBUTE.finditer(self._rest):
            if found[1] == name:
                return at + found.start(2), at + found.end(2)
        return None

    def child(self, name: str) -> "Node | None":
        for child in self.children:
            if child.name == name:
                return child
        return None

    def firsts(self) -> dict[str, "Node"]:
        return {child.name: child for child in reversed(self.children)}

    def all(self, name: str) -> list["Node"]:
        return [child for child in self.children if child.name == name]


class Spelling(StrEnum):
    """Escaped, as a CDATA section, or with tags in the text."""

    PLAIN = "plain"
    CDATA = "cdata"
    MARKUP = "markup"


_PLAIN = Spelling.PLAIN  # reading an enum's attribute takes as long as the rest of it


class Piece(NamedTuple):
    text: str
    start: int
    end: int
    spelling: Spelling
    kind: Kind = Kind.XML


class XmlFormat(Format):
    def __init__(self, window: Window, language: str | None) -> None:
        self._window = window
        self._newline = window.newline
        self._language = language

    @property
    def _content(self) -> str:
        return self._window.text


@overload
def units(window: Window, names: frozenset[str]) -> Iterator[tuple[Node, tuple[Node, ...]]]: ...


@overload
def units(
    window: Window, names: frozenset[str], plain: re.Pattern[str]
) -> Iterator[tuple[Node | re.Match[str], tuple[Node, ...]]]: ...


def units(  # noqa: PLR0912  one scan with all its cases
    window: Window, names: frozenset[str], plain: re.Pattern[str] | None = None
) -> Iterator[tuple[Node | re.Match[str], tuple[Node, ...]]]:
    """The outermost elements of these names, and those around them; the match if `plain` matches. Raises DocumentError."""
    opened: list[Node] = []
    within: tuple[Node, ...] = ()
    at = _root(window)
    while True:
        while plain is not None and (found := plain.match(window.text, at)) is not None:
            at = found.end()
            yield found, within
        unit, again = None, False
        for tag in _MARKUP.finditer(window.text, at):
            if (kind := tag.lastindex) == _CUT:
                break
            at = tag.end()
            if kind is None:
                continue
            if kind == _END:
                node = opened.pop()
                node.end, node.after = tag.span()
            else:
                node = Node(tag)
                if unit is not None:
                    opened[-1].children.append(node)
                elif node.name in names:
                    unit = node
                if kind == _START:
                    opened.append(node)
            if unit is None:
                within = tuple(opened)
            elif node is unit and kind != _START:
                yield node, within
                unit = None
            else:
                continue
            if again := plain is not None:
                break
        if again:
            continue
        begin = at if unit is None else unit.start  # a unit that is cut is read again in what the window holds then
        del opened[len(within) :]
        kept = max(0, begin - _REACH)
        if not window.more(kept):
            return
        at = begin - kept


def _root(window: Window) -> int:
    parser = expat.ParserCreate("utf-8")
    at = 0

    def first(_name: str, _attributes: dict[str, str]) -> None:
        nonlocal at
        at = parser.CurrentByteIndex
        parser.StartElementHandler = None

    parser.StartElementHandler = first
    try:
        for chunk in window.chunks():
            parser.Parse(chunk, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise DocumentError(f"line {error.lineno}: not XML: {expat.ErrorString(error.code)}") from None
    while at >= len(window.text):
        held = len(window.text)
        window.more(held)
        at -= held
    return at


def attributes_of(tag: str) -> dict[str, str]:
    """Normalized; entities of a DTD stay."""
    found = dict(_ATTRIBUTE.findall(tag))
    if "&" in tag or not (tag.isascii() and tag.isprintable()):
        normalized = {name: re.sub("[\t\n\r]", " ", decoded(value)) for name, value in found.items()}
        return {decoded(name): _REFERENCE.sub(_resolved, value) for name, value in normalized.items()}
    return found


def plain_node(content: str, start: int) -> Node:
    """Raises ValueError unless it has only text."""
    tag = _MARKUP.match(content, start)
    if tag is None or tag.lastindex in (None, _END, _CUT):
        raise ValueError(f"no element at {start}")
    return Node(tag)


def piece_of(content: str, node: Node) -> Piece:
    return piece(content, node.inner, node.end)


def piece(content: str, start: int, end: int) -> Piece:
    raw = content[start:end]
    if "<" not in raw:
        if "&" not in raw:
            return Piece(decoded(raw), start, end, _PLAIN)
        if all(name[0] == "#" or name in _NAMED for name in _REFERENCE.findall(raw)):
            return Piece(_REFERENCE.sub(_resolved, decoded(raw)), start, end, Spelling.PLAIN)
    elif (section := _CDATA.fullmatch(raw)) is not None:
        before, behind = section.span(1)
        return Piece(decoded(section[1]), start + before, start + behind, Spelling.CDATA)
    return Piece(decoded(raw), start, end, Spelling.MARKUP, Kind.MARKUP)


def decoded(raw: str) -> str:
    """With XML's line ends."""
    text = raw if raw.isascii() else raw.encode("latin-1").decode()
    return text.replace("\r\n", "\n") if "\r" in text else text


def encoded(text: str) -> str:
    return text if text.isascii() else text.encode().decode("latin-1")


def spelled(text: str, spelling: Spelling, newline: str = "\n") -> str:
    if spelling is Spelling.PLAIN:
        text = text.translate(_SPELLED)
    elif spelling is Spelling.CDATA:
        text = text.replace("]]>", "]]]]><![CDATA[>")
    return encoded(text.replace("\n", newline) if newline != "\n" else text)


def misfit(source: str, value: str, *, markup: bool) -> str | None:
    """Invalid characters, or malformed markup."""
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
    """Text and tags in turn, text first."""
    return _TAGS.split(raw)


def comment_before(content: str, at: int) -> str:
    reach = content[max(0, at - _REACH) : at]
    found = _COMMENT.search(reach, reach.rfind("<!--")) if "<!--" in reach else None
    return decoded(found[1]).strip() if found else ""


def indentation(content: str, at: int) -> str:
    end = content.rfind("\n", 0, at)
    if end < 0 or content[end + 1 : at].strip(" \t"):
        return ""
    return content[end - (content[end - 1] == "\r") : at]


def _resolved(found: re.Match[str]) -> str:
    name = found[1]
    if name[0] != "#":
        return _NAMED.get(name, found[0])
    return chr(int(name[2:], 16) if name[1] == "x" else int(name[1:]))
