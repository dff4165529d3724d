"""Post-processing: replies become values, in a thread, in processes that survive users' code, or on a cluster.

    Reply        the argument of a function of `--post`; import it from here for annotations and tests
    check        refuses unusable functions before the first call
    located      a user's name, made to mean the same from any directory
    described    the built-in functions and what they do
    PostQueue    rows in, results out; takes Choices and Item, returns Value and Failure

Only this package imports pebble, and only when it is needed.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from batchrun.models import Usage
from batchrun.post.builtin import BUILT_IN
from batchrun.post.load import load, located
from batchrun.post.reply import Failure, Item, Reply, Result, Value

if TYPE_CHECKING:
    from batchrun.post.queue import Choices, PostQueue


def check(specs: Sequence[str], ray: str | None = None) -> None:
    """Raise RefusedError for unusable functions, and for an unreachable cluster."""
    load(specs)
    if specs and ray is not None:
        from batchrun.cluster.address import check_address  # noqa: PLC0415  only with a cluster

        check_address(ray)


def described() -> dict[str, str]:
    """The built-in functions by name, with the first line of their docstring."""
    return {name: (function.__doc__ or "").partition("\n")[0] for name, function in BUILT_IN.items()}


__all__ = [
    "Choices",
    "Failure",
    "Item",
    "PostQueue",
    "Reply",
    "Result",
    "Usage",
    "Value",
    "check",
    "described",
    "located",
]


def __getattr__(name: str) -> Any:
    """Import the queue on first use, as it imports pebble."""
    if name not in {"Choices", "PostQueue"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.queue"), name)
