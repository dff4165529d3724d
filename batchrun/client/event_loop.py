"""The event loop of a run and its senders: uvloop's if installed."""

import asyncio
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


def faster() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        return import_module("uvloop").new_event_loop
    except ImportError:
        return None


def run_coroutine(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=faster()) as runner:
        return runner.run(main)
