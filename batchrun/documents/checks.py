"""Checks of a translation: pure functions (source, target) → error for users and the model, or None.

CLD3, measured with cld3-py 3.1.0 on 4,400 messages of Django 5.2: from 40 letters and a probability of 0.99 on it
reports no right text and four in five English ones; below, 1 % of right texts.
"""

import importlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

Check = Callable[[str, str], str | None]

_PLACEHOLDER = re.compile(
    r"""
      \$t\([^()]*\)                                                              # i18next nesting
    | \{\{-?\s*[^{}]+?\s*\}\}                                                    # Mustache, i18next, Jinja
    | \{%.*?%\}
    | [$%#]\{[^{}]*\}                                                            # shell, Ruby
    | %\([^()\s]+\)[-+ #0]*\d*(?:\.\d+)?[a-zA-Z]                                 # Python
    | %%
    | %(?:\d+\$)?[-+#0']*(?:\*|\d+)?(?:\.(?:\*|\d+))?(?:hh|h|ll|l|L|q|j|z|t)?[diouxXeEfFgGaAcspn@](?![\w%])   # printf
    | %(?:\d+\$)[-+#0]*\d*(?:\.\d+)?[diouxXeEfFgGaAcspn@]
    | %L?\d{1,2}(?!\d|\s*%)|%n(?=\W|$)                                           # Qt
    | \{[A-Za-z0-9_][\w.\[\]-]*(?:![rsa])?(?::[^{}]*)?\}|\{\}                    # str.format, ICU
    | __[A-Z][A-Z0-9_]*__
    | \\[anh][n0-9]+|\{\\[^{}]*\}                                                # override codes of subtitles
    """,
    re.VERBOSE,
)
_ICU = re.compile(r"\{\s*(\w+)\s*,\s*(plural|select|selectordinal)\s*,")
_TAG = re.compile(r"</?[A-Za-z][\w:.-]*(?:\s+[^<>]*)?/?>|</?>|</?\d+/?>")
_ENTITY = re.compile(r"&(?:#\d+|#x[0-9A-Fa-f]+|[A-Za-z][A-Za-z0-9]{1,30});")
_NUMBER = re.compile(r"\d(?:[\d.,'\u2019\u00a0\u202f\u066b\u066c]*\d)?")
_MARKERS = re.compile(r"(?:\*\*|__|`+|~~)")
_LEAST_LETTERS = 12  # shorter equal texts are often names or codes
_LEAST_LENGTH = 20  # shorter texts have arbitrary length ratios
_RATIO = 4.0


def placeholders(source: str, target: str) -> str | None:
    """Of ICU messages, the same arguments."""
    if _ICU.search(source):
        before, after = (
            Counter(f"{{{name}, {kind}}}" for name, kind in _ICU.findall(text)) for text in (source, target)
        )
        plain = re.sub(r"'\{[^']*'|'\}'", "", target)
        unbalanced = None if plain.count("{") == plain.count("}") else "its braces do not match"
        return _difference(before, after, "placeholder") or unbalanced
    return _difference(_placeholders(source), _placeholders(target), "placeholder")


def markup(source: str, target: str) -> str | None:
    """The same tags and entities, and valid nesting."""
    return _difference(_tags(source), _tags(target), "tag") or _entities(source, target) or _nesting(source, target)


def numbers(source: str, target: str) -> str | None:
    """Whatever their separators and script."""
    return _difference(_numbers(source), _numbers(target), "number")


def blanks(source: str, target: str) -> str | None:
    for where, wanted, found in (
        ("begins", source.removesuffix(source.lstrip()), target.removesuffix(target.lstrip())),
        ("ends", source.removeprefix(source.rstrip()), target.removeprefix(target.rstrip())),
    ):
        if wanted != found:
            return f"it {where} with {found!r} where the source {where} with {wanted!r}"
    return None


def lines(source: str, target: str) -> str | None:
    wanted, found = source.count("\n") + 1, target.count("\n") + 1
    return None if wanted == found else f"it has {found} lines, the source has {wanted}"


def not_empty(source: str, target: str) -> str | None:
    return "it is empty" if source.strip() and not target.strip() else None


def not_copied(source: str, target: str) -> str | None:
    plain = _TAG.sub(" ", _PLACEHOLDER.sub(" ", source))
    letters = sum(map(str.isalpha, plain))
    return (
        "it is identical to the source text" if source.strip() == target.strip() and letters >= _LEAST_LETTERS else None
    )


def length_ratio(source: str, target: str) -> str | None:
    """Factor 4; an ideograph counts as 2.5 characters."""
    before, after = _length(source), _length(target)
    if before < _LEAST_LENGTH or before / _RATIO <= after <= before * _RATIO:
        return None
    return f"it is {after / before:.2g} times as long as the source"


CHECKS: Mapping[str, Check] = {
    "placeholders": placeholders,
    "markup": markup,
    "numbers": numbers,
    "blanks": blanks,
    "lines": lines,
    "not-empty": not_empty,
    "not-copied": not_copied,
    "length-ratio": length_ratio,
}
LANGUAGE = "language"
NAMES = (*CHECKS, LANGUAGE)


def in_language(code: str | None, target: str) -> str | None:
    found = (
        None if code is None else other_language(_ENTITY.sub(" ", _TAG.sub(" ", _PLACEHOLDER.sub(" ", target))), code)
    )
    return None if found is None else f"it is in the language {found}, not in {code}"


def maximum(most: int, target: str) -> str | None:
    return None if len(target) <= most else f"it has {len(target)} characters, and at most {most} are allowed"


def failed(names: Iterable[str], source: str, target: str, language: str | None = None) -> tuple[str, str] | None:
    """The first failed check and its error."""
    for name in names:
        error = in_language(language, target) if name == LANGUAGE else CHECKS[name](source, target)
        if error is not None:
            return name, error
    return None


def _difference(before: Counter[str], after: Counter[str], what: str) -> str | None:
    if before == after:
        return None
    missing, added = list((before - after).elements()), list((after - before).elements())
    parts = [f"the {what} {_listed(missing)} of the source is missing"] if missing else []
    parts += [f"the {what} {_listed(added)} is not in the source"] if added else []
    return " and ".join(parts)


def _listed(items: list[str]) -> str:
    return ", ".join(items[:5]) + (" …" if len(items) > 5 else "")


def _placeholders(text: str) -> Counter[str]:
    return Counter(re.sub(r"\s+", "", found) for found in _PLACEHOLDER.findall(text) if found != "%%")


def _tags(text: str) -> Counter[str]:
    return Counter(re.sub(r"\s+", " ", tag) for tag in _TAG.findall(text))


def _entities(source: str, target: str) -> str | None:
    # Entities may become characters; new ones are errors in a text without any.
    if not _ENTITY.search(target):
        return None
    known = {*_ENTITY.findall(source)}
    new = [entity for entity in _ENTITY.findall(target) if entity not in known]
    return f"the entity {_listed(new)} is not in the source" if new and not known else None


def _nesting(source: str, target: str) -> str | None:
    if _well_nested(source) and not _well_nested(target):
        return "its tags are not closed in the order in which they are opened"
    for mark, count in Counter(_MARKERS.findall(source)).items():
        if count % 2 == 0 and target.count(mark) % 2 and mark != "__":
            return f"{mark} is opened and not closed"
    return None


def _well_nested(text: str) -> bool:
    opened: list[str] = []
    for tag in _TAG.findall(text):
        name = re.sub(r"[</>]", " ", tag).split()
        if tag.endswith("/>") or not name:
            continue
        if not tag.startswith("</"):
            opened.append(name[0])
        elif not opened or opened.pop() != name[0]:
            return False
    return True


def _numbers(text: str) -> Counter[str]:
    plain = _ENTITY.sub(" ", _TAG.sub(" ", _PLACEHOLDER.sub(" ", text)))
    found = (
        "".join(str(unicodedata.digit(sign)) for sign in number if sign.isdigit()) for number in _NUMBER.findall(plain)
    )
    return Counter(found)


def _length(text: str) -> float:
    return sum(2.5 if unicodedata.east_asian_width(sign) in "WF" else 1.0 for sign in text)


LEAST_LETTERS = 40  # an ideograph counts as two
_SURE = 0.99
_MOST_BYTES = 2000
_IDEOGRAPHS = 0x2E80
_IGNORED = re.compile(r"https?://\S+|\S+@\S+|`[^`]*`")
# languages that CLD3 confuses, and codes of one language
_ALIKE = (
    frozenset({"no", "nb", "nn", "da"}),
    frozenset({"id", "ms", "jv", "su"}),
    frozenset({"sr", "hr", "bs", "sl", "me"}),
    frozenset({"cs", "sk"}),
    frozenset({"he", "iw"}),
    frozenset({"fil", "tl", "ceb"}),
    frozenset({"gl", "pt", "es", "ca"}),
    frozenset({"af", "nl", "fy", "lb", "de"}),
    frozenset({"mk", "bg", "sr"}),
    frozenset({"hi", "mr", "ne"}),
    frozenset({"zu", "xh", "st", "sn", "ny"}),
)
# languages that CLD3 identifies (github.com/google/cld3, Supported Languages)
_CODES = """
    af am ar az be bg bn bs ca ceb co cs cy da de el en eo es et eu fa fi fil fr fy ga gd gl gu ha haw he hi hmn hr
    ht hu hy id ig is it iw ja jv ka kk km kn ko ku ky la lb lo lt lv mg mi mk ml mn mr ms mt my nb ne nl nn no ny
    pa pl ps pt ro ru sd si sk sl sm sn so sq sr st su sv sw ta te tg th tl tr uk ur uz vi xh yi yo zh zu
"""
_KNOWN = frozenset(_CODES.split())


def is_identifiable(code: str) -> bool:
    return _base(code) in _KNOWN


def is_installed() -> bool:
    try:
        return _identifier() is not None
    except ImportError:
        return False


def other_language(text: str, code: str) -> str | None:
    """The text's language, if certainly not that of `code`."""
    text = _IGNORED.sub(" ", text)
    letters = sum((1 + (ord(sign) >= _IDEOGRAPHS)) for sign in text if sign.isalpha())
    if letters < LEAST_LETTERS:
        return None
    found = _identifier().FindLanguage(text=text)
    language, wanted = _base(str(found.language)), _base(code)
    alike = language == wanted or any(language in group and wanted in group for group in _ALIKE)
    return None if alike or not found.is_reliable or found.probability < _SURE else str(found.language)


def _base(code: str) -> str:
    return re.split(r"[-_@]", code)[0].lower()


@cache
def _identifier() -> Any:
    return importlib.import_module("gcld3").NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=_MOST_BYTES)
