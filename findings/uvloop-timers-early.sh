#!/bin/sh
# uvloop rounds timers to whole milliseconds, also down: a sleep of 0.4 ms ends before 0.4 ms have passed. asyncio's own loop
# never ends a timer early. A rate limiter that relies on its timers alone sends too early.
# Exits 0 while that is so, 1 if it has changed.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$dir/lib" uvloop==0.23.0
PYTHONPATH="$dir/lib" python3 - <<'PY'
import asyncio
import sys
import time

import uvloop

TRIES, SECONDS = 200, 0.0004


async def early():
    found = 0
    for _ in range(TRIES):
        began = time.monotonic()
        await asyncio.sleep(SECONDS)
        found += time.monotonic() - began < SECONDS
    return found


ours, theirs = asyncio.run(early()), uvloop.run(early())
print(f"uvloop {uvloop.__version__}, Python {sys.version.split()[0]}")
print(f"expected: no sleep of {SECONDS * 1000:g} ms ends before its time, as with asyncio's loop ({ours} of {TRIES})")
print(f"seen:     {theirs} of {TRIES} ended before their time")
sys.exit(0 if ours == 0 and theirs > TRIES // 2 else 1)
PY
