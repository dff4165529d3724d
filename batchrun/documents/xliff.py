"""XLIFF 1.2 and 2.x: the target of a unit is filled, or made where there is none.

Sources: https://docs.oasis-open.org/xliff/v1.2/os/xliff-core.html and
https://docs.oasis-open.org/xliff/xliff-core/v2.1/xliff-core-v2.1.html. `translate` holds for what is inside unless that
states another; a `state` that says that a target is not finished becomes `translated` where it is filled.
"""

from collections.abc import Iterator
from typing import cast

from batchrun.documents import xml_text
from batchrun.documents.segment import Edit, Segment, Status, Value, newline_of
from batchrun.documents.xml_text import Node, Spelling

_UNITS = frozenset({"trans-unit", "unit"})
_UNWRITTEN = frozenset({"new", "needs-translation", "initial"})
_EMPTY = Status.EMPTY


_Place = tuple[Spelling, Node, Node, Node | None]
"""How the source is spelled, its unit (in version 2 its segment), the source, and the target where there is one."""


class Xliff:
    """The units of one file."""

    def __init__(self, content: str, _language: str | None) -> None:
        self._content = content
        self._newline = newline_of(content)

    def segments(self) -> Iterator[Segment]:
        """Units in their order, by file and id. Raises DocumentError."""
        known: tuple[Node, ...] | None = None
        inherited, file = "yes", ""
        for node, within in xml_text.units(self._content, _UNITS):
            if within is not known:
                known = within
                stated = [each.attributes["translate"] for each in within if "translate" in each.attributes]
                inherited = stated[-1] if stated else "yes"
                named = next((each.attributes for each in within if each.name == "file"), dict[str, str]())
                file = named.get("original") or named.get("id", "")
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

    def _note(self, node: Node) -> str:
        return "\n".join(xml_text.piece_of(self._content, each).text for each in node.all("note"))

    def _segment(
        self, id: str, part: Node, inside: dict[str, Node], note: str, longest: int | None
    ) -> tuple[Segment, ...]:
        """The segment of a unit (in version 2 of one of its segments), if it has a source."""
        source, target = inside.get("source"), inside.get("target")
        if source is None:
            return ()
        text, _, _, spelling, kind = xml_text.piece_of(self._content, source)
        if target is None:
            start = end = inside.get("seg-source", source).after
            status = _EMPTY
        else:
            start, end, status = self._target(part, target)
        place: _Place = (spelling, part, source, target)
        return (Segment(id, text, start, end, place, kind, status, "", note, longest),)

    def _target(self, part: Node, target: Node) -> tuple[int, int, Status]:
        """The range of the text of a target, and what it is."""
        if target.empty_tag:
            return target.slash, target.after, _EMPTY
        state = (part if part.name == "segment" else target).attributes.get("state")
        if not self._content[target.inner : target.end].strip():
            status = _EMPTY
        elif state is None or part.attributes.get("approved") == "yes":
            status = Status.TRANSLATED
        elif state in _UNWRITTEN:
            status = _EMPTY
        else:
            status = Status.FUZZY if state.startswith("needs-") else Status.TRANSLATED
        return target.inner, target.end, status

    def opening(self) -> tuple[Edit, ...]:
        """Nothing."""
        return ()

    def edits(self, segment: Segment, value: Value) -> Iterator[Edit]:
        """The new target, and its state where it has one that says it is not finished."""
        spelling, part, source, target = cast("_Place", segment.style)
        stated = part if part.name == "segment" else target
        if stated is not None and segment.status is not Status.TRANSLATED and (state := stated.attribute("state")):
            yield Edit(*state, "translated")
        text = xml_text.spelled(str(value), spelling, self._newline)
        if spelling is Spelling.CDATA:
            text = f"<![CDATA[{text}]]>"
        tag = f"{source.prefix}target"
        if target is None:
            text = f"{xml_text.indentation(self._content, source.start)}<{tag}>{text}</{tag}>"
        elif target.empty_tag:
            text = f">{text}</{tag}>"
        yield Edit(segment.start, segment.end, text)


def _longest(unit: dict[str, str]) -> int | None:
    """The most characters of a target, where the unit states it in characters."""
    width = unit.get("maxwidth", "")
    return int(width) if width.isdecimal() and unit.get("size-unit") == "char" else None
