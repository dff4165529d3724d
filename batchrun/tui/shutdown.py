"""Ends the process of the app after signals, within a deadline, whatever it is doing.

The handlers are Python's own, not the loop's: they run as well where the loop stands still. Whoever sends SIGTERM or
SIGHUP, and whoever closes the terminal, does not come back to look; so a deadline is set then, after which the process
ends whatever still holds it. The journal is whole at any moment, so that is no worse than `kill -9`, and it is never
met in good order: the run gives up what is in flight well before.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from batchrun.errors import ExitCode

HASTY_DRAIN = 8.0
"""Seconds for what is in flight when the app is told to go: whoever tells it kills soon."""
GRACE = 5.0
"""Seconds after that for the journal and the terminal."""
LAST_WORDS = 2.0
"""Seconds to say on the terminal how it ended: the journal is closed by then."""
_SIGNALS = {"SIGINT": ExitCode.INTERRUPTED, "SIGTERM": ExitCode.TERMINATED, "SIGHUP": ExitCode.HANGUP}


def within(seconds: float, code: int) -> None:
    """End the process after this time, if it still lives."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()


@contextmanager
def signals(told: Callable[[ExitCode], None]) -> Generator[None]:
    """Call `told` on the loop for each signal. One that was ignored before the start stays ignored (`nohup`).

    Afterwards all are ignored: it is decided how the process ends, and what is left of it takes a moment (`within`).
    """
    loop = asyncio.get_running_loop()

    def received(number: int, _: FrameType | None) -> None:
        code = codes[number]
        if code is not ExitCode.INTERRUPTED:
            within(HASTY_DRAIN + GRACE, code)
        loop.call_soon_threadsafe(told, code)

    codes = {getattr(signal, name): code for name, code in _SIGNALS.items() if hasattr(signal, name)}
    heard = [number for number in codes if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, received)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_IGN)
