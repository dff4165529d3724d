"""What actors of `cluster.py` do with a row. The file is sent to the cluster alone: it needs nothing beside it."""

import time

from batchrun.post import Reply

CALLS = 50
"""Rows for which an actor sleeps at once: it is woken as seldom as a function that computes."""


def work(reply: Reply) -> int:
    """So many steps as the row says."""
    total = 0
    for step in range(reply.fields["steps"]):
        total += step & 7
    return total & len(reply.text)


def sleeps(_: Reply) -> float:
    """Takes 2 ms without a processor, and returns how long it took."""
    began = time.perf_counter()
    time.sleep(0.002)
    return time.perf_counter() - began


class Sleeper:
    """Takes 200 µs a row without a processor, in `CALLS` at a time."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, reply: Reply) -> int:
        self.rows += 1
        if self.rows % CALLS == 0:
            time.sleep(CALLS * 200e-6)
        return len(reply.text)
