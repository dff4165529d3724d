"""The protocol between driver and sender: frames over a byte stream. Nothing is unpickled.

frame = length of the rest (4 bytes, big-endian), kind (1), length of the head (4), head (JSON), bodies

Times are seconds of the driver's `time.monotonic`; a sender derives its offset. Batches and completions are numbered
from 1 for each sender. A repeated batch is not sent again: its completions are returned once more. A sender keeps each
until the cursor is beyond it, which the driver moves when the reply is in the journal.
"""

import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

import orjson

from batchrun.models import Endpoint

_HEAD = struct.Struct(">IBI")
_LENGTH = struct.Struct(">I")
_BESIDE = _HEAD.size - _LENGTH.size
LONGEST = 0xFFFF_FFFF - _HEAD.size  # bytes of head and bodies of one frame, at most
ENDPOINTS = tuple(Endpoint)  # an endpoint is sent as its index
SLICE = 0.004  # seconds between two frames of leases or completions, each as costly as several rows
FULL = 300_000  # bytes of requests that cost as much as a frame, so that it waits no longer
NO_NAMES = 0  # the number of no names of headers
BUG = "bug"  # the fault of an exchange that ended with an unexpected exception
UNREAD = "unread"  # the fault of a lease whose body could not be read, so that it was not sent


class Kind(IntEnum):
    OPEN = 1  # driver: now (its clock, `boot_time`), place, {address, key, headers … of a client}
    OPENED = 2  # sender: place
    # driver: now, batch, [lease, place, endpoint, timeout, depart, length of its body, or its path, offset and size] …
    LEASES = 3
    CANCEL = 4  # driver: [lease …], whose answers are not needed any more
    # sender: number of the first, [lease, status, fault, sent, left, ended, detail, number of names, values of headers,
    # length of its body] …
    COMPLETIONS = 5
    UNSENT = 6  # sender: [lease …], not sent
    RENEW = 7  # driver: place; reuse no connection open now
    END = 8  # driver: place, before; end what was sent before that time
    PING = 9  # driver: now, cursor (the first completion still to be kept)
    PONG = 10  # sender: null
    HOLD = 11  # driver: null; return planned leases as UNSENT
    REACH = 12  # driver: number, place, seconds; check that the address can be reached
    REACHED = 13  # sender: number, error and hint (null without)
    NAMES = 14  # sender: number, names of headers in lower case


class Frame(NamedTuple):
    kind: int
    head: Any
    bodies: bytes


def encoded(kind: Kind, head: Any, bodies: Sequence[bytes] = ()) -> bytes:
    """Raises OverflowError for a frame that is too long."""
    encoded_head = orjson.dumps(head)
    length = _BESIDE + len(encoded_head) + sum(map(len, bodies))
    if length > LONGEST:
        raise OverflowError(f"a frame of {length:,} bytes")
    return b"".join((_HEAD.pack(length, kind, len(encoded_head)), encoded_head, *bodies))


class Frames:
    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._held = 0
        self._wanted = _LENGTH.size

    def feed(self, data: bytes) -> list[Frame]:
        """Complete frames. Raises ValueError for an invalid stream."""
        self._held += len(data)
        self._pieces.append(data)
        if self._held < self._wanted:
            return []
        pieces, self._pieces = self._pieces, []
        whole = data if len(pieces) == 1 else b"".join(pieces)
        del pieces  # a large frame is not there twice while its body is taken out of it
        found: list[Frame] = []
        start = 0
        while (left := len(whole) - start) >= _LENGTH.size:
            self._wanted = _LENGTH.size + _LENGTH.unpack_from(whole, start)[0]
            if left < self._wanted:
                break
            found.append(_frame(whole, start, start + self._wanted))
            start += self._wanted
            self._wanted = _LENGTH.size
        if start < len(whole):
            self._pieces.append(whole[start:])
        self._held = len(whole) - start
        return found


def _frame(whole: bytes, start: int, end: int) -> Frame:
    _, kind, length = _HEAD.unpack_from(whole, start)
    begins = start + _HEAD.size
    if begins + length > end:
        raise ValueError("a frame whose head is longer than it")
    return Frame(kind, orjson.loads(memoryview(whole)[begins : begins + length]), whole[begins + length : end])


def boot_time() -> float:
    """Seconds since boot, sleep included where possible."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class Transport(Protocol):
    """Carries frames in order; `Receiver.gone` is called last."""

    def write(self, frame: bytes) -> None: ...

    def kill(self) -> None: ...

    async def close(self) -> None: ...


class Receiver(Protocol):
    def received(self, data: bytes) -> None: ...

    def gone(self, why: str) -> None: ...


Start = Callable[[Receiver], Awaitable[Transport]]  # raises OSError where it cannot start a sender


class Pacing(NamedTuple):
    # seconds
    slice: float = SLICE  # between two frames of leases
    ahead: float = 0.01  # for which a spaced request is sent ahead


PACING = Pacing()
