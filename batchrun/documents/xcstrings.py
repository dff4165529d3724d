"""Apple's string catalogs (.xcstrings): all languages of an app in one JSON file.

Source: https://developer.apple.com/documentation/xcode/localizing-and-varying-text-with-a-string-catalog. Variations by
device and substitutions are left alone.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from batchrun.documents import plurals
from batchrun.documents.jsontree import text_of
from batchrun.documents.segment import DocumentError, Edit, Format, Plural, Segment, Status, Value, line_of, newline_of

_STRING = re.compile(r'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"')
_PLAIN = re.compile(r"[-+.\w]+")
_BLANKS = re.compile(r"[ \t\r\n]*")
_UNFINISHED = {"new": Status.EMPTY, "needs_review": Status.FUZZY, "stale": Status.FUZZY}


class _Node(NamedTuple):
    start: int
    end: int
    text: str | None
    members: "Mapping[str, _Node]"

    def at(self, *path: str) -> "_Node | None":
        node: _Node | None = self
        for key in path:
            node = node.members.get(key) if node is not None else None
        return node


class _Place(NamedTuple):
    # over a value (level -1), or as a new member

    level: int
    before: str = ""
    after: str = ""
    state: tuple[int, int] | None = None
    new: bool = False


class StringCatalog(Format):
    def __init__(self, content: str, language: str | None) -> None:
        if language is None:
            raise DocumentError("a string catalog has many languages: state the target language")
        self._content = content
        self._newline = newline_of(content)
        self._language = language.replace("_", "-")
        self._uses = plurals.cldr(language).uses

    def segments(self) -> Iterator[Segment]:
        top = _value(
            self._content, _blanks(self._content, len(self._content) - len(self._content.removeprefix("\ufeff")))
        )
        strings, source = top.at("strings"), top.at("sourceLanguage")
        if strings is None or source is None or source.text is None:
            raise DocumentError("not a string catalog: it has no `strings` or no `sourceLanguage`")
        for key, entry in strings.members.items():
            should = entry.at("shouldTranslate")
            if key.strip() and not (should is not None and self._content[should.start : should.end] == "false"):
                yield from self._entry(key, entry, source.text)

    def _entry(self, key: str, entry: _Node, source: str) -> Iterator[Segment]:
        note = (entry.at("comment") or entry).text or ""
        given = entry.at("localizations", source)
        forms = given.at("variations", "plural") if given else None
        plural = None
        text = key
        if forms is not None:
            texts = {name: (form.at("stringUnit", "value") or form).text or "" for name, form in forms.members.items()}
            text, plural = texts.get("other", key), Plural(texts, self._uses)
        elif given is not None:
            unit = given.at("stringUnit", "value")
            if unit is None or unit.text is None:
                return
            text = unit.text
        target = entry.at("localizations", self._language)
        status, start, end, place = self._target(entry, target, plural=plural is not None)
        yield Segment(key, text, start, end, place, status=status, note=note, plural=plural)

    def _target(self, entry: _Node, target: _Node | None, *, plural: bool) -> tuple[Status, int, int, _Place]:
        localizations = entry.at("localizations")
        if target is None:
            holder = localizations or entry
            if self._content[holder.start] != "{":
                raise DocumentError(f"line {line_of(self._content, holder.start)}: not an entry of a string catalog")
            level = 4 if localizations is not None else 3
            last = max((each.end for each in holder.members.values()), default=holder.start + 1)
            comma = "," if holder.members else ""
            start, end = last, last if holder.members else holder.end - 1
            return Status.EMPTY, start, end, _Place(level, comma, new=localizations is None)
        unit = target.at("stringUnit", "value")
        if unit is not None and not plural:
            state = target.at("stringUnit", "state")
            status = (
                _UNFINISHED.get((state.text or "") if state else "", Status.TRANSLATED) if unit.text else Status.EMPTY
            )
            changed = (state.start, state.end) if state is not None and status is not Status.TRANSLATED else None
            return status, unit.start, unit.end, _Place(-1, state=changed)
        plurals_of = target.at("variations", "plural")
        forms = [target] if plurals_of is None else plurals_of.members.values()
        states = [state.text or "" for form in forms if (state := form.at("stringUnit", "state"))]
        found = {_UNFINISHED.get(state, Status.TRANSLATED) for state in states} or {Status.EMPTY}
        status = next(each for each in Status if each in found)
        return status, target.start, target.end, _Place(5)

    def edits(self, segment: Segment, value: Value) -> Iterator[Edit]:
        place: _Place = segment.style
        if place.level == -1:
            edits = [Edit(segment.start, segment.end, _quoted(str(value)))]
            if place.state is not None:
                edits.append(Edit(*place.state, '"translated"'))
            yield from sorted(edits)
            return
        if place.level == 5:
            yield Edit(segment.start, segment.end, self._localization(value, 4))
            return
        member = f"{_quoted(self._language)} : {self._localization(value, 4)}"
        text = f"{self._line(4)}{member}"
        if place.new:
            text = f'{self._line(3)}"localizations" : {{{text}{self._line(3)}}}'
        closing = "" if place.before else self._line(place.level - 1)
        yield Edit(segment.start, segment.end, f"{place.before}{text}{closing}")

    def _localization(self, value: Value, level: int) -> str:
        if isinstance(value, str):
            return self._object(level, [("stringUnit", self._unit(level + 1, value))])
        forms = [
            (name, self._object(level + 3, [("stringUnit", self._unit(level + 4, text))]))
            for name, text in sorted(value.items())
        ]
        return self._object(
            level, [("variations", self._object(level + 1, [("plural", self._object(level + 2, forms))]))]
        )

    def _unit(self, level: int, text: str) -> str:
        return self._object(level, [("state", '"translated"'), ("value", _quoted(text))])

    def _object(self, level: int, members: list[tuple[str, str]]) -> str:
        inside = ",".join(f"{self._line(level + 1)}{_quoted(name)} : {value}" for name, value in members)
        return f"{{{inside}{self._line(level)}}}"

    def _line(self, level: int) -> str:
        return self._newline + "  " * level


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _blanks(content: str, at: int) -> int:
    found = _BLANKS.match(content, at)
    return found.end() if found else at


def _value(content: str, at: int, depth: int = 0) -> _Node:
    """Raises DocumentError."""
    sign = content[at : at + 1]
    if sign == '"' and (string := _STRING.match(content, at)) is not None:
        return _Node(at, string.end(), text_of(string.group()[1:-1]), {})
    if sign in ("{", "[") and depth < 100:
        members: dict[str, _Node] = {}
        at, start = _blanks(content, at + 1), at
        while content[at : at + 1] not in ("}", "]", ""):
            name = str(len(members))
            if sign == "{":
                key = _value(content, at, depth + 1)
                name, at = key.text or "", _blanks(content, key.end)
                if content[at : at + 1] != ":":
                    break
                at = _blanks(content, at + 1)
            members[name] = _value(content, at, depth + 1)
            at = _blanks(content, members[name].end)
            at = _blanks(content, at + 1) if content[at : at + 1] == "," else at
        if content[at : at + 1] in ("}", "]"):
            return _Node(start, at + 1, None, members if sign == "{" else {})
    elif sign and (plain := _PLAIN.match(content, at)) is not None:
        return _Node(at, plain.end(), None, {})
    raise DocumentError(f"line {line_of(content, at)}: not JSON")
