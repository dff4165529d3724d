"""Runs a coroutine on the faster event loop."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from batchrun.client.event_loop import faster

T = TypeVar("T")


def run_coroutine(main: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, on the faster loop."""
    with asyncio.Runner(loop_factory=faster()) as runner:
        return runner.run(main)
