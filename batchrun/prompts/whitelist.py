"""Checks a template before it runs: which nodes, filters, tests and members it may use."""

from collections.abc import Mapping

from jinja2 import nodes

from batchrun.errors import PromptError
from batchrun.prompts.definition import Message, did_you_mean
from batchrun.prompts.filters import INSTEAD, MAPPABLE, SAFE_FILTERS, SAFE_TESTS

MAX_LOOP_DEPTH = 2
MAX_NAMES = 1_000
MAX_SYNTAX_DEPTH = 60

_ALLOWED = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Const,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Slice,
    nodes.Filter,
    nodes.Test,
    nodes.If,
    nodes.CondExpr,
    nodes.For,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Concat,
    nodes.Add,
    nodes.Sub,
    nodes.Div,
    nodes.FloorDiv,
    nodes.Neg,
    nodes.Pos,
    nodes.List,
    nodes.Tuple,
    nodes.Dict,
    nodes.Pair,
    nodes.Keyword,
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


class Check:
    """Raises PromptError at the first thing that is not allowed."""

    def __init__(self, message: Message, path: str) -> None:
        self._message = message
        self._path = path
        self._names = 0

    def visit(self, node: nodes.Node, depth: int = 0, loops: int = 0) -> None:
        """Check a node and everything below it."""
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
            self._for(node, loops)
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

    def _for(self, node: nodes.For, loops: int) -> None:
        if node.recursive:
            self._refuse(node, "a recursive loop", "Use `for` inside `for`, at most two deep.")
        if loops > MAX_LOOP_DEPTH:
            self._refuse(node, "`for` more than two deep", "Prepare the list in the input.")

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
