"""The filters and tests that a prompt may use: deterministic, with results not much larger than their input.

Those that can multiply check the size first; `sandbox` counts all. Null counts as undefined.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import Undefined, pass_environment
from jinja2.environment import Environment
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.tests import TESTS

MAX_OUTPUT = 10_000_000
"""Characters of a message."""


class TooLargeError(Exception):
    """A template makes too much text."""

    def __init__(self, what: str = "the message", limit: int = MAX_OUTPUT) -> None:
        super().__init__(f"{what} is larger than {limit // 1_000_000} MB")


def _default(value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    absent = value is None or isinstance(value, Undefined) or (boolean and not value)
    return default_value if absent else value


def _replace(value: Any, old: Any, new: Any) -> str:
    text, old, new = str(value), str(old), str(new)
    if not old:
        raise TypeError("`replace` needs a text to look for")
    if len(text) + text.count(old) * len(new) > MAX_OUTPUT:
        raise TooLargeError
    return text.replace(old, new)


@pass_environment
def _join(environment: Environment, value: Iterable[Any], d: Any = "", attribute: str | None = None) -> str:
    if attribute is not None:
        value = map(make_attrgetter(environment, attribute), value)
    texts, separator = [str(item) for item in value], str(d)
    if sum(map(len, texts)) + len(separator) * len(texts) > MAX_OUTPUT:
        raise TooLargeError
    return separator.join(texts)


def _indent(value: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    if not isinstance(width, int) or not 0 <= width <= 40:
        raise TypeError("`indent` takes a width of 0 to 40")
    pad, lines = " " * width, str(value).split("\n")
    if len(lines) * width > MAX_OUTPUT:
        raise TooLargeError
    rest = [pad + line if line or blank else line for line in lines[1:]]
    return "\n".join([pad + lines[0] if first else lines[0], *rest])


def _tojson(value: Any, indent: Any = None) -> str:
    if indent is not None and (not isinstance(indent, int) or not 0 <= indent <= 8):
        raise TypeError("`tojson` takes an indent of 0 to 8")
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _round(value: Any, precision: Any = 0) -> Any:
    if not isinstance(precision, int) or not -30 <= precision <= 30:
        raise TypeError("`round` takes a precision of -30 to 30")
    return round(value, precision)


@pass_environment
def _sum(environment: Environment, value: Iterable[Any], attribute: str | None = None) -> Any:
    return sum(value if attribute is None else map(make_attrgetter(environment, attribute), value))


def _defined(value: Any) -> bool:
    return value is not None and not isinstance(value, Undefined)


def _undefined(value: Any) -> bool:
    return not _defined(value)


_PLAIN = [
    "abs",
    "capitalize",
    "count",
    "dictsort",
    "first",
    "float",
    "int",
    "items",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "reverse",
    "select",
    "selectattr",
    "sort",
    "string",
    "title",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
]

SAFE_FILTERS: dict[str, Callable[..., Any]] = {name: FILTERS[name] for name in _PLAIN} | {
    "default": _default,
    "d": _default,
    "replace": _replace,
    "join": _join,
    "indent": _indent,
    "tojson": _tojson,
    "round": _round,
    "sum": _sum,
}

MAPPABLE = frozenset(
    [
        "abs",
        "capitalize",
        "d",
        "default",
        "first",
        "float",
        "int",
        "last",
        "length",
        "list",
        "lower",
        "round",
        "string",
        "tojson",
        "trim",
        "upper",
    ]
)
"""Filters for `map`, which keep an item's size."""

_LEFT_OUT = frozenset({"callable", "filter", "test", "escaped", "sameas"})

SAFE_TESTS: dict[str, Callable[..., Any]] = {name: test for name, test in TESTS.items() if name not in _LEFT_OUT} | {
    "defined": _defined,
    "undefined": _undefined,
}

INSTEAD: Mapping[str, str] = {
    "e": "omit it: text is sent unescaped",
    "escape": "omit it: text is sent unescaped",
    "safe": "omit it: text is sent unescaped",
    "format": "write the text with `{{ … }}` in it",
    "random": "a row must always give the same request: choose the value in the input",
    "pprint": "`tojson(indent=2)`",
    "wordwrap": "`truncate`, or wrap the text in the input",
    "center": "write the blanks out",
    "attr": "`value.member`",
}
