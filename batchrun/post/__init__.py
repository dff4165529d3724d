"""Post-processing: replies become values, in a thread, in a pool of processes that survives what users' code does, or
on a cluster.

    Reply        what a function of `--post` is given; import it from here for annotations and tests
    check        refuses functions that cannot be used, before the first call
    located      what the user named, made to mean the same from any directory
    described    the built-in functions and what they do
    PostQueue    rows in, results out; Choices and Item are what it takes, Value and Failure what it gives

It knows nothing of journals and providers. Only this package touches pebble and Ray, and only when they are needed.
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
    """Raises RefusedError for functions that are missing, cannot be imported, or cannot be called with a reply, and where
    nothing listens at the address of a cluster."""
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
    """The queue, imported when it is first used: it takes the pools of processes along."""
    if name not in {"Choices", "PostQueue"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.queue"), name)
