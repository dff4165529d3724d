#!/bin/sh
# looptime waits for work in `run_in_executor`, but not for a thread that the program started itself and that reports
# through `call_soon_threadsafe`. The clock jumps to the next timer, so a timeout of 30 s ends a wait for work that takes
# 0.2 s.
# Exits 0 while that is so, 1 if it has changed.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$dir/lib" looptime==0.9
PYTHONPATH="$dir/lib" python3 - <<'PY'
import asyncio
import sys
import threading
import time
from importlib.metadata import version

import looptime


class Loop(looptime.LoopTimeEventLoop, asyncio.SelectorEventLoop):
    pass


def run(coroutine):
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(coroutine)


async def by_executor():
    await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.2), 30)


async def by_thread():
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def work():
        time.sleep(0.2)
        loop.call_soon_threadsafe(lambda: done.done() or done.set_result(None))

    threading.Thread(target=work).start()
    await asyncio.wait_for(done, 30)


def outcome(wait):
    began = time.monotonic()
    try:
        run(wait())
    except asyncio.TimeoutError:
        return "timed out"
    return "finished" if time.monotonic() - began > 0.1 else "finished too early"


executor, thread = outcome(by_executor), outcome(by_thread)
print(f"looptime {version('looptime')}, Python {sys.version.split()[0]}")
print("expected: both waits of at most 30 s for work of 0.2 s finish")
print(f"seen:     in the executor {executor}, in a thread of its own {thread}")
sys.exit(0 if (executor, thread) == ("finished", "timed out") else 1)
PY
