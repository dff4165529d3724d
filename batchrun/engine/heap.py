"""What the C library does with memory that Python has let go of."""

import contextlib
import ctypes
import sys
from functools import cache

_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE = 8 * 1024 * 1024
_M_TRIM_THRESHOLD = -1
_KEPT = 32 * 1024 * 1024


@cache
def keep_what_rows_take() -> None:
    """Have up to 32 MiB of free memory kept for the next rows, and blocks of 8 MiB and more given back when freed.

    By itself glibc gives free memory back from 128 KiB on at the end of its heap: a body of 2 MB is copied several times
    on its way, and each copy had the system clear 500 pages anew, which cost ten times as much as the copy and nearly
    half of all CPU. It also takes blocks of up to 32 MiB from the heap, once such a block was freed (mallopt(3),
    M_TRIM_THRESHOLD and M_MMAP_THRESHOLD), where a few long rows leave holes that stay until the end. Other systems are
    left as they are.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # musl has no mallopt
            library = ctypes.CDLL(None)
            library.mallopt(_M_MMAP_THRESHOLD, _LARGE)
            library.mallopt(_M_TRIM_THRESHOLD, _KEPT)
