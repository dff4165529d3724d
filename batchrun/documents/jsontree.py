"""Locale files in JSON: string values are segments, their key paths the ids.

i18next has plural forms in keys that end in CLDR categories (https://www.i18next.com/translation-function/plurals), ARB
notes on `key` in `@key` (https://github.com/google/app-resource-bundle/wiki/ApplicationResourceBundleSpecification).
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from typing import Any, NamedTuple, cast

from batchrun.documents import plurals
from batchrun.documents.segment import (
    DocumentError,
    Edit,
    Format,
    Plural,
    Segment,
    Value,
    Window,
    pointer_part,
    text_hash,
)
from batchrun.models import made

_STRING = r'"([^"\\\n]*+(?:\\.[^"\\\n]*+)*+)"'
_TOKEN = re.compile(rf"[ \t\r\n]*(?:{_STRING}|([\[\]{{}},:])|([-+.\w]+))")
# the usual content: one match instead of four
_MEMBER = re.compile(rf"[ \t\r\n]*{_STRING}[ \t\r\n]*:[ \t\r\n]*{_STRING},?")
_KEY = re.compile(rf"[ \t\r\n]*{_STRING}[ \t\r\n]*:")
_OPENED = {"}": "{", "]": "["}
_BLANKS = re.compile(r"[ \t\r\n]*")
_PLAIN = Segment("", "", 0, 0)[4:]  # the defaults of a segment
_decode = json.JSONDecoder(strict=False).decode


_Leaf = tuple[str, str | None, int, Segment]  # parent's path, key (None in an array) with its place, segment


class _Form(NamedTuple):
    # a string whose key ends in a CLDR category

    unit: str
    base: str
    category: str
    named: int
    segment: Segment

    def moved(self, by: int) -> "_Form":
        segment = self.segment._replace(start=self.segment.start - by, end=self.segment.end - by)
        return self._replace(named=self.named - by, segment=segment)


class JsonTree(Format):
    _arb = False  # whether keys with `@` describe others

    def __init__(self, window: Window, language: str | None) -> None:
        self._window = window
        self._forms = plurals.cldr(language) if language else None
        self._waiting: list[_Form] = []
        self._gone = 0

    @cached_property
    def _encode(self) -> Callable[[str], str]:
        escapes, last = False, b""
        for chunk in self._window.chunks():
            if not chunk.isascii():
                escapes = False
                break
            escapes = escapes or b"\\u" in last[-1:] + chunk
            last = chunk
        return partial(json.dumps, ensure_ascii=escapes)

    def segments(self) -> Iterator[Segment]:
        notes = self._notes() if self._arb else {}
        for parent, key, named, segment in self._leaves():
            if self._arb:
                if not (parent or key is None or key.startswith("@")):
                    yield segment._replace(note=notes.get(key, ""))
                continue
            form = None
            if key is not None and key.endswith(plurals.CATEGORIES):
                form = _form(parent, key, named, segment)
            if self._waiting and (form is None or form.unit != self._waiting[-1].unit):
                yield from self._flushed()
            if form is not None:
                self._waiting.append(form)
            else:
                yield segment
        yield from self._flushed()

    def _flushed(self) -> Iterator[Segment]:
        # consecutive forms with `other` are one segment
        forms, self._waiting = self._waiting, []
        sources = {form.category: form.segment.text for form in forms}
        if len(forms) == 1 or "other" not in sources:
            yield from (form.segment for form in forms)
            return
        first, second, *_ = forms
        content = self._window.text
        literal = _TOKEN.match(content, first.named)
        colon = content[literal.end() if literal else first.named : first.segment.start]
        style = first.base, colon, content[first.segment.end : second.named]
        uses = self._forms.uses if self._forms is not None else {name: f"as in {name}" for name in sources}
        if "zero" in sources:
            uses = {"zero": "for 0", **uses}  # i18next has it in every language
        start, end = first.named, forms[-1].segment.end
        yield Segment(f"{first.unit}_other", sources["other"], start, end, style, plural=Plural(sources, uses))

    def _notes(self) -> dict[str, str]:
        try:
            read = _decode(b"".join(self._window.chunks()).decode().removeprefix("\ufeff"))
        except (ValueError, RecursionError) as error:
            raise DocumentError(f"not JSON: {error}") from None
        found: dict[str, str] = {}
        for key, about in cast("dict[str, Any]", read if isinstance(read, dict) else {}).items():
            if key.startswith("@") and isinstance(about, dict):
                found[key[1:]] = str(cast("dict[str, Any]", about).get("description") or "")
        return found

    def _leaves(self) -> Iterator[_Leaf]:  # noqa: PLR0912  one scan with all its cases
        content, member = self._window.text, _MEMBER.match
        at = 1 if content.startswith("\ufeff") else 0
        parent, bracket, positional = "", "", False
        stack: list[tuple[str, str, bool]] = []
        while True:
            while bracket == "{" and (found := member(content, at)) is not None:
                at = found.end()
                name, text = found.group(1, 2)
                if "\\" in name or "\\" in text:
                    name, text = text_of(name), text_of(text)
                id = _id(parent, name, text, positional=positional)
                start, end = found.span(2)
                segment = made(Segment, (id, text, start - 1, end + 1, *_PLAIN))
                yield parent, None if positional else name, found.start(1) - 1, segment
            key, named, before = None, at, at
            if bracket == "{" and (found := _KEY.match(content, at)) is not None:
                key, named, at = text_of(found[1]), found.start(1) - 1, found.end()
            if ((found := _TOKEN.match(content, at)) is None or found.end() == len(content)) and self._more(before):
                content, at = self._window.text, before - self._gone
                continue
            if found is None:
                raise self._wrong(at)
            at, string, sign = found.end(), found[1], found[2]
            if string is not None:
                if bracket != "[" and key is None:
                    raise self._wrong(at)
                text = text_of(string)
                id = _id(parent, key, text, positional=positional)
                yield parent, None if positional else key, named, Segment(id, text, found.start(1) - 1, at)
            elif sign in ("{", "["):
                stack.append((parent, bracket, positional))
                if bracket:
                    parent = f"{parent}/-" if bracket == "[" else f"{parent}/{pointer_part(key or '')}"
                bracket, positional = sign, positional or sign == "["
            elif sign not in (None, ","):
                if _OPENED.get(sign) != bracket:
                    raise self._wrong(found.start(2))
                parent, bracket, positional = stack.pop()
                if not stack:
                    break
        while True:
            end = _BLANKS.match(content, at)
            at = end.end() if end is not None else at
            if at < len(content):
                raise self._wrong(at)
            if not self._more(at):
                break
            content, at = self._window.text, at - self._gone

    def _more(self, at: int) -> bool:
        # keeps the text from `at` or the waiting forms on
        gone = self._waiting[0].named if self._waiting else at
        if not self._window.more(gone):
            return False
        self._gone = gone
        self._waiting = [form.moved(gone) for form in self._waiting]
        return True

    def _wrong(self, at: int) -> DocumentError:
        return DocumentError(f"line {self._window.line(at)}: not JSON")

    def edits(self, segment: Segment, value: Value) -> Iterable[Edit]:
        """Plural forms replace the old members."""
        if isinstance(value, str):
            text = self._encode(value)
        else:
            base, colon, between = segment.style
            members = (f"{self._encode(f'{base}_{name}')}{colon}{self._encode(text)}" for name, text in value.items())
            text = between.join(members)
        return (Edit(segment.start, segment.end, text),)


class Arb(JsonTree):
    _arb = True


def _form(parent: str, key: str, named: int, segment: Segment) -> _Form | None:
    # the cardinal form that a key names
    base, _, category = key.rpartition("_")
    if not base or category not in plurals.CATEGORIES or base.endswith("_ordinal"):
        return None
    return _Form(f"{parent}/{pointer_part(base)}", base, category, named, segment)


def _id(parent: str, key: str | None, text: str, *, positional: bool) -> str:
    # A hash replaces an array position.
    path = parent if key is None else f"{parent}/{pointer_part(key)}"
    return f"{path}~{text_hash(text)}" if positional else path


def text_of(inside: str) -> str:
    """Raises DocumentError."""
    if "\\" not in inside:
        return inside
    try:
        return cast("str", _decode(f'"{inside}"'))
    except ValueError as error:
        raise DocumentError(f"not JSON: {error} in {inside[:80]}") from None
