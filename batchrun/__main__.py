"""`python -m batchrun`."""

import sys

from batchrun.cli import main

if __name__ == "__main__":
    sys.exit(main())
