"""The event loop of a run and its senders: uvloop's if installed (extra `fast`)."""

import asyncio
from collections.abc import Callable
from importlib import import_module


def faster() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        return import_module("uvloop").new_event_loop
    except ImportError:
        return None
