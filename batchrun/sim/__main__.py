"""The process behind `spawn`: settings as one line of JSON on stdin, which stays open."""

import json
import os
import sys

from batchrun.errors import RefusedError
from batchrun.sim.process import run_as_child
from batchrun.sim.settings import from_json


def main() -> int:
    """Returns 2, with the reason as JSON on stdout, if refused."""
    try:
        run_as_child(from_json(json.loads(_line())))
    except RefusedError as refused:
        print(json.dumps({"message": refused.message, "hint": refused.hint}), flush=True)
        return int(refused.exit_code)
    return 0


def _line() -> bytes:
    # unbuffered: a thread reads the rest of stdin, and Python must not join it
    line = b""
    while not line.endswith(b"\n") and (more := os.read(0, 65_536)):
        line += more
    return line or b"{}"


if __name__ == "__main__":
    sys.exit(main())
