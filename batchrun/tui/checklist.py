"""What a run needs before it can start, item by item, and which of it is missing. Pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

KEY = "key"


class Item(NamedTuple):
    """One thing that is needed: what it is called, whether it is there, and the field that takes it.

    `field` is the id of a field of the form; of a variable it is `variable:NAME`.
    """

    name: str
    met: bool
    field: str


def checklist(
    *, prompt: bool, source: bool, typed: Mapping[str, str], missing: Sequence[str], key: bool
) -> tuple[Item, ...]:
    """Prompt, input, variables and key, in the order in which they are filled in.

    `typed` are the values of variables that are typed for all rows; `missing` names the variables without a value in
    the row that is looked at.
    """
    names = list(dict.fromkeys((*typed, *missing)))
    variables = [Item(name, name not in missing and bool(typed.get(name, "x")), f"variable:{name}") for name in names]
    return (
        Item("prompt", prompt, "prompt"),
        Item("input", source, "input"),
        *variables,
        Item(KEY, key, "profile"),
    )


def gap(items: Sequence[Item]) -> Item | None:
    """The first item that is missing."""
    return next((item for item in items if not item.met), None)
