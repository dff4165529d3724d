"""XLIFF 1.2 and 2.x: the target of a unit is filled, or made where there is none.

Sources: https://docs.oasis-open.org/xliff/v1.2/os/xliff-core.html and
https://docs.oasis-open.org/xliff/xliff-core/v2.1/xliff-core-v2.1.html. `translate="no"` is left alone wherever it stands;
a `state` that says that a target is not finished becomes `translated` where it is filled.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from batchrun.documents import xml_text
from batchrun.documents.segment import Edit, Segment, Status, Value, newline_of
from batchrun.documents.xml_text import Node, Spelling

_UNITS = frozenset({"trans-unit", "unit"})
_UNWRITTEN = frozenset({"new", "needs-translation", "initial"})


class _Place(NamedTuple):
    """Where a target is or will be: what is put before and after its text, and the ranges of states to be changed."""

    spelling: Spelling
    before: str
    after: str
    state: tuple[int, int] | None


class Xliff:
    """The units of one file."""

    def __init__(self, content: str, _language: str | None) -> None:
        self._content = content
        self._newline = newline_of(content)

    def segments(self) -> Iterator[Segment]:
        """Units in their order, by file and id. Raises DocumentError."""
        known: tuple[Node, ...] | None = None
        kept, file = True, ""
        for node, within in xml_text.units(self._content, _UNITS):
            if within is not known:
                known = within
                kept = all(each.attributes.get("translate") != "no" for each in within)
                named = next((each.attributes for each in within if each.name == "file"), dict[str, str]())
                file = named.get("original") or named.get("id", "")
            if not kept or node.attributes.get("translate") == "no":
                continue
            id = f"{file}/{node.attributes.get('id', '')}"
            if node.name == "trans-unit":
                yield from self._segment(node, id, self._note(node.all("note")), _longest(node))
                continue
            notes = node.child("notes")
            note = self._note(notes.all("note") if notes else [])
            parts = node.all("segment")
            for number, part in enumerate(parts):
                own = f"{id}/{part.attributes.get('id', number)}" if len(parts) > 1 else id
                yield from self._segment(part, own, note, None)

    def _note(self, notes: list[Node]) -> str:
        return "" if not notes else "\n".join(xml_text.piece_of(self._content, note).text for note in notes)

    def _segment(self, unit: Node, id: str, note: str, longest: int | None) -> Iterator[Segment]:
        """The state is that of the segment in version 2, that of the target in 1.2."""
        source, target = unit.child("source"), unit.child("target")
        if source is None:
            return
        piece = xml_text.piece_of(self._content, source)
        text, spelling = piece.text, piece.spelling
        prefix = self._content[source.start + 1 : source.inner].partition("source")[0]
        if target is None:
            last = unit.child("seg-source") or source
            tag = f"{prefix}target"
            before = f"{xml_text.indentation(self._content, source.start)}<{tag}>"
            state = xml_text.attribute(self._content, unit, "state") if unit.name == "segment" else None
            place = _Place(spelling, before, f"</{tag}>", state)
            yield Segment(id, text, last.after, last.after, place, piece.kind, note=note, max=longest)
            return
        stated = unit if unit.name == "segment" else target
        status = self._status(target, stated.attributes.get("state"), approved=unit.attributes.get("approved") == "yes")
        state = xml_text.attribute(self._content, stated, "state") if status is not Status.TRANSLATED else None
        if target.empty_tag:
            opened = re.sub(r"\s*/>\Z", ">", self._content[target.start : target.inner])
            if state is not None and stated is target:
                opened = re.sub(r"""(\sstate\s*=\s*)(?:"[^"]*"|'[^']*')""", r'\1"translated"', opened)
                state = None
            place = _Place(spelling, opened, f"</{prefix}target>", state)
            yield Segment(id, text, target.start, target.after, place, piece.kind, status, note=note, max=longest)
            return
        place = _Place(spelling, "", "", state)
        yield Segment(id, text, target.inner, target.end, place, piece.kind, status, note=note, max=longest)

    def _status(self, target: Node, state: str | None, *, approved: bool) -> Status:
        if not self._content[target.inner : target.end].strip():
            return Status.EMPTY
        if approved or state is None:
            return Status.TRANSLATED
        if state in _UNWRITTEN:
            return Status.EMPTY
        return Status.FUZZY if state.startswith("needs-") else Status.TRANSLATED

    def opening(self) -> tuple[Edit, ...]:
        """Nothing."""
        return ()

    def edits(self, segment: Segment, value: Value) -> Iterator[Edit]:
        """The new target, and its state where it has one that says it is not finished."""
        place: _Place = segment.style
        if place.state is not None:
            yield Edit(*place.state, "translated")
        text = xml_text.spelled(str(value), place.spelling, self._newline)
        if place.spelling is Spelling.CDATA:
            text = f"<![CDATA[{text}]]>"
        yield Edit(segment.start, segment.end, f"{place.before}{text}{place.after}")


def _longest(unit: Node) -> int | None:
    """The most characters of a target, where the unit states it in characters."""
    width = unit.attributes.get("maxwidth", "")
    return int(width) if width.isdecimal() and unit.attributes.get("size-unit") == "char" else None
