"""Post-processing: replies become values, in a thread, in processes, or on a cluster.

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
    """Raises RefusedError."""
    load(specs)
    if specs and ray is not None:
        from batchrun.cluster.address import check_address  # noqa: PLC0415  only with a cluster

        check_address(ray)


def described() -> dict[str, str]:
    # the first line of each docstring is shown to users
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
    # on first use, as the queue imports pebble
    if name not in {"Choices", "PostQueue"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.queue"), name)
