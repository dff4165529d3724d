"""`python -m batchrun`, and what the installed command calls."""

import gc
import sys

from batchrun import cli


def main() -> int:
    code = cli.main()
    # At its end the interpreter looks once more for cycles among all that was ever loaded: 0.2 s after a run.
    gc.freeze()
    return code


if __name__ == "__main__":
    sys.exit(main())
