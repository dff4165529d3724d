"""The real program with one thing about its world altered: `python altered.py WHAT VALUE ARGS…`.

commit N     it is killed (SIGKILL) before the N-th commit of its journal
reply N      the same before the first commit that could bring the N-th reply
clock S      the wall clock jumps S seconds forth and back, a jump at every tenth look
hosts FILE   every address it connects to or looks up is written to FILE
"""

import itertools
import os
import signal
import sys
import threading
import time
from typing import Any


def main(arguments: list[str]) -> int:
    what, value, *rest = arguments
    ALTERATIONS[what](value)
    from batchrun.cli import main  # noqa: PLC0415 - after the alteration

    return main(rest)


def _commit(value: str) -> None:
    from batchrun.journal import Journal  # noqa: PLC0415 - only here

    fatal = int(value)
    made = Journal.__init__

    def strike(commit: int) -> None:
        if commit == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def altered(self: Journal, *args: Any, **options: Any) -> None:
        made(self, *args, **{**options, "faults": strike})

    Journal.__init__ = altered


def _reply(value: str) -> None:
    from batchrun.journal import Journal  # noqa: PLC0415 - only here

    fatal, heard = int(value), itertools.count(1)
    made, end = Journal.__init__, Journal.end
    doomed = threading.Event()

    def altered_end(self: Journal, *args: Any, **options: Any) -> Any:
        if next(heard) == fatal:
            doomed.set()
        return end(self, *args, **options)

    def strike(_: int) -> None:
        if doomed.is_set():
            os.kill(os.getpid(), signal.SIGKILL)

    def altered(self: Journal, *args: Any, **options: Any) -> None:
        made(self, *args, **{**options, "faults": strike})

    Journal.__init__, Journal.end = altered, altered_end


def _clock(value: str) -> None:
    real, looks = time.time, itertools.count()

    def jumping() -> float:
        return real() + float(value) * (next(looks) // 10 % 2)

    time.time = jumping


def _hosts(path: str) -> None:
    file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - open as long as the program runs

    def heard(event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.connect":
            print(args[1], file=file)
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            print(args[0], file=file)

    sys.addaudithook(heard)


ALTERATIONS = {"commit": _commit, "reply": _reply, "clock": _clock, "hosts": _hosts}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
