"""The event loop of a run and of its senders: uvloop's where that is installed (the extra `fast`), else asyncio's."""

import asyncio
from collections.abc import Callable
from importlib import import_module


def faster() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the faster loop; None where there is none."""
    try:
        return import_module("uvloop").new_event_loop
    except ImportError:
        return None
