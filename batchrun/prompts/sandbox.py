"""Which templates may run, and what they can reach.

Nothing inside a process can interrupt a template, and Jinja's sandbox limits neither memory nor time. So a template is
checked before it runs, and loops, intermediate results and messages are bounded. `a.b` is a member of an object,
never a Python attribute.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, Undefined, UndefinedError, nodes, pass_context
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from batchrun.errors import PromptError
from batchrun.prompts.definition import Message
from batchrun.prompts.whitelist import MAX_OUTPUT, SAFE_FILTERS, SAFE_TESTS, Check, TooLargeError

MAX_STEPS = 100_000  # iterations of all loops of one message, for one row

MAX_MADE = 5 * MAX_OUTPUT  # what filters, `~` and `+` make for one message: forty doublings would fill any memory

_LEFT, _STEPS, _MADE, _PLAIN = "batchrun:left", "batchrun:steps", "batchrun:made", "batchrun:plain:"
_LOOP_MEMBERS = frozenset(
    ["index", "index0", "revindex", "revindex0", "first", "last", "length", "depth", "depth0", "previtem", "nextitem"]
)


class Environment(ImmutableSandboxedEnvironment):
    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, finalize=_printed)
        self.globals.clear()
        self.filters = {name: _measured(_PLAIN + name) for name in SAFE_FILTERS}
        self.filters |= {_PLAIN + name: plain for name, plain in SAFE_FILTERS.items()}
        self.filters |= {_STEPS: _counted, _MADE: _made}
        self.tests = dict(SAFE_TESTS)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, LoopContext) and attribute in _LOOP_MEMBERS:
            return super().getattr(obj, attribute)
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Undefined):
            return obj[argument]
        try:
            if isinstance(obj, dict | list | tuple | str):
                return cast("Any", obj)[argument]
        except (LookupError, TypeError):
            pass
        return self.undefined(hint=f"a value has no member `{argument}`")


class Compiled(NamedTuple):
    template: Template
    variables: frozenset[str]
    pieces: tuple["str | Variable", ...] | None  # if it has only text and variables


class Variable(NamedTuple):
    """Printed unchanged."""

    name: str


class Use(NamedTuple):
    """The variables of a template."""

    variables: frozenset[str]
    optional: frozenset[str]  # may be absent
    nullable: frozenset[str]  # may be null


class _Left:
    # the remaining budget of one message for one row

    __slots__ = ("made", "steps")

    def __init__(self) -> None:
        self.made = MAX_MADE
        self.steps = MAX_STEPS


def _printed(value: Any) -> Any:
    if value is None:
        raise UndefinedError("a value that is printed is null")
    return value


@pass_context
def _counted(context: Context, value: Any) -> Iterator[Any]:
    # counts iterations
    if isinstance(value, str):
        raise TypeError("`for` needs a list, but this is a text")
    left = cast("_Left", context.parent[_LEFT])
    for item in value:
        left.steps -= 1
        if left.steps < 0:
            raise TypeError(f"the loops have more than {MAX_STEPS:,} iterations")
        yield item


@pass_context
def _made(context: Context, value: Any) -> Any:
    # counts its size
    if type(value) in (str, list):
        left = cast("_Left", context.parent[_LEFT])
        left.made -= len(value)
        if left.made < 0:
            raise TooLargeError("the text made by its filters", MAX_MADE)
    return value


def _measured(plain: str) -> Callable[..., Any]:
    # results are counted, also if `map` calls the filter

    @pass_context
    def measured(context: Context, value: Any, /, *args: Any, **named: Any) -> Any:
        return _made(context, context.environment.call_filter(plain, value, args, named, context=context))

    return measured


class _Counting(NodeTransformer):
    # wraps loops and concatenations in counters

    def visit(self, node: nodes.Node, *args: Any, **named: Any) -> nodes.Node:
        node = self.generic_visit(node, *args, **named)
        if isinstance(node, nodes.For):
            node.iter = _around(node.iter, _STEPS)
        return _around(node, _MADE) if isinstance(node, nodes.Concat | nodes.Add) else node


def _around(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


_environment = Environment()


def check(message: Message, path: str) -> Use:
    """Raises PromptError."""
    tree = _parse(message, path)
    variables = frozenset(find_undeclared_variables(tree))
    tested = list(_tested(tree))
    _compile(tree, message, path)
    return Use(
        variables,
        variables & {name for name, how in tested if how == "absent"},
        variables & {name for name, _ in tested},
    )


def check_files(message: Message, names: frozenset[str], path: str) -> None:
    """File variables are only printed or tested, else PromptError."""
    tree = _parse(message, path)
    printed = (node for output in tree.find_all(nodes.Output) for node in output.nodes)
    plain = {id(node) for node in [*printed, *_operands(tree), *(test.node for test in tree.find_all(nodes.Test))]}
    for node in tree.find_all(nodes.Name):
        line = message.line + node.lineno - 1
        if node.name in names and id(node) not in plain:
            raise PromptError(
                f"{path}:{line}: `{node.name}` names files, which are sent unchanged",
                f"Write {{{{ {node.name} }}}}, or test it with `if`.",
                line,
            )
        if node.name in names and message.role != "user":
            raise PromptError(
                f"{path}:{line}: `{node.name}` names files, but a message of the {message.role} is text",
                "Put it into a message of the user, below a line `user:`.",
                line,
            )


def compiled(message: Message, path: str) -> Compiled:
    """Raises PromptError."""
    tree = _parse(message, path)
    variables = frozenset(find_undeclared_variables(tree))
    pieces = _pieces(tree)
    _Counting().visit(tree)
    return Compiled(_compile(tree, message, path), variables, pieces)


def run(unit: Compiled, values: Mapping[str, Any]) -> str:
    """Raises errors of Jinja and the filters."""
    context = unit.template.new_context({**values, _LEFT: _Left()})
    return "".join(_bounded(unit.template.root_render_func(context)))


def line_of(error: BaseException, message: Message, unit: Compiled) -> int:
    """Where rendering failed, in the prompt file."""
    line, trace = message.line, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__jinja_template__") is unit.template:
            line = message.line + unit.template.get_corresponding_lineno(trace.tb_lineno) - 1
        trace = trace.tb_next
    return line


def _bounded(parts: Iterable[str]) -> Iterator[str]:
    size = 0
    for part in parts:
        size += len(part)
        if size > MAX_OUTPUT:
            raise TooLargeError
        yield part


def _parse(message: Message, path: str) -> nodes.Template:
    try:
        tree = _environment.parse(message.template)
        Check(message, path).visit(tree)
    except TemplateSyntaxError as error:
        raise PromptError(*_explain(error, message, path)) from None
    except RecursionError:
        raise PromptError(
            f"{path}:{message.line}: expressions nested too deeply", "Simplify the template.", message.line
        ) from None
    except (ValueError, OverflowError, MemoryError) as error:
        raise PromptError(f"{path}:{message.line}: the template cannot be read: {error}", None, message.line) from None
    return tree


def _compile(tree: nodes.Template, message: Message, path: str) -> Template:
    try:
        return Template.from_code(_environment, _environment.compile(tree, path, path), {})
    except (SyntaxError, TemplateSyntaxError, RecursionError, ValueError, OverflowError, MemoryError) as error:
        raise PromptError(
            f"{path}:{message.line}: the template cannot be compiled: {error}", None, message.line
        ) from None


def _explain(error: TemplateSyntaxError, message: Message, path: str) -> tuple[str, str | None, int]:
    line, text = message.line + error.lineno - 1, error.message or "not a template"
    hint = "For braces that are meant as text, write `{{ '{{' }}` or put them between {% raw %} and {% endraw %}."
    if "Unexpected end of template" in text or "unknown tag 'end" in text:
        hint = "A block must begin and end within one message: close it before the next role line."
    elif "unknown tag" in text:
        hint = "Only `{% if %}` and `{% for %}` are available."
    elif "got '" in text or "expected token" in text:
        hint = f"{hint} For a column whose name is not one word, use --column NAME=COLUMN."
    return f"{path}:{line}: {text}", hint, line


def _pieces(tree: nodes.Template) -> tuple[str | Variable, ...] | None:
    found: list[str | Variable] = []
    for output in tree.body:
        if not isinstance(output, nodes.Output):
            return None
        for node in output.nodes:
            if isinstance(node, nodes.TemplateData):
                found.append(node.data)
            elif isinstance(node, nodes.Name):
                found.append(Variable(node.name))
            else:
                return None
    return tuple(found)


def _tested(tree: nodes.Template) -> Iterator[tuple[str, str]]:
    # variables tested for presence ("absent") or value ("null")
    for test in tree.find_all(nodes.Test):
        if isinstance(test.node, nodes.Name):
            yield test.node.name, "absent" if test.name in {"defined", "undefined"} else "null"
    for node in tree.find_all(nodes.Filter):
        if isinstance(node.node, nodes.Name) and node.name in {"default", "d"}:
            yield node.node.name, "absent"
    for operand in _operands(tree):
        if isinstance(operand, nodes.Name):
            yield operand.name, "null"


def _operands(tree: nodes.Template) -> Iterator[nodes.Expr]:
    for choice in tree.find_all((nodes.If, nodes.CondExpr)):
        yield cast("nodes.CondExpr", choice).test
    for both in tree.find_all((nodes.And, nodes.Or)):
        yield from (cast("nodes.BinExpr", both).left, cast("nodes.BinExpr", both).right)
    for negation in tree.find_all(nodes.Not):
        yield negation.node
    for comparison in tree.find_all(nodes.Compare):
        yield from (comparison.expr, *(operand.expr for operand in comparison.ops))
