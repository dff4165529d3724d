"""How long rows take, from what has come back: how many make a shard, and whether a process is worth it.

Theory. The size of a shard follows the mean of the last ones, quickly. Whether rows are worth a process is judged by
the first `PROBE` of them, without the longest, since a first call may import something; it is enough to be certain
before they are through. They are judged by processor time, and those after them by every `RECENT` seconds of work, so
that a pause of a busy machine does not pass for slow rows; rows that wait for something are slow by the second.
"""

from batchrun.post.reply import Done

SHARD = 0.05
"""Seconds of work in a shard."""
LARGEST = 2000
"""Rows in a shard at most."""
WORTH_A_PROCESS = 100e-6
"""Seconds of work a row from which on a process is worth it."""
PROBE = 20
"""Rows that are timed in the thread before it is decided."""
CERTAIN = PROBE * WORTH_A_PROCESS
"""Seconds of work that are too many for all of them."""
RECENT = 0.2
"""Seconds of work between judgements after them, by which rows are slow at twice `WORTH_A_PROCESS`."""
_SLOW_CALL = 0.05
"""Seconds of work in one row that are slow whatever the others take."""


class ShardSizer:
    """What is known of the rows of one queue."""

    def __init__(self, shard: float = SHARD) -> None:
        """`shard` is the seconds of work in a shard."""
        self._shard = shard
        self.is_slow = False
        """Whether a process is worth it, as it was judged last."""
        self._rows = 0
        self._mean: float | None = None
        self._unended = 0.0
        self._spent = 0.0
        self._longest = 0.0
        self._recent_rows = 0
        self._recent_seconds = 0.0

    @property
    def size(self) -> int:
        """Rows for a shard."""
        if self._mean is None:
            return 1
        return max(1, min(LARGEST, int(self._shard / max(self._mean, 1e-7))))

    @property
    def to_probe(self) -> int:
        """Rows that have to come back before it is decided."""
        return max(0, PROBE - self._rows)

    def learn(self, done: Done) -> None:
        """Take in what came back from a worker."""
        rows = len(done.results)
        self._rows += rows
        self._unended += done.seconds
        if rows:
            mean, self._unended = self._unended / rows, 0.0
            self._mean = mean if self._mean is None else 0.7 * self._mean + 0.3 * mean
        if self._rows <= PROBE:
            self._judge_first(done)
        else:
            self._judge_recent(done)

    def _judge_first(self, done: Done) -> None:
        self._spent += done.processor
        self._longest = max(self._longest, done.longest)
        slow_call = self._longest > _SLOW_CALL or bool(done.blocked)
        self.is_slow = self.is_slow or slow_call or self._spent - self._longest > CERTAIN

    def _judge_recent(self, done: Done) -> None:
        self._recent_rows += len(done.results)
        self._recent_seconds += done.seconds
        if self._recent_seconds >= RECENT:
            self.is_slow = self._recent_seconds > 2 * WORTH_A_PROCESS * self._recent_rows
            self._recent_rows, self._recent_seconds = 0, 0.0
