"""The rate of a limit that lets a burst through at first, from what it lets through between two refusals. Pure.

A bucket that holds some seconds of its rate refuses nobody until it is empty, however fast requests leave, so the pace at
which the first ones are refused says little of its rate. Once it has refused, it holds less than one request, and lets
through what it refills. So the requests that were let through, over the seconds from the first that left after a refusal
to the next refusal, are the most that its rate can be.

What is not used at once a shallow bucket loses, and so does a window that ends; then the quotient would be too low. It
counts only where the first burst was much larger than what it allows in that time, and where the pace was higher.
"""

import math

_FEWEST = 4
"""Requests that have to be let through; of fewer one more or less says too much."""
_DEEP = 1.0
"""Seconds of its rate that a bucket has to have held at first."""


class Refill:
    """What was let through since the last refusal. Times are seconds of the gate's clock, rates requests a second."""

    __slots__ = ("_burst", "_let_through", "_pace", "_since", "closed")

    def __init__(self) -> None:
        self.closed = True
        """Whether nothing has left since the last refusal."""
        self._let_through, self._since, self._pace = 0, 0.0, 0.0
        self._burst: tuple[int, float] | None = None  # until the first refusal: requests, and seconds

    def opened(self, let_through: int, pace: float, now: float) -> None:
        """The first request leaves since a refusal, at that pace, after so many were let through."""
        self.closed, self._let_through, self._pace, self._since = False, let_through, pace, now

    def refused(self, let_through: int, left: float) -> float:
        """A request that left then was refused, after so many were let through; the most that the rate can be, inf where
        this does not tell."""
        count, seconds, self.closed = let_through - self._let_through, left - self._since, True
        if self._burst is None:
            self._burst = count, seconds
            return math.inf
        if count < _FEWEST or seconds <= 0.0:
            return math.inf
        most, (burst, lasted) = count / seconds, self._burst
        deep = burst - most * lasted >= most * max(_DEEP, lasted)
        return most if deep and most <= self._pace else math.inf
