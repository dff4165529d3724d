"""XLIFF 1.2 and 2.x: targets are filled, or added.

Sources: https://docs.oasis-open.org/xliff/v1.2/os/xliff-core.html and
https://docs.oasis-open.org/xliff/xliff-core/v2.1/xliff-core-v2.1.html. `translate` is inherited; an unfinished `state`
becomes `translated`.
"""

import re
from collections.abc import Iterator
from typing import cast

from batchrun.documents import xml_text
from batchrun.documents.segment import Edit, Kind, Segment, Status, Value
from batchrun.documents.xml_text import ATTRIBUTES, Node, Spelling, XmlFormat
from batchrun.models import made

_UNITS = frozenset({"trans-unit", "unit"})
_UNWRITTEN = frozenset({"new", "needs-translation", "initial"})
_EMPTY, _KIND, _AS_TEXT = Status.EMPTY, Kind.XML, Spelling.PLAIN  # faster than the enums' attributes


# the usual unit of 1.2: only text inside
_PLAIN = re.compile(
    rf"""\s*+<trans-unit\s++id="(?P<id>[^"&\s]*+)"(?P<rest>{ATTRIBUTES})>
    \s*+(?P<before>)<source(?:\s{ATTRIBUTES})?+>(?P<source>[^<]*+)</source\s*+>(?P<behind>)
    \s*+(?P<target><target(?:\s{ATTRIBUTES})?+(?:/>|>[^<]*+</target\s*+>)\s*+)?+
    (?P<notes>(?:<note(?:\s{ATTRIBUTES})?+>[^<]*+</note\s*+>\s*+)*+)</trans-unit\s*+>""",
    re.VERBOSE | re.ASCII,
)
_BEFORE, _SOURCE, _BEHIND, _TARGET, _NOTES = (
    _PLAIN.groupindex[name] for name in ("before", "source", "behind", "target", "notes")
)
_SEGMENT_MARK = re.compile(r"</?(?:[\w.-]+:)?mrk\b[^>]*+>", re.ASCII)  # from tools; a target of nothing else is empty
_NOTE = re.compile(rf"<note(?:\s{ATTRIBUTES})?+>([^<]*+)")


# spelling, tag to fill, the source's start if a target is added, whether the tag is empty, element with the state
_Place = tuple[Spelling, str, int | None, bool, Node | None]
_NONE: dict[str, str] = {}


class Xliff(XmlFormat):
    def segments(self) -> Iterator[Segment]:
        known: tuple[Node, ...] | None = None
        inherited, file = "yes", ""
        for node, within in xml_text.units(self._window, _UNITS, _PLAIN):
            if within is not known:
                known = within
                stated = [each.attributes["translate"] for each in within if "translate" in each.attributes]
                inherited = stated[-1] if stated else "yes"
                named = next((each.attributes for each in within if each.name == "file"), dict[str, str]())
                file = named.get("original") or named.get("id", "")
            if isinstance(node, re.Match):
                if (segment := self._plain(node, file, inherited)) is not None:
                    yield segment
                continue
            attributes = node.attributes
            if attributes.get("translate", inherited) == "no":
                continue
            id = f"{file}/{attributes.get('id', '')}"
            inside = node.firsts()
            if node.name == "trans-unit":
                note = self._note(node) if "note" in inside else ""
                yield from self._segment(id, node, inside, note, _longest(attributes))
                continue
            note = self._note(inside["notes"]) if "notes" in inside else ""
            parts = node.all("segment")
            for number, part in enumerate(parts):
                own = id if len(parts) == 1 else f"{id}/{part.attributes.get('id', number)}"
                yield from self._segment(own, part, part.firsts(), note, None)

    def _plain(self, unit: re.Match[str], file: str, inherited: str) -> Segment | None:
        content = self._window.text
        id, rest, _, text, _, target, notes = unit.groups()
        attributes = xml_text.attributes_of(rest) if rest else _NONE
        if attributes.get("translate", inherited) == "no":
            return None
        spelling, kind = _AS_TEXT, _KIND
        if "&" in text or "\r" in text or not text.isascii():
            text, _, _, spelling, kind = xml_text.piece(content, *unit.span(_SOURCE))
        if target is None:
            start = end = unit.start(_BEHIND)
            status, place = _EMPTY, (spelling, "target", unit.start(_BEFORE), False, None)
        else:
            written = xml_text.plain_node(content, unit.start(_TARGET))
            start, end, status = self._target(written, written, approved=attributes.get("approved") == "yes")
            place = (spelling, written.tag, None, written.empty_tag, written)
        longest, note = None, ""
        if attributes:
            longest = _longest(attributes)
        if notes:
            found = _NOTE.finditer(content, *unit.span(_NOTES))
            note = "\n".join([xml_text.piece(content, *each.span(1)).text for each in found])
        id = f"{file}/{id if id.isascii() else xml_text.decoded(id)}"
        return made(Segment, (id, text, start, end, place, kind, status, "", note, longest, None))

    def _note(self, node: Node) -> str:
        return "\n".join(xml_text.piece_of(self._content, each).text for each in node.all("note"))

    def _segment(
        self, id: str, part: Node, inside: dict[str, Node], note: str, longest: int | None
    ) -> tuple[Segment, ...]:
        source, target = inside.get("source"), inside.get("target")
        if source is None:
            return ()
        text, _, _, spelling, kind = xml_text.piece_of(self._content, source)
        stated = part if part.name == "segment" else target
        if target is None:
            start = end = inside.get("seg-source", source).after
            status, place = _EMPTY, (spelling, f"{source.prefix}target", source.start, False, stated)
        else:
            approved = part.attributes.get("approved") == "yes"
            start, end, status = self._target(stated or target, target, approved=approved)
            filled = target
            if (
                status is _EMPTY
                and len(target.children) == 1
                and target.children[0].name == "mrk"
                and "mrk" not in text
            ):
                filled = target.children[0]
                start, end = (filled.slash, filled.after) if filled.empty_tag else (filled.inner, filled.end)
            place = (spelling, filled.tag, None, filled.empty_tag, stated)
        return (Segment(id, text, start, end, place, kind, status, "", note, longest),)

    def _target(self, stated: Node, target: Node, *, approved: bool) -> tuple[int, int, Status]:
        if target.empty_tag:
            return target.slash, target.after, _EMPTY
        state = stated.attributes.get("state")
        if not _SEGMENT_MARK.sub("", self._content[target.inner : target.end]).strip():
            status = _EMPTY
        elif state is None or approved:
            status = Status.TRANSLATED
        elif state in _UNWRITTEN:
            status = _EMPTY
        else:
            status = Status.FUZZY if state.startswith("needs-") else Status.TRANSLATED
        return target.inner, target.end, status

    def edits(self, segment: Segment, value: Value) -> Iterator[Edit]:
        spelling, tag, source, empty, stated = cast("_Place", segment.style)
        if stated is not None and segment.status is not Status.TRANSLATED and (state := stated.attribute("state")):
            yield Edit(*state, "translated")
        text = xml_text.spelled(str(value), spelling, self._newline)
        if spelling is Spelling.CDATA:
            text = f"<![CDATA[{text}]]>"
        if source is not None:
            text = f"{xml_text.indentation(self._content, source)}<{tag}>{text}</{tag}>"
        elif empty:
            text = f">{text}</{tag}>"
        yield Edit(segment.start, segment.end, text)


def _longest(unit: dict[str, str]) -> int | None:
    width = unit.get("maxwidth", "")
    return int(width) if width.isdecimal() and unit.get("size-unit") == "char" else None
