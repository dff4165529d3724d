"""A sender that costs next to nothing: it answers every lease at once and makes no request. What is left is the driver.

python benchmarks/free_sender.py run …      batchrun with such senders
"""

import asyncio
import os
import socket
import sys
import time
from pathlib import Path

import orjson

from batchrun.client.senders.frames import Frames, Kind, encoded

SAID = {"role": "assistant", "content": "x" * 100}
BODY = orjson.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "model": "mock",
        "usage": {"prompt_tokens": 70, "completion_tokens": 20, "total_tokens": 90},
        "choices": [{"index": 0, "message": SAID, "finish_reason": "stop"}],
    }
)
LATENCY = 0.02
OWN = "FREE_SENDER_CPU"
"""The environment's name of a file to which each sender appends the seconds of CPU that it took."""


class Sender(asyncio.Protocol):
    """Answers for a provider."""

    def __init__(self) -> None:
        self._frames, self._completed = Frames(), 0
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if OWN in os.environ:
            with Path(os.environ[OWN]).open("a") as file:
                file.write(f"{time.process_time()}\n")
        self._loop.stop()

    def data_received(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            if frame.kind == Kind.LEASES:
                self._loop.call_later(LATENCY, self._answer, [lease[0] for lease in frame.head[2:]], self._loop.time())
            elif frame.kind == Kind.OPEN:
                self._transport.write(encoded(Kind.OPENED, frame.head[1]))
            elif frame.kind == Kind.PING:
                self._transport.write(encoded(Kind.PONG, None))

    def _answer(self, leases: list[int], left: float) -> None:
        said = [[lease, 200, "", True, left, left + LATENCY, "", 0, (), len(BODY)] for lease in leases]
        self._transport.write(encoded(Kind.COMPLETIONS, [self._completed + 1, *said], [BODY] * len(leases)))
        self._completed += len(leases)


async def serve(descriptor: int) -> None:
    """As a sender does."""
    ours = socket.socket(fileno=descriptor)
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(Sender, sock=ours)
    await loop.create_future()


def main() -> None:
    """A sender where the argument is a descriptor, else batchrun with such senders."""
    if sys.argv[1].isdecimal():
        try:
            asyncio.run(serve(int(sys.argv[1])))
        except RuntimeError:
            return  # the driver is gone
    else:
        from batchrun.__main__ import main as program  # noqa: PLC0415  a sender is without the program
        from batchrun.client.senders import children  # noqa: PLC0415  the same

        children.PROGRAM = (__file__,)
        program()


if __name__ == "__main__":
    main()
