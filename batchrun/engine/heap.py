"""What the C library does with memory that Python has let go of."""

import contextlib
import ctypes
import sys
from functools import cache

_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE = 8 * 1024 * 1024


@cache
def give_back_large_blocks() -> None:
    """Have blocks of 8 MiB and more given back to the system when they are freed.

    glibc does so from 128 KiB on at first, and raises that to the size of the largest block that was freed, 32 MiB at
    most (mallopt(3), M_MMAP_THRESHOLD): then a few long rows leave holes in its heaps that stay until the end. Other
    systems are left as they are.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # musl has no mallopt
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
