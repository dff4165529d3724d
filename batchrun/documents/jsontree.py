"""Locale files in JSON: trees of texts, i18next and ARB. A string that is a value is a segment, its key path the id.

JSON is scanned for the places of its strings and never written anew. An element of an array has its position only, so it
is identified by its text. i18next spells plural forms as keys with the endings of CLDR's categories
(https://www.i18next.com/translation-function/plurals); ARB puts what developers say of `key` into `@key`
(https://github.com/google/app-resource-bundle/wiki/ApplicationResourceBundleSpecification).
"""

import json
import re
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, cast

from batchrun.documents import plurals
from batchrun.documents.segment import DocumentError, Edit, Plural, Segment, Value, line_of, text_hash

_TOKEN = re.compile(r'[ \t\r\n]*(?:("[^"\\\n]*+(?:\\.[^"\\\n]*+)*+")|([\[\]{},:])|([-+.\w]+))')
_MEMBER = re.compile(
    r'[ \t\r\n]*("[^"\\\n]*+(?:\\.[^"\\\n]*+)*+")[ \t\r\n]*:[ \t\r\n]*("[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"),?'
)
"""A key and a string, which most of a locale file is made of: one match instead of four."""
_BLANKS = re.compile(r"[ \t\r\n]*")
_CATEGORIES = ("zero", "one", "two", "few", "many", "other")
_decode = json.JSONDecoder(strict=False).decode


class _Leaf(NamedTuple):
    """A string that is a value: the path of what holds it, its key (None in an array), and the places of both."""

    parent: str
    key: str | None
    named: int
    start: int
    end: int
    literal: str
    positional: bool


class JsonTree:
    """The texts of one JSON object."""

    _arb = False
    """Whether keys that begin with `@` are about other keys."""

    def __init__(self, content: str, language: str | None) -> None:
        self._content = content
        self._forms = plurals.cldr(language) if language else None
        self._encode = partial(json.dumps, ensure_ascii=content.isascii() and "\\u" in content)

    def segments(self) -> Iterator[Segment]:
        """The texts in their order. Raises DocumentError naming the line where this is no JSON."""
        notes = self._notes() if self._arb else {}
        waiting: list[_Leaf] = []
        for leaf in self._leaves():
            if waiting and not _together(waiting[-1], leaf):
                yield from self._flushed(waiting, notes)
                waiting.clear()
            key = leaf.key
            if key is not None and key.endswith(_CATEGORIES) and _category(leaf) is not None:
                waiting.append(leaf)
            elif not self._arb or not (leaf.parent or str(leaf.key).startswith("@")):
                yield self._single(leaf, notes)
        yield from self._flushed(waiting, notes)

    def _flushed(self, leaves: list[_Leaf], notes: dict[str, str]) -> Iterator[Segment]:
        """Leaves that belong together as plural forms are one segment, all others one each."""
        categories = [_category(leaf) for leaf in leaves]
        if len(leaves) > 1 and "other" in categories:
            yield self._plural(leaves)
            return
        for leaf in leaves:
            if not self._arb or not leaf.parent:
                yield self._single(leaf, notes)

    def _single(self, leaf: _Leaf, notes: dict[str, str]) -> Segment:
        parent, key, _, start, end, literal, positional = leaf
        text = text_of(literal)
        path = parent if key is None else f"{parent}/{_pointed(key)}"
        id = f"{path}~{text_hash(text)}" if positional else path
        if notes:
            return Segment(id, text, start, end, note=notes.get(key or "", ""))
        return Segment(id, text, start, end)

    def _plural(self, leaves: list[_Leaf]) -> Segment:
        base = str(leaves[0].key).rpartition("_")[0]
        sources = {str(_category(leaf)): text_of(leaf.literal) for leaf in leaves}
        forms = self._forms.uses if self._forms is not None else {name: f"as in {name}" for name in sources}
        between = self._content[leaves[0].end : leaves[1].named]
        colon = self._content[leaves[0].named + len(self._key_literal(leaves[0])) : leaves[0].start]
        id = f"{leaves[0].parent}/{_pointed(base)}_other"
        style = base, colon, between
        start, end = leaves[0].named, leaves[-1].end
        return Segment(id, sources["other"], start, end, style, plural=Plural(sources, forms))

    def _key_literal(self, leaf: _Leaf) -> str:
        found = _TOKEN.match(self._content, leaf.named)
        return found[1] if found else ""

    def _notes(self) -> dict[str, str]:
        try:
            read = _decode(self._content.removeprefix("\ufeff"))
        except (ValueError, RecursionError) as error:
            raise DocumentError(f"not JSON: {error}") from None
        found: dict[str, str] = {}
        for key, about in cast("dict[str, Any]", read if isinstance(read, dict) else {}).items():
            if key.startswith("@") and isinstance(about, dict):
                found[key[1:]] = str(cast("dict[str, Any]", about).get("description") or "")
        return found

    def _leaves(self) -> Iterator[_Leaf]:  # noqa: PLR0912  one scan with all its cases
        """Every string that is a value, found by a scan with a stack of the brackets that are open."""
        content, match, member = self._content, _TOKEN.match, _MEMBER.match
        at = 1 if content.startswith("\ufeff") else 0
        stack: list[tuple[str, bool, bool]] = []  # path, is an array, is within an array
        parent, array, positional = "", False, False
        key: str | None = None
        literal, named, started = None, 0, False
        while True:
            while started and key is None and not array and (found := member(content, at)) is not None:
                at = found.end()
                start, end = found.span(2)
                yield _Leaf(parent, text_of(found[1]), found.start(1), start, end, found[2], positional)
            if (found := match(content, at)) is None:
                break
            at = found.end()
            kind = found.lastindex
            if kind == 1:
                if key is None and not array:
                    literal, named = found[1], found.start(1)
                    key_text = text_of(literal)
                    colon = match(content, at)
                    if colon is None or colon[2] != ":":
                        raise self._wrong(at)
                    at, key = colon.end(), key_text
                    continue
                yield _Leaf(parent, None if array else key, named, found.start(1), at, found[1], positional)
                key = None
            elif kind == 2:
                sign = found[2]
                if sign in "{[":
                    stack.append((parent, array, positional))
                    if started:
                        parent = f"{parent}/-" if array else f"{parent}/{_pointed(key or '')}"
                    started = True
                    array = sign == "["
                    positional = positional or array
                    key = None
                elif sign != ",":
                    if sign == ":" or not stack or (sign == "]") != array:
                        raise self._wrong(found.start(2))
                    parent, array, positional = stack.pop()
                    key = None
                    if not stack:
                        break
            else:
                key = None
        end = _BLANKS.match(content, at)
        if stack or not started or (end.end() if end else at) < len(content):
            raise self._wrong(end.end() if end else at)

    def _wrong(self, at: int) -> DocumentError:
        return DocumentError(f"line {line_of(self._content, at)}: not JSON")

    def opening(self) -> tuple[Edit, ...]:
        """Nothing."""
        return ()

    def edits(self, segment: Segment, value: Value) -> Iterable[Edit]:
        """The new text as a JSON string, the forms of a plural as members in the place of the old ones."""
        if isinstance(value, str):
            text = self._encode(value)
        else:
            base, colon, between = segment.style
            members = (f"{self._encode(f'{base}_{name}')}{colon}{self._encode(text)}" for name, text in value.items())
            text = between.join(members)
        return (Edit(segment.start, segment.end, text),)


class Arb(JsonTree):
    """The texts of one ARB file."""

    _arb = True


def _category(leaf: _Leaf) -> str | None:
    """The CLDR category that a key ends in, where it is a form of a cardinal number."""
    if leaf.key is None or leaf.positional or not leaf.key.endswith(_CATEGORIES):
        return None
    base, _, ending = leaf.key.rpartition("_")
    return ending if base and ending in _CATEGORIES and not base.endswith("_ordinal") else None


def _together(one: _Leaf, other: _Leaf) -> bool:
    """Whether two leaves are forms of the same text."""
    if one.parent != other.parent or None in (_category(one), _category(other)):
        return False
    return str(one.key).rpartition("_")[0] == str(other.key).rpartition("_")[0]


def _pointed(key: str) -> str:
    """A key in a JSON Pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1") if "~" in key or "/" in key else key


def text_of(literal: str) -> str:
    """The text of a JSON string. Raises DocumentError."""
    if "\\" not in literal:
        return literal[1:-1]
    try:
        return cast("str", _decode(literal))
    except ValueError as error:
        raise DocumentError(f"not JSON: {error} in {literal[:80]}") from None
