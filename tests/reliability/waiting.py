"""How long tests wait: for what must come about in the end, on however slow a machine."""

import asyncio
import os
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 240.0
"""Seconds for another process. They end what hangs and judge nothing: no test is slower for them, or measured by them."""


def wait_until(seen: Callable[[], T]) -> T:
    """What `seen` returns once that is true, for which it is asked every 10 ms."""
    deadline = time.monotonic() + PATIENCE
    while not (found := seen()):
        assert time.monotonic() < deadline, "it did not happen"
        threading.Event().wait(0.01)
    return found


async def a_while(seconds: float) -> None:
    """So long at least, and long enough for a loop that was held up to do what was due in the meantime."""
    for _ in range(max(20, int(seconds * 1000))):
        await asyncio.sleep(0.001)


def read_up_to(process: "subprocess.Popen[str]", words: str) -> None:
    """Read what it says on stderr up to the line with these words, and no byte more: the rest is for `communicate`.

    Raises EOFError where it never says so.
    """
    assert process.stderr is not None
    line = b""
    while not (line.endswith(b"\n") and words.encode() in line):
        line = b"" if line.endswith(b"\n") else line
        if not (byte := os.read(process.stderr.fileno(), 1)):
            raise EOFError(f"{words!r} was never said")
        line += byte
