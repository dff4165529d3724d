"""A continuous bucket."""


class Bucket:
    """Holds up to `depth`, refills by `limit` a minute, starts full.

    A need over the depth is met when the bucket is full, and leaves it in debt; so the long-term rate is exact for
    needs of every size. Times are monotonic seconds, given by the caller.
    """

    __slots__ = ("_at", "_level", "depth", "limit", "name", "rate")

    def __init__(self, name: str, limit: float, depth: float, now: float) -> None:
        self.name = name
        self.limit = limit
        self.rate = limit / 60
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
        """Seconds until `need` is met if nobody else takes from it; 0 when it is met now."""
        short = min(need, self.depth) - self.level(now)
        # The sum of many small refills is off by some 1e-13.
        return short / self.rate if short > 1e-9 else 0.0

    def take(self, need: float, now: float) -> None:
        """Take `need`, into debt if it must be."""
        self._level = self.level(now) - need

    def whole(self, now: float) -> float:
        """Seconds until it is full again."""
        return (self.depth - self.level(now)) / self.rate
