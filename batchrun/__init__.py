"""batchrun runs one prompt over many rows: every row answered or accounted for, nothing paid for twice.

From Python: `batchrun.run` and `batchrun.open`, see `batchrun.api`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchrun.api import Outcome, Result, Run, open, run
    from batchrun.errors import BatchrunError, BusyError, ExitCode, RefusedError, StorageError

__version__ = "0.1.0"
DISTRIBUTION = "batchrun-llm"  # the name to install; `batchrun` on the package index is another program

_PLACES = {
    **dict.fromkeys(("Outcome", "Result", "Run", "open", "run"), "batchrun.api"),
    **dict.fromkeys(("BatchrunError", "BusyError", "ExitCode", "RefusedError", "StorageError"), "batchrun.errors"),
}
__all__ = [
    "BatchrunError",
    "BusyError",
    "ExitCode",
    "Outcome",
    "RefusedError",
    "Result",
    "Run",
    "StorageError",
    "open",
    "run",
]


def __getattr__(name: str) -> Any:
    # on first use: the engine takes a third of a second
    if name not in _PLACES:
        raise AttributeError(f"module 'batchrun' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  only where the API is used

    return getattr(import_module(_PLACES[name]), name)
