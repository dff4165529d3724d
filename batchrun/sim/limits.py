"""What a limit admits: a continuous bucket, or a fixed window. Times are monotonic seconds, given by the caller."""


class Bucket:
    """Holds up to `depth`, refills by `rate` a second, starts full.

    A need over the depth is met when the bucket is full, and leaves it in debt; so the long-term rate is exact for
    needs of every size.
    """

    __slots__ = ("_at", "_level", "depth", "rate")

    def __init__(self, rate: float, depth: float, now: float) -> None:
        self.rate = rate
        self.depth = depth
        self._level = depth
        self._at = now

    def level(self, now: float) -> float:
        """What it holds now; below 0 is debt."""
        if now > self._at:
            self._level = min(self.depth, self._level + (now - self._at) * self.rate)
            self._at = now
        return self._level

    def wait(self, need: float, now: float) -> float:
        """Seconds until `need` is met if nothing else takes from it; 0 when it is met now."""
        short = min(need, self.depth) - self.level(now)
        # The sum of many small refills is off by some 1e-13.
        return short / self.rate if short > 1e-9 else 0.0

    def take(self, need: float, now: float) -> None:
        """Take `need`, into debt if it must be."""
        self._level = self.level(now) - need

    def reset(self, now: float) -> float:
        """Seconds until it is full again."""
        return (self.depth - self.level(now)) / self.rate


class Window:
    """Admits up to `depth` in each window of `span` seconds.

    A window begins with the first request after the last one ended; with `offset`, the seconds since 1970 at time 0,
    windows are those of the wall clock. A need over the depth is met in a window that nothing was taken from.
    """

    __slots__ = ("_end", "_offset", "_used", "depth", "span")

    def __init__(self, depth: float, span: float, offset: float | None) -> None:
        self.depth = depth
        self.span = span
        self._offset = offset
        self._used = 0.0
        self._end = float("-inf")

    def level(self, now: float) -> float:
        """What is left of the window; below 0 where one need was larger than all of it."""
        if now >= self._end:
            self._used = 0.0
            self._end = now + self.span - (0.0 if self._offset is None else (now + self._offset) % self.span)
        return self.depth - self._used

    def wait(self, need: float, now: float) -> float:
        """Seconds until `need` is met if nothing else takes from it; 0 when it is met now."""
        return 0.0 if min(need, self.depth) <= self.level(now) + 1e-9 else self._end - now

    def take(self, need: float, now: float) -> None:
        """Take `need`."""
        self.level(now)
        self._used += need

    def reset(self, now: float) -> float:
        """Seconds until the window ends."""
        self.level(now)
        return self._end - now
