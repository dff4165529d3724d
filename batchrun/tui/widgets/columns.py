"""The columns of the row table. Texts of a `Line` are the beginning of JSON, cut anywhere."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from batchrun import prompts
from batchrun.errors import PromptError
from batchrun.journal import Line, Order
from batchrun.models import Kind, State
from batchrun.plan import Plan

MOST_SOURCES, MOST_OUTPUTS = 3, 4
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?')
_SPACE = re.compile(r"[\s,:]*")
_DECODER = json.JSONDecoder()


class Column(NamedTuple):
    title: str
    width: int  # cells
    least: int  # shown from this table width on, in cells
    text: Callable[[Line], str]
    right: bool = False
    share: int = 0  # or parts of the rest
    about: str = ""  # `source`, `reply` or empty
    order: Order | None = None  # of a click on the title


def columns_of(plan: Plan | None, sources: Sequence[str] = ()) -> tuple[Column, ...]:
    """Without a plan those that fit any run. Ids made from content are not shown."""
    outputs = () if plan is None or plan.post or len(plan.output_fields) > MOST_OUTPUTS else plan.output_fields
    keyed = plan is None or (plan.id_column is not None and plan.id_column not in sources)
    return (
        Column("state", 12, 0, _state),
        Column("line", 6, 0, _number, right=True, order=Order.ROW),
        *((Column("id", 12, 90, _key),) if keyed else ()),
        *(_source(name) for name in sources or ("",)),
        *(_output(name) for name in outputs or ("",)),
        Column("latency", 9, 110, _seconds, right=True, order=Order.LATENCY),
        Column("tokens", 12, 140, _tokens, right=True, order=Order.TOKENS),
        Column("tries", 5, 160, _tries, right=True),
    )


def source_fields(plan: Plan, text: str) -> tuple[str, ...]:
    if plan.kind is not Kind.ROWS or plan.prompt_source is None:
        return ()
    try:
        variables = prompts.parse(plan.prompt_source, path=plan.prompt_path or "prompt.prompty").variables
    except PromptError:
        return ()
    has = {name for name, _ in members(text)}
    found = [plan.columns.get(name, name) for name in sorted(variables) if name not in plan.variables]
    shown = [name for name in found if name in has]
    return tuple(shown) if len(shown) <= MOST_SOURCES else ()


def _source(name: str) -> Column:
    def text(line: Line) -> str:
        return field(line.text, name) if name and line.text.startswith("{") else values(line.text)

    return Column(name or "row", 0, 50, text, share=2, about="source")


def _output(name: str) -> Column:
    def text(line: Line) -> str:
        output = line.output or ""
        return field(output, name) if name and output.startswith("{") else values(output)

    return Column(name or "reply", 0, 0, text, share=3, about="reply")


def trouble(line: Line) -> str | None:
    if line.state not in (State.FAILED, State.SKIPPED):
        return None
    return f"{line.cause}: {line.message}" if line.message and line.message != line.cause else line.cause or ""


def fitted(columns: Sequence[Column], width: int, order: Order = Order.ROW) -> list[tuple[Column, int]]:
    """Columns and widths; the column of the `order` is always visible."""
    shown = [column for column in columns if width >= column.least or column.order is order]
    left = max(8, width - sum(column.width for column in shown) - len(shown) + 1)
    shares = sum(column.share for column in shown)
    found = [(column, column.width or left * column.share // shares) for column in shown]
    rest = left - sum(room for column, room in found if column.share)
    last = max(place for place, (column, _) in enumerate(found) if column.share)
    found[last] = found[last][0], found[last][1] + rest
    return found


def values(text: str) -> str:
    found = [value for _, value in members(text)]
    return text if not found or any(value[:1] in "{[" for value in found if value) else " · ".join(found)


def field(text: str, name: str) -> str:
    """`…` if the text was cut before it."""
    for found, value in members(text):
        if found == name:
            return value
    return "…" if text and not text.endswith("}") else ""


def members(text: str) -> Iterable[tuple[str, str]]:
    """Strings without quotes, other values as written."""
    if not text.startswith("{"):
        return
    at = _after(1, text)
    while (name := _STRING.match(text, at)) is not None:
        at = _after(name.end(), text)
        if at >= len(text):
            return
        if (string := _STRING.match(text, at)) is not None:
            yield _unescaped(name[0]), _unescaped(string[0])
            at = _after(string.end(), text)
            continue
        try:
            _, end = _DECODER.raw_decode(text, at)
        except ValueError:
            yield _unescaped(name[0]), text[at:]
            return
        yield _unescaped(name[0]), text[at:end]
        at = _after(end, text)


def _after(at: int, text: str) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _unescaped(string: str) -> str:
    inner = string[1:-1] if len(string) > 1 and string.endswith('"') else string[1:]
    try:
        return str(json.loads(f'"{inner}"', strict=False))
    except ValueError:
        return inner


def _state(line: Line) -> str:
    flags = f" ({','.join(sorted(line.flags))})" if line.flags else ""
    return f"{line.state}{flags}"


def _tokens(line: Line) -> str:
    return "" if line.input_tokens is None else f"{line.input_tokens:,}+{line.output_tokens or 0:,}"


def _seconds(line: Line) -> str:
    return "" if line.seconds is None else f"{line.seconds:.2f} s"


def _number(line: Line) -> str:
    return f"{line.line:,}"


def _key(line: Line) -> str:
    return line.key


def _tries(line: Line) -> str:
    return str(line.attempts or "")
