"""How long rows take: the size of a shard, and whether processes are worth it.

The first `PROBE` rows, without the longest, which may import something, decide about processes by CPU time, which a
busy machine does not change.
"""

from batchrun.post.reply import Done

SHARD = 0.05  # seconds of work in a shard
LARGEST = 2000  # rows in a shard at most
SMALLEST = 16  # times that the smallest shard of a long queue is in a full one
WORTH_A_PROCESS = 100e-6  # seconds of work a row from which a process is worth it
PROBE = 20  # rows that are timed in the thread before the decision
CERTAIN = PROBE * WORTH_A_PROCESS  # seconds of work that are too many for all of them
RECENT = 0.2  # seconds of work between later decisions, for which twice `WORTH_A_PROCESS` is slow
_SLOW_CALL = 0.05  # seconds of work that are slow in any single row


class ShardSizer:
    def __init__(self, shard: float = SHARD) -> None:
        self._shard = shard
        self.is_slow = False  # whether processes are worth it
        self._rows = 0
        self._mean: float | None = None
        self._unended = 0.0
        self._spent = 0.0
        self._longest = 0.0
        self._recent_rows = 0
        self._recent_seconds = 0.0

    @property
    def size(self) -> int:
        if self._mean is None:
            return 1
        return max(1, min(LARGEST, int(self._shard / max(self._mean, 1e-7))))

    def share(self, waiting: int, slots: int) -> int:
        """Rows of the next shard, of those that wait. Towards the end shards become smaller, down to a `SMALLEST`th,
        so that workers end together (guided self-scheduling, Polychronopoulos and Kuck 1987).
        """
        return min(waiting, self.size, max(-(-self.size // SMALLEST), -(-waiting // slots)))

    @property
    def to_probe(self) -> int:
        return max(0, PROBE - self._rows)

    def learn(self, done: Done) -> None:
        rows = len(done.results)
        self._rows += rows
        self._unended += done.seconds
        if rows:
            mean, self._unended = self._unended / rows, 0.0
            self._mean = mean if self._mean is None else 0.7 * self._mean + 0.3 * mean
        if self._rows <= PROBE:
            self._spent += done.processor
            self._longest = max(self._longest, done.longest)
            slow_call = self._longest > _SLOW_CALL or bool(done.blocked)
            self.is_slow = self.is_slow or slow_call or self._spent - self._longest > CERTAIN
            return
        self._recent_rows += rows
        self._recent_seconds += done.seconds
        if self._recent_seconds >= RECENT:
            self.is_slow = self._recent_seconds > 2 * WORTH_A_PROCESS * self._recent_rows
            self._recent_rows, self._recent_seconds = 0, 0.0
