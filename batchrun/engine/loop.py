"""The event loop of a run: uvloop's where that is installed (the extra `fast`), else asyncio's."""

import asyncio
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


def run_coroutine(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run` does, on the faster loop."""
    with asyncio.Runner(loop_factory=_faster()) as runner:
        return runner.run(main)


def _faster() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        return import_module("uvloop").new_event_loop
    except ImportError:
        return None
