"""Locale files in YAML: texts are segments, their key paths the ids.

A new text keeps the old style if that can hold it, else it is double-quoted. A mapping of only CLDR categories has
plural forms (https://guides.rubyonrails.org/i18n.html#pluralization).
"""

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple, cast

import yaml

from batchrun.documents import plurals
from batchrun.documents.segment import (
    DocumentError,
    Edit,
    Format,
    Plural,
    Segment,
    Value,
    newline_of,
    pointer_part,
    text_hash,
)

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT = "tag:yaml.org,2002:str"
_PROPERTIES = re.compile(r"(?:[&!]\S*[ \t\r\n]+)+")
_BODY = re.compile(r"[|>]([^\r\n]*)(\r?\n)")
_STATED = re.compile(r"[-+]?[1-9]")  # a block whose first line may begin with blanks of the text
_UNSAFE = re.compile(r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]|[\u2028\u2029]")
_BREAKS = "\n\u2028\u2029"  # of YAML 1.1, beside CR and NEL, which it reads as LF
_INDICATORS = frozenset("-?:,[]{}#&*!|>'\"%@`=<~")
_SPELLED = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t"}
_START = yaml.Mark("", 0, 0, 0, None, 0)
_RESOLVER = yaml.resolver.Resolver()


class _Place(NamedTuple):
    # how a scalar is written

    style: str
    flow: bool  # within `{}` or `[]`
    indent: str = ""  # before the lines of a block
    tail: str = ""  # line ends after the last line of a block
    whole: int = 0


class _Leaf(NamedTuple):
    holder: "_Holder | None"  # None: in a sequence
    key: str
    named: int
    segment: Segment


class _Holder:
    # a collection; `key` waits for its value

    def __init__(self, path: str, *, mapping: bool, flow: bool, positional: bool) -> None:
        self.path, self.mapping, self.flow, self.positional = path, mapping, flow, positional
        self.values = 0
        self.key: tuple[str, int] | None = None


class YamlTree(Format):
    def __init__(self, content: str, language: str | None) -> None:
        self._content = content
        self._newline = newline_of(content)
        self._shift = len(content) - len(content.removeprefix("\ufeff"))
        self._forms = plurals.cldr(language) if language else None

    def segments(self) -> Iterator[Segment]:
        try:
            leaves = list(self._leaves())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f"line {mark.line + 1}: " if mark else ""
            raise DocumentError(f"{line}not YAML: {error.problem or error.context}") from None
        except yaml.YAMLError as error:
            raise DocumentError(f"not YAML: {error}") from None
        for _, group in groupby(leaves, key=lambda leaf: id(leaf.holder)):
            found = list(group)
            if _is_plural(found):
                yield self._plural(found)
            else:
                yield from (leaf.segment for leaf in found)

    def _leaves(self) -> Iterator[_Leaf]:
        stack: list[_Holder] = []
        for event in yaml.parse(self._content[self._shift :], Loader=_LOADER):
            begun = event.start_mark or _START
            if isinstance(event, yaml.CollectionEndEvent):
                stack.pop()
                continue
            if not isinstance(event, yaml.NodeEvent):
                continue
            top = stack[-1] if stack else None
            scalar = isinstance(event, yaml.ScalarEvent)
            if top is not None and top.mapping and top.key is None:
                if not scalar and not isinstance(event, yaml.AliasEvent):
                    raise DocumentError(f"line {begun.line + 1}: a key is not text")
                top.key = (str(getattr(event, "value", "*")), begun.index + self._shift)
                continue
            key, named = top.key if top is not None and top.key is not None else ("-", 0)
            path = "" if top is None else f"{top.path}/{pointer_part(key)}"
            positional = top is not None and (top.positional or not top.mapping)
            if top is not None:
                top.values += 1
                top.key = None
            if isinstance(event, yaml.CollectionStartEvent):
                mapping = isinstance(event, yaml.MappingStartEvent)
                flow = bool(event.flow_style)
                stack.append(_Holder(path, mapping=mapping, flow=flow, positional=positional))
            elif isinstance(event, yaml.ScalarEvent) and _is_text(event):
                holder = top if top is not None and top.mapping else None
                yield _Leaf(
                    holder,
                    key,
                    named,
                    self._segment(event, path, positional=positional, flow=top is not None and top.flow),
                )

    def _segment(self, event: yaml.ScalarEvent, path: str, *, positional: bool, flow: bool) -> Segment:
        start, end = (mark.index + self._shift for mark in (event.start_mark or _START, event.end_mark or _START))
        properties = _PROPERTIES.match(self._content, start, end)
        start = properties.end() if properties else start
        style, text = event.style or "", event.value
        place = _Place(style, flow, whole=start)
        if style in ("|", ">"):
            raw = self._content[start:end]
            end = start + len(raw.rstrip(f"{_BREAKS}\r\x85 \t"))
            body = _BODY.match(raw)
            at = body.end() if body else len(raw)
            lines = re.compile(r"(?:[ \t]*\r?\n)*([ \t]*)").match(raw, at)
            kept = text.rstrip(_BREAKS)
            stated = body is None or _STATED.match(body[1])
            place = _Place(style, flow, lines[1] if lines and not stated else "", text[len(kept) :], start)
            start, text = start + at, kept
            if not text.strip():
                end = start
        id = f"{path}~{text_hash(text)}" if positional else path
        return Segment(id, text, start, end, place)

    def _plural(self, leaves: list[_Leaf]) -> Segment:
        sources = {leaf.key: leaf.segment.text for leaf in leaves}
        forms = self._forms.uses if self._forms is not None else {name: f"as in {name}" for name in sources}
        between = self._content[leaves[0].segment.end : leaves[1].named]
        last = leaves[-1].segment
        id = (last.id or "").rpartition("/")[0]
        start, end = leaves[0].named, last.end
        style = (leaves[0].segment.style, between)
        return Segment(id, sources["other"], start, end, style, plural=Plural(sources, forms))

    def edits(self, segment: Segment, value: Value) -> tuple[Edit]:
        """Plural forms replace the old members."""
        if isinstance(value, str):
            place: _Place = segment.style
            if place.style not in ("|", ">"):
                return (Edit(segment.start, segment.end, _spelled(value, place)),)
            if not _fits_block(value, folded=place.style == ">") or not place.indent:
                return (Edit(place.whole, segment.end, _double_quoted(value + place.tail)),)
            lines = (f"{place.indent}{line}" if line else "" for line in value.split("\n"))
            text = (self._newline * (2 if place.style == ">" else 1)).join(lines)
            return (Edit(segment.start, segment.end, text),)
        place, between = segment.style
        text = between.join(f"{form}: {_spelled(each, place)}" for form, each in value.items())
        return (Edit(segment.start, segment.end, text),)


def _is_plural(leaves: list[_Leaf]) -> bool:
    # whether these are all values of a mapping by CLDR categories
    holder, keys = leaves[0].holder, {leaf.key for leaf in leaves}
    if holder is None or not holder.path or len(leaves) < 2 or holder.values != len(leaves):
        return False
    plain = all(leaf.segment.style.style not in ("|", ">") for leaf in leaves)
    return plain and "other" in keys and keys <= set(plurals.CATEGORIES)


def _is_text(event: yaml.ScalarEvent) -> bool:
    # whether a loader makes a string of the scalar
    tag: str | None = event.tag
    if tag not in (None, "!", _TEXT):
        return False
    if event.style or tag is not None:
        return bool(event.value)
    return _resolved(event.value) == _TEXT


def _resolved(text: str) -> str:
    return cast("str", _RESOLVER.resolve(yaml.ScalarNode, text, (True, False)))  # pyright: ignore[reportUnknownMemberType]  untyped


def _spelled(value: str, place: _Place) -> str:
    if _UNSAFE.search(value) or "\n" in value or "\t" in value:
        return _double_quoted(value)
    if place.style == "'":
        return "'" + value.replace("'", "''") + "'"
    if place.style == '"' or not _fits_plain(value, flow=place.flow):
        return _double_quoted(value)
    return value


def _fits_plain(value: str, *, flow: bool) -> bool:
    if not value or value != value.strip() or value[0] in _INDICATORS or value.startswith(("---", "...")):
        return False
    if ": " in value or " #" in value or value.endswith(":") or (flow and re.search(r"[,\[\]{}:?]", value)):
        return False
    return _resolved(value) == _TEXT


def _fits_block(value: str, *, folded: bool) -> bool:
    if not value.strip() or value.endswith("\n") or value[0] in " \t\n" or _UNSAFE.search(value):
        return False
    return not folded or not re.search(r"^[ \t]|[ \t]$", value, re.MULTILINE)


def _double_quoted(value: str) -> str:
    text = "".join(_SPELLED.get(character, character) for character in value)
    return '"' + _UNSAFE.sub(_escaped, text) + '"'


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
