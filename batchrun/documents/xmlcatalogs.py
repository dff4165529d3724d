"""Qt translations (.ts), .NET resources (.resx) and translation memories (.tmx).

Sources: https://doc.qt.io/qt-6/linguist-ts-file-format.html,
https://learn.microsoft.com/dotnet/core/extensions/work-with-resx-files-programmatically,
https://www.gala-global.org/tmx-14b.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from batchrun.documents import plurals, xml_text
from batchrun.documents.segment import DocumentError, Edit, Plural, Segment, Status, Value, Window
from batchrun.documents.xml_text import Node, Spelling, XmlFormat

_UNFINISHED = re.compile(r"""\s+type\s*=\s*(?:"unfinished"|'unfinished')""")


class _Place(NamedTuple):
    # additions around and between texts; `drop` is removed before

    spelling: Spelling
    before: str = ""
    after: str = ""
    drop: tuple[int, int] | None = None
    between: str = ""


class _Catalog(XmlFormat):
    def _text(self, node: Node | None) -> str:
        return "" if node is None else xml_text.piece_of(self._content, node).text

    def edits(self, segment: Segment, value: Value) -> Iterator[Edit]:
        place: _Place = segment.style
        if place.drop is not None:
            yield Edit(*place.drop, "")
        yield Edit(segment.start, segment.end, f"{place.before}{self._spelled(value, place)}{place.after}")

    def _spelled(self, value: Value, place: _Place) -> str:
        return xml_text.spelled(str(value), place.spelling, self._newline)


class QtTranslations(_Catalog):
    """Without vanished messages."""

    def segments(self) -> Iterator[Segment]:
        """Ids are their own, or context, source text and comment."""
        known, context = None, ""
        for node, within in xml_text.units(self._window, frozenset({"name", "message"})):
            if [each.name for each in within[1:]] != ["context"]:
                continue
            if within[1] is not known:
                known, context = within[1], ""
            if node.name == "name":
                context = self._text(node)
            else:
                yield from self._message(node, context, within[0].attributes.get("language"))

    def _message(self, message: Node, context: str, language: str | None) -> Iterator[Segment]:
        source, translation = message.child("source"), message.child("translation")
        if source is None or translation is None or translation.attributes.get("type") in ("obsolete", "vanished"):
            return
        if translation.all("lengthvariant"):  # a reply would have to say which is the shorter one
            return
        comment = self._text(message.child("comment"))
        text, _, _, spelling, kind = xml_text.piece_of(self._content, source)
        parts = [context, text, comment] if comment else [context, text]
        id = message.attributes.get("id") or "\x04".join(parts)
        note = "\n".join(filter(None, (comment, self._text(message.child("extracomment")))))
        forms = translation.all("numerusform")
        inner = self._content[translation.inner : translation.end]
        filled = all(self._text(form).strip() for form in forms) if forms else bool(inner.strip())
        unfinished = translation.attributes.get("type") == "unfinished"
        status = Status.EMPTY if not filled else Status.FUZZY if unfinished else Status.TRANSLATED
        plural = None
        if message.attributes.get("numerus") == "yes":
            plural = Plural({"other": text}, self._uses(len(forms), language))
        spelling = Spelling.MARKUP if spelling is Spelling.MARKUP else Spelling.PLAIN
        place = self._place(translation, forms, spelling)
        start, end = (forms[0].start, forms[-1].after) if forms else (translation.inner, translation.end)
        if translation.empty_tag:
            start, end = translation.slash, translation.after
        yield Segment(id, text, start, end, place, kind, status, context, note, None, plural)

    def _place(self, translation: Node, forms: list[Node], spelling: Spelling) -> _Place:
        found = _UNFINISHED.search(self._content, translation.start, translation.inner)
        drop = found.span() if found else None
        if translation.empty_tag:
            return _Place(spelling, ">", "</translation>", drop)
        between = self._content[forms[0].after : forms[1].start] if len(forms) > 1 else f"{self._newline}            "
        return _Place(spelling, drop=drop, between=between)

    def _uses(self, count: int, language: str | None) -> dict[str, str]:
        # There are as many forms as lupdate has made room for.
        uses = dict(plurals.gettext(language or self._language).uses)
        names = list(uses)[: count or None]
        return {name: uses[name] for name in names} | {
            f"form_{number}": "for other numbers" for number in range(len(names), count)
        }

    def _spelled(self, value: Value, place: _Place) -> str:
        # Quotation marks outside tags are escaped, as lupdate does.
        if isinstance(value, str):
            text = super()._spelled(value, place)
            return text if place.spelling is Spelling.MARKUP else text.replace('"', "&quot;").replace("'", "&apos;")
        return place.between.join(f"<numerusform>{self._spelled(each, place)}</numerusform>" for each in value.values())


class Resx(_Catalog):
    """Without images, sizes and names of controls."""

    def segments(self) -> Iterator[Segment]:
        for node, _ in xml_text.units(self._window, frozenset({"data"})):
            value, name = node.child("value"), node.attributes.get("name", "")
            if value is None or "type" in node.attributes or "mimetype" in node.attributes or name.startswith(">>"):
                continue
            piece = xml_text.piece_of(self._content, value)
            note = self._text(node.child("comment"))
            place = _Place(piece.spelling)
            yield Segment(name, piece.text, piece.start, piece.end, place, piece.kind, note=note)


class TranslationMemory(_Catalog):
    def __init__(self, window: Window, language: str | None) -> None:
        super().__init__(window, language)
        if language is None:
            raise DocumentError("a TMX file has many languages: state the target language")
        self._target = language.replace("_", "-")

    def segments(self) -> Iterator[Segment]:
        srclang = None
        for node, _ in xml_text.units(self._window, frozenset({"header", "tu"})):
            if node.name == "header":
                srclang = node.attributes.get("srclang")
                continue
            yield from self._unit(node, node.attributes.get("srclang", srclang))

    def _unit(self, unit: Node, srclang: str | None) -> Iterator[Segment]:
        variants = {_language(tuv): tuv for tuv in unit.all("tuv")}
        source = variants.get((srclang or "").lower()) or next(iter(variants.values()), None)
        segment = source.child("seg") if source else None
        if source is None or segment is None or self._is_target(_language(source)):
            return
        piece = xml_text.piece_of(self._content, segment)
        note = "\n".join(map(self._text, unit.all("note")))
        exact = variants.get(self._target.lower())
        target = exact or next((tuv for language, tuv in variants.items() if self._is_target(language)), None)
        written = target.child("seg") if target else None
        id = unit.attributes.get("tuid")
        if written is not None and not written.empty_tag:
            status = Status.TRANSLATED if self._content[written.inner : written.end].strip() else Status.EMPTY
            yield Segment(
                id, piece.text, written.inner, written.end, _Place(piece.spelling), piece.kind, status, note=note
            )
            return
        last = unit.all("tuv")[-1]
        lang = "xml:lang" if "xml:lang" in source.attributes else "lang"
        before = f'{xml_text.indentation(self._content, last.start)}<tuv {lang}="{self._target}"><seg>'
        place = _Place(piece.spelling, before, "</seg></tuv>")
        yield Segment(id, piece.text, last.after, last.after, place, piece.kind, note=note)

    def _is_target(self, language: str) -> bool:
        # or its region if none is requested
        target = self._target.lower()
        return language == target or ("-" not in target and language.startswith(f"{target}-"))


def _language(tuv: Node) -> str:
    return (tuv.attributes.get("xml:lang") or tuv.attributes.get("lang", "")).lower()
