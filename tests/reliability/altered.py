"""The real program with one thing about its world altered: `python altered.py WHAT VALUE ARGS…`.

commit N     it is killed (SIGKILL) before the N-th commit of its journal
before N     it is killed before the N-th call about a file or a batch
after N      the same once the answer has come, before anything is done with it
quick S      what it waits for between two looks at a batch takes S times as long
reply N      the same before the first commit that could bring the N-th reply
clock S      the wall clock jumps S seconds forth and back, a jump at every tenth look
hosts FILE   every address it connects to or looks up is written to FILE
"""

import importlib
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from program import Program


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


def _call(fatal: int, *, answered: bool) -> None:
    from batchrun.client.calls import Calls  # noqa: PLC0415 - only here

    made, tried = itertools.count(1), Calls._tried  # type: ignore[attr-defined]

    async def altered(self: Calls, call: Any) -> Any:
        here = next(made) == fatal
        if here and not answered:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = await tried(self, call)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    Calls._tried = altered  # type: ignore[attr-defined]


def _quick(value: str) -> None:
    from batchrun.lanes.batch import BatchExecutor  # noqa: PLC0415 - only here

    made = BatchExecutor.__init__

    def altered(self: BatchExecutor, *args: Any, **options: Any) -> None:
        made(self, *args, **{**options, "scale": float(value)})

    BatchExecutor.__init__ = altered  # type: ignore[method-assign]


def _reply(value: str) -> None:
    from batchrun.journal import Journal  # noqa: PLC0415 - only here

    fatal, heard = int(value), itertools.count(1)
    made, doomed = Journal.__init__, threading.Event()

    def counted(record: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(self: Journal, *args: Any, **options: Any) -> Any:
            if next(heard) == fatal:
                doomed.set()
            return record(self, *args, **options)

        return recorded

    def strike(_: int) -> None:
        if doomed.is_set():
            os.kill(os.getpid(), signal.SIGKILL)

    def altered(self: Journal, *args: Any, **options: Any) -> None:
        made(self, *args, **{**options, "faults": strike})

    Journal.__init__ = altered
    Journal.end, Journal.complete = counted(Journal.end), counted(Journal.complete)


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


ALTERATIONS = {
    "commit": _commit,
    "before": lambda value: _call(int(value), answered=False),
    "after": lambda value: _call(int(value), answered=True),
    "quick": _quick,
    "reply": _reply,
    "clock": _clock,
    "hosts": _hosts,
}


def fork(program: Program, arguments: Sequence[str], **alterations: str) -> int:
    """Fork this process, which has imported everything, into the program with these alterations; its pid."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.chdir(program.directory)
        os.environ.clear()
        os.environ.update(program.environment)
        with open("told", "ab", buffering=0) as told:
            os.dup2(told.fileno(), 1)
            os.dup2(told.fileno(), 2)
        for what, value in alterations.items():
            ALTERATIONS[what](value)
        code = importlib.import_module("batchrun.cli").main(list(arguments))
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
