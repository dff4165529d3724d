"""Android string resources (strings.xml).

Source: https://developer.android.com/guide/topics/resources/string-resource.
"""

import re
from collections.abc import Iterator

from batchrun.documents import plurals, xml_text
from batchrun.documents.segment import Edit, Kind, Plural, Segment, Value, text_hash
from batchrun.documents.xml_text import Node, Piece, Spelling, XmlFormat

_UNITS = frozenset({"string", "plurals", "string-array"})
_QUOTE = re.compile(r'(?<!\\)((?:\\\\)*)"')
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t"}
_SPELLED = str.maketrans({"\\": "\\\\", "'": "\\'", '"': '\\"', "\n": "\\n", "\t": "\\t"})
_BLANKS = re.compile(r"[ \t\r\n]+")
_RESOURCE = re.compile(r"[@?](?:\+|\w+:)?[\w.]+/[\w.]+|@null")


class AndroidStrings(XmlFormat):
    def segments(self) -> Iterator[Segment]:
        for node, within in xml_text.units(self._window, _UNITS):
            if any(each.attributes.get("translatable") == "false" for each in (node, *within)):
                continue
            name = node.attributes.get("name", "")
            product = node.attributes.get("product")
            name = name if product is None else f"{name}@{product}"
            note = xml_text.comment_before(self._content, node.start)
            if node.name == "string":
                yield from self._one(node, name, note)
            elif node.name == "string-array":
                for item in node.all("item"):
                    yield from self._one(item, f"{name}~{text_hash(self._content[item.inner : item.end])}", note)
            elif items := node.all("item"):
                yield self._plural(items, name, note)

    def _one(self, node: Node, id: str, note: str) -> Iterator[Segment]:
        piece = self._piece(node)
        text, quoted = _read(piece)
        if text and not _RESOURCE.fullmatch(text):
            yield Segment(id, text, piece.start, piece.end, (piece.spelling, quoted), piece.kind, note=note)

    def _piece(self, node: Node) -> Piece:
        # without the blanks around it, which Android ignores
        piece = xml_text.piece_of(self._content, node)
        if piece.spelling is Spelling.CDATA:
            return piece
        raw = self._content[piece.start : piece.end]
        lead = len(raw) - len(raw.lstrip(" \t\r\n"))
        start = piece.start + lead
        return piece._replace(text=piece.text.strip(" \t\r\n"), start=start, end=start + len(raw.strip(" \t\r\n")))

    def _plural(self, items: list[Node], id: str, note: str) -> Segment:
        texts = {item.attributes.get("quantity", ""): _read(self._piece(item))[0] for item in items}
        spelling = max((self._piece(item).spelling for item in items), key=list(Spelling).index)
        uses = plurals.cldr(self._language).uses if self._language else {name: f"as in {name}" for name in texts}
        text = texts.get("other") or next(iter(texts.values()))
        style = (spelling, False, self._content[items[0].start : items[0].inner])
        start, end = items[0].start, items[-1].after
        kind = Kind.MARKUP if spelling is Spelling.MARKUP else Kind.XML
        return Segment(id, text, start, end, style, kind, note=note, plural=Plural(texts, uses))

    def edits(self, segment: Segment, value: Value) -> tuple[Edit]:
        if isinstance(value, str):
            spelling, quoted = segment.style
            text = self._spelled(value, spelling, quoted=quoted)
        else:
            spelling, _, tag = segment.style
            between = xml_text.indentation(self._content, segment.start)
            text = between.join(
                re.sub(r"""(\squantity\s*=\s*)(?:"[^"]*"|'[^']*')""", rf'\g<1>"{form}"', tag)
                + f"{self._spelled(each, spelling, quoted=False)}</{tag[1:].split()[0]}>"
                for form, each in value.items()
            )
        return (Edit(segment.start, segment.end, text),)

    def _spelled(self, value: str, spelling: Spelling, *, quoted: bool) -> str:
        parts = [value] if spelling is Spelling.PLAIN else xml_text.text_parts(value)
        text = "".join(part if number % 2 else part.translate(_SPELLED) for number, part in enumerate(parts))
        if spelling is not Spelling.MARKUP and text[:1] in ("@", "?"):
            text = f"\\{text}"
        if quoted or (
            _BLANKS.sub(" ", value).strip() != value and spelling is not Spelling.MARKUP and "  " in f" {value} "
        ):
            text = f'"{text}"'
        return xml_text.spelled(text, spelling, self._newline)


def _read(piece: Piece) -> tuple[str, bool]:
    # the text as an app shows it, and whether it is quoted
    parts = [piece.text] if piece.spelling is Spelling.PLAIN else xml_text.text_parts(piece.text)
    shown = [(part, False) if number % 2 else _shown(part) for number, part in enumerate(parts)]
    return "".join(text for text, _ in shown), any(quoted for _, quoted in shown)


def _shown(raw: str) -> tuple[str, bool]:
    if '"' not in raw and "\\" not in raw:
        return (_BLANKS.sub(" ", raw) if "\n" in raw or "  " in raw or "\t" in raw else raw), False
    parts = _QUOTE.sub(r"\1\0", raw).split("\0")
    texts = [part if number % 2 else _BLANKS.sub(" ", part) for number, part in enumerate(parts)]
    return _ESCAPE.sub(_unescaped, "".join(texts)), len(parts) > 1


def _unescaped(found: re.Match[str]) -> str:
    name = found[1]
    return chr(int(name[1:], 16)) if len(name) == 5 else _ESCAPED.get(name, name)
