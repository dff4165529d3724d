"""The real program on a real terminal (a pseudo-terminal), and what it draws there."""

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping
from pathlib import Path

from waiting import PATIENCE

ROOT = Path(__file__).parents[1]
KEYS = {
    "start": b"\x1b[15~", "pause": b"p", "quit": b"q", "help": b"\x1bOP", "runs": b"\x1bOS", "down": b"\x1b[B", "enter": b"\r",
    "escape": b"\x1b", "search": b"/", "try": b"t",
}  # fmt: skip
_CONTROLLING = """import fcntl, runpy, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module("batchrun", run_name="__main__", alter_sys=True)"""


class Terminal:
    """batchrun on a terminal of 100 by 30, or of other `columns`."""

    def __init__(
        self,
        *args: str,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        controlling: bool = False,
        columns: int = 100,
    ) -> None:
        """A `controlling` terminal sends SIGHUP where it is closed; another one is just gone."""
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        variables = {**(environment or os.environ), "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
        variables.pop("COLUMNS", None), variables.pop("LINES", None)
        command = [sys.executable, *(("-c", _CONTROLLING) if controlling else ("-m", "batchrun")), *args]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=variables, cwd=cwd
        )
        os.close(slave)
        os.set_blocking(self.master, False)
        self.output = b""

    def read(self) -> bytes:
        """Everything it has drawn so far."""
        with contextlib.suppress(BlockingIOError, OSError):
            while piece := os.read(self.master, 65536):
                self.output += piece
        return self.output

    def press(self, key: str) -> None:
        os.write(self.master, KEYS[key])

    async def greet(self) -> None:
        """Answer the question for whole pictures as today's terminals do, so that each is three writes."""
        await self.until(lambda: b"\x1b[?2026$p" in self.output)
        os.write(self.master, b"\x1b[?2026;2$y")

    def hang_up(self) -> None:
        """Close the terminal as a window is closed, without a signal."""
        os.close(self.master)

    async def until(self, seen: Callable[[], object], seconds: float = PATIENCE) -> None:
        for _ in range(int(seconds / 0.05)):
            self.read()
            if seen():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(self.output[-3000:].decode(errors="replace"))

    async def ended(self, seconds: float = PATIENCE) -> int:
        await self.until(lambda: self.process.poll() is not None, seconds)
        self.read()
        return self.process.returncode

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.master)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
