"""What passes between the driver and a sender: frames over a stream of bytes. Plain data alone: nothing is unpickled.

    frame = length of the rest (4 bytes, big-endian) · kind (1 byte) · length of the head (4 bytes) · head (JSON) · bodies

Bodies stand one after the other, as the head gives their lengths. Times are seconds of the driver's clock
(`time.monotonic`), from which a sender knows its own to differ by the smallest delay that it has seen lately: `now` is
what that says, and `boot_time`, the clock that goes on while a machine sleeps, when a frame is written.

| kind | from | head |
|---|---|---|
| OPEN | driver | now, place, {address, key, headers … of a client} |
| OPENED | sender | place |
| LEASES | driver | now, batch, [lease, place, endpoint, timeout, depart, length of its body] … |
| CANCEL | driver | [lease …]: their answers are not needed any more |
| NAMES | sender | number, names of headers, in lower case, as COMPLETIONS have their number from then on |
| COMPLETIONS | sender | number of the first, [lease, status, fault, sent, left, ended, detail, number of the names of its headers, their values, length of its body] … |
| UNSENT | sender | [lease …]: these never left |
| HOLD | driver | null: what was to leave later comes back as UNSENT |
| RENEW | driver | place: use no connection again that was in use before |
| END | driver | place, before: end what left before that moment |
| PING | driver | now, cursor: the number of the first completion that is still to be kept |
| PONG | sender | null |
| REACH | driver | number, place, seconds: whether the address can be reached from there |
| REACHED | sender | number, what is wrong and what to do; null and null where nothing is |

Batches and completions are numbered from 1 for each sender. A batch that comes again by its number is not sent again: what
the sender has of its completions is answered once more. It keeps each until a PING has a cursor beyond it, which the driver
moves when the reply is in the journal.
"""

import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import orjson

from batchrun.models import Endpoint

_HEAD = struct.Struct(">IBI")
_LENGTH = struct.Struct(">I")
_BESIDE = _HEAD.size - _LENGTH.size
LONGEST = 0xFFFF_FFFF - _HEAD.size
"""Bytes of head and bodies of one frame."""
ENDPOINTS = tuple(Endpoint)
"""An endpoint is named by its place in here."""
SLICE = 0.004
"""Seconds between two frames of leases, or of completions: what comes meanwhile goes together. Each frame costs both sides as
much as several rows; the first one after a pause leaves at once."""
NO_NAMES = 0
"""The number of the names of headers where there are none."""
BUG = "bug"
"""The fault of an exchange that ended by an error which is none of the wire."""


class Kind(IntEnum):
    """What a frame says; the docstring of the module has their heads."""

    OPEN = 1
    OPENED = 2
    LEASES = 3
    CANCEL = 4
    COMPLETIONS = 5
    UNSENT = 6
    RENEW = 7
    END = 8
    PING = 9
    PONG = 10
    HOLD = 11
    REACH = 12
    REACHED = 13
    NAMES = 14


class Frame(NamedTuple):
    """One frame as it came; `bodies` are those of its head, in one piece."""

    kind: int
    head: Any
    bodies: bytes


def encoded(kind: Kind, head: Any, bodies: Sequence[bytes] = ()) -> bytes:
    """The bytes of a frame. Raises OverflowError where they are too many."""
    said = orjson.dumps(head)
    length = _BESIDE + len(said) + sum(map(len, bodies))
    if length > LONGEST:
        raise OverflowError(f"a frame of {length:,} bytes")
    return b"".join((_HEAD.pack(length, kind, len(said)), said, *bodies))


def divided(bodies: bytes, lengths: Iterable[int]) -> Iterator[bytes]:
    """The single bodies of a frame."""
    start = 0
    for length in lengths:
        yield bodies[start : start + length]
        start += length


class Frames:
    """Frames out of the pieces in which a stream brings them."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._held = 0
        self._wanted = _LENGTH.size

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole with these bytes. Raises ValueError where the stream is none of frames."""
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
    """Seconds since the machine was started, those included in which it slept; where the system has no such clock,
    those of `time.monotonic`."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
