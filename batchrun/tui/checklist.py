"""What a run needs before it can start. Pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

KEY = "key"


class Item(NamedTuple):
    """One item; `field` is the id of its field in the form, or `variable:NAME`."""

    name: str
    met: bool
    field: str


def checklist(
    *, prompt: bool, source: bool, typed: Mapping[str, str], missing: Sequence[str], key: bool
) -> tuple[Item, ...]:
    """The items in the order of the form.

    `typed` has the typed values of variables; `missing` names the variables without a value in the current row.
    """
    names = list(dict.fromkeys((*typed, *missing)))
    variables = [Item(name, name not in missing and bool(typed.get(name, "x")), f"variable:{name}") for name in names]
    return (
        Item("prompt", prompt, "prompt"),
        Item("input", source, "input"),
        *variables,
        Item(KEY, key, "profile"),
    )


def first_missing(items: Sequence[Item]) -> Item | None:
    return next((item for item in items if not item.met), None)
