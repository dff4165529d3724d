"""What a template may use: nodes, filters, tests and members, checked before it runs.

Filters are deterministic; those that can multiply their input check the size first. Null counts as undefined.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import Undefined, nodes, pass_environment
from jinja2.environment import Environment
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.tests import TESTS

from batchrun.errors import PromptError
from batchrun.prompts.definition import Message, did_you_mean

MAX_OUTPUT = 10_000_000  # characters of a message
_PLAIN = [
    *("abs", "capitalize", "count", "dictsort", "first", "float", "int", "items", "last", "length", "list"),
    *("lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort", "string"),
    *("title", "trim", "truncate", "unique", "upper", "urlencode", "wordcount"),
]
# filters for `map`, which keep an item's size
MAPPABLE = frozenset(
    [
        *("abs", "capitalize", "d", "default", "first", "float", "int", "last", "length", "list", "lower", "round"),
        *("string", "tojson", "trim", "upper"),
    ]
)
_LEFT_OUT = frozenset({"callable", "filter", "test", "escaped", "sameas"})
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
MAX_LOOP_DEPTH = 2
MAX_NAMES = 1_000
MAX_SYNTAX_DEPTH = 60
_ALLOWED = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem),
    *(nodes.Slice, nodes.Filter, nodes.Test, nodes.If, nodes.CondExpr, nodes.For, nodes.Compare, nodes.Operand),
    *(nodes.And, nodes.Or, nodes.Not, nodes.Concat, nodes.Add, nodes.Sub, nodes.Div, nodes.FloorDiv, nodes.Neg),
    *(nodes.Pos, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword),
)
_VALUES = "Set the value with --set NAME=VALUE or as a column of the input."
_ONE_FILE = "A prompt is one file: write the text into it."
_REFUSED: Mapping[type[nodes.Node], tuple[str, str]] = {
    nodes.Mul: ("`*`", "Write the text or the number out."),
    nodes.Pow: ("`**`", "Write the number out."),
    nodes.Mod: ("`%`", "For numbers, test `is divisibleby(2)`; for texts, write `{{ … }}` where the value belongs."),
    nodes.Include: ("`include`", _ONE_FILE),
    nodes.Import: ("`import`", _ONE_FILE),
    nodes.FromImport: ("`import`", _ONE_FILE),
    nodes.Extends: ("`extends`", _ONE_FILE),
    nodes.Block: ("`block`", _ONE_FILE),
    nodes.Macro: ("`macro`", "Write the text out, or use `for`."),
    nodes.CallBlock: ("`call`", "Write the text out, or use `for`."),
    nodes.Assign: ("`set`", _VALUES),
    nodes.AssignBlock: ("`set`", _VALUES),
    nodes.With: ("`with`", _VALUES),
    nodes.FilterBlock: ("`{% filter %}`", "Put the filter into the expression: `{{ value | upper }}`."),
}
_METHODS = {
    "items": "items",
    "strip": "trim",
    "upper": "upper",
    "lower": "lower",
    "title": "title",
    "capitalize": "capitalize",
    "replace": "replace(old, new)",
    "join": "join(', ')",
    "get": "default('')",
}


class TooLargeError(Exception):
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


SAFE_TESTS: dict[str, Callable[..., Any]] = {name: test for name, test in TESTS.items() if name not in _LEFT_OUT} | {
    "defined": _defined,
    "undefined": _undefined,
}


class Check:
    """Raises PromptError at the first thing not allowed."""

    def __init__(self, message: Message, path: str) -> None:
        self._message = message
        self._path = path
        self._names = 0

    def visit(self, node: nodes.Node, depth: int = 0, loops: int = 0) -> None:
        if depth > MAX_SYNTAX_DEPTH:
            self._refuse(node, "expressions nested this deeply", "Simplify the template.")
        if not isinstance(node, _ALLOWED):
            self._not_allowed(node)
        if isinstance(node, nodes.Name):
            self._name(node)
        elif isinstance(node, nodes.Getattr | nodes.Getitem):
            self._member(node)
        elif isinstance(node, nodes.Filter):
            self._filter(node)
        elif isinstance(node, nodes.Test):
            self._test(node)
        elif isinstance(node, nodes.For):
            loops += 1
            if node.recursive:
                self._refuse(node, "a recursive loop", "Use `for` inside `for`, at most two deep.")
            if loops > MAX_LOOP_DEPTH:
                self._refuse(node, "`for` more than two deep", "Prepare the list in the input.")
        for child in node.iter_child_nodes():
            self.visit(child, depth + 1, loops)

    def _name(self, node: nodes.Name) -> None:
        self._names += 1
        if self._names > MAX_NAMES:
            self._refuse(node, f"more than {MAX_NAMES:,} uses of variables", "Simplify the template.")
        if node.name.startswith("__") or node.name == "self":
            self._refuse(node, f"the variable `{node.name}`", "Use another name and map it with --column NAME=COLUMN.")

    def _member(self, node: nodes.Getattr | nodes.Getitem) -> None:
        if isinstance(node, nodes.Getattr):
            name = node.attr
        else:
            name = node.arg.value if isinstance(node.arg, nodes.Const) else None
        private = "_" if isinstance(node, nodes.Getattr) else "__"
        if isinstance(name, str) and name.startswith(private):
            self._refuse(node, f"the private member `{name}`", "Only members of row data can be used.")

    def _filter(self, node: nodes.Filter) -> None:
        if node.name not in SAFE_FILTERS:
            near = did_you_mean(node.name, list(SAFE_FILTERS))
            instead = f"Instead: {INSTEAD[node.name]}." if node.name in INSTEAD else None
            self._refuse(
                node, f"the filter `{node.name}`", instead or f"Known: {', '.join(sorted(SAFE_FILTERS))}{near}"
            )
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            self._refuse(node, "`*` in arguments", "Write the arguments out.")
        if node.name == "map" and node.args:
            applied = node.args[0]
            if not isinstance(applied, nodes.Const) or applied.value not in MAPPABLE:
                self._refuse(node, "`map` with this filter", f"It may apply: {', '.join(sorted(MAPPABLE))}.")

    def _test(self, node: nodes.Test) -> None:
        if node.name not in SAFE_TESTS:
            near = did_you_mean(node.name, list(SAFE_TESTS))
            known = ", ".join(sorted(name for name in SAFE_TESTS if name.isalpha()))
            self._refuse(node, f"the test `is {node.name}`", f"Known: {known}{near}")
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            self._refuse(node, "`*` in arguments", "Write the arguments out.")

    def _not_allowed(self, node: nodes.Node) -> None:
        if isinstance(node, nodes.Call):
            self._call(node)
        what, hint = _REFUSED.get(
            type(node), (f"`{type(node).__name__.lower()}`", "Use variables, filters, `if`, `for`.")
        )
        self._refuse(node, what, hint)

    def _call(self, node: nodes.Call) -> None:
        if isinstance(node.node, nodes.Getattr):
            name = node.node.attr
            hint = f"Write the filter: `{{{{ value | {_METHODS[name]} }}}}`." if name in _METHODS else None
            self._refuse(node, f"the call `.{name}(…)`", hint or "Use a filter: `{{ value | filter }}`.")
        name = node.node.name if isinstance(node.node, nodes.Name) else "…"
        hint = "Loop over a list of the row: `{% for item in list %}`." if name == "range" else "Use a filter instead."
        self._refuse(node, f"the call `{name}(…)`", hint)

    def _refuse(self, node: nodes.Node, what: str, hint: str) -> None:
        line = self._message.line + (node.lineno or 1) - 1
        raise PromptError(f"{self._path}:{line}: {what} cannot be used in a prompt", hint, line)
