"""Ends the process within a deadline after SIGTERM, SIGHUP or a closed terminal.

The handlers are Python's, which run also while the loop is blocked. The journal is intact at any time.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from batchrun.errors import ExitCode

# seconds: the signal's sender kills soon
HASTY_DRAIN = 8.0
GRACE = 5.0
PRINT_TIMEOUT = 2.0
_SIGNALS = {"SIGINT": ExitCode.INTERRUPTED, "SIGTERM": ExitCode.TERMINATED, "SIGHUP": ExitCode.HANGUP}


def within(seconds: float, code: int) -> None:
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()


@contextmanager
def signals(handle: Callable[[ExitCode], None]) -> Generator[None]:
    """A signal that was ignored before stays ignored (`nohup`). Afterwards all are ignored."""
    loop = asyncio.get_running_loop()

    def received(number: int, _: FrameType | None) -> None:
        code = codes[number]
        if code is not ExitCode.INTERRUPTED:
            within(HASTY_DRAIN + GRACE, code)
        loop.call_soon_threadsafe(handle, code)

    codes = {getattr(signal, name): code for name, code in _SIGNALS.items() if hasattr(signal, name)}
    handled = [number for number in codes if signal.getsignal(number) is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, received)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_IGN)
